//! The table: each step, what was expected, what was seen, and whether that is the same.

use std::fmt::Display;
use std::process::ExitCode;

/// Counts steps and prints each when it is done.
#[derive(Default)]
pub struct Report {
    passed: u32,
    failed: u32,
}

impl Report {
    /// Begins a chapter.
    pub fn chapter(&self, title: &str) {
        println!("\n== {title}");
        if self.passed + self.failed == 0 {
            row("", "step", "expected", "seen");
        }
    }

    /// Green when `seen` is `expected`, word by word.
    pub fn is(&mut self, step: &str, expected: impl Display, seen: Result<String, String>) {
        let expected = expected.to_string();
        let is_green = seen.as_ref() == Ok(&expected);
        self.step(step, &expected, &told(seen), is_green);
    }

    /// Green when it is an error that says all of `expected`, in that order.
    pub fn fails(&mut self, step: &str, expected: &[&str], seen: Result<String, String>) {
        let says = |error: &String| {
            let rest = expected.iter().try_fold(error.as_str(), |rest, words| {
                rest.split_once(words).map(|(_, rest)| rest)
            });
            rest.is_some()
        };
        let is_green = seen.as_ref().is_err_and(says);
        let expected = format!("error: … {} …", expected.join(" … "));
        self.step(step, &expected, &told(seen), is_green);
    }

    fn step(&mut self, step: &str, expected: &str, seen: &str, is_green: bool) {
        let verdict = if is_green {
            self.passed += 1;
            "green"
        } else {
            self.failed += 1;
            "RED"
        };
        row(verdict, step, expected, seen);
    }

    pub const fn has_failed(&self) -> bool {
        self.failed > 0
    }

    /// The last line, alone.
    pub fn end(&self) -> ExitCode {
        println!("\n{} passed, {} failed", self.passed, self.failed);
        if self.failed == 0 && self.passed > 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

fn row(verdict: &str, step: &str, expected: &str, seen: &str) {
    println!("{verdict:<6} {step:<54} {expected:<36} {seen}");
}

fn told(seen: Result<String, String>) -> String {
    seen.unwrap_or_else(|error| format!("error: {error}"))
}
