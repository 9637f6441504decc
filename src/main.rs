//! The executable: hands the real process to the applet and returns its exit code.
//! Decides nothing itself; this is the only place a process ends.

use std::process::ExitCode;

/// Musl's own asks the kernel for every few pages and gives them back: half of all system
/// calls of a pod's start.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    msm_cni::run()
}
