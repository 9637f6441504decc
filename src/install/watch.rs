//! What wakes the loop: changes in directories, signals, the clock, and whoever asks for
//! our health. Carries no work: after waking, the disk is looked at anew.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::names::TEMPORARY_PREFIX;

const ENDING: [Signal; 2] = [Signal::SIGTERM, Signal::SIGINT];

/// Why the loop could not begin, or go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "watching directories for changes (inotify); is fs.inotify.max_user_instances used up?"
    )]
    Inotify { source: io::Error },
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
    /// The time has come.
    Clock,
    /// One of the other descriptors can be read.
    Other,
    /// It is to end.
    End(Signal),
}

/// The sources of events.
pub struct Watch {
    inotify: Inotify,
    signals: SignalFd,
}

impl Watch {
    /// From now on SIGTERM, SIGINT and SIGHUP only wake the loop. To be called before any
    /// thread is started, which would inherit another mask.
    pub fn new() -> Result<Self, Error> {
        let inotify =
            Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC).map_err(|errno| {
                Error::Inotify {
                    source: errno.into(),
                }
            })?;
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
        Ok(Self { inotify, signals })
    }

    /// Watches a directory; again and again, because it may have been replaced, which the
    /// kernel does not mind. A directory that cannot be watched is looked at by the clock.
    pub fn cover(&self, directory: &Path) {
        let changes = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        if let Err(errno) = self.inotify.add_watch(directory, changes) {
            log::debug!("{} cannot be watched: {errno}", directory.display());
        }
    }

    /// Waits until `deadline` at most; `others` are descriptors that can be read.
    pub fn wait(&self, deadline: Instant, others: &[BorrowedFd]) -> Result<Wake, Error> {
        loop {
            let own = [self.inotify.as_fd(), self.signals.as_fd()];
            let mut fds: Vec<PollFd> = own
                .iter()
                .chain(others)
                .map(|fd| PollFd::new(*fd, PollFlags::POLLIN))
                .collect();
            match poll(&mut fds, timeout(deadline)) {
                Ok(0) if Instant::now() >= deadline => return Ok(Wake::Clock),
                Ok(0) | Err(Errno::EINTR) => continue,
                Ok(_) => {}
                Err(errno) => {
                    return Err(Error::Poll {
                        source: errno.into(),
                    });
                }
            }
            let is_ready = |fd: &PollFd| fd.any().unwrap_or(true);
            if fds.iter().skip(own.len()).any(is_ready) {
                return Ok(Wake::Other);
            }
            if let Some(wake) = self.own_wake()? {
                return Ok(wake);
            }
        }
    }

    /// Signals first: an end is not put off by changes.
    fn own_wake(&self) -> Result<Option<Wake>, Error> {
        let signal = self.signals.read_signal().map_err(|errno| Error::Signals {
            source: errno.into(),
        })?;
        let number = signal.and_then(|signal| i32::try_from(signal.ssi_signo).ok());
        match number.map(Signal::try_from) {
            Some(Ok(signal)) if ENDING.contains(&signal) => return Ok(Some(Wake::End(signal))),
            Some(_) => return Ok(Some(Wake::Change)),
            None => {}
        }
        Ok(self.has_changed()?.then_some(Wake::Change))
    }

    /// Reads all events that are there, so that a burst of them wakes the loop once.
    fn has_changed(&self) -> Result<bool, Error> {
        let mut changed = false;
        loop {
            match self.inotify.read_events() {
                Ok(events) => changed |= events.iter().any(is_change),
                Err(Errno::EAGAIN) => return Ok(changed),
                Err(Errno::EINTR) => {}
                Err(errno) => {
                    return Err(Error::Inotify {
                        source: errno.into(),
                    });
                }
            }
        }
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
