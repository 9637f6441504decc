//! The libc that a static executable is linked with. Costs and the texts of system errors
//! depend on it.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Libc {
    Glibc,
    Musl,
}

impl Libc {
    /// Detects glibc by the banner in the executable; musl has none.
    pub fn of(executable: &Path) -> io::Result<Self> {
        let banner = b"GNU C Library ";
        let bytes = fs::read(executable)?;
        let has_banner = bytes.windows(banner.len()).any(|window| window == banner);
        Ok(if has_banner { Self::Glibc } else { Self::Musl })
    }
}

impl fmt::Display for Libc {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Glibc => "glibc",
            Self::Musl => "musl",
        })
    }
}
