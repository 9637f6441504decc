//! The process's surroundings: standard streams, resource limits, arguments, signals, tools of
//! the host, paths that are not network namespaces, and a panic. In every case the
//! plugin exits with 0 only if its reply was delivered.

mod helpers;
mod limits;
mod namespaces;
mod panic;
mod stdin_stderr;
mod stdout;
mod tools;
