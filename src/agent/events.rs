//! Waits for what wakes the loop: signals, changes in directories, a deadline. Serves health
//! while it waits, so that an answer proves that the loop is running.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Instant;

use nix::sys::signal::Signal;

use super::health::Readiness;
use crate::event::dirs::{DirWatcher, Transition};
use crate::event::poll;
use crate::event::signals::Signals;
use crate::http::Server;
use crate::names::TEMPORARY_PREFIX;

/// The signals to pass to `Signals::block`.
pub const SIGNALS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// What ended a wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wake {
    /// A watched directory changed.
    Change,
    /// SIGHUP: reconcile now, without delays.
    Retry,
    /// SIGTERM or SIGINT.
    Exit(Signal),
    /// The deadline, a client, or another descriptor.
    Other,
}

pub struct Events {
    signals: Signals,
    dirs: DirWatcher,
    server: Server,
    pub readiness: Readiness,
}

impl Events {
    pub fn new(signals: Signals, server: Server) -> Self {
        Self {
            signals,
            dirs: DirWatcher::new(TEMPORARY_PREFIX),
            server,
            readiness: Readiness::default(),
        }
    }

    /// Watches exactly these directories, and logs whether that is possible. Call it before each
    /// reconcile.
    pub fn watch_dirs<'a>(&mut self, dirs: impl Iterator<Item = &'a Path>) {
        match self.dirs.watch_dirs(dirs) {
            Some(Transition::Degraded(reason)) => log::warn!(
                "inotify unavailable, falling back to polling: {reason}; check fs.inotify.max_user_instances and max_user_watches on this node"
            ),
            Some(Transition::Restored) => log::info!("inotify restored"),
            None => {}
        }
    }

    /// Whether changes may be missed.
    pub const fn is_degraded(&self) -> bool {
        self.dirs.is_degraded()
    }

    /// Waits for an event, for `other` to become readable, or until `deadline`.
    pub fn wait(&mut self, deadline: Instant, other: Option<BorrowedFd>) -> io::Result<Wake> {
        let deadline = self
            .server
            .deadline()
            .map_or(deadline, |it| it.min(deadline));
        let mut fds = self.server.descriptors();
        let others = [Some(self.signals.as_fd()), self.dirs.descriptor(), other];
        fds.extend(others.into_iter().flatten().map(poll::readable));
        let is_ready = poll::wait(&mut fds, deadline)?;
        let wake = if is_ready { self.wake()? } else { Wake::Other };
        self.serve();
        Ok(wake)
    }

    /// Signals first: a steady stream of changes must not delay the exit.
    fn wake(&self) -> io::Result<Wake> {
        Ok(match self.signals.next()? {
            Some(signal @ (Signal::SIGTERM | Signal::SIGINT)) => Wake::Exit(signal),
            Some(_) => Wake::Retry,
            None if self.dirs.take_changes() => Wake::Change,
            None => Wake::Other,
        })
    }

    fn serve(&mut self) {
        let readiness = &self.readiness;
        let served = self
            .server
            .poll(Instant::now(), &mut |request| readiness.respond(request));
        if let Err(error) = served {
            log::warn!("accepting a health connection: {error}");
        }
    }
}
