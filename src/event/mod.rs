//! Event sources for a poll loop, one each for signals, directories and background tasks,
//! and the back-off between attempts. None of them knows the others.

pub mod backoff;
pub mod dirs;
pub mod poll;
pub mod signals;
pub mod task;
