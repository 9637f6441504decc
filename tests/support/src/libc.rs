//! Which libc a static executable is linked with: it decides on what the executable costs, and
//! on the words for the system's errors.

use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// A libc that the executable is built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Libc {
    Glibc,
    Musl,
}

impl Libc {
    /// The executable's own: glibc has its banner in it, musl has none.
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
