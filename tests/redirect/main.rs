//! The redirect, black box: `msm-iptables` in real network namespaces, real connections,
//! and the rules as the kernel lists them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command_line;
mod harness;
mod namespaces;
mod neighbours;
mod repeat;
mod surroundings;
mod text;
mod traffic;
