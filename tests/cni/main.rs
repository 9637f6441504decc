//! The plugin, black box: the executable run as a runtime runs it, what it answers, and what
//! becomes of the sandbox.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod add; // where the traffic of a pod lands
mod check; // CHECK, and the difference that it has to name
mod lookup; // ADD against an API server in every state
mod process; // streams, limits, signals and tools of the host
mod protocol; // requests and replies as the specification has them
mod status; // STATUS
