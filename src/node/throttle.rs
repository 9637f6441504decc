//! Delays steps that failed or that another process keeps undoing, and derives reasons for not
//! being ready from them. Pure: the time is passed in.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::netdir::conflist::is_network_configuration;
use super::step::{Cause, Step};
use crate::event::backoff::Backoff;

/// Repairs of one file, in quick succession, before they are delayed.
const BURST: u32 = 5;

/// The recent steps.
#[derive(Debug, Default)]
pub struct Throttle {
    /// Keyed by file.
    repairs: HashMap<PathBuf, Repair>,
    failures: Vec<Failure>,
}

#[derive(Debug)]
struct Repair {
    backoff: Backoff,
    /// Why the last repair was needed.
    reason: String,
}

#[derive(Debug)]
struct Failure {
    step: Step,
    error: String,
    backoff: Backoff,
}

impl Throttle {
    /// Releases what a new plan no longer needs. A repaired file is forgotten after a while.
    pub fn update(&mut self, steps: &[Step], now: Instant) {
        self.repairs.retain(|path, repair| {
            if steps.iter().all(|step| step.action.path() != path) {
                repair.backoff.release(now);
            }
            !repair.backoff.is_quiet(now)
        });
        // A different step for the same file may succeed.
        self.failures
            .retain(|failure| steps.contains(&failure.step));
    }

    /// When a step may be taken; `None` if it may be taken now.
    pub fn delay_until(&mut self, step: &Step, now: Instant) -> Option<Instant> {
        let failures = self.failures.iter_mut();
        let failed = failures.filter(|failure| failure.step == *step);
        let repair = self.repairs.get_mut(step.action.path());
        let backoffs = failed
            .map(|failure| &mut failure.backoff)
            .chain(repair.map(|repair| &mut repair.backoff));
        backoffs
            .filter_map(|backoff| backoff.delay_until(now))
            .max()
    }

    /// Records that a step succeeded.
    pub fn done(&mut self, step: Step, now: Instant) {
        self.failures.retain(|failure| failure.step != step);
        if step.cause == Cause::Repair {
            let repair = self
                .repairs
                .entry(step.action.path().to_owned())
                .or_insert_with(|| Repair {
                    backoff: Backoff::new(BURST),
                    reason: String::new(),
                });
            repair.backoff.record(now);
            repair.reason = step.reason;
        }
    }

    /// Records that a step failed.
    pub fn failed(&mut self, step: Step, error: String, now: Instant) {
        let known = self
            .failures
            .iter_mut()
            .find(|failure| failure.step == step);
        if let Some(failure) = known {
            failure.backoff.record(now);
            failure.error = error;
            return;
        }
        let mut backoff = Backoff::new(0);
        backoff.record(now);
        self.failures.push(Failure {
            step,
            error,
            backoff,
        });
    }

    /// Ends all current delays.
    pub fn reset(&mut self, now: Instant) {
        let repairs = self.repairs.values_mut().map(|repair| &mut repair.backoff);
        let failures = self.failures.iter_mut().map(|failure| &mut failure.backoff);
        for backoff in repairs.chain(failures) {
            backoff.reset(now);
        }
    }

    /// Why the node is not in the desired state, or will not remain in it.
    pub fn reasons(&self, now: Instant) -> Vec<String> {
        let failed = self.failures.iter().map(|failure| failure.error.clone());
        let mut flapping: Vec<String> = self
            .repairs
            .iter()
            .filter(|(_, repair)| repair.backoff.is_flapping(now))
            .map(|(path, repair)| flapping(path, &repair.reason))
            .collect();
        flapping.sort_unstable();
        failed.chain(flapping).collect()
    }

    /// When a delay ends or a reason disappears by the passing of time alone.
    pub fn next(&self) -> Option<Instant> {
        let repairs = self.repairs.values().map(|repair| &repair.backoff);
        let failures = self.failures.iter().map(|failure| &failure.backoff);
        repairs.chain(failures).filter_map(Backoff::next).min()
    }
}

fn flapping(path: &Path, reason: &str) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let remedy = if is_network_configuration(&name) {
        "another network plugin may claim the file; if it is Cilium, set cni.exclusive=false"
    } else {
        "find the process that changes it, perhaps a second installer on this node"
    };
    format!(
        "{} keeps being overwritten ({reason}); backing off; {remedy}",
        path.display()
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::node::step::Action;

    fn removal(path: &str, cause: Cause) -> Step {
        let path = path.into();
        Step {
            action: Action::Remove { path },
            reason: "it was there".into(),
            cause,
        }
    }

    #[test]
    fn file_that_keeps_being_overwritten_is_delayed_and_no_other() {
        let mut throttle = Throttle::default();
        let now = Instant::now();
        let overwritten = || removal("/etc/cni/net.d/10-x.conflist", Cause::Repair);
        for _ in 0..=BURST {
            assert_eq!(throttle.reasons(now), Vec::<String>::new());
            assert_eq!(throttle.delay_until(&overwritten(), now), None);
            throttle.done(overwritten(), now);
        }
        let until = throttle.delay_until(&overwritten(), now).unwrap();
        assert!(until > now);
        assert_eq!(throttle.next(), Some(until));
        assert_eq!(
            throttle.delay_until(&removal("/y", Cause::Repair), now),
            None
        );
        let [reason] = throttle.reasons(now).try_into().unwrap();
        assert!(
            reason.starts_with(
                "/etc/cni/net.d/10-x.conflist keeps being overwritten (it was there); backing off"
            ) && reason.contains("cni.exclusive"),
            "{reason}"
        );
        throttle.update(&[overwritten()], until + Duration::from_secs(3600));
        assert_eq!(throttle.reasons(until).len(), 1);
        throttle.update(&[], until);
        assert_eq!(throttle.reasons(until).len(), 1);
        let quiet = throttle.next().unwrap();
        throttle.update(&[], quiet);
        assert_eq!(
            (throttle.reasons(quiet), throttle.next()),
            (Vec::new(), None)
        );
    }

    #[test]
    fn renewals_are_never_delayed() {
        let mut throttle = Throttle::default();
        let now = Instant::now();
        for _ in 0..100 {
            throttle.done(removal("/x", Cause::Renewal), now);
        }
        assert_eq!(
            throttle.delay_until(&removal("/x", Cause::Renewal), now),
            None
        );
        assert_eq!((throttle.reasons(now), throttle.next()), (Vec::new(), None));
    }

    #[test]
    fn failed_step_is_delayed_until_reset_or_replaced() {
        let mut throttle = Throttle::default();
        let now = Instant::now();
        let step = |path| removal(path, Cause::Repair);
        throttle.failed(step("/x"), "removing /x: no".into(), now);
        let until = throttle.delay_until(&step("/x"), now).unwrap();
        assert_eq!(throttle.delay_until(&step("/y"), now), None);
        assert_eq!(throttle.reasons(now), ["removing /x: no"]);
        throttle.reset(now);
        assert_eq!(throttle.delay_until(&step("/x"), now), None);
        throttle.failed(step("/x"), "removing /x: no".into(), until);
        assert!(throttle.delay_until(&step("/x"), until).unwrap() > until + (until - now));
        throttle.update(&[step("/y")], until);
        assert_eq!(
            (throttle.reasons(until), throttle.next()),
            (Vec::new(), None)
        );
    }

    #[test]
    fn failures_are_delayed_independently() {
        let mut throttle = Throttle::default();
        let now = Instant::now();
        let step = |path| removal(path, Cause::Repair);
        throttle.failed(step("/x"), "removing /x: no".into(), now);
        let first = throttle.delay_until(&step("/x"), now).unwrap();
        throttle.failed(step("/y"), "removing /y: no".into(), now);
        throttle.failed(step("/x"), "removing /x: still no".into(), first);
        assert_eq!(
            throttle.reasons(now),
            ["removing /x: still no", "removing /y: no"]
        );
        assert!(throttle.delay_until(&step("/x"), first).unwrap() > first);
        assert_eq!(throttle.delay_until(&step("/y"), first), None);
        throttle.done(step("/y"), first);
        assert_eq!(throttle.reasons(now), ["removing /x: still no"]);
    }
}
