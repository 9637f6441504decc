//! Times all cases in turn: each once a round, in another order each round, and in its own
//! sandbox. A case is checked once before it is timed.

use std::time::{Duration, Instant};

use msm_testkit::libc::Libc;
use msm_testkit::netns::Namespace;

use crate::cases::{Case, DYNAMIC_TRUE, Limit, Rules, STATIC_TRUE, Work};
use crate::cluster::Cluster;
use crate::launch::{Cost, run};
use crate::sandbox::remove;
use crate::statistics::{Sample, ratio};
use crate::table::{Row, span, time, verdict};
use crate::targets::Target;

/// The results of one case.
#[derive(Debug, Default)]
pub struct Series {
    pub walls: Sample,
    pub cpus: Sample,
    pub major_faults: u64,
    failures: usize,
    /// Why it is not timed, the first failure, or another remark.
    pub remark: Option<String>,
    is_excluded: bool,
}

/// Runs each case once to check it, then `rounds` times. A failure of the shipped executable is
/// an error; failures of others are shown in their rows.
pub fn measure(
    cluster: &Cluster,
    ours: &Target,
    cases: &[Case],
    rounds: usize,
) -> Result<Vec<Series>, String> {
    let mut all: Vec<Series> = cases.iter().map(|_| Series::default()).collect();
    for round in 0..=rounds {
        let mut sandboxes = Vec::with_capacity(cases.len());
        for (case, series) in cases.iter().zip(&mut all) {
            let sandbox = if series.is_excluded {
                None
            } else {
                case.sandbox.make(cluster).unwrap_or_else(|error| {
                    series.exclude(&error);
                    None
                })
            };
            sandboxes.push(sandbox);
        }
        for step in 0..cases.len() {
            let at = (step + round) % cases.len();
            let (case, sandbox) = (&cases[at], sandboxes[at].as_ref());
            if all[at].is_excluded {
                continue;
            }
            if let Some(before) = &case.before {
                before()?;
            }
            let cost = case.run(cluster, sandbox);
            if round > 0 {
                all[at].add(cost);
            } else if let Err(error) = cost.and_then(|_| case.verify(ours, sandbox)) {
                if case.is_ours() {
                    return Err(format!("{}: {error}", case.what));
                }
                all[at].exclude(&error);
            } else if let (Rules::Some, Some(sandbox)) = (&case.rules, sandbox)
                && !sandbox.rules().contains("redirect")
                && !sandbox.rules().contains("REDIRECT")
            {
                all[at].remark = Some("leaves no redirect in the namespace".to_owned());
            }
        }
        remove(sandboxes);
    }
    Ok(all)
}

impl Case<'_> {
    fn run(&self, cluster: &Cluster, sandbox: Option<&Namespace>) -> Result<Cost, String> {
        match &self.work {
            Work::Processes(launches) => run(&mut launches(sandbox), &cluster.log),
            Work::Exchange(key, pod) => {
                let path = pod.url_path();
                let start = Instant::now();
                let done = cluster.server(*key).exchange(&path);
                let wall = start.elapsed();
                done.map_err(|error| format!("GET {path}: {error}"))?;
                Ok(Cost {
                    wall,
                    ..Cost::default()
                })
            }
        }
    }

    fn verify(&self, ours: &Target, sandbox: Option<&Namespace>) -> Result<(), String> {
        let (Rules::Redirect(flags), Some(sandbox)) = (&self.rules, sandbox) else {
            return Ok(());
        };
        let mut check = ours.applet("msm-iptables");
        check
            .arg("--netns")
            .arg(sandbox.path())
            .arg("--check")
            .args(flags);
        let outcome = msm_testkit::command::run(&mut check);
        if outcome.code == Some(0) {
            return Ok(());
        }
        Err(format!(
            "no redirect in the kernel afterwards: {}",
            outcome.stderr.trim()
        ))
    }
}

impl Series {
    fn add(&mut self, cost: Result<Cost, String>) {
        match cost {
            Ok(cost) => {
                self.walls.push(cost.wall);
                self.cpus.push(cost.cpu);
                self.major_faults += cost.major_faults;
            }
            Err(error) => {
                self.failures += 1;
                self.remark.get_or_insert(error);
            }
        }
    }

    fn exclude(&mut self, reason: &str) {
        self.is_excluded = true;
        self.remark = Some(format!("FAILED, not timed: {reason}"));
    }

    /// The row, without ratios.
    pub fn row<'a>(&self, case: &'a Case) -> Row<'a> {
        let mut row = Row {
            what: &case.what,
            target: case.target,
            remark: self.remark.clone().unwrap_or_default(),
            ..Row::default()
        };
        if self.failures > 0 {
            row.remark = format!("{} FAILED: {}", self.failures, row.remark);
        }
        if !self.walls.is_empty() {
            row.figure = time(self.walls.median());
            row.spread = span(self.walls.min(), self.walls.p90());
            if matches!(case.work, Work::Processes(_)) {
                row.cpu = time(self.cpus.median());
            }
        }
        row
    }
}

/// Prints a row for each case, with ratios and limits.
pub fn print(cases: &[Case], all: &[Series]) {
    let median = |matches: &dyn Fn(&Case) -> bool| {
        let at = cases.iter().position(matches)?;
        let walls = &all.get(at)?.walls;
        (!walls.is_empty()).then(|| walls.median())
    };
    let of = |what: &str| median(&|it| it.what == what);
    let of_ours = |what: &str| median(&|it| it.what == what && it.is_ours());
    for (case, series) in cases.iter().zip(all) {
        let mut row = series.row(case);
        if !series.walls.is_empty() {
            let wall = series.walls.median();
            row.of_true = of(STATIC_TRUE).map(|it| ratio(wall, it));
            row.of_ours = of_ours(&case.baseline).map(|it| ratio(wall, it));
            let verdict = case
                .limit
                .as_ref()
                .and_then(|limit| limit.verdict(wall, &of));
            if let Some(verdict) = verdict {
                row.remark.insert_str(0, &(verdict + " "));
            }
        }
        row.print();
    }
}

impl Limit {
    fn verdict(&self, wall: Duration, of: &dyn Fn(&str) -> Option<Duration>) -> Option<String> {
        match self {
            Self::Wall(limit) => {
                let text = format!("at most {} ms", limit.as_millis());
                Some(verdict(&text, wall <= *limit))
            }
            Self::OfTrue(libc) => {
                let limit = match libc {
                    Libc::Musl => 0.7,
                    Libc::Glibc => 1.1,
                };
                let share = ratio(wall, of(DYNAMIC_TRUE)?);
                let text = format!("{share:.2} of /bin/true, at most {limit} with {libc}");
                Some(verdict(&text, share <= limit))
            }
            Self::EighthOf(what) => {
                let share = ratio(of(what)?, wall);
                let text = format!("1/{share:.1} of {what}, at most 1/8");
                Some(verdict(&text, share >= 8.0))
            }
        }
    }
}
