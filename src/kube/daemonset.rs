//! The state of the `DaemonSet` that a pod belongs to: one GET of the pod and one of the
//! `DaemonSet`, without retries.

use std::fmt;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::client::Client;
use super::config::client_config::ClientConfig;
use super::config::kubeconfig::Credentials;
use super::error::RequestError;
use super::pod::PodRef;
use super::tls::TlsError;
use crate::text::error_chain;

/// The state of a `DaemonSet`, with the reason in words.
#[derive(Debug, PartialEq, Eq)]
pub enum DaemonSetState {
    /// It exists and is not being deleted: its pods are restarted or replaced.
    Present(String),
    /// It is deleted or being deleted. Also if the API server refuses the pod's credentials:
    /// then the service account or its role is deleted.
    Gone(String),
    /// The API server could not be reached, or its response does not determine the state.
    Unknown(String),
}

/// The state of the `DaemonSet` that owns `pod`. Blocks for `timeout` at most.
pub fn daemonset_state(
    credentials: &Credentials,
    pod: &PodRef,
    timeout: Duration,
) -> DaemonSetState {
    Query::new(credentials, timeout)
        .and_then(|query| query.daemonset_of(pod))
        .unwrap_or_else(QueryError::into_state)
}

/// The pod that a service account token is bound to (claim `kubernetes.io`). The token's
/// signature is not verified.
pub fn pod_of_token(token: &str) -> Option<PodRef> {
    #[derive(Deserialize)]
    struct Claims {
        #[serde(rename = "kubernetes.io")]
        kubernetes: Kubernetes,
    }
    #[derive(Deserialize)]
    struct Kubernetes {
        namespace: String,
        pod: BoundPod,
    }
    #[derive(Deserialize)]
    struct BoundPod {
        name: String,
    }
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let Claims { kubernetes } = serde_json::from_slice(&payload).ok()?;
    PodRef::new(&kubernetes.namespace, &kubernetes.pod.name, None).ok()
}

struct Query {
    client: Client,
    deadline: Instant,
}

/// Why the state could not be read.
#[derive(Debug, thiserror::Error)]
enum QueryError {
    #[error(transparent)]
    Tls(#[from] TlsError),
    #[error("GET {url}")]
    Request { url: String, source: RequestError },
    /// The response is not quoted.
    #[error("GET {url}: response is not a Kubernetes object in JSON: line {line}, column {column}")]
    Decode {
        url: String,
        line: usize,
        column: usize,
    },
    #[error("pod {pod} does not exist")]
    NoPod { pod: String },
    #[error("pod {pod} does not belong to a DaemonSet")]
    NoOwner { pod: String },
    #[error("pod {pod} belongs to a DaemonSet with an invalid name")]
    OwnerName { pod: String },
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
    owner_references: Vec<OwnerReference>,
}

#[derive(Deserialize)]
struct OwnerReference {
    kind: String,
    name: String,
}

impl Query {
    fn new(credentials: &Credentials, timeout: Duration) -> Result<Self, QueryError> {
        let config = ClientConfig {
            server: credentials.server.clone(),
            tls_server_name: None,
            ca_bundle: credentials.ca_bundle.map(<[u8]>::to_vec),
            token: Some(credentials.token.to_owned()),
            identity: None,
        };
        Ok(Self {
            client: Client::new(&config)?,
            deadline: Instant::now() + timeout,
        })
    }

    fn daemonset_of(&self, pod: &PodRef) -> Result<DaemonSetState, QueryError> {
        let namespace = &pod.namespace;
        let name = self.owner(pod)?;
        let path = format!("/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}");
        let daemonset = format!("DaemonSet {namespace}/{name}");
        Ok(match self.get(&path)? {
            None => DaemonSetState::Gone(format!("{daemonset} does not exist")),
            Some(Object { metadata }) if metadata.deletion_timestamp.is_some() => {
                DaemonSetState::Gone(format!("{daemonset} is being deleted"))
            }
            Some(_) => DaemonSetState::Present(format!("{daemonset} exists")),
        })
    }

    /// The name of the pod's `DaemonSet`.
    fn owner(&self, pod: &PodRef) -> Result<String, QueryError> {
        let PodRef {
            namespace, name, ..
        } = pod;
        let path = format!("/api/v1/namespaces/{namespace}/pods/{name}");
        let pod = pod.to_string();
        let Some(Object { metadata }) = self.get(&path)? else {
            return Err(QueryError::NoPod { pod });
        };
        let owner = metadata
            .owner_references
            .into_iter()
            .find(|owner| owner.kind == "DaemonSet");
        match owner {
            None => Err(QueryError::NoOwner { pod }),
            // DaemonSets and pods have the same rules for names.
            Some(owner) => PodRef::new(namespace, &owner.name, None)
                .map(|valid| valid.name)
                .map_err(|_| QueryError::OwnerName { pod }),
        }
    }

    /// `None` for a 404.
    fn get(&self, path: &str) -> Result<Option<Object>, QueryError> {
        let timeout = self.deadline.saturating_duration_since(Instant::now());
        let url = || self.client.url(path);
        let body = match self.client.get(path, timeout) {
            Ok(body) => body,
            Err(RequestError::Status { code: 404, .. }) => return Ok(None),
            Err(source) => return Err(QueryError::Request { url: url(), source }),
        };
        serde_json::from_slice(&body)
            .map(Some)
            .map_err(|error| QueryError::Decode {
                url: url(),
                line: error.line(),
                column: error.column(),
            })
    }
}

impl QueryError {
    fn into_state(self) -> DaemonSetState {
        let reason = error_chain(&self);
        match self {
            Self::Request {
                source:
                    RequestError::Status {
                        code: 401 | 403, ..
                    },
                ..
            } => DaemonSetState::Gone(reason),
            _ => DaemonSetState::Unknown(reason),
        }
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
    fn bound_token_identifies_its_pod() {
        let token = |claims: &str| format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims));
        let bound = r#"{"sub":"x","kubernetes.io":{"namespace":"msm","pod":{"name":"msm-cni-x7","uid":"1"}}}"#;
        let expected = PodRef::new("msm", "msm-cni-x7", None).unwrap();
        assert_eq!(pod_of_token(&token(bound)), Some(expected));
        let unsafe_name = r#"{"kubernetes.io":{"namespace":"msm","pod":{"name":"../x"}}}"#;
        for token in [
            "",
            "a.b.c",
            "e30.e30.c2ln",
            &token(unsafe_name),
            &token("{}"),
        ] {
            assert_eq!(pod_of_token(token), None, "{token}");
        }
    }
}
