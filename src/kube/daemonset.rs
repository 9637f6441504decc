//! Whether the `DaemonSet` that our own pod belongs to is still wanted: two GETs, pod and
//! `DaemonSet`, asked once each. Reads nothing but the answers.

use std::fmt;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use crate::kube::client::Client;
use crate::kube::config::client_config::ClientConfig;
use crate::kube::config::kubeconfig::Credentials;
use crate::kube::error::Failure;
use crate::kube::pod::PodRef;
use crate::text::error_chain;

/// What is to become of what our pod has installed.
#[derive(Debug, PartialEq, Eq)]
pub enum DaemonSetState {
    /// The `DaemonSet` is there to stay: this is a restart or an upgrade.
    Present(String),
    /// It is gone or going.
    Gone(String),
    /// Nobody could say.
    Unknown(String),
}

/// Namespace and name of the pod that we run in.
pub type OwnPod = PodRef;

impl OwnPod {
    /// The pod that a service account's token is bound to (its claim `kubernetes.io`).
    pub fn of_token(token: &str) -> Option<Self> {
        #[derive(Deserialize)]
        struct Claims {
            #[serde(rename = "kubernetes.io")]
            kubernetes: Kubernetes,
        }
        #[derive(Deserialize)]
        struct Kubernetes {
            namespace: String,
            pod: Named,
        }
        #[derive(Deserialize)]
        struct Named {
            name: String,
        }
        let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
        let Claims { kubernetes } = serde_json::from_slice(&payload).ok()?;
        Self::new(&kubernetes.namespace, &kubernetes.pod.name, None).ok()
    }
}

/// Asks about `pod` with its own credentials. Blocks for `timeout` at most.
pub fn daemonset_state(
    credentials: &Credentials,
    pod: &OwnPod,
    timeout: Duration,
) -> DaemonSetState {
    let question = match Question::new(credentials, timeout) {
        Ok(question) => question,
        Err(reason) => return DaemonSetState::Unknown(reason),
    };
    question
        .ask(pod)
        .unwrap_or_else(|daemonset_state| daemonset_state)
}

struct Question {
    session: Client,
    deadline: Instant,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    deletion_timestamp: Option<String>,
    #[serde(default)]
    owner_references: Vec<Owner>,
}

#[derive(Deserialize)]
struct Owner {
    kind: String,
    name: String,
}

impl Question {
    fn new(credentials: &Credentials, timeout: Duration) -> Result<Self, String> {
        let access = ClientConfig {
            server: credentials.server.clone(),
            tls_server_name: None,
            authorities: credentials.authority.map(<[u8]>::to_vec),
            token: Some(credentials.token.to_owned()),
            client: None,
        };
        let session = Client::new(&access).map_err(|error| error_chain(&error))?;
        Ok(Self {
            session,
            deadline: Instant::now() + timeout,
        })
    }

    /// `Err` is an answer too: the one that a refusal comes to.
    fn ask(&self, pod: &OwnPod) -> Result<DaemonSetState, DaemonSetState> {
        let PodRef {
            namespace, name, ..
        } = pod;
        let pod = self
            .get(&format!("/api/v1/namespaces/{namespace}/pods/{name}"))?
            .ok_or_else(|| {
                DaemonSetState::Unknown(format!("there is no pod {namespace}/{name}"))
            })?;
        let Some(owner) = pod
            .metadata
            .owner_references
            .iter()
            .find(|owner| owner.kind == "DaemonSet")
        else {
            return Ok(DaemonSetState::Unknown(format!(
                "pod {namespace}/{name} belongs to no DaemonSet"
            )));
        };
        // Named by the rules that pods are named by.
        let PodRef { name, .. } = PodRef::new(namespace, &owner.name, None).map_err(|_| {
            DaemonSetState::Unknown(format!("the owner of pod {namespace}/{name} has no name"))
        })?;
        let path = format!("/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}");
        let name = format!("DaemonSet {namespace}/{name}");
        Ok(match self.get(&path)? {
            None => DaemonSetState::Gone(format!("{name} is gone")),
            Some(set) if set.metadata.deletion_timestamp.is_some() => {
                DaemonSetState::Gone(format!("{name} is being deleted"))
            }
            Some(_) => DaemonSetState::Present(format!("{name} is there to stay")),
        })
    }

    /// `None`: 404.
    fn get(&self, path: &str) -> Result<Option<Object>, DaemonSetState> {
        let budget = self.deadline.saturating_duration_since(Instant::now());
        let asked = |failure: &dyn std::error::Error| {
            format!("GET {}: {}", self.session.url(path), error_chain(failure))
        };
        let body = match self.session.get(path, budget) {
            Ok(body) => body,
            Err(Failure::Status { code: 404, .. }) => return Ok(None),
            // The release's account or its role is gone.
            Err(
                refusal @ Failure::Status {
                    code: 401 | 403, ..
                },
            ) => {
                return Err(DaemonSetState::Gone(asked(&refusal)));
            }
            Err(failure) => return Err(DaemonSetState::Unknown(asked(&failure))),
        };
        // The error's own text may quote the answer.
        serde_json::from_slice(&body).map(Some).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            let url = self.session.url(path);
            DaemonSetState::Unknown(format!(
                "GET {url}: the answer is no object in JSON at line {line}, column {column}"
            ))
        })
    }
}

impl fmt::Display for DaemonSetState {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Present(reason) | Self::Gone(reason) | Self::Unknown(reason) => {
                f.write_str(reason)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bound_token_names_its_pod() {
        let token = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        let bound = r#"{"sub":"x","kubernetes.io":{"namespace":"msm","pod":{"name":"msm-cni-x7","uid":"1"}}}"#;
        let pod = OwnPod::of_token(&token(bound)).unwrap();
        assert_eq!(
            (pod.namespace.as_str(), pod.name.as_str()),
            ("msm", "msm-cni-x7")
        );
        let elsewhere = r#"{"kubernetes.io":{"namespace":"msm","pod":{"name":"../x"}}}"#;
        for token in ["", "a.b.c", "e30.e30.c2ln", &token(elsewhere), &token("{}")] {
            assert!(OwnPod::of_token(token).is_none(), "{token}");
        }
    }
}
