//! Waits for file descriptors or a deadline, with poll(2). Reads nothing from them.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Waits for a descriptor with data to read.
pub fn readable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLIN)
}

/// Waits for a descriptor that accepts data.
pub fn writable(fd: BorrowedFd<'_>) -> PollFd<'_> {
    PollFd::new(fd, PollFlags::POLLOUT)
}

/// Waits until a descriptor is ready (true), or until the deadline or an interruption (false).
pub fn wait(fds: &mut [PollFd], deadline: Instant) -> io::Result<bool> {
    match poll(fds, timeout(deadline)) {
        Ok(ready) => Ok(ready > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// In milliseconds, rounded up, because a timeout that ends too early wakes the loop twice. A
/// deadline beyond poll's range (24 days) ends early; the caller waits again.
fn timeout(deadline: Instant) -> PollTimeout {
    let left = deadline.saturating_duration_since(Instant::now());
    let milliseconds = left.as_nanos().div_ceil(1_000_000);
    i32::try_from(milliseconds)
        .ok()
        .and_then(|milliseconds| PollTimeout::try_from(milliseconds).ok())
        .unwrap_or(PollTimeout::MAX)
}

#[cfg(test)]
mod tests {
    use std::io::{Write as _, pipe};
    use std::os::fd::AsFd as _;
    use std::time::Duration;

    use super::*;

    #[test]
    fn wait_reports_ready_descriptor_or_deadline() {
        let (reader, mut writer) = pipe().unwrap();
        let past = Instant::now();
        assert!(!wait(&mut [readable(reader.as_fd())], past).unwrap());
        assert!(wait(&mut [writable(writer.as_fd())], past).unwrap());
        writer.write_all(b"x").unwrap();
        let watchdog = past + Duration::from_secs(60);
        assert!(wait(&mut [readable(reader.as_fd())], watchdog).unwrap());
    }

    #[test]
    fn timeout_is_rounded_up_and_bounded() {
        let now = Instant::now();
        assert_eq!(timeout(now), PollTimeout::ZERO);
        assert!(timeout(now + Duration::from_secs(3600)) > PollTimeout::from(60_000_u16));
        let year = Duration::from_secs(365 * 24 * 3600);
        assert_eq!(timeout(now + year), PollTimeout::MAX);
    }
}
