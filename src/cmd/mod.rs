//! Commands that a person runs.

pub mod iptables;
