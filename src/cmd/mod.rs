//! Commands that people run, as opposed to the plugin and the installer. Each parses its
//! arguments, uses the same code as the plugin, and prints the outcome.

pub mod iptables;
