//! Runs a program as a container runtime does (start, write standard input, read standard
//! output, wait), measures the cost and checks the output.
//!
//! `Command` uses `posix_spawn`, because nothing needs `fork`: the child shares this process's
//! memory until it executes the program, so the size of the benchmark does not matter.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// A run without output for so long is killed, in milliseconds.
const DEADLINE: u16 = 60_000;

/// One run of a program.
pub struct Launch {
    pub command: Command,
    pub input: Vec<u8>,
    pub expected: Expected,
}

/// The expected standard output.
#[derive(Debug, Clone)]
pub enum Expected {
    Anything,
    Nothing,
    /// This JSON.
    Json(serde_json::Value),
    /// JSON with this key.
    Key(&'static str),
}

/// What a run cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cost {
    pub wall: Duration,
    /// User and system time of the processes.
    pub cpu: Duration,
    /// Page faults that waited for a disk.
    pub major_faults: u64,
}

impl Launch {
    /// Without input, and with any output.
    pub const fn new(command: Command) -> Self {
        Self {
            command,
            input: Vec::new(),
            expected: Expected::Anything,
        }
    }

    /// Sets up the streams before the clock starts.
    fn prepare(&mut self, log: &File) -> io::Result<()> {
        log.set_len(0)?;
        self.command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log.try_clone()?);
        Ok(())
    }

    fn start(&mut self) -> io::Result<(Child, ChildStdout)> {
        let mut child = self.command.spawn()?;
        // Fails if the program exits without reading; its exit code is checked instead.
        let _ = child
            .stdin
            .take()
            .map(|mut stdin| stdin.write_all(&self.input));
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok((child, stdout))
    }

    /// Runs the program. Returns its standard output and exit code.
    fn complete(&mut self) -> io::Result<(Vec<u8>, Option<i32>)> {
        let (mut child, mut stdout) = self.start()?;
        let mut written = Vec::new();
        if let Err(error) = read_to_end(&mut stdout, &mut written) {
            let _ = child.kill();
            let _ = child.wait();
            return Err(error);
        }
        Ok((written, child.wait()?.code()))
    }

    fn check(&self, written: &[u8], code: Option<i32>, log: &File) -> Result<(), String> {
        let json = || serde_json::from_slice::<serde_json::Value>(written).unwrap_or_default();
        let is_right = code == Some(0)
            && match &self.expected {
                Expected::Anything => true,
                Expected::Nothing => written.is_empty(),
                Expected::Json(expected) => json() == *expected,
                Expected::Key(key) => json().get(key).is_some(),
            };
        if is_right {
            return Ok(());
        }
        let mut stderr = String::new();
        let _ = io::Seek::rewind(&mut &*log).and_then(|()| (&*log).read_to_string(&mut stderr));
        let output = [String::from_utf8_lossy(written).into_owned(), stderr].concat();
        let output = output.split_whitespace().collect::<Vec<_>>().join(" ");
        let end = match code {
            Some(0) => "did not print what is expected".to_owned(),
            Some(code) => format!("exited with code {code}"),
            None => "was killed by a signal".to_owned(),
        };
        let program = self.command.get_program().display();
        Err(format!("{program} {end}: {output}"))
    }
}

/// Runs programs one after the other and returns the sum of their costs. No other thread may
/// wait for child processes meanwhile: their time would be counted too.
pub fn run(launches: &mut [Launch], log: &File) -> Result<Cost, String> {
    for launch in &mut *launches {
        launch.prepare(log).map_err(|error| error.to_string())?;
    }
    let before = usage();
    let start = Instant::now();
    let mut ends = Vec::with_capacity(launches.len());
    for launch in &mut *launches {
        let end = launch.complete().map_err(|error| {
            let program = launch.command.get_program().display();
            format!("running {program}: {error}")
        });
        ends.push(end?);
    }
    let wall = start.elapsed();
    let after = usage();
    for (launch, (written, code)) in launches.iter().zip(&ends) {
        launch.check(written, *code, log)?;
    }
    Ok(Cost {
        wall,
        cpu: after.cpu.saturating_sub(before.cpu),
        major_faults: after.major_faults - before.major_faults,
    })
}

/// The cost of all child processes that were waited for.
fn usage() -> Cost {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).expect("getrusage of children");
    let cpu = usage.user_time() + usage.system_time();
    Cost {
        wall: Duration::ZERO,
        cpu: Duration::from_micros(cpu.num_microseconds().unsigned_abs()),
        major_faults: usage.major_page_faults().unsigned_abs(),
    }
}

fn read_to_end(stream: &mut ChildStdout, bytes: &mut Vec<u8>) -> io::Result<()> {
    let mut buffer = [0; 16 << 10];
    loop {
        let mut waiting = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
        if poll(&mut waiting, PollTimeout::from(DEADLINE))? == 0 {
            return Err(io::Error::other("killed: no output for a minute"));
        }
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// The outcome of parallel runs.
#[derive(Debug, Default)]
pub struct Parallel {
    /// Until the last run ended.
    pub all: Duration,
    /// The time of the slowest run.
    pub slowest: Duration,
    pub failures: Vec<String>,
}

/// Starts all programs before it waits for any.
pub fn run_parallel(launches: &mut [Launch], log: &File) -> Result<Parallel, String> {
    for launch in &mut *launches {
        launch.prepare(log).map_err(|error| error.to_string())?;
    }
    let mut result = Parallel::default();
    let start = Instant::now();
    let mut running = Vec::with_capacity(launches.len());
    for (index, launch) in launches.iter_mut().enumerate() {
        let begun = Instant::now();
        match launch.start() {
            Ok((child, stdout)) => running.push((index, begun, child, stdout, Vec::new())),
            Err(error) => result.failures.push(format!("not started: {error}")),
        }
    }
    let mut buffer = [0; 16 << 10];
    while !running.is_empty() {
        let mut waiting: Vec<_> = running
            .iter()
            .map(|(_, _, _, stdout, _)| PollFd::new(stdout.as_fd(), PollFlags::POLLIN))
            .collect();
        let count = poll(&mut waiting, PollTimeout::from(DEADLINE)).map_err(|it| it.to_string())?;
        let is_ready: Vec<_> = waiting.iter().map(|it| it.any() == Some(true)).collect();
        // Backwards: swap_remove moves only elements that were visited.
        for at in (0..running.len()).rev() {
            let (_, _, child, stdout, written) = &mut running[at];
            if count == 0 {
                let _ = child.kill();
            } else if !is_ready[at] {
                continue;
            }
            let got = stdout.read(&mut buffer).map_err(|it| it.to_string())?;
            if got > 0 {
                written.extend_from_slice(&buffer[..got]);
                continue;
            }
            let (index, begun, mut child, _, written) = running.swap_remove(at);
            let code = child.wait().map_err(|it| it.to_string())?.code();
            result.slowest = result.slowest.max(begun.elapsed());
            result
                .failures
                .extend(launches[index].check(&written, code, log).err());
        }
    }
    result.all = start.elapsed();
    Ok(result)
}
