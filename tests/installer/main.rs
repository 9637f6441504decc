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
mod conflicting_writers;
mod directories;
mod disk_errors;
mod drift;
mod files;
mod fixtures;
mod health;
mod idle;
mod invalid_settings;
mod kill;
mod logs;
mod rotation;
mod strace;
mod tree;
mod two_installers;
mod uninstall;
