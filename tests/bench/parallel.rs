//! Many ADDs at once, each in a namespace of its own: until all are done, and the slowest.

use std::process::Command;
use std::time::Duration;

use msm_testkit::netns::Namespace;

use crate::contenders::Contender;
use crate::growth::{float, print_slope};
use crate::launch::{Launch, run_together};
use crate::sandbox::{Sandbox, give_up};
use crate::site::{Call, Site};
use crate::statistics::{Sample, ratio, slope};
use crate::subjects::{FLOOR, STATIC_TRUE};
use crate::table::{Row, heading, span, time, verdict};

/// How many at once.
const COUNTS: [usize; 7] = [1, 2, 5, 10, 30, 100, 200];
/// DESIGN.md's target for 30 of them.
const LIMIT: (usize, Duration) = (30, Duration::from_millis(100));

/// What so many at once came to, over several times.
#[derive(Debug, Default)]
struct Several {
    all: Sample,
    slowest: Sample,
    failures: Vec<String>,
}

/// Prints the part.
pub fn report(site: &Site, contenders: &[Contender], rounds: usize) -> Result<(), String> {
    heading(&format!(
        "ADDs at once (nftables, ECDSA, 8 kB pod), until all are done; {rounds} times"
    ));
    let mut able: Vec<&Contender> = contenders.iter().collect();
    let mut points: Vec<(&Contender, Vec<(f64, f64)>)> =
        able.iter().map(|&who| (who, Vec::new())).collect();
    for count in COUNTS {
        let floor = floor(site, count, rounds)?;
        let several = measure(site, &able, count, rounds)?;
        let ours = several.first().map(|it| it.all.median());
        for (who, several) in able.iter().zip(&several) {
            several.print(who, count, floor, ours);
            let slowness = (float(count), several.all.min().as_secs_f64());
            let of_who = points.iter_mut().filter(|it| it.0.label == who.label);
            of_who.for_each(|it| it.1.push(slowness));
        }
        // Where all have failed, no more will do better.
        let mut is_able = several.iter().map(|it| it.failures.len() < count * rounds);
        able.retain(|_| is_able.next() == Some(true));
    }
    for (who, points) in points.iter().filter(|it| it.1.len() == COUNTS.len()) {
        print_slope("per 1 ADD more at once", who, slope(points));
    }
    Ok(())
}

/// Prints what as many starts of nothing take, and returns it.
fn floor(site: &Site, count: usize, rounds: usize) -> Result<Duration, String> {
    let mut floor = Sample::default();
    for _ in 0..rounds {
        let starts = (0..count).map(|_| Launch::new(Command::new(&site.static_true)));
        let mut launches: Vec<_> = starts.collect();
        floor.push(run_together(&mut launches, &site.log)?.all);
    }
    Row {
        what: &format!("{count} at once, {STATIC_TRUE}"),
        who: FLOOR,
        figure: time(floor.median()),
        spread: span(floor.min(), floor.p90()),
        ..Row::default()
    }
    .print();
    Ok(floor.median())
}

/// Runs `count` at once, `rounds` times, of each contender in turn.
fn measure(
    site: &Site,
    contenders: &[&Contender],
    count: usize,
    rounds: usize,
) -> Result<Vec<Several>, String> {
    let mut several: Vec<_> = contenders.iter().map(|_| Several::default()).collect();
    for round in 0..rounds {
        for step in 0..contenders.len() {
            let at = (round + step) % contenders.len();
            let namespaces = (0..count).map(|_| Sandbox::Empty.make(site));
            let namespaces = namespaces.collect::<Result<Vec<Option<Namespace>>, _>>()?;
            let mut launches: Vec<Launch> = namespaces
                .iter()
                .map(|netns| site.call(contenders[at], Call::ADD, netns.as_ref()))
                .collect();
            let together = run_together(&mut launches, &site.log)?;
            several[at].all.push(together.all);
            several[at].slowest.push(together.slowest);
            several[at].failures.extend(together.failures);
            give_up(namespaces);
        }
    }
    Ok(several)
}

impl Several {
    fn print(&self, who: &Contender, count: usize, floor: Duration, ours: Option<Duration>) {
        let all = self.all.median();
        let mut remark = format!("slowest one {}", time(self.slowest.median()));
        if let Some(first) = self.failures.first() {
            remark = format!("{} FAILED, as: {first}", self.failures.len());
        }
        if who.is_build() && count == LIMIT.0 {
            remark = format!("{}; {remark}", verdict("at most 100 ms", all <= LIMIT.1));
        }
        Row {
            what: &format!("{count} at once"),
            who: &who.label,
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
