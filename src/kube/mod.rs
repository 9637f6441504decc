//! One GET of one pod: read a kubeconfig, ask the API server over HTTPS, keep the few
//! fields that a decision needs. Knows nothing of CNI or of redirects.

mod client;
mod config;
mod daemonset;
mod error;
mod lookup;
mod pod;
mod server;

pub use client::check_authority;
pub use config::kubeconfig::{Credentials, render as render_kubeconfig};
pub use daemonset::{Fate, OwnPod, fate};
pub use error::Error;
pub use lookup::{Lookup, check_access, fetch_pod};
pub use pod::{InvalidPodRef, Pod, PodRef};
pub use server::{InvalidServer, Server};

/// For `fuzzing`, which asks them by themselves.
#[cfg(any(test, fuzzing))]
pub mod parts {
    pub use super::client::Session;
    pub use super::config::client_config::Access;
    pub use super::config::kubeconfig::{Kubeconfig, Material, Trust};
    pub use super::config::yaml::parse as parse_yaml;
    pub use super::server::Server;
}
