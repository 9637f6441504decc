//! What does not depend on the machine's mood: system calls and processes by strace, page
//! faults and peak memory by the launcher, bytes at the API server's socket, sizes of files.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use msm_testkit::api_server::KeyKind;
use msm_testkit::find_tool;
use msm_testkit::libc::Libc;
use msm_testkit::netns::Namespace;

use crate::contenders::Contender;
use crate::launch::{Launch, run};
use crate::sandbox::{Sandbox, give_up};
use crate::server::Traffic;
use crate::site::{Call, POD, PodKind, Site};
use crate::subjects::{FLOOR, STATIC_TRUE};
use crate::table::{Row, heading, verdict};

/// DESIGN.md's target for an ADD, in kB.
const PEAK: u64 = 3_000;
/// How often memory and page faults are read.
const READINGS: usize = 9;

/// Prints the part.
pub fn report(site: &Site, contenders: &[Contender]) -> Result<(), String> {
    sizes(contenders);
    heading("counts (page faults and memory: median of 9)");
    let floor =
        |command: Command, _: Option<&Namespace>| Launch::new(under(command, &site.static_true));
    counts(site, STATIC_TRUE, FLOOR, Sandbox::None, &floor)?;
    for who in contenders {
        let row = |what: &str, sandbox, call: Call| {
            let launch = |command: Command, netns: Option<&Namespace>| {
                site.call_by(under(command, &who.path("msm-cni")), call, netns)
            };
            let counted = counts(site, what, &who.label, sandbox, &launch);
            counted.or_else(|error| {
                fail(what, who, &error);
                if who.label == crate::contenders::OURS {
                    Err(error)
                } else {
                    Ok(())
                }
            })
        };
        let version = Call {
            verb: "VERSION",
            ..Call::ADD
        };
        row("VERSION", Sandbox::None, version)?;
        row("ADD, nftables", Sandbox::Empty, Call::ADD)?;
        if find_tool("iptables-nft-restore").is_some() {
            let call = Call {
                backend: "iptables",
                ..Call::ADD
            };
            row("ADD, iptables (nft)", Sandbox::Empty, call)?;
        }
    }
    heading("bytes at the API server's socket, one ADD by nftables");
    for who in contenders {
        for key in [KeyKind::Ecdsa, KeyKind::Rsa] {
            for pod in [POD, PodKind::Labelled(200_000)] {
                bytes(site, who, key, pod)?;
            }
        }
    }
    Ok(())
}

fn fail(what: &str, who: &Contender, error: &str) {
    Row {
        what,
        who: &who.label,
        remark: format!("FAILED: {error}"),
        ..Row::default()
    }
    .print();
}

fn sizes(contenders: &[Contender]) {
    heading("size of the executable");
    for who in contenders {
        let target = who.libc().map(|libc| {
            let (target, limit) = match libc {
                Libc::Musl => ("at most 2.2 MB by musl", 2_200_000),
                Libc::Glibc => ("at most 3.2 MB by glibc", 3_200_000),
            };
            verdict(target, who.size <= limit)
        });
        Row {
            what: "bytes",
            who: &who.label,
            figure: who.size.to_string(),
            remark: target.unwrap_or_default(),
            ..Row::default()
        }
        .print();
    }
}

/// `program` as what a wrapper runs.
fn under(mut wrapper: Command, program: &Path) -> Command {
    wrapper.arg(program);
    wrapper
}

/// Prints the counts of what `launch` makes of a wrapper.
fn counts(
    site: &Site,
    what: &str,
    who: &str,
    sandbox: Sandbox,
    launch: &dyn Fn(Command, Option<&Namespace>) -> Launch,
) -> Result<(), String> {
    let output = site.path("counts");
    let mut namespaces = Vec::new();
    let mut read = |wrapper: Command| -> Result<String, String> {
        let namespace = sandbox.make(site)?;
        run(&mut [launch(wrapper, namespace.as_ref())], &site.log)?;
        namespaces.push(namespace);
        fs::read_to_string(&output).map_err(|error| format!("read {}: {error}", output.display()))
    };

    let strace = find_tool("strace").ok_or("strace is not installed")?;
    let mut wrapper = Command::new(strace);
    wrapper
        .args(["-f", "-qq", "-s", "0", "-o"])
        .arg(&output)
        .env_clear();
    let calls = Calls::of(&read(wrapper)?);

    let mut readings: [Vec<u64>; 3] = Default::default();
    for _ in 0..READINGS {
        let mut wrapper = Command::new(&site.launcher);
        wrapper.arg(&output).env_clear();
        let text = read(wrapper)?;
        let numbers = text.split_whitespace().map(str::parse::<u64>);
        for (reading, number) in readings.iter_mut().zip(numbers) {
            reading.push(number.map_err(|error| format!("the launcher wrote {text:?}: {error}"))?);
        }
    }
    give_up(namespaces);
    let [peak, minor, major] = readings.map(|mut it| {
        it.sort_unstable();
        it.get(it.len() / 2).copied().unwrap_or_default()
    });
    let is_main = what == "ADD, nftables";
    let print = |unit: &str, figure: String, remark: String| {
        let what = format!("{what}: {unit}");
        Row {
            what: &what,
            who,
            figure,
            remark,
            ..Row::default()
        }
        .print();
    };
    let one = is_main.then(|| verdict("one process", calls.processes == 1));
    print("system calls", calls.all.to_string(), String::new());
    print(
        "processes",
        calls.processes.to_string(),
        one.unwrap_or_default(),
    );
    print("threads besides", calls.threads.to_string(), String::new());
    print(
        "programs executed",
        calls.programs.to_string(),
        String::new(),
    );
    print(
        "page faults",
        minor.to_string(),
        format!("{major} of the disk besides"),
    );
    let small = is_main.then(|| verdict("at most 3 MB", peak * 1024 <= PEAK * 1000));
    print(
        if calls.processes == 1 {
            "peak memory"
        } else {
            "peak memory of the largest process"
        },
        format!("{peak} kB"),
        small.unwrap_or_default(),
    );
    Ok(())
}

/// What strace has seen.
#[derive(Debug, Default, PartialEq, Eq)]
struct Calls {
    all: usize,
    processes: usize,
    threads: usize,
    programs: usize,
}

impl Calls {
    fn of(log: &str) -> Self {
        let mut calls = Self::default();
        let mut tasks = BTreeSet::new();
        for line in log.lines() {
            let Some((task, call)) = line.split_once(' ') else {
                continue;
            };
            let call = call.trim_start();
            // Signals and ends.
            if call.starts_with(['-', '+']) {
                continue;
            }
            tasks.insert(task);
            // The second half of a line, which tells how the call ended.
            if call.starts_with('<') {
                if call.starts_with("<... execve resumed") && call.ends_with("= 0") {
                    calls.programs += 1;
                }
                continue;
            }
            calls.all += 1;
            if call.starts_with("execve(") && call.ends_with("= 0") {
                calls.programs += 1;
            }
            if call.starts_with("clone") && call.contains("CLONE_THREAD") {
                calls.threads += 1;
            }
        }
        calls.processes = tasks.len() - calls.threads;
        calls
    }
}

fn bytes(site: &Site, who: &Contender, key: KeyKind, pod: PodKind) -> Result<(), String> {
    let PodKind::Labelled(size) = pod else {
        return Err("only labelled pods are counted".to_owned());
    };
    let what = format!("{key:?}, {} kB pod", size / 1000);
    let server = site.server(key);
    let before = server.traffic();
    let sandbox = Sandbox::Empty.make(site)?;
    let call = Call {
        pod,
        key,
        ..Call::ADD
    };
    let done = run(&mut [site.call(who, call, sandbox.as_ref())], &site.log);
    let traffic: Traffic = server.traffic().since(before);
    give_up(sandbox);
    if let Err(error) = done {
        fail(&what, who, &error);
        return Ok(());
    }
    Row {
        what: &what,
        who: &who.label,
        figure: format!("{} B", traffic.received + traffic.sent),
        remark: format!(
            "{} sent to it, {} received from it; {} connection, {} request, {} round trips",
            traffic.received,
            traffic.sent,
            traffic.connections,
            traffic.requests,
            traffic.round_trips()
        ),
        ..Row::default()
    }
    .print();
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_counts_once_and_threads_are_no_processes() {
        let log = "\
10 execve(\"/x\", ..., 0x7 /* 0 vars */) = 0
10 clone3({flags=CLONE_VM|CLONE_VFORK, exit_signal=SIGCHLD}, 88 <unfinished ...>
11 execve(\"/sbin/y\", ..., 0x7) = -1 ENOENT (No such file or directory)
11 execve(\"/usr/sbin/y\", ..., 0x7 <unfinished ...>
11 <... execve resumed>)                = 0
10 <... clone3 resumed>)                = 11
11 clone3({flags=CLONE_VM|CLONE_THREAD}, 88) = 12
12 exit(0)                              = ?
12 +++ exited with 0 +++
11 exit_group(0)                        = ?
11 +++ exited with 0 +++
10 --- SIGCHLD {si_signo=SIGCHLD} ---
10 exit_group(0)                        = ?
";
        let calls = Calls {
            all: 8,
            processes: 2,
            threads: 1,
            programs: 2,
        };
        // execve of the first, clone3, execve twice, clone3, exit, exit_group twice.
        assert_eq!(Calls::of(log), calls);
    }
}
