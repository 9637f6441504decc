//! Tools of the host, run to their end: in a clean environment, both families' at the same
//! time, for a bounded time and with bounded output, and none outlives us. What they are
//! told and what their answer means is `iptables`'s.

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::{CommandExt, parent_id};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, ExitCode, ExitStatus};
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

/// What a child of ours is called until it becomes a tool. Nobody types it.
pub const APPLET: &str = "msm-tool";

/// A thousand times what they need; twice over where a writer hangs and a reader is asked
/// about it. A lock that they wait for takes 5 seconds of it.
const TIME_LIMIT: Duration = Duration::from_secs(10);
/// More than the rules of a node take, and of a pod by far.
const OUTPUT_LIMIT: usize = 16 << 20;
/// As much of a tool's complaint as fits an error message.
const COMPLAINT_CHARACTERS: usize = 1000;
/// A tool that has closed its output ends within microseconds.
const PAUSE: Duration = Duration::from_micros(100);
/// As a shell says that a program could not be started.
const NOT_STARTED: u8 = 127;

/// Why a tool did not do what it was told.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("starting {program:?} by way of /proc/self/exe")]
    Start { program: PathBuf, source: io::Error },
    #[error("talking to {program:?}")]
    Talk { program: PathBuf, source: io::Error },
    #[error("{program:?} ended with {status}{}", said(.complaint))]
    Failed {
        program: PathBuf,
        status: ExitStatus,
        complaint: String,
    },
    #[error("{program:?} was killed: it had not ended after {} seconds{}", TIME_LIMIT.as_secs(), said(.complaint))]
    TooSlow { program: PathBuf, complaint: String },
    #[error("{program:?} printed more than {OUTPUT_LIMIT} bytes")]
    TooMuch { program: PathBuf },
}

/// A complaint, behind what it is about; some tools have none.
fn said(complaint: &str) -> String {
    match complaint {
        "" => String::new(),
        complaint => format!(": {complaint}"),
    }
}

/// A tool and what it is told.
pub struct Call {
    pub program: PathBuf,
    pub args: &'static [&'static str],
    /// What it reads on its standard input.
    pub input: String,
}

/// Runs both at the same time, each to its end, and returns what they printed.
pub fn run(calls: [Option<Call>; 2]) -> Result<[Vec<u8>; 2], Error> {
    let deadline = Instant::now() + TIME_LIMIT;
    let mut running = calls.map(|call| call.map(Running::start).transpose());
    let attended = attend(running.iter_mut().flatten().flatten(), deadline);
    let [first, second] = running.map(|tool| match (tool?, &attended) {
        (None, _) => Ok(Vec::new()),
        (Some(tool), Ok(())) => tool.end(deadline),
        (Some(tool), Err(errno)) => Err(tool.trouble((*errno).into())),
    });
    Ok([first?, second?])
}

/// Feeds and reads until all have closed their output, or the time is up.
fn attend<'a>(tools: impl Iterator<Item = &'a mut Running>, deadline: Instant) -> nix::Result<()> {
    let mut tools: Vec<_> = tools.collect();
    loop {
        for tool in &mut tools {
            tool.attend();
        }
        let mut waited_for: Vec<_> = tools.iter().flat_map(|tool| tool.waits_for()).collect();
        let left = deadline.saturating_duration_since(Instant::now());
        if waited_for.is_empty() || left.is_zero() {
            return Ok(());
        }
        let left = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut waited_for, left) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// A tool at work; killed when it is let go of before its end.
struct Running {
    program: PathBuf,
    child: Child,
    /// What is still to be written.
    input: Vec<u8>,
    /// Until all is written.
    stdin: Option<ChildStdin>,
    stdout: Output<ChildStdout>,
    stderr: Output<ChildStderr>,
    /// Why it was not told everything.
    unfed: Option<io::Error>,
}

impl Running {
    /// To be called on the main thread: when the thread that started a tool ends, the tool
    /// is killed.
    fn start(call: Call) -> Result<Self, Error> {
        let program = call.program;
        let mut command = bound(&program);
        command
            .args(call.args)
            .env_clear()
            // So that what it starts can be ended with it.
            .process_group(0)
            // Legacy tools serialise over all namespaces of the host by one lock file. Ours
            // lock something that nobody else has: the pipe that they read.
            .env("XTABLES_LOCKFILE", "/proc/self/fd/0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(source) => return Err(Error::Start { program, source }),
        };
        let running = Self {
            program,
            input: call.input.into_bytes(),
            stdin: child.stdin.take(),
            stdout: Output::of(child.stdout.take()),
            stderr: Output::of(child.stderr.take()),
            child,
            unfed: None,
        };
        // Ends of pipes that are ours alone: the tool's own keep blocking.
        for stream in running.waits_for() {
            fcntl(stream.as_fd(), FcntlArg::F_SETFL(OFlag::O_NONBLOCK))
                .map_err(|errno| running.trouble(errno.into()))?;
        }
        Ok(running)
    }

    /// Writes and reads as much as can be now.
    fn attend(&mut self) {
        if let Err(error) = self.feed() {
            self.stdin = None;
            self.unfed = Some(error);
        }
        self.stdout.read();
        self.stderr.read();
    }

    fn feed(&mut self) -> io::Result<()> {
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

    fn waits_for(&self) -> impl Iterator<Item = PollFd<'_>> {
        fn wait(stream: Option<&impl AsFd>, flags: PollFlags) -> Option<PollFd<'_>> {
            stream.map(|stream| PollFd::new(stream.as_fd(), flags))
        }
        [
            wait(self.stdin.as_ref(), PollFlags::POLLOUT),
            wait(self.stdout.pipe.as_ref(), PollFlags::POLLIN),
            wait(self.stderr.pipe.as_ref(), PollFlags::POLLIN),
        ]
        .into_iter()
        .flatten()
    }

    /// What it printed.
    fn end(mut self, deadline: Instant) -> Result<Vec<u8>, Error> {
        let status = loop {
            match self.child.try_wait() {
                Ok(Some(status)) => break status,
                Ok(None) if Instant::now() < deadline => thread::sleep(PAUSE),
                Ok(None) => {
                    return Err(Error::TooSlow {
                        program: self.program.clone(),
                        complaint: self.complaint(),
                    });
                }
                Err(source) => return Err(self.trouble(source)),
            }
        };
        if self.stdout.bytes.len().max(self.stderr.bytes.len()) > OUTPUT_LIMIT {
            return Err(Error::TooMuch {
                program: self.program.clone(),
            });
        }
        if !status.success() {
            return Err(Error::Failed {
                program: self.program.clone(),
                status,
                complaint: self.complaint(),
            });
        }
        match self.unfed.take() {
            Some(error) => Err(self.trouble(error)),
            None => Ok(std::mem::take(&mut self.stdout.bytes)),
        }
    }

    fn trouble(&self, source: io::Error) -> Error {
        Error::Talk {
            program: self.program.clone(),
            source,
        }
    }

    fn complaint(&self) -> String {
        let said = [self.stderr.bytes.as_slice(), &self.stdout.bytes].concat();
        let said = String::from_utf8_lossy(&said);
        let words: Vec<_> = said.split_whitespace().collect();
        let text = words.join(" ");
        text.chars().take(COMPLAINT_CHARACTERS).collect()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Until it was waited for, the group is its own. The killed are not waited for: what
        // the kernel holds up would hold us up as well.
        if let (Ok(None), Ok(group)) = (self.child.try_wait(), i32::try_from(self.child.id())) {
            let _ = killpg(Pid::from_raw(group), Signal::SIGKILL);
        }
    }
}

/// What a tool prints on one of its streams.
struct Output<R> {
    bytes: Vec<u8>,
    /// Until its end, or until it is more than anybody wants: closed then, so that writing
    /// on ends the tool.
    pipe: Option<R>,
}

impl<R: Read> Output<R> {
    const fn of(pipe: Option<R>) -> Self {
        Self {
            bytes: Vec::new(),
            pipe,
        }
    }

    fn read(&mut self) {
        let Some(pipe) = &mut self.pipe else { return };
        let left = (OUTPUT_LIMIT + 1).saturating_sub(self.bytes.len());
        let left = u64::try_from(left).unwrap_or(u64::MAX);
        match pipe.take(left).read_to_end(&mut self.bytes) {
            Err(error) if is_temporary(&error) => {}
            _ => self.pipe = None,
        }
    }
}

/// The tool, as what our own executable becomes.
fn bound(program: &Path) -> Command {
    if cfg!(test) {
        // The executable is the tests' harness, which becomes nothing else.
        return Command::new(program);
    }
    let mut command = Command::new("/proc/self/exe");
    command.arg0(APPLET).arg(id().to_string()).arg(program);
    command
}

fn is_temporary(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}

/// Why a child did not become a tool.
#[derive(Debug, thiserror::Error)]
enum NoTool {
    #[error("only this program starts this, with its process ID, a program and arguments")]
    Usage,
    #[error("asking the kernel for an end together with process {parent}")]
    Bind { parent: u32, source: Errno },
    #[error("process {parent}, which wanted this done, has ended")]
    Orphaned { parent: u32 },
    #[error("starting {program:?}")]
    Start {
        program: OsString,
        source: io::Error,
    },
}

/// Turns this process, a child of ours, into the tool that `args` name: the parent's
/// process ID, a program, its arguments. A step of its own because only the child can ask
/// for its end, and between fork and exec that would need `unsafe`.
pub fn turn_into(args: Vec<OsString>, process: &mut Process) -> ExitCode {
    let Err(error) = replace(args);
    // Nobody is left to tell it to when this fails; the exit code remains.
    let _ = writeln!(process.stderr, "{APPLET}: {}", error_chain(&error));
    NOT_STARTED.into()
}

fn replace(args: Vec<OsString>) -> Result<Infallible, NoTool> {
    let mut args = args.into_iter();
    let parent = args.next().and_then(|id| id.to_str()?.parse().ok());
    let (Some(parent), Some(program)) = (parent, args.next()) else {
        return Err(NoTool::Usage);
    };
    // No tool can put this signal off, and none leaves half of its work behind: each table
    // is one transaction. Only children of ours may ask for this. The plugin itself must
    // not: container runtimes start it from whichever of their threads is at hand, and the
    // kernel counts the end of that thread as the parent's.
    set_pdeathsig(Signal::SIGKILL).map_err(|source| NoTool::Bind { parent, source })?;
    // It is too late to be told of an end that came before.
    if parent_id() != parent {
        return Err(NoTool::Orphaned { parent });
    }
    let source = Command::new(&program).args(args).current_dir("/").exec();
    Err(NoTool::Start { program, source })
}
