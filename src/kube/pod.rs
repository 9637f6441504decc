//! A reference to a pod, and the fields of a pod that decide about its redirect. All other
//! fields of the API server's response are skipped while it is parsed, so that memory does
//! not grow with the size of the pod. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::names;

/// Identifies a pod. Namespace and name are valid DNS names, hence safe in a URL path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodRef {
    pub namespace: String,
    pub name: String,
    /// The UID that the kubelet uses. Runtimes may omit it.
    pub uid: Option<String>,
}

/// Why a pod reference is invalid.
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

/// The relevant fields of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    /// Only those in `names`.
    pub labels: BTreeMap<String, String>,
    /// Only those in `names`.
    pub annotations: BTreeMap<String, String>,
    /// `containerPort` of containers and native sidecars (init containers with the restart
    /// policy `Always`).
    pub ports: BTreeSet<u16>,
    /// `runAsUser` of the same containers, by default the pod's.
    pub users: BTreeSet<u32>,
}

/// Why a response is not a pod. The response is not quoted.
#[derive(Debug, thiserror::Error)]
pub enum PodDecodeError {
    #[error("response is not a pod in JSON: line {line}, column {column}")]
    Syntax {
        /// Counted from 1.
        line: usize,
        /// Counted from 1.
        column: usize,
        /// Whether the response ends too early.
        truncated: bool,
    },
    #[error("response is not an object of kind Pod")]
    Kind,
    #[error("response is a pod without UID")]
    NoUid,
}

impl PodRef {
    pub fn new(namespace: &str, name: &str, uid: Option<&str>) -> Result<Self, InvalidPodRef> {
        if !is_dns_label(namespace) {
            return Err(InvalidPodRef::Namespace(namespace.to_owned()));
        }
        if name.len() > 253 || !name.split('.').all(is_dns_label) {
            return Err(InvalidPodRef::Name(name.to_owned()));
        }
        if let Some(uid) = uid
            && !is_uid(uid)
        {
            return Err(InvalidPodRef::Uid(uid.to_owned()));
        }
        Ok(Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: uid.map(str::to_owned),
        })
    }
}

impl fmt::Display for PodRef {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl Pod {
    /// Decodes the API server's response to a GET of a pod.
    pub fn from_json(body: &[u8]) -> Result<Self, PodDecodeError> {
        let PodObject {
            kind,
            metadata,
            spec,
        } = serde_json::from_slice(body).map_err(|error| PodDecodeError::Syntax {
            line: error.line(),
            column: error.column(),
            truncated: error.is_eof(),
        })?;
        if kind != "Pod" {
            return Err(PodDecodeError::Kind);
        }
        if metadata.uid.is_empty() {
            return Err(PodDecodeError::NoUid);
        }
        let (ports, users) = spec.ports_and_users();
        Ok(Self {
            namespace: metadata.namespace,
            name: metadata.name,
            uid: metadata.uid,
            labels: metadata.labels.unwrap_or_default().0,
            annotations: metadata.annotations.unwrap_or_default().0,
            ports,
            users,
        })
    }

    /// Whether the kubelet knows the pod by `uid`. For a static pod that is the UID in an
    /// annotation of its mirror pod.
    pub fn has_uid(&self, uid: &str) -> bool {
        let mirrored = self.annotations.get(names::MIRROR_ANNOTATION);
        self.uid == uid || mirrored.is_some_and(|mirrored| mirrored == uid)
    }
}

// The JSON of a pod. Numbers are as wide as in Kubernetes' own types: a value that is out of
// range is ignored, instead of making the pod unreadable.

#[derive(Deserialize)]
struct PodObject {
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
    namespace: String,
    name: String,
    uid: String,
    labels: Option<KnownEntries>,
    annotations: Option<KnownEntries>,
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
struct Container {
    ports: Option<Vec<Port>>,
    security_context: Option<SecurityContext>,
    restart_policy: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Port {
    container_port: i64,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct SecurityContext {
    run_as_user: Option<i64>,
}

impl Spec {
    fn ports_and_users(self) -> (BTreeSet<u16>, BTreeSet<u32>) {
        let containers = self.containers.unwrap_or_default().all;
        let sidecars = self.init_containers.unwrap_or_default().sidecars;
        let pod_user = self
            .security_context
            .and_then(|context| context.run_as_user);
        let users = containers.users.union(&sidecars.users);
        let users = users
            .filter_map(|user| user.or(pod_user))
            .filter_map(|user| u32::try_from(user).ok())
            .collect();
        (&containers.ports | &sidecars.ports, users)
    }
}

/// The labels or annotations that are in `names`.
#[derive(Default)]
struct KnownEntries(BTreeMap<String, String>);

/// The ports and users of an array of containers, collected while it is parsed.
#[derive(Default)]
struct Containers {
    all: PortsAndUsers,
    /// Of the containers with the restart policy `Always`.
    sidecars: PortsAndUsers,
}

#[derive(Default)]
struct PortsAndUsers {
    ports: BTreeSet<u16>,
    /// `None` for a container that inherits the pod's user.
    users: BTreeSet<Option<i64>>,
}

impl PortsAndUsers {
    fn add(&mut self, container: &Container) {
        let ports = container.ports.iter().flatten();
        self.ports
            .extend(ports.filter_map(|port| u16::try_from(port.container_port).ok()));
        let context = container.security_context.as_ref();
        self.users
            .insert(context.and_then(|context| context.run_as_user));
    }
}

impl<'de> Deserialize<'de> for KnownEntries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(KnownEntriesVisitor)
    }
}

struct KnownEntriesVisitor;

impl<'de> Visitor<'de> for KnownEntriesVisitor {
    type Value = KnownEntries;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut object: M) -> Result<KnownEntries, M::Error> {
        let mut known = KnownEntries::default();
        while let Some(name) = object.next_key::<String>()? {
            if names::POD_METADATA_KEYS.contains(&name.as_str()) {
                known.0.insert(name, object.next_value()?);
            } else {
                object.next_value::<IgnoredAny>()?;
            }
        }
        Ok(known)
    }
}

impl<'de> Deserialize<'de> for Containers {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ContainersVisitor)
    }
}

struct ContainersVisitor;

impl<'de> Visitor<'de> for ContainersVisitor {
    type Value = Containers;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut array: S) -> Result<Containers, S::Error> {
        let mut containers = Containers::default();
        while let Some(container) = array.next_element::<Container>()? {
            containers.all.add(&container);
            if container.restart_policy.as_deref() == Some("Always") {
                containers.sidecars.add(&container);
            }
        }
        Ok(containers)
    }
}

fn is_dns_label(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_uid(text: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parse(value: &Value) -> Result<Pod, PodDecodeError> {
        Pod::from_json(value.to_string().as_bytes())
    }

    #[test]
    fn pod_refs_are_safe_in_a_url_path() {
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
    fn relevant_fields_are_decoded() {
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
        let identity = [&pod.namespace, &pod.name, &pod.uid];
        assert_eq!(identity, ["media", "web", "u-1"]);
        let label = (names::INJECT_LABEL.to_owned(), "true".to_owned());
        assert_eq!(pod.labels, BTreeMap::from([label]));
        assert_eq!(pod.ports, BTreeSet::from([80, 8554]));
        assert_eq!(pod.users, BTreeSet::from([1000, 1337]));
    }

    #[test]
    fn other_responses_are_refused() {
        let with_uid = |uid: &str| json!({"kind": "Pod", "metadata": {"uid": uid}});
        assert!(parse(&with_uid("u-1")).is_ok());
        for (value, text) in [
            (with_uid(""), "without UID"),
            (json!({"kind": "Pod"}), "without UID"),
            (json!({"kind": "Status"}), "kind Pod"),
            (json!({}), "kind Pod"),
            (json!([]), "kind Pod"),
            (json!("Pod"), "line 1, column 5"),
        ] {
            let error = parse(&value).unwrap_err().to_string();
            assert!(error.contains(text), "{value}: {error}");
        }
    }

    #[test]
    fn truncated_responses_are_reported_as_such() {
        for body in ["", "{\"kind\":\"Pod\",\"met"] {
            let error = Pod::from_json(body.as_bytes()).unwrap_err();
            let truncated = matches!(error, PodDecodeError::Syntax { truncated, .. } if truncated);
            assert!(truncated, "{error:?}");
        }
    }

    #[test]
    fn static_pod_is_identified_by_its_mirror_annotation() {
        let mut pod = Pod {
            uid: "mirror".to_owned(),
            ..Pod::default()
        };
        assert!(pod.has_uid("mirror") && !pod.has_uid("u-1"));
        pod.annotations
            .insert(names::MIRROR_ANNOTATION.to_owned(), "u-1".to_owned());
        assert!(pod.has_uid("u-1"));
    }
}
