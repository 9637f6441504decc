//! Black-box tests of the plugin: the executable is run as by a container runtime, and its reply
//! and the pod's network namespace are checked.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod add;
mod check;
mod lookup;
mod process;
mod protocol;
mod status;
