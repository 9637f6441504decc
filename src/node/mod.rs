//! The node's files: desired and observed state, and the steps from one to the other.

pub mod flags;
pub mod lock;
pub mod netdir;
pub mod observe;
pub mod plan;
pub mod settings;
pub mod step;
pub mod throttle;
mod values;
