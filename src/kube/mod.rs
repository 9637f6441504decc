//! One GET of one pod: read a kubeconfig, ask the API server over HTTPS, keep the few
//! fields that a decision needs. Knows nothing of CNI or of redirects.

mod client;
mod config;
mod daemonset;
mod error;
mod lookup;
mod pod;
mod server;

pub use client::check_ca_bundle;
pub use config::kubeconfig::{Credentials, render as render_kubeconfig};
pub use daemonset::{DaemonSetState, OwnPod, daemonset_state};
pub use error::Error;
pub use lookup::{Lookup, check_config, fetch_pod};
pub use pod::{InvalidPodRef, Pod, PodRef};
pub use server::{InvalidServer, Server};

/// For `fuzzing`, which asks them by themselves.
#[cfg(any(test, fuzzing))]
pub mod parts {
    pub use super::client::Client;
    pub use super::config::client_config::ClientConfig;
    pub use super::config::kubeconfig::{DataOrFile, Kubeconfig, TlsVerify};
    pub use super::config::yaml::parse as parse_yaml;
    pub use super::server::Server;
}
