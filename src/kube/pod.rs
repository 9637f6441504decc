//! The few fields of a pod that decide about its redirect, and which pod it is.
//! Everything else in the API server's answer is skipped while it is parsed, so that a
//! large one takes no memory but its own. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::names;

/// The pod that a sandbox belongs to, as the runtime names it. Both names are valid
/// DNS names, so they are safe in a URL's path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRef {
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_UID`, where the runtime gives one.
    pub uid: Option<String>,
}

/// Why a reference names no pod that could exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPodRef {
    /// RFC 1123 label: 1 to 63 of `a-z`, `0-9` and `-`.
    #[error("pod namespace {0:?} is not a DNS label")]
    Namespace(String),
    /// RFC 1123 subdomain: labels joined by dots, 253 characters at most.
    #[error("pod name {0:?} is not a DNS subdomain name")]
    Name(String),
    /// 1 to 128 of `A-Z`, `a-z`, `0-9`, `-`, `.` and `_`.
    #[error("pod UID {0:?} is not an identifier")]
    Uid(String),
}

/// What is known of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.labels`, those of `names`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`, those of `names`.
    pub annotations: BTreeMap<String, String>,
    /// `containerPort` of containers, and of init containers that keep running (native
    /// sidecars).
    pub ports: BTreeSet<u16>,
    /// `runAsUser` of the same, the pod's where a container has none.
    pub users: BTreeSet<u32>,
}

/// Why an answer is not the pod that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum PodDecodeError {
    /// Not JSON, or JSON of another shape.
    #[error("the answer is not a pod in JSON at line {line}, column {column}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// Whether the text just ends too early.
        truncated: bool,
    },
    /// JSON without `kind: Pod`.
    #[error("the answer is not an object of kind Pod")]
    Kind,
    /// A pod without a UID, or with another name.
    #[error("the answer is another pod than the one asked for")]
    Other,
}

impl PodRef {
    /// Checks what the runtime says.
    pub fn new(namespace: &str, name: &str, uid: Option<&str>) -> Result<Self, InvalidPodRef> {
        if !is_dns_label(namespace) {
            return Err(InvalidPodRef::Namespace(namespace.to_owned()));
        }
        if name.len() > 253 || !name.split('.').all(is_dns_label) {
            return Err(InvalidPodRef::Name(name.to_owned()));
        }
        if let Some(uid) = uid
            && !is_identifier(uid)
        {
            return Err(InvalidPodRef::Uid(uid.to_owned()));
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.map(str::to_owned),
        })
    }

    /// Whether `pod` is the one that the sandbox was made for. A static pod's sandbox has
    /// the UID that the kubelet gave it, which its mirror carries as an annotation.
    pub fn is(&self, pod: &Pod) -> bool {
        let mirrored = || pod.annotations.get(names::MIRROR_ANNOTATION);
        match &self.uid {
            None => true,
            Some(uid) => *uid == pod.uid || mirrored() == Some(uid),
        }
    }
}

impl Pod {
    /// Takes what we use out of the API server's answer about `wanted`.
    pub fn from_json(body: &[u8], wanted: &PodRef) -> Result<Self, PodDecodeError> {
        let object: Object =
            serde_json::from_slice(body).map_err(|error| PodDecodeError::Syntax {
                line: error.line(),
                column: error.column(),
                truncated: error.is_eof(),
            })?;
        if object.kind != "Pod" {
            return Err(PodDecodeError::Kind);
        }
        let Object { metadata, spec, .. } = object;
        if metadata.uid.is_empty()
            || metadata.name != wanted.name
            || metadata.namespace != wanted.namespace
        {
            return Err(PodDecodeError::Other);
        }
        let (ports, users) = spec.ports_and_users();
        Ok(Self {
            uid: metadata.uid,
            labels: metadata.labels.unwrap_or_default().0,
            annotations: metadata.annotations.unwrap_or_default().0,
            ports,
            users,
        })
    }
}

// The shape of the answer. serde skips unknown fields without keeping them; numbers are
// as wide as in Kubernetes' own types, so that a strange one cannot spoil the rest.

#[derive(Deserialize)]
struct Object {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Metadata {
    uid: String,
    name: String,
    namespace: String,
    labels: Option<Known>,
    annotations: Option<Known>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    containers: Option<Containers>,
    init_containers: Option<Containers>,
    security_context: Option<SecurityContext>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ContainerSpec {
    ports: Option<Vec<PortSpec>>,
    security_context: Option<SecurityContext>,
    restart_policy: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PortSpec {
    container_port: i64,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct SecurityContext {
    run_as_user: Option<i64>,
}

impl Spec {
    fn ports_and_users(self) -> (BTreeSet<u16>, BTreeSet<u32>) {
        let mut seen = self.containers.unwrap_or_default().all;
        let sidecars = self.init_containers.unwrap_or_default().restarted;
        seen.ports.extend(sidecars.ports);
        seen.users.extend(sidecars.users);
        let user = self
            .security_context
            .and_then(|context| context.run_as_user);
        let known = seen.users.into_iter().filter_map(|of| of.or(user));
        let mut users = BTreeSet::new();
        // To collect a set is to sort a list, and each type's sort is kilobytes.
        users.extend(known.filter_map(|user| u32::try_from(user).ok()));
        (seen.ports, users)
    }
}

/// Labels or annotations whose names we know.
#[derive(Default)]
struct Known(BTreeMap<String, String>);

impl<'de> Deserialize<'de> for Known {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Known;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a mapping")
            }

            fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<Known, M::Error> {
                let mut known = Known::default();
                while let Some(name) = map.next_key::<String>()? {
                    if names::POD_METADATA_KEYS.contains(&name.as_str()) {
                        known.0.insert(name, map.next_value()?);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(known)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

/// What is seen in a list of containers.
#[derive(Default)]
struct Containers {
    all: Seen,
    /// Of those with the restart policy `Always` of their own.
    restarted: Seen,
}

#[derive(Default)]
struct Seen {
    ports: BTreeSet<u16>,
    /// `None`: a container without a user of its own.
    users: BTreeSet<Option<i64>>,
}

impl Seen {
    fn add(&mut self, container: &ContainerSpec) {
        let ports = container.ports.iter().flatten();
        self.ports
            .extend(ports.filter_map(|port| u16::try_from(port.container_port).ok()));
        let context = container.security_context.as_ref();
        self.users
            .insert(context.and_then(|context| context.run_as_user));
    }
}

impl<'de> Deserialize<'de> for Containers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Containers;

            fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<S: SeqAccess<'de>>(self, mut list: S) -> Result<Containers, S::Error> {
                let mut containers = Containers::default();
                while let Some(container) = list.next_element::<ContainerSpec>()? {
                    containers.all.add(&container);
                    if container.restart_policy.as_deref() == Some("Always") {
                        containers.restarted.add(&container);
                    }
                }
                Ok(containers)
            }
        }
        deserializer.deserialize_seq(Each)
    }
}

fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_identifier(text: &str) -> bool {
    let safe = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(safe)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn web() -> PodRef {
        PodRef::new("media", "web", Some("u-1")).unwrap()
    }

    fn parse(value: &Value) -> Result<Pod, PodDecodeError> {
        Pod::from_json(value.to_string().as_bytes(), &web())
    }

    #[test]
    fn references_are_safe_in_a_path() {
        for (namespace, name) in [("media", "web-0"), ("a", "a.b-c.d"), ("0", "web.node1")] {
            assert!(
                PodRef::new(namespace, name, None).is_ok(),
                "{namespace}/{name}"
            );
        }
        let long_label = "a".repeat(64);
        let long_name = ["a"; 128].join(".");
        for namespace in [
            "",
            "-a",
            "a-",
            "A",
            "a.b",
            "a/b",
            "a b",
            "ä",
            "..",
            &long_label,
        ] {
            let expected = Err(InvalidPodRef::Namespace(namespace.to_owned()));
            assert_eq!(PodRef::new(namespace, "web", None), expected);
        }
        for name in [
            "", ".", "..", "a..b", ".a", "a.", "../x", "a/b", "a%2f", "a?b", &long_name,
        ] {
            let expected = Err(InvalidPodRef::Name(name.to_owned()));
            assert_eq!(PodRef::new("media", name, None), expected);
        }
        for uid in ["", "a b", "a\nb", "a/b"] {
            let expected = Err(InvalidPodRef::Uid(uid.to_owned()));
            assert_eq!(PodRef::new("media", "web", Some(uid)), expected);
        }
    }

    #[test]
    fn only_what_counts_is_taken() {
        let pod = parse(&json!({
            "kind": "Pod", "apiVersion": "v1",
            "metadata": {
                "name": "web", "namespace": "media", "uid": "u-1",
                "labels": {"app": "web", names::INJECT_LABEL: "true"}, "annotations": null,
                "managedFields": [{"fieldsV1": {"f:metadata": {}}}],
            },
            "spec": {
                "securityContext": {"runAsUser": 1000},
                "containers": [
                    {"name": "app", "ports": [{"containerPort": 80, "protocol": "TCP"}, {"containerPort": 70000}]},
                    {"name": "stub", "securityContext": {"runAsUser": 1337, "privileged": false}},
                ],
                "initContainers": [
                    {"name": "setup", "ports": [{"containerPort": 1}], "securityContext": {"runAsUser": 0}},
                    {"name": "sidecar", "restartPolicy": "Always", "ports": [{"containerPort": 8554}]},
                ],
            },
            "status": {"phase": "Pending"},
        }))
        .unwrap();
        assert_eq!(pod.uid, "u-1");
        let label = (names::INJECT_LABEL.to_owned(), "true".to_owned());
        assert_eq!(pod.labels, BTreeMap::from([label]));
        assert_eq!(pod.ports, BTreeSet::from([80, 8554]));
        assert_eq!(pod.users, BTreeSet::from([1000, 1337]));
    }

    #[test]
    fn another_answer_is_refused() {
        let named = |name: &str, uid: &str| json!({"kind": "Pod", "metadata": {"name": name, "namespace": "media", "uid": uid}});
        assert!(parse(&named("web", "u-1")).is_ok());
        for (value, text) in [
            (named("other", "u-1"), "another pod"),
            (named("web", ""), "another pod"),
            (json!({"kind": "Status"}), "kind Pod"),
            (json!({}), "kind Pod"),
            (json!([]), "kind Pod"),
            (json!("Pod"), "line 1, column 5"),
        ] {
            let error = parse(&value).unwrap_err().to_string();
            assert!(error.contains(text), "{value}: {error}");
        }
        for body in ["", "{\"kind\":\"Pod\",\"met"] {
            let error = Pod::from_json(body.as_bytes(), &web()).unwrap_err();
            assert!(
                matches!(
                    error,
                    PodDecodeError::Syntax {
                        truncated: true,
                        ..
                    }
                ),
                "{error:?}"
            );
        }
    }

    #[test]
    fn a_static_pod_is_known_by_its_mirror() {
        let mut pod = Pod {
            uid: "mirror".to_owned(),
            ..Pod::default()
        };
        assert!(!web().is(&pod));
        pod.annotations
            .insert(names::MIRROR_ANNOTATION.to_owned(), "u-1".to_owned());
        assert!(web().is(&pod));
        assert!(
            PodRef::new("media", "web", None)
                .unwrap()
                .is(&Pod::default())
        );
    }
}
