//! The CNI protocol as a runtime sees it, in tables that follow the specification and the
//! reference's `skel`. No pod is redirected here.

mod documents;
mod environment;
mod namespaces;
mod plugin;
mod results;
mod settings;
mod streams;
mod values;
mod verbs;
