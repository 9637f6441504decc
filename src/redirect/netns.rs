//! Opens network namespaces and runs code inside them, with `setns` in this process. Knows
//! nothing of rules or pods.

use std::fs::{File, metadata, read_link};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, statfs};

/// The calling thread's network namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// Why a network namespace cannot be opened or entered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("network namespace {path:?} does not exist")]
    NotFound { path: PathBuf },
    /// A relative path that does not exist, or a path below a file.
    #[error("{path:?} is not the path of a network namespace")]
    InvalidPath { path: PathBuf },
    #[error("cannot open network namespace {path:?}")]
    Denied { path: PathBuf, source: io::Error },
    #[error("cannot open network namespace {path:?}")]
    Open { path: PathBuf, source: io::Error },
    #[error("cannot read the type of network namespace {path:?} from /proc")]
    Proc { path: PathBuf, source: io::Error },
    #[error("{path:?} is not a network namespace{}", .kind.as_deref().map(|kind| format!(" but {kind}")).unwrap_or_default())]
    NotANetns { path: PathBuf, kind: Option<String> },
    #[error("cannot enter network namespace {path:?}")]
    Enter { path: PathBuf, source: io::Error },
    #[error("cannot create a network namespace")]
    Create { source: io::Error },
}

/// An open network namespace. The kernel keeps it while this value exists.
#[derive(Debug)]
pub struct Netns {
    path: PathBuf,
    file: File,
}

impl Netns {
    /// Opens the network namespace at `path`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        // Checked before opening: to open a FIFO or a device can block or have side effects.
        let filesystem = statfs(path).map_err(|errno| statfs_error(path, errno))?;
        if filesystem.filesystem_type() != NSFS_MAGIC {
            return Err(Error::NotANetns {
                path: path.into(),
                kind: None,
            });
        }
        let file = File::options()
            .read(true)
            .custom_flags(OFlag::O_NONBLOCK.bits())
            .open(path)
            .map_err(|source| Error::Open {
                path: path.into(),
                source,
            })?;
        // The kernel's name of the file, such as `net:[4026531840]`. For a bind mount, which
        // is what runtimes pass, it is the path; then only setns checks the type.
        let kind = read_link(format!("/proc/self/fd/{}", file.as_raw_fd()));
        let kind = kind.map_err(|source| Error::Proc {
            path: path.into(),
            source,
        })?;
        if !kind.is_absolute() && !kind.as_os_str().as_encoded_bytes().starts_with(b"net:[") {
            let kind = Some(kind.to_string_lossy().into_owned());
            return Err(Error::NotANetns {
                path: path.into(),
                kind,
            });
        }
        Ok(Self {
            path: path.into(),
            file,
        })
    }

    /// Whether it is the calling thread's network namespace, under any path.
    pub fn is_own(&self) -> Result<bool, Error> {
        let own = metadata(OWN).map_err(|source| Error::Proc {
            path: self.path.clone(),
            source,
        })?;
        let this = self.file.metadata().map_err(|source| Error::Open {
            path: self.path.clone(),
            source,
        })?;
        Ok((own.dev(), own.ino()) == (this.dev(), this.ino()))
    }

    /// Runs `work` in this network namespace. The calling thread does not return to its
    /// previous one: that would require privileges there, which a rootless runtime lacks.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T, Error> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|errno| match errno {
            Errno::EINVAL => Error::NotANetns {
                path: self.path.clone(),
                kind: None,
            },
            errno => Error::Enter {
                path: self.path.clone(),
                source: errno.into(),
            },
        })?;
        Ok(work())
    }

    /// Like `run`, but in a new network namespace.
    pub fn run_in_fresh<T>(work: impl FnOnce() -> T) -> Result<T, Error> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Create {
            source: errno.into(),
        })?;
        Ok(work())
    }
}

fn statfs_error(path: &Path, errno: Errno) -> Error {
    let path = path.to_owned();
    match errno {
        Errno::ENOENT if path.is_absolute() => Error::NotFound { path },
        Errno::ENOENT | Errno::ENOTDIR => Error::InvalidPath { path },
        Errno::EACCES | Errno::EPERM => Error::Denied {
            path,
            source: errno.into(),
        },
        errno => Error::Open {
            path,
            source: errno.into(),
        },
    }
}
