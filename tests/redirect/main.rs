//! Black-box tests of the redirect: `msm-iptables` in network namespaces, connections, and the
//! rules that the kernel lists.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod command_line;
mod harness;
mod namespaces;
mod neighbours;
mod repeat;
mod surroundings;
mod text;
mod traffic;
