//! Nothing that surrounds the process can break it: its standard streams, limits and
//! arguments, signals, the host's tools, paths that are no network namespace, and a mistake
//! of our own. Whatever it is, the plugin never claims a success that nobody was given.

mod answers;
mod limits;
mod mistakes;
mod namespaces;
mod plugin;
mod streams;
mod tools;
