//! The command line of `scripts/bench`. It only reads it.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Measures the executable that ships, in one run, interleaved with what it is compared with,
/// and prints one table: medians, the smallest and the 90th percentile, processor time, ratios to
/// a static `true` and to the executable that ships, and DESIGN.md's targets.
#[derive(Debug, Parser)]
#[command(name = "scripts/bench", bin_name = "scripts/bench", after_help = NOTES)]
pub struct Arguments {
    /// Another CNI plugin's executable, run with the same environment and standard input
    #[arg(long, value_name = "[LABEL=]PATH", value_parser = Named::parse)]
    pub peer: Vec<Named>,
    /// Another build of msm, of another libc or an older version, measured beside ours
    #[arg(long, value_name = "[LABEL=]PATH", value_parser = Named::parse)]
    pub against: Vec<Named>,
    /// How often each thing is timed
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(2..))]
    pub rounds: u16,
    /// Only this part of the table; may be given more than once
    #[arg(long, value_name = "NAME")]
    pub only: Vec<Part>,
    /// A tenth of the rounds, and an idle time of 5 seconds instead of a minute
    #[arg(long)]
    pub quick: bool,
}

const NOTES: &str = "\
Every run is that of a runtime: start, write standard input, read standard output to its end,
wait. The API server runs in the same process as the clock, on the same cores; \"TLS exchange
alone\" is what connecting, TLS and one GET take without starting a process.

It ends with 0 whatever the figures are, with 1 and a sentence when it cannot measure.";

/// The parts of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Each verb, backend, key and pod; `true` and command-line tools beside them
    Times,
    /// System calls, processes, page faults, memory, bytes, sizes
    Counts,
    /// 1 to 200 ADDs at once
    Parallel,
    /// With nothing of the executable in memory
    Cold,
    /// What an ADD's time grows with
    Growth,
    /// Start to ready, entry back, token to kubeconfig, a minute of idleness
    Installer,
}

impl Arguments {
    pub fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// `full` times, or fewer when it has to be quick.
    pub fn times(&self, full: usize) -> usize {
        if self.quick {
            full.div_ceil(10).max(2)
        } else {
            full
        }
    }
}

/// An executable and what it is called in the table.
#[derive(Debug, Clone)]
pub struct Named {
    pub label: String,
    pub path: PathBuf,
}

impl Named {
    fn parse(text: &str) -> Result<Self, String> {
        // A path may hold an equals sign; a label holds no slash.
        let named = text
            .split_once('=')
            .filter(|(label, _)| !label.contains('/'));
        let (label, path) = named.unwrap_or((text, text));
        let path = PathBuf::from(path);
        if !path.is_file() {
            return Err(format!("there is no file {}", path.display()));
        }
        Ok(Self {
            label: label.to_owned(),
            path,
        })
    }
}
