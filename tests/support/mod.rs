//! What the black-box tests share: how the real executable is run.

use std::path::PathBuf;

/// The executable under test: `MSM_EXECUTABLE` (what ships) or the one cargo built.
pub fn executable() -> PathBuf {
    std::env::var_os("MSM_EXECUTABLE")
        .map_or_else(|| env!("CARGO_BIN_EXE_msm").into(), PathBuf::from)
}
