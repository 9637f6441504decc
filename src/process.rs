//! What a process is given: environment and the three streams, as a value, and its end
//! at a panic. Applets get it injected, so that tests can run them whole; nothing else
//! reads `std::env` or `std::io::stdin`.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read, Write};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::stat::{SFlag, fstat, makedev};

/// The surroundings of one applet run.
pub struct Process<'a> {
    /// The environment.
    pub vars: Vars,
    /// Standard input.
    pub stdin: &'a mut dyn Read,
    /// Standard output, unbuffered: what was written has left the process.
    pub stdout: &'a mut dyn Write,
    /// Standard error.
    pub stderr: &'a mut dyn Write,
}

/// Standard output without a buffer, and without the pretence of `std::io::Stdout` that
/// what was written to a closed descriptor has been written.
#[derive(Debug)]
pub struct Stdout {
    stream: io::Stdout,
    reader: Reader,
}

/// Whether anybody has to read what is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// To discard it is the caller's right.
    Optional,
    /// Without one, nothing has been written.
    Needed,
}

impl Stdout {
    /// The process's own.
    pub fn new(reader: Reader) -> Self {
        Self {
            stream: io::stdout(),
            reader,
        }
    }

    /// Whether the process came to life without it. Rust's start-up opens the null device
    /// in place of a closed descriptor, so that no file gets its number, and opens it for
    /// reading and writing; whoever discards output on purpose opens it for writing.
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
        if self.reader == Reader::Needed && self.was_closed()? {
            return Err(io::Error::other(
                "it is closed, or /dev/null opened for reading too, which looks the same",
            ));
        }
        Ok(nix::unistd::write(&self.stream, bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Makes every panic, on whichever thread, the end of the process with 1, after `tell` was
/// given its place. The message stays untold: it may quote what is secret.
pub fn end_at_panics(tell: fn(place: &str)) {
    std::panic::set_hook(Box::new(move |panic| {
        let place = panic.location().map(ToString::to_string);
        tell(&place.unwrap_or_default());
        #[expect(clippy::exit, reason = "nothing may run on after a panic")]
        std::process::exit(1);
    }));
}

/// Environment variables; an empty one counts as unset, as in every CNI implementation, and
/// of two of the same name the last one counts.
#[derive(Debug, Default, Clone)]
pub struct Vars(Vec<(OsString, OsString)>);

impl Vars {
    /// The value of `name`, unless unset or empty.
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
    use std::io::{self, Write};
    use std::process::{Command, Output};

    /// Names the case to a test that runs itself once more.
    const CASE: &str = "MSM_TEST_CASE";

    /// Runs `inside` in a process of its own, for what ends one or holds for all of it, and
    /// returns how it ended: the calling test, named `test` with its modules, is run once
    /// more for that.
    pub fn in_own_process(test: &str, case: &str, inside: fn(&str)) -> Output {
        if let Ok(case) = std::env::var(CASE) {
            inside(&case);
            panic!("came to its end");
        }
        Command::new(std::env::current_exe().unwrap())
            .args(["--exact", test, "--nocapture", "--test-threads=2"])
            .env(CASE, case)
            .output()
            .unwrap()
    }

    #[test]
    fn a_panic_on_any_thread_ends_the_process_and_tells_no_more_than_its_place() {
        for case in ["here", "elsewhere"] {
            let output = in_own_process(
                "process::tests::a_panic_on_any_thread_ends_the_process_and_tells_no_more_than_its_place",
                case,
                |case| {
                    super::end_at_panics(|place| drop(writeln!(io::stderr(), "<{place}>")));
                    let work = || panic!("sesame");
                    match case {
                        "here" => work(),
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
