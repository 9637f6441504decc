//! Event sources for a poll loop (signals, directories, background tasks), poll(2) itself, and
//! the back-off between attempts. The event sources do not depend on each other.

pub mod backoff;
pub mod dirs;
pub mod poll;
pub mod signals;
pub mod task;
