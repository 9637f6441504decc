//! One GET of one pod: read a kubeconfig, ask the API server over HTTPS, keep the few
//! fields that a decision needs. Knows nothing of CNI or of redirects.

mod client;
mod kubeconfig;
mod pod;

pub use client::{Error, Lookup, fetch_pod};
pub use kubeconfig::Kubeconfig;
pub use pod::{Container, Pod, PodRef};
