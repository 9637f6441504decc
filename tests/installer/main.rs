//! Black-box tests of the installer: the executable is run on the directories of a node, which
//! are below a scratch directory, and the files are compared.
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
