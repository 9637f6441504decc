//! What the time of an ADD grows with: the pod's object, rules of others in the namespace,
//! namespaces on the node. ADDs at once have a part of their own. Why, the README says.

use std::time::Duration;

use msm_testkit::netns::Namespace;

use crate::contenders::Contender;
use crate::sandbox::{Sandbox, give_up};
use crate::site::{Call, PodKind, SIZES, Site};
use crate::statistics::slope;
use crate::subjects::Subject;
use crate::table::{Row, heading, time};
use crate::timing::{Series, measure};

const RULES: [usize; 4] = [0, 100, 1_000, 10_000];
const NAMESPACES: [usize; 4] = [0, 100, 250, 500];

/// Prints the part.
pub fn report(site: &Site, contenders: &[Contender], rounds: usize) -> Result<(), String> {
    heading(&format!(
        "growth of an ADD (nftables, ECDSA), {rounds} rounds; per unit: the slope of minima"
    ));
    let ours = contenders.first().ok_or("nobody is measured")?;
    let builds: Vec<_> = contenders.iter().filter(|who| who.is_build()).collect();

    let pods = SIZES.map(|size| (size, Sandbox::Empty, PodKind::Labelled(size)));
    let crowds = RULES.map(|count| (count, Sandbox::Crowded(count), Call::ADD.pod));
    for (unit, per, steps) in [
        ("bytes of pod", 100_000, &pods[..]),
        ("rules and elements of others", 1_000, &crowds[..]),
    ] {
        let subjects: Vec<Subject> = steps
            .iter()
            .flat_map(|&(count, sandbox, pod)| {
                let call = Call { pod, ..Call::ADD };
                let what = format!("{count} {unit}");
                builds
                    .iter()
                    .map(move |&who| Subject::call(site, who, &what, sandbox, call))
            })
            .collect();
        let all = measure(site, ours, &subjects, rounds)?;
        for (at, who) in builds.iter().enumerate() {
            let of_who = subjects.iter().zip(&all).skip(at).step_by(builds.len());
            let points = steps.iter().map(|step| step.0).zip(of_who);
            Growth { unit, per, who }.print(points);
        }
    }
    namespaces(site, ours, &builds, rounds)
}

/// A namespace that is there cannot come and go within a round: one count after the other,
/// and none once more at the end, which tells how much the machine has drifted meanwhile.
fn namespaces(
    site: &Site,
    ours: &Contender,
    builds: &[&Contender],
    rounds: usize,
) -> Result<(), String> {
    let unit = "more namespaces on the node";
    let rows = |what: &str| -> Vec<Subject> {
        let subjects = builds
            .iter()
            .map(|&who| Subject::call(site, who, what, Sandbox::Empty, Call::ADD));
        subjects.collect()
    };
    let mut held = Vec::new();
    let mut measured = Vec::new();
    for count in NAMESPACES {
        held.resize_with(count, Namespace::new);
        let subjects = rows(&format!("{count} {unit}"));
        let all = measure(site, ours, &subjects, rounds)?;
        measured.push((count, subjects, all));
    }
    give_up(held);
    let subjects = rows(&format!("0 {unit}, once again"));
    let all = measure(site, ours, &subjects, rounds)?;
    for (at, who) in builds.iter().enumerate() {
        let points = measured
            .iter()
            .map(|(count, subjects, all)| (*count, (&subjects[at], &all[at])));
        Growth {
            unit,
            per: 100,
            who,
        }
        .print(points);
        all[at].row(&subjects[at]).print();
    }
    Ok(())
}

/// How one thing grows for one executable.
struct Growth<'a> {
    unit: &'a str,
    /// Of how many units the slope is given.
    per: usize,
    who: &'a Contender,
}

impl Growth<'_> {
    fn print<'a, 'b: 'a>(
        &self,
        points: impl Iterator<Item = (usize, (&'a Subject<'b>, &'a Series))>,
    ) {
        let (mut walls, mut cpus) = (Vec::new(), Vec::new());
        for (count, (subject, series)) in points {
            let row = series.row(subject);
            row.print();
            walls.push((float(count), series.walls.min().as_secs_f64()));
            cpus.push((float(count), series.cpus.min().as_secs_f64()));
        }
        let Self { unit, per, who } = self;
        print_slope(
            &format!("per {per} {unit}"),
            who,
            slope(&walls) * float(*per),
        );
        let cpu = format!("per {per} {unit}, cpu");
        print_slope(&cpu, who, slope(&cpus) * float(*per));
    }
}

/// A row of what one step more costs.
pub fn print_slope(what: &str, who: &Contender, seconds: f64) {
    let size = Duration::from_secs_f64(seconds.abs());
    let sign = if seconds < 0.0 { "-" } else { "+" };
    Row {
        what,
        who: &who.label,
        figure: format!("{sign}{}", time(size)),
        ..Row::default()
    }
    .print();
}

pub fn float(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}
