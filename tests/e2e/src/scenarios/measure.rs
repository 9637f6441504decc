//! What a pod's start costs with msm-cni and without, and what the installer needs.

use std::fs;
use std::time::{Duration, Instant};

use crate::Stage;
use crate::installer::Installer;
use crate::node::PLAIN;
use crate::pod::{Wish, make_known};
use crate::report::Report;

/// Pods of each kind.
const ROUNDS: usize = 10;

/// Starts and ends pods of each kind in turn, and prints the medians.
pub fn pods(stage: &Stage, report: &mut Report) {
    report.chapter("What it costs");
    let plain = Wish {
        handler: PLAIN,
        ..Wish::new("without", Some("true"))
    };
    let excluded = Wish {
        namespace: "kube-system",
        ..Wish::new("excluded", Some("true"))
    };
    let kinds = [
        ("without msm-cni", plain),
        ("with it, an excluded namespace", excluded),
        ("with it, no label", Wish::new("unlabelled", None)),
        ("with it, redirected", Wish::new("labelled", Some("true"))),
    ];
    let mut times: [Times; 4] = Default::default();
    let mut error = None;
    for _ in 0..ROUNDS {
        for ((_, wish), times) in kinds.iter().zip(&mut times) {
            error = error.or(times.add(stage, *wish).err());
        }
    }
    let all = format!("{} pods came and went", ROUNDS * kinds.len());
    let seen = error.map_or_else(|| Ok(all.clone()), Err);
    report.is("pods in turn", &all, seen);
    println!("       medians of {ROUNDS}, taken in turn:");
    for ((kind, _), times) in kinds.iter().zip(&mut times) {
        println!(
            "       {kind:<31} RunPodSandbox {}, StopPodSandbox {}",
            in_short(&mut times.starts),
            in_short(&mut times.stops)
        );
    }
}

#[derive(Default)]
struct Times {
    starts: Vec<Duration>,
    stops: Vec<Duration>,
}

impl Times {
    fn add(&mut self, stage: &Stage, wish: Wish) -> Result<(), String> {
        let runtime = &stage.node.runtime;
        let config = make_known(stage, wish);
        let start = Instant::now();
        let sandbox = runtime.run_sandbox(&config, wish.handler)?;
        self.starts.push(start.elapsed());
        let start = Instant::now();
        runtime.stop_sandbox(&sandbox)?;
        self.stops.push(start.elapsed());
        runtime.remove_sandbox(&sandbox)
    }
}

/// The median and the shortest.
fn in_short(times: &mut [Duration]) -> String {
    times.sort();
    let milliseconds = |index: usize| {
        let time = times.get(index).copied().unwrap_or_default();
        time.as_secs_f64() * 1e3
    };
    format!(
        "{:5.1} ms (shortest {:5.1})",
        milliseconds(times.len() / 2),
        milliseconds(0)
    )
}

/// Prints what the installer has needed so far; `ready`: from its container's start.
pub fn installer(stage: &Stage, installer: &Installer, ready: Duration) {
    let status = installer.proc_file("status").unwrap_or_default();
    let memory = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or(": ?")
            .trim_start_matches(':')
            .trim()
            .to_owned()
    };
    // In nanoseconds; proc(5) leaves it to Documentation/scheduler/sched-stats.rst.
    let schedule = installer.proc_file("schedstat").unwrap_or_default();
    let on_processor = schedule.split(' ').next().unwrap_or_default();
    let milliseconds = on_processor.parse::<f64>().unwrap_or_default() / 1e6;
    println!(
        "       installer: ready {:.0} ms after its container, {milliseconds:.1} ms of processor; \
         resident {}, of it anonymous {}, peak {}; cgroup's peak {}",
        ready.as_secs_f64() * 1e3,
        memory("VmRSS"),
        memory("RssAnon"),
        memory("VmHWM"),
        cgroup_peak(&stage.node.cgroup, &installer.container),
    );
}

/// Both kinds of cgroups.
fn cgroup_peak(parent: &str, container: &str) -> String {
    let files = [
        format!("/sys/fs/cgroup{parent}/{container}/memory.peak"),
        format!("/sys/fs/cgroup/memory{parent}/{container}/memory.max_usage_in_bytes"),
    ];
    let bytes = files.iter().find_map(|file| fs::read_to_string(file).ok());
    bytes.map_or("?".to_owned(), |bytes| format!("{} bytes", bytes.trim()))
}
