//! Pods in the JSON of the Kubernetes API.

use serde_json::{Value, json};

/// The fields of a pod that tests choose.
#[derive(Debug, Clone)]
pub struct PodSpec<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub uid: &'a str,
    pub labels: &'a [(&'a str, &'a str)],
    pub annotations: &'a [(&'a str, &'a str)],
}

/// A pod as an API server returns it between scheduling and start: an application, the stub,
/// and all fields that admission and the scheduler add. About 8 kB.
pub fn pod_json(pod: &PodSpec) -> Value {
    let map = |pairs: &[(&str, &str)]| -> Value {
        pairs
            .iter()
            .map(|&(key, value)| (key.to_owned(), json!(value)))
            .collect()
    };
    json!({
        "kind": "Pod",
        "apiVersion": "v1",
        "metadata": {
            "name": pod.name, "namespace": pod.namespace, "uid": pod.uid,
            "generateName": format!("{}-", pod.name),
            "resourceVersion": "184467", "generation": 1,
            "creationTimestamp": "2026-01-05T09:30:00Z",
            "labels": map(pod.labels), "annotations": map(pod.annotations),
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "camera-7d9c5b6f4",
                "uid": "9a3c8f5e-4a1b-4f0e-9d55-0e6f0c7d2b11",
                "controller": true, "blockOwnerDeletion": true,
            }],
            "managedFields": managed_fields(),
        },
        "spec": {
            "volumes": [{"name": "kube-api-access-x7k2p", "projected": {"defaultMode": 420, "sources": [
                {"serviceAccountToken": {"expirationSeconds": 3607, "path": "token"}},
                {"configMap": {"name": "kube-root-ca.crt", "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
                {"downwardAPI": {"items": [{"path": "namespace", "fieldRef": {"apiVersion": "v1", "fieldPath": "metadata.namespace"}}]}},
            ]}}],
            "containers": [container("camera", 9554, 1000), container("msm-stub", 8554, 1337)],
            "restartPolicy": "Always", "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst", "serviceAccountName": "default", "serviceAccount": "default",
            "nodeName": "node-1", "securityContext": {}, "schedulerName": "default-scheduler",
            "tolerations": [
                {"key": "node.kubernetes.io/not-ready", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
                {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300},
            ],
            "priority": 0, "enableServiceLinks": true, "preemptionPolicy": "PreemptLowerPriority",
        },
        "status": {
            "phase": "Pending", "qosClass": "Burstable",
            "conditions": [{"type": "PodScheduled", "status": "True", "lastProbeTime": null, "lastTransitionTime": "2026-01-05T09:30:00Z"}],
        },
    })
}

fn container(name: &str, port: u16, user: u32) -> Value {
    json!({
        "name": name, "image": format!("registry.example/{name}:1.4.2"),
        "ports": [{"name": "rtsp", "containerPort": port, "protocol": "TCP"}],
        "env": (0..12).map(|n| json!({"name": format!("SETTING_{n}"), "value": "x".repeat(40)})).collect::<Value>(),
        "resources": {"limits": {"cpu": "500m", "memory": "256Mi"}, "requests": {"cpu": "100m", "memory": "64Mi"}},
        "volumeMounts": [{"name": "kube-api-access-x7k2p", "readOnly": true, "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount"}],
        "livenessProbe": {"tcpSocket": {"port": port}, "timeoutSeconds": 1, "periodSeconds": 10, "successThreshold": 1, "failureThreshold": 3},
        "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
        "imagePullPolicy": "IfNotPresent",
        "securityContext": {"runAsUser": user, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
    })
}

fn managed_fields() -> Value {
    let fields: Value = ["camera", "msm-stub"]
        .into_iter()
        .map(|name| {
            let env: Value = (0..12)
                .map(|n| {
                    let key = format!("k:{{\"name\":\"SETTING_{n}\"}}");
                    (key, json!({".": {}, "f:name": {}, "f:value": {}}))
                })
                .collect();
            let fields = json!({
                ".": {}, "f:env": env, "f:image": {}, "f:imagePullPolicy": {}, "f:name": {},
                "f:ports": {".": {}, "k:{\"containerPort\":8554,\"protocol\":\"TCP\"}": {".": {}, "f:containerPort": {}, "f:protocol": {}}},
                "f:resources": {".": {}, "f:limits": {".": {}, "f:cpu": {}, "f:memory": {}}},
            });
            (format!("k:{{\"name\":\"{name}\"}}"), fields)
        })
        .collect();
    json!([{
        "manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
        "time": "2026-01-05T09:30:00Z", "fieldsType": "FieldsV1",
        "fieldsV1": {"f:metadata": {"f:labels": {".": {}, "f:app": {}}}, "f:spec": {"f:containers": fields}},
    }])
}
