//! msm-cni: redirects the RTSP traffic of Media Streaming Mesh pods to their sidecar
//! (the "stub"), from the node and without any privilege for the pod.
//!
//! Two pipelines: the plugin turns stdin and environment into rules in a pod's network
//! namespace (`cni` → `kube` → `redirect`), the installer turns flags and environment
//! into the right files on a node. `applet` chooses by argv[0].

mod applet;
mod cni;
mod flags;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod install;
mod json;
mod kube;
mod logging;
mod names;
mod process;
#[cfg(test)]
mod properties;
mod redirect;

pub use applet::run;
