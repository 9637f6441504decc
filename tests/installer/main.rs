//! The installer, black box: the real executable on the tree of a node under a moved root,
//! and what the node looks like afterwards.

#[cfg(test)]
mod basics;
#[cfg(test)]
mod directories;
#[cfg(test)]
mod lost;
#[cfg(test)]
mod node;
#[cfg(test)]
mod rivals;
#[cfg(test)]
mod rotation;
#[cfg(test)]
#[expect(dead_code, reason = "no namespaces and no traffic are needed here")]
#[path = "../support/mod.rs"]
mod support;
