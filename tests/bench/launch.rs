//! One run of something, as a container runtime sees it: start, standard input written,
//! standard output read to its end, waited for. Tells what it cost and whether it was right.
//!
//! `Command` takes `posix_spawn` here, because nothing is asked of it that would need `fork`:
//! the child borrows this process's memory until it is another program, so that the size of
//! the harness does not count.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// When a run counts as hanging, in milliseconds.
const DEADLINE: u16 = 40_000;

/// Something to be run, once.
pub struct Launch {
    pub command: Command,
    pub input: Vec<u8>,
    pub answer: Answer,
}

/// What has to be on standard output.
#[derive(Debug, Clone)]
pub enum Answer {
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
    /// User and system time of the processes that ended.
    pub cpu: Duration,
    /// Page faults that waited for a disk.
    pub major_faults: u64,
}

impl Launch {
    /// Without input and without an answer.
    pub const fn new(command: Command) -> Self {
        Self {
            command,
            input: Vec::new(),
            answer: Answer::Anything,
        }
    }

    /// Where its standard error goes; before the clock starts.
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
        // Whoever ends without reading breaks the pipe; the exit code tells more.
        let _ = child
            .stdin
            .take()
            .map(|mut stdin| stdin.write_all(&self.input));
        let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
        Ok((child, stdout))
    }

    /// From start to end: what it wrote, and its exit code.
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

    fn judge(&self, written: &[u8], code: Option<i32>, log: &File) -> Result<(), String> {
        let json = || serde_json::from_slice::<serde_json::Value>(written).unwrap_or_default();
        let is_right = code == Some(0)
            && match &self.answer {
                Answer::Anything => true,
                Answer::Nothing => written.is_empty(),
                Answer::Json(expected) => json() == *expected,
                Answer::Key(key) => json().get(key).is_some(),
            };
        if is_right {
            return Ok(());
        }
        let mut complaint = String::new();
        let _ = io::Seek::rewind(&mut &*log).and_then(|()| (&*log).read_to_string(&mut complaint));
        let said = [String::from_utf8_lossy(written).into_owned(), complaint].concat();
        let said = said.split_whitespace().collect::<Vec<_>>().join(" ");
        let end = match code {
            Some(0) => "did not give the answer that is expected".to_owned(),
            Some(code) => format!("ended with exit code {code}"),
            None => "was killed by a signal".to_owned(),
        };
        let program = self.command.get_program().display();
        Err(format!("{program} {end}: {said}"))
    }
}

/// Runs one after the other, and tells what all of it cost. Must not be called while another
/// thread waits for processes: their time would be counted too.
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
            format!("{program} cannot be run: {error}")
        });
        ends.push(end?);
    }
    let wall = start.elapsed();
    let after = usage();
    for (launch, (written, code)) in launches.iter().zip(&ends) {
        launch.judge(written, *code, log)?;
    }
    Ok(Cost {
        wall,
        cpu: after.cpu.saturating_sub(before.cpu),
        major_faults: after.major_faults - before.major_faults,
    })
}

/// Of all processes that were waited for.
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
            return Err(io::Error::other("it hangs, and was killed"));
        }
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

/// What runs at the same time came to.
#[derive(Debug, Default)]
pub struct Together {
    /// Until the last one was done.
    pub all: Duration,
    /// The longest that one took.
    pub slowest: Duration,
    pub failures: Vec<String>,
}

/// Starts all of them without waiting for any.
pub fn run_together(launches: &mut [Launch], log: &File) -> Result<Together, String> {
    for launch in &mut *launches {
        launch.prepare(log).map_err(|error| error.to_string())?;
    }
    let mut result = Together::default();
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
        // From the last to the first: what is taken out does not move those still to come.
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
                .extend(launches[index].judge(&written, code, log).err());
        }
    }
    result.all = start.elapsed();
    Ok(result)
}
