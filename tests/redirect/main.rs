//! The redirect, black box: `msm-iptables` in real network namespaces, real connections,
//! and the rules as the kernel lists them.

#[cfg(test)]
mod harness;
#[cfg(test)]
#[path = "../support/mod.rs"]
mod support;
