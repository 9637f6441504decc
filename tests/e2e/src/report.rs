//! The report: a table with a row for each step, its expected and its actual outcome.

use std::fmt::Display;
use std::process::ExitCode;

/// Prints each step when it is done, and counts the outcomes.
#[derive(Default)]
pub struct Report {
    passed: u32,
    failed: u32,
}

impl Report {
    /// Prints the heading of the next steps.
    pub fn section(&self, title: &str) {
        println!("\n== {title}");
        if self.passed + self.failed == 0 {
            row("", "step", "expected", "actual");
        }
    }

    /// Passes if `actual` is exactly `expected`.
    pub fn check(&mut self, step: &str, expected: impl Display, actual: Result<String, String>) {
        let expected = expected.to_string();
        let passed = actual.as_ref() == Ok(&expected);
        self.step(step, &expected, &text(actual), passed);
    }

    /// Passes if `actual` is an error that contains all of `expected`, in this order.
    pub fn check_error(&mut self, step: &str, expected: &[&str], actual: Result<String, String>) {
        let contains_all = |error: &String| {
            let rest = expected.iter().try_fold(error.as_str(), |rest, words| {
                rest.split_once(words).map(|(_, rest)| rest)
            });
            rest.is_some()
        };
        let passed = actual.as_ref().is_err_and(contains_all);
        let expected = format!("error: … {} …", expected.join(" … "));
        self.step(step, &expected, &text(actual), passed);
    }

    fn step(&mut self, step: &str, expected: &str, actual: &str, passed: bool) {
        let outcome = if passed {
            self.passed += 1;
            "ok"
        } else {
            self.failed += 1;
            "FAILED"
        };
        row(outcome, step, expected, actual);
    }

    pub const fn has_failed(&self) -> bool {
        self.failed > 0
    }

    /// Prints the numbers of passed and failed steps.
    pub fn end(&self) -> ExitCode {
        println!("\n{} passed, {} failed", self.passed, self.failed);
        if self.failed == 0 && self.passed > 0 {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

fn row(outcome: &str, step: &str, expected: &str, actual: &str) {
    println!("{outcome:<6} {step:<54} {expected:<36} {actual}");
}

fn text(actual: Result<String, String>) -> String {
    actual.unwrap_or_else(|error| format!("error: {error}"))
}
