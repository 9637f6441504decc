//! Entry point of the executable: the global allocator, and the exit code of the applet that
//! the library runs.

use std::process::ExitCode;

/// musl's allocator requests and returns memory a few pages at a time, which made up half of
/// the system calls of a pod's start.
#[cfg(target_env = "musl")]
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    msm_cni::run()
}
