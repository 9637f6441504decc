//! The installer: start to ready, repair of the plugin's entry after another component's
//! rewrite, token to kubeconfig, and a minute of idling. Conditions are polled without pauses,
//! which would be part of the figure.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use msm_testkit::find_tool;
use msm_testkit::installer::Installer;
use msm_testkit::node::{CALICO, CONF, KUBECONFIG, NET_DIR, Node};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::statistics::{Sample, ratio};
use crate::table::{Row, heading, span, time, verdict};
use crate::targets::{OURS, Target};

/// Repairs in quick succession that src/node/throttle.rs does not delay.
const BURST: u64 = 5;
/// Limit of start to ready and of repairing the entry.
const REACTION: Duration = Duration::from_millis(20);
/// Limit of idle memory, in bytes.
const MEMORY: u64 = 2_500_000;

/// Prints this part of the table.
pub fn report(targets: &[Target], rounds: usize, idle: Duration) -> Result<(), String> {
    let builds: Vec<_> = targets.iter().filter(|target| target.is_build()).collect();
    heading(&format!("installer, {rounds} rounds"));
    let mut working: Vec<(&Target, Times)> = builds
        .into_iter()
        .map(|target| (target, Times::default()))
        .collect();
    for round in 0..rounds {
        let mut still_working = Vec::with_capacity(working.len());
        working.rotate_left(usize::from(round > 0));
        for (target, mut times) in working {
            match times.add(target, round) {
                Ok(()) => still_working.push((target, times)),
                Err(error) if target.label == OURS => return Err(error),
                Err(error) => Row {
                    what: "start",
                    target: &target.label,
                    remark: format!("FAILED, not timed: {error}"),
                    ..Row::default()
                }
                .print(),
            }
        }
        working = still_working;
    }
    working.sort_by_key(|(target, _)| targets.iter().position(|it| it.label == target.label));
    let rows: [(&str, Pick, bool); 4] = [
        ("start to ready, on a new node", |it| &it.first, true),
        ("start to ready, everything in place", |it| &it.again, true),
        ("entry repaired after a rewrite", |it| &it.entry, true),
        ("token to kubeconfig", |it| &it.token, false),
    ];
    for (what, sample, has_limit) in rows {
        let ours = working.first().map(|it| sample(&it.1).median());
        for (target, times) in &working {
            let sample = sample(times);
            let median = sample.median();
            let limit = has_limit.then(|| verdict("at most 20 ms", median <= REACTION));
            Row {
                what,
                target: &target.label,
                figure: time(median),
                spread: span(sample.min(), sample.p90()),
                of_ours: ours.map(|it| ratio(median, it)),
                remark: limit.unwrap_or_default(),
                ..Row::default()
            }
            .print();
        }
    }
    let builds: Vec<_> = working.iter().map(|it| it.0).collect();
    idling(&builds, idle)
}

/// One of the samples.
type Pick = fn(&Times) -> &Sample;

#[derive(Debug, Default)]
struct Times {
    first: Sample,
    again: Sample,
    entry: Sample,
    token: Sample,
}

impl Times {
    /// Measures one start of each kind, and a burst of rewrites and of token rotations.
    fn add(&mut self, target: &Target, round: usize) -> Result<(), String> {
        let node = Node::with_conf(CONF, CALICO);
        let start = Instant::now();
        let mut first = start_installer(&node, target);
        if !first.lives_until("ready", Installer::is_ready) {
            return Err(first.log().trim().to_owned());
        }
        self.first.push(start.elapsed());
        drop(first);
        let start = Instant::now();
        let installer = start_installer(&node, target);
        installer.becomes_ready();
        self.again.push(start.elapsed());

        let conf = node.path(NET_DIR).join(CONF);
        for number in 1..=BURST {
            let temporary = conf.with_extension("tmp");
            fs::write(&temporary, CALICO)
                .map_err(|error| format!("writing the other component's file: {error}"))?;
            let start = Instant::now();
            fs::rename(&temporary, &conf)
                .map_err(|error| format!("replacing the configuration: {error}"))?;
            installer.wait_until("our entry", || has_our_entry(&conf));
            self.entry.push(start.elapsed());
            installer.wait_until("counted", || installer.repairs() == number);
        }
        for number in 0..BURST {
            let token = format!("rotated.token.{round}.{number}");
            // Includes what the kubelet does before the rename that makes the token visible.
            let start = Instant::now();
            node.rotate_token(&token);
            installer.wait_until("the new token", || node.read(KUBECONFIG).contains(&token));
            self.token.push(start.elapsed());
            installer.becomes_ready();
        }
        Ok(())
    }
}

fn has_our_entry(conf: &Path) -> bool {
    fs::read_to_string(conf).is_ok_and(|it| it.contains("\"msm-cni\"") && it.ends_with("}\n"))
}

/// Starts an installer with the tests' command line.
fn start_installer<'a>(node: &'a Node, target: &Target) -> Installer<'a> {
    let (like, health) = node.command(&[]);
    let mut command = target.applet("installer");
    command.args(like.get_args());
    command.envs(
        like.get_envs()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    Installer::start(node, command, health)
}

/// Two installers of each executable idle at the same time: one is measured by /proc, the other
/// is traced by strace, which costs processor time.
fn idling(builds: &[&Target], span: Duration) -> Result<(), String> {
    heading(&format!("installer, idle for {} s", span.as_secs()));
    let nodes: Vec<_> = builds
        .iter()
        .map(|_| Node::with_conf(CONF, CALICO))
        .collect();
    let traced_nodes: Vec<_> = builds
        .iter()
        .map(|_| Node::with_conf(CONF, CALICO))
        .collect();
    let start = |nodes| -> Vec<Installer> {
        let installers = builds
            .iter()
            .zip(nodes)
            .map(|(target, node)| start_installer(node, target));
        installers.collect()
    };
    let installers = start(&nodes);
    let traced = start(&traced_nodes);
    for installer in installers.iter().chain(&traced) {
        installer.becomes_ready();
    }
    // Answering the readiness probe is not idling.
    thread::sleep(Duration::from_secs(2));
    let traces = traced.iter().zip(&traced_nodes);
    let traces = traces.map(|(installer, node)| Trace::start(installer.pid(), node));
    let traces = traces.collect::<Result<Vec<_>, _>>()?;
    let before: Vec<_> = installers.iter().map(|it| Usage::of(it.pid())).collect();
    thread::sleep(span);
    let after: Vec<_> = installers.iter().map(|it| Usage::of(it.pid())).collect();
    let calls = traces
        .into_iter()
        .map(Trace::end)
        .collect::<Result<Vec<_>, _>>()?;

    for (((target, before), after), calls) in builds.iter().zip(before).zip(after).zip(calls) {
        let print = |what: &str, figure: String, remark: String| {
            Row {
                what,
                target: &target.label,
                figure,
                remark,
                ..Row::default()
            }
            .print();
        };
        let limit = verdict("at most 2.5 MB", after.resident * 1024 <= MEMORY);
        print("resident memory", format!("{} kB", after.resident), limit);
        print(
            "of it anonymous",
            format!("{} kB", after.anonymous),
            String::new(),
        );
        print("peak memory", format!("{} kB", after.peak), String::new());
        let ran = after.ran.saturating_sub(before.ran);
        print("processor time", time(ran), String::new());
        let wake_ups = after.switches - before.switches;
        print("wake-ups", wake_ups.to_string(), String::new());
        print(
            "system calls (other process)",
            calls.to_string(),
            String::new(),
        );
    }
    Ok(())
}

/// Figures of a process from /proc; memory in kB.
#[derive(Debug)]
struct Usage {
    resident: u64,
    anonymous: u64,
    peak: u64,
    ran: Duration,
    switches: u64,
}

impl Usage {
    fn of(pid: u32) -> Self {
        let read = |path: &Path| {
            fs::read_to_string(path)
                .unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
        };
        let process = Path::new("/proc").join(pid.to_string());
        let status = read(&process.join("status"));
        let field = |status: &str, key: &str| -> u64 {
            let line = status.lines().find(|line| line.starts_with(key));
            let number = line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok());
            number.unwrap_or_else(|| panic!("{key} is not in {status}"))
        };
        let (mut ran, mut switches) = (0, 0);
        for task in fs::read_dir(process.join("task")).expect("list a process's threads") {
            let task = task.expect("a thread").path();
            // Nanoseconds on a processor (Documentation/scheduler/sched-stats.rst).
            let times = read(&task.join("schedstat"));
            let first = times
                .split_whitespace()
                .next()
                .and_then(|it| it.parse::<u64>().ok());
            ran += first.unwrap_or_else(|| panic!("no time in {times:?}"));
            switches += field(&read(&task.join("status")), "voluntary_ctxt_switches:");
        }
        Self {
            resident: field(&status, "VmRSS:"),
            anonymous: field(&status, "RssAnon:"),
            peak: field(&status, "VmHWM:"),
            ran: Duration::from_nanos(ran),
            switches,
        }
    }
}

/// strace attached to a running process.
struct Trace {
    strace: std::process::Child,
    output: std::path::PathBuf,
}

impl Trace {
    fn start(pid: u32, node: &Node) -> Result<Self, String> {
        let output = node.path("strace");
        let strace = Command::new(find_tool("strace").ok_or("strace is not installed")?)
            .args(["-f", "-qq", "-s", "0", "-p", &pid.to_string(), "-o"])
            .arg(&output)
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| format!("start strace: {error}"))?;
        let attached = || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            !status.contains("TracerPid:\t0\n")
        };
        let start = Instant::now();
        while !attached() {
            if start.elapsed() > Duration::from_secs(30) {
                return Err(format!("strace cannot attach to process {pid}"));
            }
            thread::yield_now();
        }
        Ok(Self { strace, output })
    }

    /// The number of calls since the start.
    fn end(mut self) -> Result<usize, String> {
        let pid = Pid::from_raw(self.strace.id().try_into().expect("a process's id"));
        kill(pid, Signal::SIGINT).map_err(|error| format!("end strace: {error}"))?;
        self.strace
            .wait()
            .map_err(|error| format!("wait for strace: {error}"))?;
        let log = fs::read_to_string(&self.output)
            .map_err(|error| format!("read the log of strace: {error}"))?;
        // The first line is the call that the process was blocked in.
        let begun = log
            .lines()
            .filter(|line| line.contains('(') && !line.contains(" <... "));
        Ok(begun.count().saturating_sub(1))
    }
}
