//! Runs executables of the host in parallel, with a minimal environment, a deadline and bounded
//! output. The kernel kills them when this process ends.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Take, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, parent_id};
use std::path::{Path, PathBuf};
use std::process::{self, ChildStderr, ChildStdin, ChildStdout, Command, ExitCode, ExitStatus};
use std::process::{Stdio, id};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::process::Process;
use crate::text::error_chain;

/// The applet that a child process runs before it executes its program. Internal.
pub const APPLET: &str = "msm-exec";

/// Deadline of one `run`: a thousand times what iptables needs, and longer than the 5 seconds
/// that `iptables-restore` may wait for its lock.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// In bytes, per stream. More than the rules of a whole node.
const OUTPUT_LIMIT: u64 = 16 << 20;
/// In characters, of a program's output in an error.
const OUTPUT_CHARACTERS: usize = 1000;
/// Polling interval after a program has closed its output. It then ends within microseconds.
const POLL: Duration = Duration::from_micros(100);
/// Exit code if the program cannot be executed, as in a shell.
const NOT_EXECUTED: u8 = 127;

/// Why a program failed. `output`: its output in one line.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("starting {} through /proc/self/exe", .program.display())]
    Start { program: PathBuf, source: io::Error },
    #[error("communicating with {}", .program.display())]
    Pipe { program: PathBuf, source: io::Error },
    #[error("{} failed ({status}){}", .program.display(), suffix(.output))]
    Status {
        program: PathBuf,
        status: ExitStatus,
        output: String,
    },
    #[error("{} was killed after {} seconds{}", .program.display(), TIME_LIMIT.as_secs(), suffix(.output))]
    Timeout { program: PathBuf, output: String },
    #[error("{} printed more than {OUTPUT_LIMIT} bytes", .program.display())]
    OutputTooLong { program: PathBuf },
}

/// A program to run.
pub struct Call {
    pub program: PathBuf,
    pub args: &'static [&'static str],
    /// Its standard input.
    pub input: String,
}

/// Runs all programs in parallel and waits for all of them; returns their standard output, in
/// the same order. Must be called on the main thread: a program is killed when the thread
/// that started it ends.
pub fn run(calls: Vec<Call>) -> Result<Vec<Vec<u8>>, Error> {
    let deadline = Instant::now() + TIME_LIMIT;
    let mut children: Vec<_> = calls.into_iter().map(Child::start).collect();
    let pumped = pump(children.iter_mut().flatten(), deadline);
    let outputs: Vec<_> = children
        .into_iter()
        .map(|child| match pumped {
            Ok(()) => child?.wait(deadline),
            Err(errno) => Err(child?.pipe_error(errno.into())),
        })
        .collect();
    outputs.into_iter().collect()
}

/// Writes input and reads output until all streams are closed or the deadline has passed.
fn pump<'a>(children: impl Iterator<Item = &'a mut Child>, deadline: Instant) -> nix::Result<()> {
    let mut children: Vec<_> = children.collect();
    loop {
        for child in &mut children {
            child.pump();
        }
        let mut open: Vec<_> = children.iter().flat_map(|child| child.open()).collect();
        let left = deadline.saturating_duration_since(Instant::now());
        if open.is_empty() || left.is_zero() {
            return Ok(());
        }
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut open, left) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// A running program; killed on drop.
struct Child {
    program: PathBuf,
    process: process::Child,
    /// Input that is not yet written.
    input: Vec<u8>,
    /// Closed after the input was written.
    stdin: Option<ChildStdin>,
    stdout: Output<ChildStdout>,
    stderr: Output<ChildStderr>,
    stdin_error: Option<io::Error>,
}

impl Child {
    fn start(call: Call) -> Result<Self, Error> {
        let program = call.program;
        let mut command = reexec_bound(&program);
        command
            .args(call.args)
            .env_clear()
            // The group includes processes that the program starts.
            .process_group(0)
            // Legacy iptables uses one lock file for all namespaces of the host. With this
            // path it locks its standard input, a pipe that no other process uses.
            .env("XTABLES_LOCKFILE", "/proc/self/fd/0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = match command.spawn() {
            Ok(process) => process,
            Err(source) => return Err(Error::Start { program, source }),
        };
        let child = Self {
            program,
            input: call.input.into_bytes(),
            stdin: process.stdin.take(),
            stdout: Output::new(process.stdout.take()),
            stderr: Output::new(process.stderr.take()),
            process,
            stdin_error: None,
        };
        // These are this process's ends of the pipes; those of the program stay blocking.
        for stream in child.open() {
            fcntl(stream.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
                .map_err(|errno| child.pipe_error(errno.into()))?;
        }
        Ok(child)
    }

    /// Writes and reads as much as possible without blocking.
    fn pump(&mut self) {
        if let Err(error) = self.write_input() {
            self.stdin = None;
            self.stdin_error = Some(error);
        }
        self.stdout.read();
        self.stderr.read();
    }

    fn write_input(&mut self) -> io::Result<()> {
        let Some(stdin) = &mut self.stdin else {
            return Ok(());
        };
        while !self.input.is_empty() {
            match stdin.write(&self.input) {
                Ok(written) => drop(self.input.drain(..written)),
                Err(error) if is_temporary(&error) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        self.stdin = None;
        Ok(())
    }

    /// The open streams.
    fn open(&self) -> impl Iterator<Item = PollFd<'_>> {
        fn entry(stream: Option<&impl AsFd>, flags: PollFlags) -> Option<PollFd<'_>> {
            stream.map(|stream| PollFd::new(stream.as_fd(), flags))
        }
        [
            entry(self.stdin.as_ref(), PollFlags::POLLOUT),
            entry(self.stdout.pipe(), PollFlags::POLLIN),
            entry(self.stderr.pipe(), PollFlags::POLLIN),
        ]
        .into_iter()
        .flatten()
    }

    /// Waits for the program and returns its standard output.
    fn wait(mut self, deadline: Instant) -> Result<Vec<u8>, Error> {
        let status = loop {
            match self.process.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => thread::sleep(POLL),
                Ok(None) => {
                    return Err(Error::Timeout {
                        program: self.program.clone(),
                        output: self.output_line(),
                    });
                }
                Err(source) => return Err(self.pipe_error(source)),
            }
        };
        if self.stdout.is_too_long || self.stderr.is_too_long {
            return Err(Error::OutputTooLong {
                program: self.program.clone(),
            });
        }
        if !status.success() {
            return Err(Error::Status {
                program: self.program.clone(),
                status,
                output: self.output_line(),
            });
        }
        match self.stdin_error.take() {
            Some(error) => Err(self.pipe_error(error)),
            None => Ok(std::mem::take(&mut self.stdout.bytes)),
        }
    }

    fn pipe_error(&self, source: io::Error) -> Error {
        Error::Pipe {
            program: self.program.clone(),
            source,
        }
    }

    /// Both outputs in one line, the errors first.
    fn output_line(&self) -> String {
        let output = [self.stderr.bytes.as_slice(), &self.stdout.bytes].concat();
        let output = String::from_utf8_lossy(&output);
        let words: Vec<_> = output.split_whitespace().collect();
        let line = words.join(" ");
        line.chars().take(OUTPUT_CHARACTERS).collect()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Until its leader was waited for, the group's ID is not reused. A killed process is
        // not waited for: it may be blocked in the kernel.
        if let (Ok(None), Ok(group)) = (self.process.try_wait(), i32::try_from(self.process.id())) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}

/// One output stream of a program.
struct Output<R> {
    bytes: Vec<u8>,
    /// Closed at its end or at the limit. SIGPIPE ends a program that continues to write.
    pipe: Option<Take<R>>,
    is_too_long: bool,
}

impl<R: Read> Output<R> {
    fn new(pipe: Option<R>) -> Self {
        Self {
            bytes: Vec::new(),
            pipe: pipe.map(|pipe| pipe.take(OUTPUT_LIMIT + 1)),
            is_too_long: false,
        }
    }

    fn pipe(&self) -> Option<&R> {
        self.pipe.as_ref().map(Take::get_ref)
    }

    fn read(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        match pipe.read_to_end(&mut self.bytes) {
            Err(error) if is_temporary(&error) => {}
            _ => {
                self.is_too_long = pipe.limit() == 0;
                self.pipe = None;
            }
        }
    }
}

/// Starts this executable again, as the applet that binds itself to this process and then
/// executes `program`.
fn reexec_bound(program: &Path) -> Command {
    if cfg!(test) {
        // The executable is the test harness, which has no applets.
        return Command::new(program);
    }
    let mut command = Command::new("/proc/self/exe");
    command.arg0(APPLET).arg(id().to_string()).arg(program);
    command
}

fn suffix(output: &str) -> String {
    match output {
        "" => String::new(),
        output => format!(": {output}"),
    }
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Why the applet cannot execute its program.
#[derive(Debug, thiserror::Error)]
enum ExecError {
    #[error("internal applet: expects the parent's process ID, a program and arguments")]
    Usage,
    #[error("setting the parent-death signal (parent process {parent})")]
    ParentDeathSignal { parent: u32, source: Errno },
    #[error("parent process {parent} has ended")]
    Orphaned { parent: u32 },
    #[error("executing {program:?}")]
    Exec {
        program: OsString,
        source: io::Error,
    },
}

/// Executes the program in `args` (the parent's process ID, a program, its arguments) so that
/// it is killed when the parent ends. Only the child itself can request that, and between
/// fork and exec it would need `unsafe`; therefore it is a separate applet.
pub fn exec_with_pdeathsig(args: Vec<OsString>, process: &mut Process) -> ExitCode {
    let Err(error) = exec(args);
    process.eprint_line(&format!("{APPLET}: {}", error_chain(&error)));
    NOT_EXECUTED.into()
}

fn exec(args: Vec<OsString>) -> Result<Infallible, ExecError> {
    let mut args = args.into_iter();
    let parent = args.next().and_then(|id| id.to_str()?.parse().ok());
    let (Some(parent), Some(program)) = (parent, args.next()) else {
        return Err(ExecError::Usage);
    };
    // SIGKILL cannot be ignored, and leaves no partial state: each table is one transaction.
    // The plugin itself must not set this signal: the kernel sends it when the thread that
    // started the plugin ends, and container runtimes use short-lived threads.
    set_pdeathsig(Signal::SIGKILL)
        .map_err(|source| ExecError::ParentDeathSignal { parent, source })?;
    // The signal is not sent for a parent that ended before.
    if parent_id() != parent {
        return Err(ExecError::Orphaned { parent });
    }
    let source = Command::new(&program).args(args).current_dir("/").exec();
    Err(ExecError::Exec { program, source })
}
