//! The CNI protocol from the runtime's side, in tables that follow the specification and the
//! reference implementation's `skel`. No pod is redirected.

mod documents;
mod environment;
mod namespaces;
mod plugin;
mod results;
mod settings;
mod values;
mod verbs;
