//! Runs a command to its end within a deadline and keeps all that a failing test has to
//! print: the command with its environment, its exit code and both of its streams.

use std::fmt;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// No command of these tests takes a second; this is when one counts as hanging.
const DEADLINE: Duration = Duration::from_secs(30);
/// How long the pipes of a killed command may stay open (in its own children).
const GRACE: Duration = Duration::from_secs(1);

/// What a command did.
#[derive(Debug)]
pub struct Outcome {
    command: String,
    /// The exit code; none after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
    /// From start to end.
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

    /// Fails the test unless standard error contains `text`, in any case.
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

/// Runs `command` with nothing on its standard input.
pub fn run(command: &mut Command) -> Outcome {
    run_with_input(command, "")
}

/// Runs `command` with `input` on its standard input, which it reads to its end or a pipe's
/// buffer holds.
pub fn run_with_input(command: &mut Command, input: &(impl AsRef<[u8]> + ?Sized)) -> Outcome {
    let description = format!("{command:?}");
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("start {description}: {error}"));
    // Whoever exits without reading its input breaks the pipe; the exit code tells more.
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
            "still running after {DEADLINE:?}, and so are its children: {description}"
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

/// Reads a stream to its end and drops `open` then.
fn drain(mut stream: impl Read + Send + 'static, open: Sender<()>) -> JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).unwrap();
        drop(open);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
