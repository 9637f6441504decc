//! One unit of blocking work on a separate thread. Its end makes a descriptor readable, so that
//! a poll loop can wait for it together with other events.

use std::io::{self, PipeReader};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::mpsc::{self, Receiver, TryRecvError};
use std::thread;

/// Running or finished work. Dropping it does not stop the thread.
pub struct Task<T> {
    result: Receiver<T>,
    /// At end of file once the thread has sent its result.
    finished: PipeReader,
}

/// The state of the work.
#[derive(Debug, PartialEq, Eq)]
pub enum Progress<T> {
    Running,
    Finished(T),
    /// The thread ended without a result, or the result was fetched before.
    NoResult,
}

impl<T: Send + 'static> Task<T> {
    /// Starts `work` on a new thread.
    pub fn spawn(work: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        let (sender, result) = mpsc::channel();
        let (finished, running) = io::pipe()?;
        thread::Builder::new().spawn(move || {
            // Fails if the task was dropped.
            let _ = sender.send(work());
            // Before the descriptor becomes readable, so that the next `poll` does not return
            // `Running`.
            drop(sender);
            drop(running);
        })?;
        Ok(Self { result, finished })
    }

    /// Fetches the result. Never blocks.
    pub fn poll(&self) -> Progress<T> {
        match self.result.try_recv() {
            Ok(result) => Progress::Finished(result),
            Err(TryRecvError::Empty) => Progress::Running,
            Err(TryRecvError::Disconnected) => Progress::NoResult,
        }
    }
}

/// Readable once the work has ended.
impl<T> AsFd for Task<T> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.finished.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::event::poll;

    fn wait(task: &Task<u32>, deadline: Instant) -> bool {
        poll::wait(&mut [poll::readable(task.as_fd())], deadline).unwrap()
    }

    #[test]
    fn descriptor_becomes_readable_when_the_result_is_available() {
        let (start, started) = mpsc::channel::<()>();
        let task = Task::spawn(move || {
            started.recv().unwrap();
            7
        })
        .unwrap();
        assert!(!wait(&task, Instant::now()));
        assert_eq!(task.poll(), Progress::Running);
        start.send(()).unwrap();
        assert!(wait(&task, Instant::now() + Duration::from_secs(60)));
        assert_eq!(task.poll(), Progress::Finished(7));
        assert_eq!(task.poll(), Progress::NoResult);
    }
}
