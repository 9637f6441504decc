//! The installer, black box: the real executable on the tree of a node under a moved root,
//! and what the node looks like afterwards.
#![expect(
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod basics;
mod configuration;
mod directories;
mod errors;
mod files;
mod fixtures;
mod health;
mod idle;
mod inputs;
mod kill;
mod leaving;
mod logs;
mod lost;
mod rivals;
mod rotation;
mod several;
mod strace;
mod tree;
