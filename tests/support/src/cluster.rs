//! A cluster with one node and one pod: a fake API server, a kubeconfig for it, and the plugin
//! as a container runtime runs it for the pod's sandbox.

use std::path::Path;
use std::process::Command;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::api_server::{Answer, ApiServer, Behaviour, Options, Request};
use crate::applet;
use crate::certificates::{CertificateAuthority, KeyKind};
use crate::command::{Outcome, run_with_input};
use crate::kubeconfig::{Credentials, Kubeconfig};
use crate::netns::Namespace;
use crate::pod_json::{PodSpec, pod_json};
use crate::scratch::Scratch;

/// The Kubernetes namespace of the pod.
pub const K8S_NAMESPACE: &str = "media";
pub const K8S_NAME: &str = "camera-7d9c5b6f4-x7k2p";
pub const K8S_UID: &str = "5f2c1d1e-8a35-4b7a-9f5d-1c2b3a4d5e6f";
/// The label that enables MSM for a pod.
pub const INJECT: &str = "sidecar.mediastreamingmesh.io/inject";
/// The labels of an MSM-enabled pod.
pub const LABELLED: &[(&str, &str)] = &[("app", "camera"), (INJECT, "true")];

/// An API server with one pod, and a kubeconfig for it.
pub struct Cluster {
    pub server: ApiServer,
    scratch: Scratch,
    /// The pod as the API server returns it.
    pod: Arc<Mutex<Value>>,
}

impl Cluster {
    /// A cluster whose pod has these labels and annotations.
    pub fn new(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Self {
        let ca = CertificateAuthority::new(KeyKind::Ecdsa);
        let pod = Arc::new(Mutex::new(pod_of(labels, annotations)));
        let current = Arc::clone(&pod);
        let path = format!("/api/v1/namespaces/{K8S_NAMESPACE}/pods/{K8S_NAME}");
        let handler = move |request: &Request| {
            Behaviour::Answer(if request.path == path {
                Answer::object(&current.lock().unwrap())
            } else {
                Answer::error(404, "no such pod")
            })
        };
        let options = Options {
            // Without session tickets: whether they take another read(2) depends on timing, and
            // tests count system calls.
            tickets: 0,
            ..Options::new(ca.server(&["127.0.0.1"]))
        };
        let server = ApiServer::start(&options, handler);
        let scratch = Scratch::new();
        let kubeconfig = Kubeconfig {
            server: &server.url(),
            ca_pem: Some(&ca.pem()),
            tls_server_name: None,
            credentials: Credentials::Token("sesame"),
        };
        kubeconfig.write(&scratch.path().join("kubeconfig"));
        Self {
            server,
            scratch,
            pod,
        }
    }

    /// Replaces the pod's labels and annotations.
    pub fn set_pod(&self, labels: &[(&str, &str)], annotations: &[(&str, &str)]) {
        *self.pod.lock().unwrap() = pod_of(labels, annotations);
    }

    /// A minimal network configuration, merged with `more`.
    pub fn configuration(&self, more: &Value) -> Value {
        let mut configuration = json!({
            "cniVersion": "1.0.0", "name": "k8s-pod-network", "type": "msm-cni",
            "kubernetes": {
                "kubeConfig": self.scratch.path().join("kubeconfig"),
                // The harness ends the command earlier.
                "podLookupTimeoutSeconds": 600,
            },
            "prevResult": previous_result(),
        });
        merge(&mut configuration, more);
        configuration
    }

    /// Runs the plugin with `verb` for a sandbox, with the configuration merged with `more`.
    pub fn run(&self, verb: &str, sandbox: &Namespace, more: &Value) -> Outcome {
        let mut request = request(applet("msm-cni"), verb, &sandbox.path());
        run_with_input(&mut request, &self.configuration(more).to_string())
    }

    /// Asserts that ADD succeeds and returns the previous result.
    #[track_caller]
    pub fn add_succeeds(&self, sandbox: &Namespace, more: &Value) {
        let outcome = self.run("ADD", sandbox, more).succeeded();
        let reply: Value = serde_json::from_str(&outcome.stdout).unwrap_or_default();
        assert_eq!(reply, previous_result(), "{outcome}");
    }
}

/// Asserts that the plugin returned the error `code`. Returns its message and details.
#[track_caller]
pub fn error_text(outcome: Outcome, code: u64) -> String {
    let outcome = outcome.exited(1);
    let error: Value = serde_json::from_str(&outcome.stdout).unwrap_or_default();
    assert_eq!(error["code"], code, "{outcome}");
    let text = |key: &str| error[key].as_str().unwrap_or_default().to_owned();
    format!("{}: {}", text("msg"), text("details"))
}

/// The command by which a container runtime runs `plugin` for a sandbox.
pub fn request(mut plugin: Command, verb: &str, netns: &Path) -> Command {
    let arguments = format!(
        "IgnoreUnknown=1;K8S_POD_NAMESPACE={K8S_NAMESPACE};K8S_POD_NAME={K8S_NAME};\
         K8S_POD_INFRA_CONTAINER_ID=c0ffee;K8S_POD_UID={K8S_UID}"
    );
    plugin
        .env("CNI_COMMAND", verb)
        .env("CNI_CONTAINERID", "c0ffee")
        .env("CNI_NETNS", netns)
        .env("CNI_IFNAME", "eth0")
        .env("CNI_PATH", "/opt/cni/bin")
        .env("CNI_ARGS", arguments);
    plugin
}

fn previous_result() -> Value {
    json!({
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "eth0", "sandbox": "/var/run/netns/x"}],
        "ips": [{"address": "10.1.0.2/24", "gateway": "10.1.0.1", "interface": 0}],
    })
}

fn pod_of(labels: &[(&str, &str)], annotations: &[(&str, &str)]) -> Value {
    pod_json(&PodSpec {
        namespace: K8S_NAMESPACE,
        name: K8S_NAME,
        uid: K8S_UID,
        labels,
        annotations,
    })
}

/// Merges `more` into `object` recursively.
fn merge(object: &mut Value, more: &Value) {
    for (key, value) in more.as_object().unwrap() {
        match &mut object[key] {
            known @ Value::Object(_) => merge(known, value),
            other => *other = value.clone(),
        }
    }
}

/// The configuration that selects a backend.
pub fn intercept_name(backend: &str) -> Value {
    json!({"kubernetes": {"interceptName": backend}})
}
