//! Kubernetes API client: reads a kubeconfig, sends GET requests over HTTPS and decodes the
//! few fields that msm-cni needs. Knows nothing about CNI or redirects.

pub mod client;
pub mod config;
mod daemonset;
mod error;
mod lookup;
mod pod;
mod server;
pub mod tls;

pub use config::client_config::parse_token;
pub use config::kubeconfig::{Credentials, render as render_kubeconfig};
pub use daemonset::{DaemonSetState, daemonset_state, pod_of_token};
pub use error::{LookupError, LookupFailure};
pub use lookup::{PodQuery, check_config, fetch_pod};
pub use pod::{InvalidPodRef, Pod, PodRef};
pub use server::{InvalidServer, Server};
pub use tls::check_ca_bundle;
