//! Watches directories for changes (inotify). An event only says that something changed: the
//! caller reads the directories again. Where inotify is unavailable, the caller has to poll.

use std::collections::HashSet;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};

/// Reads per call. Each read returns several events; a steady stream of them must not block the
/// caller.
const MAX_READS: usize = 64;

/// A set of watched directories.
pub struct DirWatcher {
    /// Names with this prefix do not count as changes.
    ignored_prefix: &'static str,
    /// `None` if the node has no inotify instance left.
    inotify: Option<Inotify>,
    watches: HashSet<WatchDescriptor>,
    /// Why inotify does not report all changes.
    degraded: Option<String>,
}

/// A change in what inotify reports.
#[derive(Debug, PartialEq, Eq)]
pub enum Transition {
    /// Some changes are not reported, for this reason.
    Degraded(String),
    /// All changes are reported again.
    Restored,
}

impl DirWatcher {
    pub fn new(ignored_prefix: &'static str) -> Self {
        Self {
            ignored_prefix,
            inotify: None,
            watches: HashSet::new(),
            degraded: None,
        }
    }

    /// Watches exactly these directories; missing ones are skipped. Call it before each read of
    /// the directories: a watch follows the inode, and a path may have been replaced since.
    pub fn watch_dirs<'a>(&mut self, dirs: impl Iterator<Item = &'a Path>) -> Option<Transition> {
        let degraded = self.try_watch(dirs).err();
        if degraded == self.degraded {
            return None;
        }
        self.degraded.clone_from(&degraded);
        Some(degraded.map_or(Transition::Restored, Transition::Degraded))
    }

    /// Whether an existing directory is not watched.
    pub const fn is_degraded(&self) -> bool {
        self.degraded.is_some()
    }

    pub fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.inotify.as_ref().map(AsFd::as_fd)
    }

    /// Reads the pending events and returns whether one of them is a change.
    pub fn take_changes(&self) -> bool {
        let Some(inotify) = &self.inotify else {
            return false;
        };
        let mut changed = false;
        for _ in 0..MAX_READS {
            match inotify.read_events() {
                Ok(events) => changed |= events.iter().any(|event| self.is_change(event)),
                Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        changed
    }

    fn try_watch<'a>(&mut self, dirs: impl Iterator<Item = &'a Path>) -> Result<(), String> {
        let inotify = match self.inotify.take() {
            Some(inotify) => inotify,
            None => Inotify::init(InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC)
                .map_err(|errno| format!("creating an inotify instance: {errno}"))?,
        };
        let inotify = self.inotify.insert(inotify);
        let mask = AddWatchFlags::IN_CREATE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_DELETE
            | AddWatchFlags::IN_ATTRIB
            | AddWatchFlags::IN_DELETE_SELF
            | AddWatchFlags::IN_MOVE_SELF
            | AddWatchFlags::IN_ONLYDIR;
        let mut watches = HashSet::new();
        let mut outcome = Ok(());
        for dir in dirs {
            match inotify.add_watch(dir, mask) {
                Ok(watch) => {
                    watches.insert(watch);
                }
                Err(Errno::ENOENT | Errno::ENOTDIR) => {}
                Err(errno) => outcome = Err(format!("watching {}: {errno}", dir.display())),
            }
        }
        // Directories that were replaced at their path and still exist elsewhere.
        for stale in self.watches.difference(&watches) {
            // Fails if the directory was deleted: the kernel has removed that watch.
            let _ = inotify.rm_watch(*stale);
        }
        self.watches = watches;
        outcome
    }

    /// An event without a name concerns the directory itself, or reports lost events.
    fn is_change(&self, event: &InotifyEvent) -> bool {
        let prefix = self.ignored_prefix.as_bytes();
        event
            .name
            .as_ref()
            .is_none_or(|name| !name.as_encoded_bytes().starts_with(prefix))
    }
}
