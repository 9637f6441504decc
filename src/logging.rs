//! Logs on standard error, in one place for all applets. Standard output belongs to the
//! CNI protocol.

use std::borrow::Cow;
use std::io::{self, Write as _};

use env_logger::fmt::Formatter;
pub use log::LevelFilter;
use log::Record;
use serde_json::json;

/// How a record is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// `level: text`.
    Text,
    /// One JSON object a line.
    Json,
}

impl Format {
    /// The format of that name.
    pub fn from_name(name: &str) -> Result<Self, String> {
        match name {
            "text" => Ok(Self::Text),
            "json" => Ok(Self::Json),
            _ => Err("it is neither text nor json".into()),
        }
    }

    fn write(self, line: &mut Formatter, record: &Record) -> io::Result<()> {
        let level = record.level().as_str().to_ascii_lowercase();
        match self {
            Self::Text => {
                let message = record.args().to_string();
                writeln!(line, "{level}: {}", one_line(&message))
            }
            Self::Json => {
                let message = record.args().to_string();
                writeln!(line, "{}", json!({"level": level, "message": message}))
            }
        }
    }
}

/// Control characters, as names of files may have them, must not begin a line of their own.
fn one_line(message: &str) -> Cow<'_, str> {
    if message.contains(breaks_lines) {
        message.replace(breaks_lines, "\u{fffd}").into()
    } else {
        message.into()
    }
}

fn breaks_lines(character: char) -> bool {
    character.is_control() && character != '\t'
}

/// Starts logging our own records from `level` on; only the first call counts.
pub fn start(level: LevelFilter) {
    start_as(level, Format::Text);
}

/// The same in a format of choice.
pub fn start_as(level: LevelFilter, format: Format) {
    let started = env_logger::Builder::new()
        .filter_module(env!("CARGO_CRATE_NAME"), level)
        .format(move |line, record| format.write(line, record))
        .try_init();
    if started.is_err() {
        log::set_max_level(level);
    }
}

/// The level of that name, by the names that the earlier implementation's logger took.
pub fn level(name: &str) -> Result<LevelFilter, String> {
    match name.to_ascii_lowercase().as_str() {
        "trace" => Ok(LevelFilter::Trace),
        "debug" => Ok(LevelFilter::Debug),
        "info" => Ok(LevelFilter::Info),
        "warn" | "warning" => Ok(LevelFilter::Warn),
        "error" | "fatal" | "panic" => Ok(LevelFilter::Error),
        _ => Err("it is none of trace, debug, info, warn, error".into()),
    }
}
