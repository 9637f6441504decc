//! Measures pod starts with and without msm-cni, and the installer's time and memory. Prints
//! the figures without limits.

use std::fs;
use std::time::{Duration, Instant};

use crate::Env;
use crate::installer::Installer;
use crate::node::PLAIN;
use crate::pod::{PodRequest, register};
use crate::report::Report;

/// The number of pods of each kind.
const ROUNDS: usize = 10;

/// Starts and stops pods of each kind in turn, and prints the medians.
pub fn pods(env: &Env, report: &mut Report) {
    report.section("The cost of a pod start");
    let plain = PodRequest {
        handler: PLAIN,
        ..PodRequest::new("without", Some("true"))
    };
    let excluded = PodRequest {
        namespace: "kube-system",
        ..PodRequest::new("excluded", Some("true"))
    };
    let kinds = [
        ("without msm-cni", plain),
        ("excluded namespace", excluded),
        ("no label", PodRequest::new("unlabelled", None)),
        ("redirected", PodRequest::new("labelled", Some("true"))),
    ];
    let mut times: [Times; 4] = Default::default();
    let mut error = None;
    for _ in 0..ROUNDS {
        for ((_, request), times) in kinds.iter().zip(&mut times) {
            error = error.or(times.add(env, *request).err());
        }
    }
    let all = format!("{} pods started and stopped", ROUNDS * kinds.len());
    let actual = error.map_or_else(|| Ok(all.clone()), Err);
    report.check("pods of each kind in turn", &all, actual);
    println!("       medians of {ROUNDS}:");
    for ((kind, _), times) in kinds.iter().zip(&mut times) {
        println!(
            "       {kind:<18} RunPodSandbox {}, StopPodSandbox {}",
            summary(&mut times.starts),
            summary(&mut times.stops)
        );
    }
}

#[derive(Default)]
struct Times {
    starts: Vec<Duration>,
    stops: Vec<Duration>,
}

impl Times {
    fn add(&mut self, env: &Env, request: PodRequest) -> Result<(), String> {
        let runtime = &env.node.runtime;
        let config = register(env, request);
        let start = Instant::now();
        let sandbox = runtime.run_sandbox(&config, request.handler)?;
        self.starts.push(start.elapsed());
        let start = Instant::now();
        runtime.stop_sandbox(&sandbox)?;
        self.stops.push(start.elapsed());
        runtime.remove_sandbox(&sandbox)
    }
}

/// Formats the median and the minimum.
fn summary(times: &mut [Duration]) -> String {
    times.sort();
    let milliseconds = |index: usize| {
        let time = times.get(index).copied().unwrap_or_default();
        time.as_secs_f64() * 1e3
    };
    format!(
        "{:5.1} ms (minimum {:5.1})",
        milliseconds(times.len() / 2),
        milliseconds(0)
    )
}

/// Prints the installer's times and memory; `ready`: from its container's start until ready.
pub fn installer(env: &Env, installer: &Installer, ready: Duration) {
    let status = installer.proc_file("status").unwrap_or_default();
    let memory = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or(": ?")
            .trim_start_matches(':')
            .trim()
            .to_owned()
    };
    // In nanoseconds; see Documentation/scheduler/sched-stats.rst.
    let schedule = installer.proc_file("schedstat").unwrap_or_default();
    let on_processor = schedule.split(' ').next().unwrap_or_default();
    let milliseconds = on_processor.parse::<f64>().unwrap_or_default() / 1e6;
    println!(
        "       installer: ready {:.0} ms after its container, {milliseconds:.1} ms of CPU time; \
         resident {}, of which anonymous {}, peak {}; cgroup's peak {}",
        ready.as_secs_f64() * 1e3,
        memory("VmRSS"),
        memory("RssAnon"),
        memory("VmHWM"),
        cgroup_peak(&env.node.cgroup, &installer.container),
    );
}

/// Reads the peak memory from cgroup v2, otherwise from v1.
fn cgroup_peak(parent: &str, container: &str) -> String {
    let files = [
        format!("/sys/fs/cgroup{parent}/{container}/memory.peak"),
        format!("/sys/fs/cgroup/memory{parent}/{container}/memory.max_usage_in_bytes"),
    ];
    let bytes = files.iter().find_map(|file| fs::read_to_string(file).ok());
    bytes.map_or("?".to_owned(), |bytes| format!("{} bytes", bytes.trim()))
}
