//! CHECK and STATUS, black box: the executable as a runtime runs it, a real HTTPS API
//! server, real sandboxes, damage done by the tools of other people, and the sentence that
//! has to name it.

#[cfg(test)]
#[macro_use]
#[expect(dead_code, reason = "some of it is for the redirect by hand")]
#[path = "../redirect/backend.rs"]
mod backend;
#[cfg(test)]
#[expect(dead_code, reason = "these tests need an API server that works")]
#[path = "../support/api_server.rs"]
mod api_server;
#[cfg(test)]
#[path = "../support/cluster.rs"]
mod cluster;
#[cfg(test)]
mod damage;
#[cfg(test)]
mod leftovers;
#[cfg(test)]
mod passing;
#[cfg(test)]
mod sandbox;
#[cfg(test)]
mod status;
#[cfg(test)]
#[expect(dead_code, reason = "some of it is for traffic")]
#[path = "../support/mod.rs"]
mod support;
