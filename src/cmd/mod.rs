//! Commands for people.

pub mod iptables;
