//! How the time of an ADD grows with the size of the pod's object, with foreign rules in the
//! namespace, and with namespaces on the node. Parallel ADDs are measured in `parallel`.

use std::time::Duration;

use msm_testkit::netns::Namespace;

use crate::cases::Case;
use crate::cluster::{Call, Cluster, PodKind, SIZES};
use crate::sandbox::{Sandbox, remove};
use crate::statistics::slope;
use crate::table::{Row, heading, time};
use crate::targets::Target;
use crate::timing::{Series, measure};

const RULES: [usize; 4] = [0, 100, 1_000, 10_000];
const NAMESPACES: [usize; 4] = [0, 100, 250, 500];

/// Prints this part of the table.
pub fn report(cluster: &Cluster, targets: &[Target], rounds: usize) -> Result<(), String> {
    heading(&format!(
        "growth of an ADD (nftables, ECDSA), {rounds} rounds; per unit: the slope of minima"
    ));
    let ours = targets.first().ok_or("no executable")?;
    let builds: Vec<_> = targets.iter().filter(|target| target.is_build()).collect();

    let pods = SIZES.map(|size| (size, Sandbox::Empty, PodKind::Labelled(size)));
    let foreign = RULES.map(|count| (count, Sandbox::Foreign(count), Call::ADD.pod));
    for (unit, per, steps) in [
        ("bytes of pod", 100_000, &pods[..]),
        ("foreign rules and elements", 1_000, &foreign[..]),
    ] {
        let cases: Vec<Case> = steps
            .iter()
            .flat_map(|&(count, sandbox, pod)| {
                let call = Call { pod, ..Call::ADD };
                let what = format!("{count} {unit}");
                builds
                    .iter()
                    .map(move |&target| Case::call(cluster, target, &what, sandbox, call))
            })
            .collect();
        let all = measure(cluster, ours, &cases, rounds)?;
        for (at, target) in builds.iter().enumerate() {
            let of_target = cases.iter().zip(&all).skip(at).step_by(builds.len());
            let points = steps.iter().map(|step| step.0).zip(of_target);
            Growth { unit, per, target }.print(points);
        }
    }
    namespaces(cluster, ours, &builds, rounds)
}

/// Namespaces cannot be added and removed within a round, so one count is measured after the
/// other. Zero is measured again at the end, to show whether the machine's speed has changed.
fn namespaces(
    cluster: &Cluster,
    ours: &Target,
    builds: &[&Target],
    rounds: usize,
) -> Result<(), String> {
    let unit = "more namespaces on the node";
    let rows = |what: &str| -> Vec<Case> {
        let cases = builds
            .iter()
            .map(|&target| Case::call(cluster, target, what, Sandbox::Empty, Call::ADD));
        cases.collect()
    };
    let mut held = Vec::new();
    let mut measured = Vec::new();
    for count in NAMESPACES {
        held.resize_with(count, Namespace::new);
        let cases = rows(&format!("{count} {unit}"));
        let all = measure(cluster, ours, &cases, rounds)?;
        measured.push((count, cases, all));
    }
    remove(held);
    let cases = rows(&format!("0 {unit}, again"));
    let all = measure(cluster, ours, &cases, rounds)?;
    for (at, target) in builds.iter().enumerate() {
        let points = measured
            .iter()
            .map(|(count, cases, all)| (*count, (&cases[at], &all[at])));
        Growth {
            unit,
            per: 100,
            target,
        }
        .print(points);
        all[at].row(&cases[at]).print();
    }
    Ok(())
}

/// Prints the growth for one executable.
struct Growth<'a> {
    unit: &'a str,
    /// The number of units that the printed slope is for.
    per: usize,
    target: &'a Target,
}

impl Growth<'_> {
    fn print<'a, 'b: 'a>(&self, points: impl Iterator<Item = (usize, (&'a Case<'b>, &'a Series))>) {
        let (mut walls, mut cpus) = (Vec::new(), Vec::new());
        for (count, (case, series)) in points {
            let row = series.row(case);
            row.print();
            walls.push((float(count), series.walls.min().as_secs_f64()));
            cpus.push((float(count), series.cpus.min().as_secs_f64()));
        }
        let Self { unit, per, target } = self;
        print_slope(
            &format!("per {per} {unit}"),
            target,
            slope(&walls) * float(*per),
        );
        let cpu = format!("per {per} {unit}, cpu");
        print_slope(&cpu, target, slope(&cpus) * float(*per));
    }
}

/// Prints the cost of one more step.
pub fn print_slope(what: &str, target: &Target, seconds: f64) {
    let size = Duration::from_secs_f64(seconds.abs());
    let sign = if seconds < 0.0 { "-" } else { "+" };
    Row {
        what,
        target: &target.label,
        figure: format!("{sign}{}", time(size)),
        ..Row::default()
    }
    .print();
}

pub fn float(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}
