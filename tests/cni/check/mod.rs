//! Black-box tests of CHECK: the executable as a runtime runs it, an HTTPS API server, network
//! namespaces, and rules that `nft` and iptables changed.

mod damage;
mod leftovers;
mod passing;
mod sandbox;
