//! `scripts/bench`: measures the shipped executable and prints one table. It shows whether the
//! project's limits are met, but fails only if it cannot measure: a benchmark is not a test.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints, and stops at the first error"
)]

mod arguments;
mod cases;
mod cluster;
mod cold;
mod counts;
mod growth;
mod installer;
mod launch;
mod parallel;
mod sandbox;
mod server;
mod statistics;
mod table;
mod targets;
mod timing;
mod tools;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use arguments::{Arguments, Part};
use cluster::{Call, Cluster};
use launch::{Expected, Launch, run};
use targets::{OURS, Target};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // Helpers shared with the tests panic.
    let measured = catch_unwind(AssertUnwindSafe(|| measure(&arguments)));
    match measured {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
        Err(_) => {
            eprintln!("bench: stopped by the panic above");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<(), String> {
    if let Some(refusal) = msm_testkit::netns::refusal() {
        return Err(refusal);
    }
    // Hundreds of namespaces and pipes are open at the same time.
    let most = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, most)| {
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        Ok(most)
    });
    match most {
        Ok(2_000..) => {}
        Ok(most) => {
            return Err(format!(
                "the limit of open files is {most}, 2000 are needed: raise `ulimit -H -n`"
            ));
        }
        Err(error) => return Err(format!("raising the limit of open files: {error}")),
    }
    let (start, load) = (Instant::now(), first_line("/proc/loadavg"));
    let cluster = Cluster::new()?;
    let targets = targets(arguments, &cluster)?;

    if arguments.wants(Part::Times) {
        let rounds = arguments.times(arguments.rounds.into());
        table::heading(&format!("times, {rounds} rounds, interleaved"));
        let cases = cases::all(&cluster, &targets)?;
        let all = timing::measure(&cluster, &targets[0], &cases, rounds)?;
        timing::print(&cases, &all);
    }
    if arguments.wants(Part::Counts) {
        counts::report(&cluster, &targets)?;
    }
    if arguments.wants(Part::Parallel) {
        parallel::report(&cluster, &targets, arguments.times(10))?;
    }
    if arguments.wants(Part::Cold) {
        cold::report(&cluster, &targets, arguments.times(20))?;
    }
    if arguments.wants(Part::Growth) {
        growth::report(&cluster, &targets, arguments.times(20))?;
    }
    if arguments.wants(Part::Installer) {
        let idle = Duration::from_secs(if arguments.quick { 5 } else { 60 });
        installer::report(&targets, arguments.times(10).max(4), idle)?;
    }
    footer(&targets, &load, start.elapsed());
    Ok(())
}

/// The shipped executable first. Others that cannot be run are left out.
fn targets(arguments: &Arguments, cluster: &Cluster) -> Result<Vec<Target>, String> {
    let cannot = |error: std::io::Error| format!("reading an executable: {error}");
    let ours = Target::build(OURS, &msm_testkit::executable()).map_err(cannot)?;
    let mut targets = vec![ours];
    for named in &arguments.against {
        targets.push(Target::build(&named.label, &named.path).map_err(cannot)?);
    }
    for named in &arguments.peer {
        targets.push(Target::peer(named).map_err(cannot)?);
    }
    let mut working = Vec::new();
    for target in targets {
        let version = Call {
            verb: "VERSION",
            ..Call::ADD
        };
        let launch = Launch {
            expected: Expected::Anything,
            ..cluster.call(&target, version, None)
        };
        match run(&mut [launch], &cluster.log) {
            Ok(_) => working.push(target),
            Err(error) if target.label == OURS => return Err(error),
            Err(error) => println!("{} cannot be run and is left out: {error}", target.label),
        }
    }
    Ok(working)
}

fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

fn footer(targets: &[Target], load: &str, took: Duration) {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, Into::into);
    println!("\n== environment");
    println!("processor     {}", model.map_or("unknown", |it| it.1));
    println!("cores         {cores}");
    println!("kernel        {}", first_line("/proc/sys/kernel/osrelease"));
    println!("load at start {load}");
    for target in targets {
        let kind = target.libc().map_or("peer".to_owned(), |it| it.to_string());
        println!(
            "{:<13} {} ({kind})",
            target.label,
            target.executable.display()
        );
    }
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    println!("command line  scripts/bench {}", arguments.join(" "));
    println!("took          {:.0} s", took.as_secs_f64());
}
