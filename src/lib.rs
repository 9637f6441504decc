//! msm-cni: redirects the RTSP traffic of Media Streaming Mesh pods to their sidecar
//! (the "stub") from the node, without any privilege for the pod.
//!
//! Imports point in one direction:
//! `main → applet → {cni, agent, cmd} → {decision, node} → {kube, redirect} → leaves`.

mod agent;
mod applet;
mod cmd;
mod cni;
mod decision;
mod event;
mod flags;
mod fs;
mod http;
mod json;
mod kube;
mod logging;
mod names;
mod node;
mod process;
mod redirect;
#[cfg(any(test, fuzzing))]
pub mod testing;
mod text;

pub use applet::run;
