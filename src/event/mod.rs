//! Event sources for a loop, and back-off between attempts.

pub mod backoff;
pub mod watch;
