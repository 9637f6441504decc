//! One GET of one pod: read a kubeconfig, ask the API server over HTTPS, keep the few
//! fields that a decision needs. Knows nothing of CNI or of redirects.

mod access; // a kubeconfig with the files it names
mod client; // fetch_pod: what is tried again, and until when
mod error; // why no pod came back
mod kubeconfig; // its text, read or refused
mod pod; // which pod, and what of it counts
mod server; // an API server's address
mod session; // one connection, one GET
mod workload; // whether the DaemonSet of our own pod is still wanted
mod yaml; // YAML text as a JSON value

pub use client::{Lookup, check_access, fetch_pod};
pub use error::Error;
pub use kubeconfig::{Credentials, render as render_kubeconfig};
pub use pod::{InvalidPodRef, Pod, PodRef};
pub use server::{InvalidServer, Server};
pub use session::check_authority;
pub use workload::{Fate, OwnPod, fate};

/// For `fuzzing`, which asks them by themselves.
#[cfg(any(test, fuzzing))]
pub mod parts {
    pub use super::access::Access;
    pub use super::kubeconfig::{Kubeconfig, Material, Trust};
    pub use super::server::Server;
    pub use super::session::Session;
    pub use super::yaml::parse as parse_yaml;
}
