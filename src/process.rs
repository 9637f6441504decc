//! What a process is given: environment and the three streams, as a value.
//! Applets get it injected, so that tests can run them whole; nothing else reads
//! `std::env` or `std::io::stdin`.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::io::{Read, Write};

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

/// Environment variables; an empty one counts as unset, as in every CNI implementation.
#[derive(Debug, Default, Clone)]
pub struct Vars(HashMap<OsString, OsString>);

impl Vars {
    /// The value of `name`, unless unset or empty.
    pub fn get(&self, name: &str) -> Option<&OsStr> {
        self.0
            .get(OsStr::new(name))
            .map(OsString::as_os_str)
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

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
