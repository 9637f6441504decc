//! The environment and standard streams of a process as a value, so that tests can run whole
//! applets, and the exit on a panic. Applets use no `std::env` and no `std::io::stdin`.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat, makedev};

/// The exit code for invalid arguments or settings.
pub const USAGE_ERROR: u8 = 2;

/// Inputs and outputs of one applet run.
pub struct Process<'a> {
    pub vars: Vars,
    pub stdin: &'a mut dyn Read,
    /// Unbuffered: a write that returns has left the process.
    pub stdout: &'a mut dyn Write,
    pub stderr: &'a mut dyn Write,
}

impl Process<'_> {
    /// Writes all of `text` to standard output.
    pub fn print(&mut self, text: &str) -> io::Result<()> {
        self.stdout.write_all(text.as_bytes())?;
        self.stdout.flush()
    }

    pub fn eprint_line(&mut self, line: &str) {
        eprint_line(self.stderr, line);
    }
}

/// Writes one line, with a single write. Best effort: standard error may be closed, and the
/// exit code reports the failure anyway.
pub fn eprint_line(stderr: &mut dyn Write, line: &str) {
    let _ = stderr.write_all(format!("{line}\n").as_bytes());
}

/// Unbuffered standard output. Unlike `std::io::Stdout`, it can report that the descriptor
/// was closed.
#[derive(Debug)]
pub struct Stdout {
    stream: io::Stdout,
    policy: StdoutPolicy,
}

/// What happens to output if the process was started with standard output closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StdoutPolicy {
    /// It is discarded.
    BestEffort,
    /// Writing it is an error.
    Required,
}

impl Stdout {
    pub fn new(policy: StdoutPolicy) -> Self {
        Self {
            stream: io::stdout(),
            policy,
        }
    }

    /// Whether the process was started with standard output closed. Rust's runtime then opens
    /// /dev/null in its place, for reading and writing; a caller that discards output opens
    /// it for writing only.
    fn was_closed(&self) -> io::Result<bool> {
        let file = fstat(&self.stream)?;
        let is_null = SFlag::from_bits_truncate(file.st_mode).contains(SFlag::S_IFCHR)
            && file.st_rdev == makedev(1, 3);
        let access = OFlag::from_bits_truncate(fcntl(&self.stream, FcntlArg::F_GETFL)?);
        Ok(is_null && access & OFlag::O_ACCMODE == OFlag::O_RDWR)
    }
}

impl Write for Stdout {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.policy == StdoutPolicy::Required && self.was_closed()? {
            return Err(io::Error::other(
                "closed, or /dev/null opened for reading and writing",
            ));
        }
        Ok(nix::unistd::write(&self.stream, bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes a panic on any thread exit the process with code 1, after `report` got the source
/// location. The panic message is not reported: it may quote a secret.
pub fn exit_on_panic(report: fn(place: &str)) {
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string);
        report(&place.unwrap_or_default());
        #[expect(clippy::exit, reason = "no thread may continue after a panic")]
        std::process::exit(1);
    }));
}

/// Environment variables. An empty variable counts as unset, as in libcni, and the last of
/// repeated names counts.
#[derive(Debug, Default, Clone)]
pub struct Vars(Vec<(OsString, OsString)>);

impl Vars {
    /// The value of `name`, unless it is unset or empty.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        let mut latest_first = self.0.iter().rev();
        latest_first
            .find(|(known, _)| known == name)
            .map(|(_, value)| value.as_os_str())
            .filter(|value| !value.is_empty())
    }
}

impl<K: Into<OsString>, V: Into<OsString>> FromIterator<(K, V)> for Vars {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(pairs: I) -> Self {
        Self(
            pairs
                .into_iter()
                .map(|(name, value)| (name.into(), value.into()))
                .collect(),
        )
    }
}

#[cfg(test)]
pub mod tests {
    use std::io;
    use std::process::{Command, Output};

    /// The variable that selects the case in the child process.
    const CASE: &str = "MSM_TEST_CASE";

    /// Runs the calling test again in a child process, where `body` is executed with `case`,
    /// and returns how the child ended. For code that ends or reconfigures its process.
    /// `test` is the test's path within the crate.
    pub fn in_own_process(test: &str, case: &str, body: fn(&str)) -> Output {
        if let Ok(case) = std::env::var(CASE) {
            body(&case);
            panic!("the test's body returned");
        }
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=2"])
            .env(CASE, case)
            .output()
            .unwrap()
    }

    #[test]
    fn panic_on_any_thread_exits_with_1_and_reports_only_the_place() {
        for case in ["main thread", "other thread"] {
            let output = in_own_process(
                "process::tests::panic_on_any_thread_exits_with_1_and_reports_only_the_place",
                case,
                |case| {
                    super::exit_on_panic(|place| {
                        super::eprint_line(&mut io::stderr(), &format!("<{place}>"));
                    });
                    let work = || panic!("sesame");
                    match case {
                        "main thread" => work(),
                        _ => std::thread::spawn(work).join().unwrap(),
                    }
                },
            );
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{case}: {text}");
            assert!(text.starts_with("<src/process.rs:"), "{case}: {text}");
            assert!(!text.contains("sesame"), "{case}: {text}");
        }
    }
}
