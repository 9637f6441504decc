//! Figures that do not depend on the machine's load: system calls and processes by strace, page
//! faults and peak memory by the launcher, bytes at the API server's socket, file sizes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use msm_testkit::certificates::KeyKind;
use msm_testkit::find_tool;
use msm_testkit::libc::Libc;
use msm_testkit::netns::Namespace;
use serde_json::Value;

use crate::cases::{FLOOR, STATIC_TRUE};
use crate::cluster::{Call, Cluster, POD, PodKind};
use crate::launch::{Launch, run};
use crate::sandbox::{Sandbox, remove};
use crate::server::Traffic;
use crate::table::{Row, heading, verdict};
use crate::targets::Target;

/// Limit of an ADD's peak memory, in kB.
const PEAK: u64 = 3_000;
/// How often memory and page faults are read.
const READINGS: usize = 9;

/// Prints this part of the table.
pub fn report(cluster: &Cluster, targets: &[Target]) -> Result<(), String> {
    sizes(targets);
    heading("counts (page faults and memory: median of 9)");
    let floor =
        |command: Command, _: Option<&Namespace>| Launch::new(under(command, &cluster.static_true));
    counts(cluster, STATIC_TRUE, FLOOR, Sandbox::None, &floor)?;
    for target in targets {
        let row = |what: &str, sandbox, call: Call| {
            let launch = |command: Command, netns: Option<&Namespace>| {
                cluster.call_by(under(command, &target.path("msm-cni")), call, netns)
            };
            let counted = counts(cluster, what, &target.label, sandbox, &launch);
            counted.or_else(|error| {
                print_failure(what, target, &error);
                if target.label == crate::targets::OURS {
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
    for target in targets {
        for key in [KeyKind::Ecdsa, KeyKind::Rsa] {
            for pod in [POD, PodKind::Labelled(200_000)] {
                bytes(cluster, target, key, pod)?;
            }
        }
    }
    Ok(())
}

fn print_failure(what: &str, target: &Target, error: &str) {
    Row {
        what,
        target: &target.label,
        remark: format!("FAILED: {error}"),
        ..Row::default()
    }
    .print();
}

fn sizes(targets: &[Target]) {
    heading("size of the executable");
    for target in targets {
        let limit = target.libc().map(|libc| {
            let limit = size_limit(libc);
            verdict(
                &format!("at most {limit} with {libc}"),
                target.size <= limit,
            )
        });
        Row {
            what: "bytes",
            target: &target.label,
            figure: target.size.to_string(),
            remark: limit.unwrap_or_default(),
            ..Row::default()
        }
        .print();
    }
}

/// The limit that tests/budget enforces, in bytes.
fn size_limit(libc: Libc) -> u64 {
    let figures: Value = serde_json::from_str(include_str!("../budget/figures.json"))
        .expect("tests/budget/figures.json");
    figures[libc.to_string()]["size_limit"]
        .as_u64()
        .expect("a size limit")
}

/// Runs `program` by `wrapper`.
fn under(mut wrapper: Command, program: &Path) -> Command {
    wrapper.arg(program);
    wrapper
}

/// Prints the counts of what `launch` runs by a wrapper.
fn counts(
    cluster: &Cluster,
    what: &str,
    target: &str,
    sandbox: Sandbox,
    launch: &dyn Fn(Command, Option<&Namespace>) -> Launch,
) -> Result<(), String> {
    let output = cluster.path("counts");
    let mut namespaces = Vec::new();
    let mut read = |wrapper: Command| -> Result<String, String> {
        let namespace = sandbox.make(cluster)?;
        run(&mut [launch(wrapper, namespace.as_ref())], &cluster.log)?;
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
        let mut wrapper = Command::new(&cluster.launcher);
        wrapper.arg(&output).env_clear();
        let text = read(wrapper)?;
        let numbers = text.split_whitespace().map(str::parse::<u64>);
        for (reading, number) in readings.iter_mut().zip(numbers) {
            reading.push(number.map_err(|error| format!("the launcher wrote {text:?}: {error}"))?);
        }
    }
    remove(namespaces);
    let [peak, minor, major] = readings.map(|mut it| {
        it.sort_unstable();
        it.get(it.len() / 2).copied().unwrap_or_default()
    });
    let is_main = what == "ADD, nftables";
    let print = |unit: &str, figure: String, remark: String| {
        let what = format!("{what}: {unit}");
        Row {
            what: &what,
            target,
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
    print(
        "additional threads",
        calls.threads.to_string(),
        String::new(),
    );
    print(
        "programs executed",
        calls.programs.to_string(),
        String::new(),
    );
    print(
        "page faults",
        minor.to_string(),
        format!("{major} more waited for the disk"),
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

/// Counted in a log of strace.
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
            // Signals and exits.
            if call.starts_with(['-', '+']) {
                continue;
            }
            tasks.insert(task);
            // The second half of a call, with its result.
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

fn bytes(cluster: &Cluster, target: &Target, key: KeyKind, pod: PodKind) -> Result<(), String> {
    let PodKind::Labelled(size) = pod else {
        return Err("only labelled pods are counted".to_owned());
    };
    let what = format!("{key:?}, {} kB pod", size / 1000);
    let server = cluster.server(key);
    let before = server.traffic();
    let sandbox = Sandbox::Empty.make(cluster)?;
    let call = Call {
        pod,
        key,
        ..Call::ADD
    };
    let done = run(
        &mut [cluster.call(target, call, sandbox.as_ref())],
        &cluster.log,
    );
    let traffic: Traffic = server.traffic().since(before);
    remove(sandbox);
    if let Err(error) = done {
        print_failure(&what, target, &error);
        return Ok(());
    }
    Row {
        what: &what,
        target: &target.label,
        figure: format!("{} B", traffic.received + traffic.sent),
        remark: format!(
            "client sent {}, received {}; {} connection, {} request, {} round trips",
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
    fn each_call_counts_once_and_threads_are_not_processes() {
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
