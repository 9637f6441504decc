//! What wakes the loop: changes in directories, signals, the clock, and whoever asks for
//! our health. Carries no work: after waking, the disk is looked at anew.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::names::TEMPORARY_PREFIX;

const ENDING: [Signal; 2] = [Signal::SIGTERM, Signal::SIGINT];
/// Events are read in portions; so many, and others get their turn.
const MOST_READS: usize = 64;

/// Why the loop could not begin, or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("taking signals (signalfd)")]
    Signals { source: io::Error },
    #[error("waiting for events (poll)")]
    Poll { source: io::Error },
}

/// Why the loop goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// Something may have changed.
    Change,
    /// SIGHUP: somebody wants another look.
    Retry,
    /// It is to end.
    End(Signal),
    /// The time has come, or one of the other descriptors can be read.
    Other,
}

/// The sources of events.
pub struct Watch {
    /// A node has only so many of them; without one, the clock has to do.
    inotify: Option<Inotify>,
    covered: HashSet<WatchDescriptor>,
    /// Why changes may go unnoticed.
    blindness: Option<String>,
    signals: SignalFd,
}

impl Watch {
    /// From now on SIGTERM, SIGINT and SIGHUP only wake the loop. To be called before any
    /// thread is started, which would inherit another mask.
    pub fn new() -> Result<Self, Error> {
        let mut set = SigSet::empty();
        for signal in ENDING.into_iter().chain([Signal::SIGHUP]) {
            set.add(signal);
        }
        let signals = set
            .thread_block()
            .and_then(|()| {
                SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)
            })
            .map_err(|errno| Error::Signals {
                source: errno.into(),
            })?;
        Ok(Self {
            inotify: None,
            covered: HashSet::new(),
            blindness: None,
            signals,
        })
    }

    /// Watches these directories and no others; to be called again and again, because they
    /// may have been replaced, which the kernel does not mind. What is not there, or cannot
    /// be watched, has to be looked at by the clock.
    pub fn cover<'a>(&mut self, directories: impl Iterator<Item = &'a Path>) {
        let blindness = self.try_to_cover(directories).err();
        if blindness == self.blindness {
            return;
        }
        match &blindness {
            Some(reason) => log::warn!(
                "changes are looked for by the clock: {reason}; are fs.inotify.max_user_instances or max_user_watches used up on this node?"
            ),
            None => log::info!("changes are noticed at once again"),
        }
        self.blindness = blindness;
    }

    /// Whether a directory that is there cannot be watched.
    pub const fn is_blind(&self) -> bool {
        self.blindness.is_some()
    }

    fn try_to_cover<'a>(
        &mut self,
        directories: impl Iterator<Item = &'a Path>,
    ) -> Result<(), String> {
        let inotify = match self.inotify.take() {
            Some(inotify) => inotify,
            None => Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
                .map_err(|errno| format!("no directory can be watched: {errno}"))?,
        };
        let inotify = self.inotify.insert(inotify);
        let changes = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        let mut covered = HashSet::new();
        let mut outcome = Ok(());
        for directory in directories {
            match inotify.add_watch(directory, changes) {
                Ok(descriptor) => {
                    covered.insert(descriptor);
                }
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(errno) => {
                    let directory = directory.display();
                    outcome = Err(format!("{directory} cannot be watched: {errno}"));
                }
            }
        }
        // Directories that others have come in place of, but live on elsewhere.
        for stale in self.covered.difference(&covered) {
            // Refused for those that are gone, as most are.
            let _ = inotify.rm_watch(*stale);
        }
        self.covered = covered;
        outcome
    }

    /// Waits until `deadline` at most; `others` are descriptors that can be read.
    pub fn wait(&self, deadline: Instant, others: &[BorrowedFd]) -> Result<Wake, Error> {
        let inotify = self.inotify.as_ref().map(AsFd::as_fd);
        let mut fds: Vec<PollFd> = std::iter::once(self.signals.as_fd())
            .chain(inotify)
            .chain(others.iter().copied())
            .map(|fd| PollFd::new(fd, PollFlags::POLLIN))
            .collect();
        match poll(&mut fds, timeout(deadline)) {
            Ok(0) | Err(Errno::EINTR) => return Ok(Wake::Other),
            Ok(_) => {}
            Err(errno) => {
                return Err(Error::Poll {
                    source: errno.into(),
                });
            }
        }
        // Signals first: an end is not put off by changes, nor either by the others.
        if let Some(wake) = self.signal()? {
            return Ok(wake);
        }
        Ok(if self.has_changed() {
            Wake::Change
        } else {
            Wake::Other
        })
    }

    fn signal(&self) -> Result<Option<Wake>, Error> {
        let signal = self.signals.read_signal().map_err(|errno| Error::Signals {
            source: errno.into(),
        })?;
        let number = signal.and_then(|signal| i32::try_from(signal.ssi_signo).ok());
        Ok(number.map(|number| match Signal::try_from(number) {
            Ok(signal) if ENDING.contains(&signal) => Wake::End(signal),
            _ => Wake::Retry,
        }))
    }

    /// Reads the events that are there, so that a burst of them wakes the loop once.
    fn has_changed(&self) -> bool {
        let Some(inotify) = &self.inotify else {
            return false;
        };
        let mut changed = false;
        for _ in 0..MOST_READS {
            match inotify.read_events() {
                Ok(events) => changed |= events.iter().any(is_change),
                Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        changed
    }
}

/// Our own temporary files are none; without a name it is about the directory itself, or
/// events were lost.
fn is_change(event: &InotifyEvent) -> bool {
    event.name.as_ref().is_none_or(|name| {
        !name
            .as_encoded_bytes()
            .starts_with(TEMPORARY_PREFIX.as_bytes())
    })
}

/// In milliseconds, rounded up: to wake too early would mean to wake twice.
fn timeout(deadline: Instant) -> PollTimeout {
    let left = deadline.saturating_duration_since(Instant::now());
    let milliseconds =
        left.as_millis() + u128::from(!left.subsec_nanos().is_multiple_of(1_000_000));
    i32::try_from(milliseconds)
        .ok()
        .and_then(|milliseconds| PollTimeout::try_from(milliseconds).ok())
        .unwrap_or(PollTimeout::MAX)
}
