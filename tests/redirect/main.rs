//! The redirect, black box: `msm-iptables` in real network namespaces, real connections,
//! and the rules as the kernel lists them.

#[cfg(test)]
#[macro_use]
mod backend;
#[cfg(test)]
mod command_line;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod namespaces;
#[cfg(test)]
mod neighbours;
#[cfg(test)]
mod repeat;
#[cfg(test)]
#[path = "../support/mod.rs"]
mod support;
#[cfg(test)]
mod surroundings;
#[cfg(test)]
mod text;
#[cfg(test)]
mod traffic;
