//! Signals as a file descriptor (signalfd), so that they wake a poll loop instead of
//! interrupting it.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Blocked signals, to be read one by one.
pub struct Signals {
    fd: SignalFd,
}

impl Signals {
    /// Blocks `signals` in the calling thread. Call it before the process starts threads: they
    /// inherit the mask, and an unblocked signal would kill the process.
    pub fn block(signals: &[Signal]) -> io::Result<Self> {
        let set: SigSet = signals.iter().copied().collect();
        set.thread_block()?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        Ok(Self {
            fd: SignalFd::with_flags(&set, flags)?,
        })
    }

    /// The next pending signal. Never blocks.
    pub fn next(&self) -> io::Result<Option<Signal>> {
        let Some(info) = self.fd.read_signal()? else {
            return Ok(None);
        };
        let number = i32::try_from(info.ssi_signo).map_err(io::Error::other)?;
        Ok(Some(Signal::try_from(number)?))
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use nix::sys::signal::raise;

    use super::*;

    #[test]
    fn blocked_signal_is_read_once() {
        // The mask is the thread's; other tests keep theirs.
        let read = || {
            let signals = Signals::block(&[Signal::SIGUSR1, Signal::SIGUSR2]).unwrap();
            assert_eq!(signals.next().unwrap(), None);
            raise(Signal::SIGUSR2).unwrap();
            assert_eq!(signals.next().unwrap(), Some(Signal::SIGUSR2));
            assert_eq!(signals.next().unwrap(), None);
        };
        thread::spawn(read).join().unwrap();
    }
}
