//! Parallel ADDs, each in its own namespace: the time until all are done, and the slowest one.

use std::process::Command;
use std::time::Duration;

use msm_testkit::netns::Namespace;

use crate::cases::{FLOOR, STATIC_TRUE};
use crate::cluster::{Call, Cluster};
use crate::growth::{float, print_slope};
use crate::launch::{Launch, run_parallel};
use crate::sandbox::{Sandbox, remove};
use crate::statistics::{Sample, ratio, slope};
use crate::table::{Row, heading, span, time, verdict};
use crate::targets::Target;

/// The numbers of parallel ADDs.
const COUNTS: [usize; 7] = [1, 2, 5, 10, 30, 100, 200];
/// Limit of 30 parallel ADDs.
const LIMIT: (usize, Duration) = (30, Duration::from_millis(100));

/// The results of all rounds.
#[derive(Debug, Default)]
struct Rounds {
    all: Sample,
    slowest: Sample,
    failures: Vec<String>,
}

/// Prints this part of the table.
pub fn report(cluster: &Cluster, targets: &[Target], rounds: usize) -> Result<(), String> {
    heading(&format!(
        "parallel ADDs (nftables, ECDSA, 8 kB pod), until all are done; {rounds} rounds"
    ));
    let mut working: Vec<&Target> = targets.iter().collect();
    let mut points: Vec<(&Target, Vec<(f64, f64)>)> =
        working.iter().map(|&target| (target, Vec::new())).collect();
    for count in COUNTS {
        let floor = floor(cluster, count, rounds)?;
        let results = measure(cluster, &working, count, rounds)?;
        let ours = results.first().map(|it| it.all.median());
        for (target, results) in working.iter().zip(&results) {
            results.print(target, count, floor, ours);
            let point = (float(count), results.all.min().as_secs_f64());
            let of_target = points.iter_mut().filter(|it| it.0.label == target.label);
            of_target.for_each(|it| it.1.push(point));
        }
        // An executable of which all ADDs failed is not run again.
        let mut is_working = results.iter().map(|it| it.failures.len() < count * rounds);
        working.retain(|_| is_working.next() == Some(true));
    }
    for (target, points) in points.iter().filter(|it| it.1.len() == COUNTS.len()) {
        print_slope("per 1 more parallel ADD", target, slope(points));
    }
    Ok(())
}

/// Prints and returns the time of as many parallel starts of `true`.
fn floor(cluster: &Cluster, count: usize, rounds: usize) -> Result<Duration, String> {
    let mut floor = Sample::default();
    for _ in 0..rounds {
        let starts = (0..count).map(|_| Launch::new(Command::new(&cluster.static_true)));
        let mut launches: Vec<_> = starts.collect();
        floor.push(run_parallel(&mut launches, &cluster.log)?.all);
    }
    Row {
        what: &format!("{count} in parallel, {STATIC_TRUE}"),
        target: FLOOR,
        figure: time(floor.median()),
        spread: span(floor.min(), floor.p90()),
        ..Row::default()
    }
    .print();
    Ok(floor.median())
}

/// Runs `count` ADDs in parallel, `rounds` times, with each executable in turn.
fn measure(
    cluster: &Cluster,
    targets: &[&Target],
    count: usize,
    rounds: usize,
) -> Result<Vec<Rounds>, String> {
    let mut results: Vec<_> = targets.iter().map(|_| Rounds::default()).collect();
    for round in 0..rounds {
        for step in 0..targets.len() {
            let at = (round + step) % targets.len();
            let namespaces = (0..count).map(|_| Sandbox::Empty.make(cluster));
            let namespaces = namespaces.collect::<Result<Vec<Option<Namespace>>, _>>()?;
            let mut launches: Vec<Launch> = namespaces
                .iter()
                .map(|netns| cluster.call(targets[at], Call::ADD, netns.as_ref()))
                .collect();
            let parallel = run_parallel(&mut launches, &cluster.log)?;
            results[at].all.push(parallel.all);
            results[at].slowest.push(parallel.slowest);
            results[at].failures.extend(parallel.failures);
            remove(namespaces);
        }
    }
    Ok(results)
}

impl Rounds {
    fn print(&self, target: &Target, count: usize, floor: Duration, ours: Option<Duration>) {
        let all = self.all.median();
        let mut remark = format!("slowest {}", time(self.slowest.median()));
        if let Some(first) = self.failures.first() {
            remark = format!("{} FAILED, first: {first}", self.failures.len());
        }
        if target.is_build() && count == LIMIT.0 {
            remark = format!("{}; {remark}", verdict("at most 100 ms", all <= LIMIT.1));
        }
        Row {
            what: &format!("{count} in parallel"),
            target: &target.label,
            figure: time(all),
            spread: span(self.all.min(), self.all.p90()),
            of_true: Some(ratio(all, floor)),
            of_ours: ours.map(|it| ratio(all, it)),
            remark,
            ..Row::default()
        }
        .print();
    }
}
