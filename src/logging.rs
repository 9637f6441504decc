//! Logs on standard error, in one place for all applets. Standard output belongs to the
//! CNI protocol.

use std::io::{self, Write as _};

use env_logger::fmt::Formatter;
use log::{LevelFilter, Record};
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
            Self::Text => writeln!(line, "{level}: {}", record.args()),
            Self::Json => {
                let message = record.args().to_string();
                writeln!(line, "{}", json!({"level": level, "message": message}))
            }
        }
    }
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
