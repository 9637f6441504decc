//! `scripts/bench`: measures the executable that ships and prints one table. It judges by
//! DESIGN.md's targets, but fails only when it cannot measure: a benchmark is not a test.
#![expect(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark prints, and ends at the first thing that does not work"
)]

mod arguments;
mod cold;
mod contenders;
mod counts;
mod growth;
mod installer;
mod launch;
mod parallel;
mod sandbox;
mod server;
mod site;
mod statistics;
mod subjects;
mod table;
mod timing;
mod tools;

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser as _;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use arguments::{Arguments, Part};
use contenders::{Contender, OURS};
use launch::{Answer, Launch, run};
use site::{Call, Site};

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // What is reused from the tests panics with a sentence.
    let measured = catch_unwind(AssertUnwindSafe(|| measure(&arguments)));
    match measured {
        Ok(Ok(())) => ExitCode::SUCCESS,
        Ok(Err(error)) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
        Err(_) => {
            eprintln!("bench: it cannot go on, for the reason above");
            ExitCode::FAILURE
        }
    }
}

fn measure(arguments: &Arguments) -> Result<(), String> {
    if let Some(refusal) = msm_testkit::netns::refusal() {
        return Err(refusal);
    }
    // Hundreds of namespaces and of processes' pipes are open at the same time.
    let most = getrlimit(Resource::RLIMIT_NOFILE).and_then(|(_, most)| {
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
        Ok(most)
    });
    match most {
        Ok(2_000..) => {}
        Ok(most) => {
            return Err(format!(
                "2000 files have to be open at the same time, {most} may be: raise `ulimit -H -n`"
            ));
        }
        Err(error) => return Err(format!("raise the limit of open files: {error}")),
    }
    let (start, load) = (Instant::now(), first_line("/proc/loadavg"));
    let site = Site::new()?;
    let contenders = contenders(arguments, &site)?;

    if arguments.wants(Part::Times) {
        let rounds = arguments.times(arguments.rounds.into());
        table::heading(&format!("times, {rounds} rounds, interleaved"));
        let subjects = subjects::all(&site, &contenders)?;
        let all = timing::measure(&site, &contenders[0], &subjects, rounds)?;
        timing::print(&subjects, &all);
    }
    if arguments.wants(Part::Counts) {
        counts::report(&site, &contenders)?;
    }
    if arguments.wants(Part::Parallel) {
        parallel::report(&site, &contenders, arguments.times(10))?;
    }
    if arguments.wants(Part::Cold) {
        cold::report(&site, &contenders, arguments.times(20))?;
    }
    if arguments.wants(Part::Growth) {
        growth::report(&site, &contenders, arguments.times(20))?;
    }
    if arguments.wants(Part::Installer) {
        let idle = Duration::from_secs(if arguments.quick { 5 } else { 60 });
        installer::report(&contenders, arguments.times(10).max(4), idle)?;
    }
    footer(&contenders, &load, start.elapsed());
    Ok(())
}

/// Ours first, then those who can be run at all.
fn contenders(arguments: &Arguments, site: &Site) -> Result<Vec<Contender>, String> {
    let cannot = |error: std::io::Error| format!("read an executable: {error}");
    let ours = Contender::build(OURS, &msm_testkit::executable()).map_err(cannot)?;
    let mut contenders = vec![ours];
    for named in &arguments.against {
        contenders.push(Contender::build(&named.label, &named.path).map_err(cannot)?);
    }
    for named in &arguments.peer {
        contenders.push(Contender::peer(named).map_err(cannot)?);
    }
    let mut able = Vec::new();
    for who in contenders {
        let version = Call {
            verb: "VERSION",
            ..Call::ADD
        };
        let launch = Launch {
            answer: Answer::Anything,
            ..site.call(&who, version, None)
        };
        match run(&mut [launch], &site.log) {
            Ok(_) => able.push(who),
            Err(error) if who.label == OURS => return Err(error),
            Err(error) => println!("{} does not run and is left out: {error}", who.label),
        }
    }
    Ok(able)
}

fn first_line(path: &str) -> String {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().next().unwrap_or_default().to_owned()
}

fn footer(contenders: &[Contender], load: &str, took: Duration) {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, Into::into);
    println!("\n== where and how");
    println!("processor     {}", model.map_or("unknown", |it| it.1));
    println!("cores         {cores}");
    println!("kernel        {}", first_line("/proc/sys/kernel/osrelease"));
    println!("load at start {load}");
    for who in contenders {
        let kind = who.libc().map_or("peer".to_owned(), |it| it.to_string());
        println!("{:<13} {} ({kind})", who.label, who.executable.display());
    }
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    println!("command line  scripts/bench {}", arguments.join(" "));
    println!("took          {:.0} s", took.as_secs_f64());
}
