//! The installer, black box: the real executable on the tree of a node under a moved root,
//! and what the node looks like afterwards.

#[cfg(test)]
#[expect(dead_code, reason = "it can more than is asked of it here")]
#[path = "../support/api_server.rs"]
mod api_server;
#[cfg(test)]
mod basics;
#[cfg(test)]
mod configuration;
#[cfg(test)]
mod directories;
#[cfg(test)]
mod errors;
#[cfg(test)]
mod files;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod health;
#[cfg(test)]
mod idle;
#[cfg(test)]
mod inputs;
#[cfg(test)]
mod kill;
#[cfg(test)]
mod leaving;
#[cfg(test)]
#[path = "../support/libc.rs"]
mod libc;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod lost;
#[cfg(test)]
mod node;
#[cfg(test)]
mod rivals;
#[cfg(test)]
mod rotation;
#[cfg(test)]
mod runtime;
#[cfg(test)]
mod several;
#[cfg(test)]
mod strace;
#[cfg(test)]
#[expect(dead_code, reason = "no namespaces and no traffic are needed here")]
#[path = "../support/mod.rs"]
mod support;
#[cfg(test)]
mod tree;
