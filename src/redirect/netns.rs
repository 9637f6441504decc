//! A network namespace that is known to be one, and running code inside it: `setns` in
//! our own process, no helper. Knows nothing of rules or pods.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::statfs::{NSFS_MAGIC, statfs};

/// The calling thread's own namespace.
const OWN: &str = "/proc/thread-self/ns/net";

/// Why a namespace cannot be entered.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was there once, or never.
    #[error(
        "network namespace {path:?} does not exist; give the full path of one, such as /run/netns/NAME"
    )]
    Gone { path: PathBuf },
    #[error(
        "there is no network namespace at {path:?}; give a full path such as /run/netns/NAME, without a slash at its end"
    )]
    NoPath { path: PathBuf },
    #[error(
        "opening the network namespace {path:?} is not allowed: another process's needs CAP_SYS_PTRACE, a file the right to read it"
    )]
    Denied { path: PathBuf, source: io::Error },
    #[error(
        "opening the network namespace {path:?}; give the path of one, such as /run/netns/NAME"
    )]
    Open { path: PathBuf, source: io::Error },
    #[error("asking /proc about the network namespace {path:?}: is /proc mounted?")]
    Proc { path: PathBuf, source: io::Error },
    #[error("{path:?} is not a network namespace{}; give the path of one, such as /run/netns/NAME", .kind.as_deref().map(|kind| format!(" but {kind}")).unwrap_or_default())]
    NotANetns { path: PathBuf, kind: Option<String> },
    #[error(
        "entering the network namespace {path:?}: it needs CAP_SYS_ADMIN, there and where this runs"
    )]
    Enter { path: PathBuf, source: io::Error },
    #[error(
        "making a network namespace, which needs CAP_SYS_ADMIN and a free place within user.max_net_namespaces"
    )]
    Make { source: io::Error },
}

/// An open network namespace; stays alive as long as this value does.
#[derive(Debug)]
pub struct Netns {
    path: PathBuf,
    file: File,
}

impl Netns {
    /// Opens the namespace bound at `path`.
    pub fn open(path: &Path) -> Result<Self, Error> {
        let io = |errno: nix::Error| match errno {
            nix::Error::ENOENT if path.is_absolute() => Error::Gone { path: path.into() },
            nix::Error::ENOENT | nix::Error::ENOTDIR => Error::NoPath { path: path.into() },
            nix::Error::EACCES | nix::Error::EPERM => Error::Denied {
                path: path.into(),
                source: errno.into(),
            },
            errno => Error::Open {
                path: path.into(),
                source: errno.into(),
            },
        };
        // Asked before it is opened: to open a FIFO or a device can block or have effects.
        let filesystem = statfs(path).map_err(io)?.filesystem_type();
        if filesystem != NSFS_MAGIC {
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
        // The kernel's own name of the file, such as `net:[4026531840]`; for a bind mount,
        // which is what runtimes hand out, it is the path instead, and setns tells the kind.
        let kind = std::fs::read_link(format!("/proc/self/fd/{}", file.as_raw_fd())).map_err(
            |source| Error::Proc {
                path: path.into(),
                source,
            },
        )?;
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

    /// Whether it is the calling thread's own, by whatever path.
    pub fn is_own(&self) -> Result<bool, Error> {
        let proc = |source| Error::Proc {
            path: self.path.clone(),
            source,
        };
        let own = std::fs::metadata(OWN).map_err(proc)?;
        let this = self.file.metadata().map_err(|source| Error::Open {
            path: self.path.clone(),
            source,
        })?;
        Ok((own.dev(), own.ino()) == (this.dev(), this.ino()))
    }

    /// Runs `work` with the calling thread inside this namespace, where it stays: the way
    /// back would need privilege over the namespace that it came from, which an ordinary
    /// user's runtime does not have.
    pub fn run<T>(&self, work: impl FnOnce() -> T) -> Result<T, Error> {
        self.enter()?;
        Ok(work())
    }

    /// Runs `work` with the calling thread inside a new namespace, where it stays.
    pub fn run_in_fresh<T>(work: impl FnOnce() -> T) -> Result<T, Error> {
        unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| Error::Make {
            source: errno.into(),
        })?;
        Ok(work())
    }

    fn enter(&self) -> Result<(), Error> {
        setns(&self.file, CloneFlags::CLONE_NEWNET).map_err(|errno| match errno {
            nix::Error::EINVAL => Error::NotANetns {
                path: self.path.clone(),
                kind: None,
            },
            errno => Error::Enter {
                path: self.path.clone(),
                source: errno.into(),
            },
        })
    }
}
