//! The executable: hands the real process to the applet and returns its exit code.
//! Decides nothing itself; this is the only place a process ends.

use std::process::ExitCode;

fn main() -> ExitCode {
    msm_cni::run()
}
