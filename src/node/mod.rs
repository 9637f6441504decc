//! The node's files: desired and observed state, and the steps from one to the other.

mod apply;
pub mod flags;
pub mod inputs;
pub mod lock;
mod netdir;
pub mod observe;
mod plan;
mod reconciler;
mod schedule;
pub mod settings;
mod step;
mod throttle;
pub mod uninstall;
pub mod values;

pub use reconciler::{Error, Reconciler, Status};
pub use schedule::POLL;
