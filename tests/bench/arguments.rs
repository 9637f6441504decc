//! The command line of `scripts/bench`.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// Measures the shipped executable, interleaved with what it is compared with, and prints one
/// table: median, minimum and 90th percentile, processor time, ratios to a static `true` and to
/// the shipped executable, and whether the project's limits are met.
#[derive(Debug, Parser)]
#[command(name = "scripts/bench", bin_name = "scripts/bench", after_help = NOTES)]
pub struct Arguments {
    /// Another CNI plugin's executable, run with the same environment and standard input
    #[arg(long, value_name = "[LABEL=]PATH", value_parser = Named::parse)]
    pub peer: Vec<Named>,
    /// Another build of msm, such as one with another libc or an older version
    #[arg(long, value_name = "[LABEL=]PATH", value_parser = Named::parse)]
    pub against: Vec<Named>,
    /// How often each case is timed
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u16).range(2..))]
    pub rounds: u16,
    /// Only this part of the table; may be repeated
    #[arg(long, value_name = "NAME")]
    pub only: Vec<Part>,
    /// A tenth of the rounds, and 5 seconds of idling instead of a minute
    #[arg(long)]
    pub quick: bool,
}

const NOTES: &str = "\
A run does what a container runtime does: start the plugin, write its standard input, read all
of its standard output, wait for it. The API server runs in the benchmark's process, on the same
cores; \"TLS exchange alone\" is connecting, TLS and one GET without starting a process.

The exit code is 0 whether or not limits are met, and 1 if something cannot be measured.";

/// The parts of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// Each verb, backend, key and pod, compared with `true` and command-line tools
    Times,
    /// System calls, processes, page faults, memory, bytes, sizes
    Counts,
    /// 1 to 200 ADDs at once
    Parallel,
    /// With the executable dropped from the page cache
    Cold,
    /// How an ADD's time grows with its inputs
    Growth,
    /// Start to ready, repair of an entry, token to kubeconfig, a minute of idling
    Installer,
}

impl Arguments {
    pub fn wants(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// `full`, or a tenth of it with `--quick`.
    pub fn times(&self, full: usize) -> usize {
        if self.quick {
            full.div_ceil(10).max(2)
        } else {
            full
        }
    }
}

/// An executable and its label in the table.
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
            return Err(format!("no such file: {}", path.display()));
        }
        Ok(Self {
            label: label.to_owned(),
            path,
        })
    }
}
