//! The few fields of a pod that decide about its redirect, and which pod it is.
//! Everything else in the API server's answer is skipped while it is parsed.

use std::collections::BTreeMap;

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

/// What is known of a pod.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pod {
    /// `metadata.uid`.
    pub uid: String,
    /// `metadata.labels`.
    pub labels: BTreeMap<String, String>,
    /// `metadata.annotations`.
    pub annotations: BTreeMap<String, String>,
    /// Containers, and init containers that keep running (native sidecars).
    pub containers: Vec<Container>,
}

/// What of a container tells whether it is the stub.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Container {
    /// `ports[].containerPort`.
    pub ports: Vec<u16>,
    /// `securityContext.runAsUser`, the pod's where the container has none.
    pub run_as_user: Option<u32>,
}
