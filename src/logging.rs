//! Sets up the logger of all applets, on standard error: standard output belongs to the CNI
//! protocol.

use std::borrow::Cow;
use std::io::{self, Write as _};

use env_logger::fmt::Formatter;
pub use log::LevelFilter;
use log::Record;
use serde_json::json;

/// The format of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `level: text`.
    Text,
    /// `{"level": …, "message": …}`.
    Json,
}

impl Format {
    pub fn from_name(name: &str) -> Result<Self, String> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("expected text or json".into()),
        }
    }

    fn write(self, line: &mut Formatter, record: &Record) -> io::Result<()> {
        let level = record.level().as_str().to_ascii_lowercase();
        let message = record.args().to_string();
        match self {
            Self::Text => writeln!(line, "{level}: {}", one_line(&message)),
            Self::Json => writeln!(line, "{}", json!({"level": level, "message": message})),
        }
    }
}

/// Replaces control characters: a file name with a newline must not forge a log line.
fn one_line(message: &str) -> Cow<'_, str> {
    let is_unsafe = |letter: char| letter.is_control() && letter != '\t';
    if message.contains(is_unsafe) {
        message.replace(is_unsafe, "\u{fffd}").into()
    } else {
        message.into()
    }
}

/// Logs this crate's records from `level` on, as text. A later call changes only the level.
pub fn start(level: LevelFilter) {
    start_as(level, Format::Text);
}

/// Like `start`, with a choice of format.
pub fn start_as(level: LevelFilter, format: Format) {
    let started = env_logger::Builder::new()
        .filter_module(env!("CARGO_CRATE_NAME"), level)
        .format(move |line, record| format.write(line, record))
        .try_init();
    if started.is_err() {
        log::set_max_level(level);
    }
}

/// Parses a level. `warning`, `fatal` and `panic` are levels of logrus, the logger of the
/// earlier implementation.
pub fn level(name: &str) -> Result<LevelFilter, String> {
    match name.to_ascii_lowercase().as_str() {
        "trace" => Ok(LevelFilter::Trace),
        "debug" => Ok(LevelFilter::Debug),
        "info" => Ok(LevelFilter::Info),
        "warn" | "warning" => Ok(LevelFilter::Warn),
        "error" | "fatal" | "panic" => Ok(LevelFilter::Error),
        _ => Err("expected trace, debug, info, warn or error".into()),
    }
}
