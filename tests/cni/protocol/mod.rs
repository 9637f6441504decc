//! The CNI protocol as a runtime sees it, in tables that follow the specification and the
//! reference's `skel`. No pod is redirected here.

#[cfg(test)]
mod documents;
#[cfg(test)]
mod environment;
#[cfg(test)]
mod namespaces;
#[cfg(test)]
mod plugin;
#[cfg(test)]
mod results;
#[cfg(test)]
mod settings;
#[cfg(test)]
mod streams;
#[cfg(test)]
#[expect(dead_code, reason = "no traffic is needed here")]
#[path = "../support/mod.rs"]
mod support;
#[cfg(test)]
mod values;
#[cfg(test)]
mod verbs;
