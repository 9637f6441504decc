//! Times many things in turn: each once a round, in another order each round, every one in
//! surroundings of its own. Nothing is timed that was not right before the clock started.

use std::time::{Duration, Instant};

use msm_testkit::libc::Libc;
use msm_testkit::netns::Namespace;

use crate::contenders::Contender;
use crate::launch::{Cost, run};
use crate::sandbox::give_up;
use crate::site::Site;
use crate::statistics::{Sample, ratio};
use crate::subjects::{DYNAMIC_TRUE, Limit, Rules, STATIC_TRUE, Subject, Work};
use crate::table::{Row, span, time, verdict};

/// What the runs of one subject came to.
#[derive(Debug, Default)]
pub struct Series {
    pub walls: Sample,
    pub cpus: Sample,
    pub major_faults: u64,
    failures: usize,
    /// Why it is not timed, or the first failure, or what is odd about it.
    pub remark: Option<String>,
    is_out: bool,
}

/// Runs everything once to see that it is right, then `rounds` times. Ours has to be right;
/// what is wrong about others is said in their rows.
pub fn measure(
    site: &Site,
    ours: &Contender,
    subjects: &[Subject],
    rounds: usize,
) -> Result<Vec<Series>, String> {
    let mut all: Vec<Series> = subjects.iter().map(|_| Series::default()).collect();
    for round in 0..=rounds {
        let mut sandboxes = Vec::with_capacity(subjects.len());
        for (subject, series) in subjects.iter().zip(&mut all) {
            let sandbox = if series.is_out {
                None
            } else {
                subject.sandbox.make(site).unwrap_or_else(|error| {
                    series.exclude(&error);
                    None
                })
            };
            sandboxes.push(sandbox);
        }
        for step in 0..subjects.len() {
            let at = (step + round) % subjects.len();
            let (subject, sandbox) = (&subjects[at], sandboxes[at].as_ref());
            if all[at].is_out {
                continue;
            }
            if let Some(before) = &subject.before {
                before()?;
            }
            let cost = subject.run(site, sandbox);
            if round > 0 {
                all[at].add(cost);
            } else if let Err(error) = cost.and_then(|_| subject.verify(ours, sandbox)) {
                if subject.is_ours() {
                    return Err(format!("{} is wrong: {error}", subject.what));
                }
                all[at].exclude(&error);
            } else if let (Rules::Some, Some(sandbox)) = (&subject.rules, sandbox)
                && !sandbox.rules().contains("redirect")
                && !sandbox.rules().contains("REDIRECT")
            {
                all[at].remark = Some("it leaves no redirect in the namespace".to_owned());
            }
        }
        give_up(sandboxes);
    }
    Ok(all)
}

impl Subject<'_> {
    fn run(&self, site: &Site, sandbox: Option<&Namespace>) -> Result<Cost, String> {
        match &self.work {
            Work::Processes(launches) => run(&mut launches(sandbox), &site.log),
            Work::Exchange(key, pod) => {
                let path = pod.url_path();
                let start = Instant::now();
                let done = site.server(*key).exchange(&path);
                let wall = start.elapsed();
                done.map_err(|error| format!("GET {path}: {error}"))?;
                Ok(Cost {
                    wall,
                    ..Cost::default()
                })
            }
        }
    }

    fn verify(&self, ours: &Contender, sandbox: Option<&Namespace>) -> Result<(), String> {
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
            "the kernel does not hold the redirect afterwards: {}",
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
        self.is_out = true;
        self.remark = Some(format!("FAILED, not timed: {reason}"));
    }

    /// Its row, without what it is compared with.
    pub fn row<'a>(&self, subject: &'a Subject) -> Row<'a> {
        let mut row = Row {
            what: &subject.what,
            who: subject.who,
            remark: self.remark.clone().unwrap_or_default(),
            ..Row::default()
        };
        if self.failures > 0 {
            row.remark = format!("{} FAILED: {}", self.failures, row.remark);
        }
        if !self.walls.is_empty() {
            row.figure = time(self.walls.median());
            row.spread = span(self.walls.min(), self.walls.p90());
            if matches!(subject.work, Work::Processes(_)) {
                row.cpu = time(self.cpus.median());
            }
        }
        row
    }
}

/// Prints a row for each, compared with a static `true` and with ours.
pub fn print(subjects: &[Subject], all: &[Series]) {
    let median = |is_it: &dyn Fn(&Subject) -> bool| {
        let at = subjects.iter().position(is_it)?;
        let walls = &all.get(at)?.walls;
        (!walls.is_empty()).then(|| walls.median())
    };
    let of = |what: &str| median(&|it| it.what == what);
    let of_ours = |what: &str| median(&|it| it.what == what && it.is_ours());
    for (subject, series) in subjects.iter().zip(all) {
        let mut row = series.row(subject);
        if !series.walls.is_empty() {
            let wall = series.walls.median();
            row.of_true = of(STATIC_TRUE).map(|it| ratio(wall, it));
            row.of_ours = of_ours(&subject.beside).map(|it| ratio(wall, it));
            let said = subject
                .limit
                .as_ref()
                .and_then(|limit| limit.judge(wall, &of));
            if let Some(said) = said {
                row.remark.insert_str(0, &(said + " "));
            }
        }
        row.print();
    }
}

impl Limit {
    fn judge(&self, wall: Duration, of: &dyn Fn(&str) -> Option<Duration>) -> Option<String> {
        match self {
            Self::Wall(limit) => {
                let target = format!("at most {} ms", limit.as_millis());
                Some(verdict(&target, wall <= *limit))
            }
            Self::OfTrue(libc) => {
                let limit = match libc {
                    Libc::Musl => 0.7,
                    Libc::Glibc => 1.1,
                };
                let share = ratio(wall, of(DYNAMIC_TRUE)?);
                let target = format!("{share:.2} of /bin/true, at most {limit} by {libc}");
                Some(verdict(&target, share <= limit))
            }
            Self::EighthOf(what) => {
                let share = ratio(of(what)?, wall);
                let target = format!("1/{share:.1} of {what}, at most 1/8");
                Some(verdict(&target, share >= 8.0))
            }
        }
    }
}
