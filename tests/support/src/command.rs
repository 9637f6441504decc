//! Runs a command with a deadline and keeps what a failing test prints: the command with its
//! environment, the exit code and both output streams.

use std::fmt;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// A watchdog, far above what any command takes on a busy machine.
const DEADLINE: Duration = Duration::from_secs(120);
/// After a command is killed, how long its children may keep its pipes open.
const GRACE: Duration = Duration::from_secs(10);

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    command: String,
    /// `None` after a signal.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
    /// From start to exit.
    pub took: Duration,
}

impl Outcome {
    /// Fails the test unless the command exited with `code`.
    #[track_caller]
    pub fn exited(self, code: i32) -> Self {
        assert!(self.code == Some(code), "exit code {code} expected\n{self}");
        self
    }

    /// Fails the test unless the command exited with 0.
    #[track_caller]
    pub fn succeeded(self) -> Self {
        self.exited(0)
    }

    /// Fails the test unless standard error contains `text`, ignoring case.
    #[track_caller]
    pub fn complains_about(self, text: &str) -> Self {
        let found = self.stderr.to_lowercase().contains(&text.to_lowercase());
        assert!(found, "standard error does not mention {text:?}\n{self}");
        self
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(out, "command: {}", self.command)?;
        writeln!(out, "exit code: {:?} after {:?}", self.code, self.took)?;
        writeln!(
            out,
            "--- stdout\n{}\n--- stderr\n{}",
            self.stdout, self.stderr
        )
    }
}

/// Runs `command` with empty standard input.
pub fn run(command: &mut Command) -> Outcome {
    run_with_input(command, "")
}

/// Runs `command` with `input` on its standard input. The command must read all of it, unless
/// it fits in a pipe.
pub fn run_with_input(command: &mut Command, input: &(impl AsRef<[u8]> + ?Sized)) -> Outcome {
    let description = format!("{command:?}");
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("start {description}: {error}"));
    // Fails if the command exits without reading; its exit code is checked instead.
    let _ = child.stdin.take().unwrap().write_all(input.as_ref());

    let (open, ended) = mpsc::channel();
    let stdout = drain(child.stdout.take().unwrap(), open.clone());
    let stderr = drain(child.stderr.take().unwrap(), open);
    let hung = ended.recv_timeout(DEADLINE) == Err(RecvTimeoutError::Timeout);
    if hung {
        child.kill().unwrap();
        let leaked = ended.recv_timeout(GRACE) == Err(RecvTimeoutError::Timeout);
        assert!(
            !leaked,
            "still running after {DEADLINE:?}, as are its children: {description}"
        );
    }
    let outcome = Outcome {
        command: description,
        code: child.wait().unwrap().code(),
        stdout: stdout.join().unwrap(),
        stderr: stderr.join().unwrap(),
        took: start.elapsed(),
    };
    assert!(!hung, "killed after {DEADLINE:?}\n{outcome}");
    outcome
}

/// Reads all of a stream, then drops `open`.
fn drain(mut stream: impl Read + Send + 'static, open: Sender<()>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        drop(open);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
