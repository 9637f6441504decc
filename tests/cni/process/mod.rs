//! Nothing that surrounds the process can break it: its standard streams, limits and
//! arguments, signals, the host's tools, paths that are no network namespace, and a mistake
//! of our own. Whatever it is, the plugin never claims a success that nobody was given.

#[cfg(test)]
mod answers;
#[cfg(test)]
#[expect(dead_code, reason = "these tests need an API server that works")]
#[path = "../support/api_server.rs"]
mod api_server;
#[cfg(test)]
#[expect(dead_code, reason = "one pod is enough here")]
#[path = "../support/cluster.rs"]
mod cluster;
#[cfg(test)]
mod limits;
#[cfg(test)]
mod mistakes;
#[cfg(test)]
mod namespaces;
#[cfg(test)]
mod plugin;
#[cfg(test)]
mod streams;
#[cfg(test)]
#[expect(dead_code, reason = "some of it is for traffic")]
#[path = "../support/mod.rs"]
mod support;
#[cfg(test)]
mod tools;
