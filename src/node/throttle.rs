//! Which steps may be taken now: not one that has just failed, nor one that somebody undoes
//! again and again. Also the reasons for not being ready that follow from it. Pure; the time
//! is given.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::event::backoff::Backoff;
use crate::node::step::{Cause, Step};
use crate::text::is_network_configuration;

/// How often a file is put right in short order before it counts as a fight.
const PATIENCE: u32 = 5;

/// What was done lately.
#[derive(Debug, Default)]
pub struct Throttle {
    /// By file.
    repairs: HashMap<PathBuf, Repair>,
    failures: Vec<Failure>,
}

#[derive(Debug)]
struct Repair {
    backoff: Backoff,
    /// Why it was necessary.
    reason: String,
}

#[derive(Debug)]
struct Failure {
    step: Step,
    error: String,
    backoff: Backoff,
}

impl Throttle {
    /// Everything that is amiss now; what is not any more, is forgotten after a while.
    pub fn look(&mut self, steps: &[Step], now: Instant) {
        self.repairs.retain(|path, repair| {
            if steps.iter().all(|step| step.action.path() != path) {
                repair.backoff.release(now);
            }
            !repair.backoff.is_quiet(now)
        });
        // Something else may succeed where this did not.
        self.failures
            .retain(|failure| steps.contains(&failure.step));
    }

    /// When a step may be taken; `None`: now.
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

    pub fn done(&mut self, step: Step, now: Instant) {
        self.failures.retain(|failure| failure.step != step);
        if step.cause == Cause::Repair {
            let repair = self
                .repairs
                .entry(step.action.path().to_owned())
                .or_insert_with(|| Repair {
                    backoff: Backoff::new(PATIENCE),
                    reason: String::new(),
                });
            repair.backoff.record(now);
            repair.reason = step.reason;
        }
    }

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

    /// Somebody asks for another try.
    pub fn reset(&mut self, now: Instant) {
        let repairs = self.repairs.values_mut().map(|repair| &mut repair.backoff);
        let failures = self.failures.iter_mut().map(|failure| &mut failure.backoff);
        for backoff in repairs.chain(failures) {
            backoff.reset(now);
        }
    }

    /// Why this node is not as it should be, or will not stay so.
    pub fn reasons(&self, now: Instant) -> Vec<String> {
        let failed = self.failures.iter().map(|failure| failure.error.clone());
        let mut fights: Vec<String> = self
            .repairs
            .iter()
            .filter(|(_, repair)| repair.backoff.is_flapping(now))
            .map(|(path, repair)| fight(path, &repair.reason))
            .collect();
        fights.sort_unstable();
        failed.chain(fights).collect()
    }

    /// When to look again though nothing has happened.
    pub fn next(&self) -> Option<Instant> {
        let repairs = self.repairs.values().map(|repair| &repair.backoff);
        let failures = self.failures.iter().map(|failure| &failure.backoff);
        repairs.chain(failures).filter_map(Backoff::next).min()
    }
}

fn fight(path: &Path, reason: &str) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let cure = if is_network_configuration(&name) {
        "another network plugin may want the file for itself, as Cilium does: set its cni.exclusive to false"
    } else {
        "find out what changes it, perhaps a second installer on this node"
    };
    format!(
        "{} is changed again and again ({reason}), and is put right less often now; {cure}",
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
    fn a_file_that_is_changed_again_and_again_waits_and_no_other_does() {
        let mut throttle = Throttle::default();
        let now = Instant::now();
        let fought = || removal("/etc/cni/net.d/10-x.conflist", Cause::Repair);
        for _ in 0..=PATIENCE {
            assert_eq!(throttle.reasons(now), Vec::<String>::new());
            assert_eq!(throttle.delay_until(&fought(), now), None);
            throttle.done(fought(), now);
        }
        let until = throttle.delay_until(&fought(), now).unwrap();
        assert!(until > now);
        assert_eq!(throttle.next(), Some(until));
        assert_eq!(
            throttle.delay_until(&removal("/y", Cause::Repair), now),
            None
        );
        let [reason] = throttle.reasons(now).try_into().unwrap();
        assert!(
            reason.starts_with(
                "/etc/cni/net.d/10-x.conflist is changed again and again (it was there)"
            ) && reason.contains("cni.exclusive"),
            "{reason}"
        );
        throttle.look(&[fought()], until + Duration::from_secs(3600));
        assert_eq!(throttle.reasons(until).len(), 1);
        throttle.look(&[], until);
        assert_eq!(throttle.reasons(until).len(), 1);
        let quiet = throttle.next().unwrap();
        throttle.look(&[], quiet);
        assert_eq!(
            (throttle.reasons(quiet), throttle.next()),
            (Vec::new(), None)
        );
    }

    #[test]
    fn a_renewal_is_no_fight() {
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
    fn what_has_failed_waits_unless_something_changes() {
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
        throttle.look(&[step("/y")], until);
        assert_eq!(
            (throttle.reasons(until), throttle.next()),
            (Vec::new(), None)
        );
    }

    #[test]
    fn what_has_failed_besides_waits_for_itself() {
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
