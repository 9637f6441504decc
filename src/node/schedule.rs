//! When to reconcile, and when a reason for not being ready is published. Pure: the time is
//! passed in.

use std::time::{Duration, Instant};

/// Maximum interval between reconciles, in case an event was lost.
pub const RESYNC: Duration = Duration::from_secs(60);
/// The same while something is missing that may appear in a directory that is not watched.
pub const POLL: Duration = Duration::from_secs(1);
/// Grace period: a file may be briefly missing while it is being replaced.
const GRACE: Duration = Duration::from_millis(200);
/// Minimum interval between reconciles.
const MIN_INTERVAL: Duration = Duration::from_millis(5);

#[derive(Debug)]
pub struct Schedule {
    /// The last reconcile.
    last: Instant,
    /// Reasons last published on /readyz.
    published: Vec<String>,
    /// Since when the reasons differ from the published ones.
    unstable_since: Option<Instant>,
}

impl Schedule {
    pub const fn new(now: Instant) -> Self {
        Self {
            last: now,
            published: Vec::new(),
            unstable_since: None,
        }
    }

    /// Records a reconcile that changed the disk: the next one shows its effect.
    pub const fn record_change(&mut self, now: Instant) {
        self.last = now;
    }

    /// Records a reconcile that changed nothing. `waiting` is published if it is empty or the
    /// same as before, otherwise after the grace period.
    pub fn record(&mut self, now: Instant, waiting: Vec<String>) {
        self.last = now;
        let is_news = !waiting.is_empty() && waiting != self.published;
        let since = self.unstable_since.unwrap_or(now);
        if is_news && now < since + GRACE {
            self.unstable_since = Some(since);
        } else {
            self.unstable_since = None;
            self.published = waiting;
        }
    }

    /// Whether the last recorded reasons are published.
    pub const fn is_stable(&self) -> bool {
        self.unstable_since.is_none()
    }

    pub fn published(&self) -> &[String] {
        &self.published
    }

    /// When to reconcile at the latest.
    pub fn next(&self) -> Instant {
        self.last
            + match self.unstable_since {
                Some(_) => GRACE,
                None if self.published.is_empty() => RESYNC,
                None => POLL,
            }
    }

    /// When to reconcile at the earliest, after an event.
    pub fn earliest(&self) -> Instant {
        self.last + MIN_INTERVAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(text: &str) -> Vec<String> {
        vec![text.to_owned()]
    }

    #[test]
    fn ready_node_is_reconciled_once_per_resync() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        schedule.record(now, Vec::new());
        assert_eq!(schedule.next(), now + RESYNC);
        assert_eq!(schedule.earliest(), now + MIN_INTERVAL);
    }

    #[test]
    fn missing_file_is_published_after_the_grace_period() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        schedule.record(now, reasons("missing"));
        assert!(!schedule.is_stable() && schedule.published().is_empty());
        assert_eq!(schedule.next(), now + GRACE);
        let later = now + GRACE / 2;
        schedule.record(later, reasons("half-written"));
        assert!(!schedule.is_stable());
        let later = now + GRACE;
        schedule.record(later, reasons("missing"));
        assert!(schedule.is_stable());
        assert_eq!(schedule.published(), reasons("missing"));
        assert_eq!(schedule.next(), later + POLL);
    }

    #[test]
    fn file_that_is_replaced_within_the_grace_period_is_never_published() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        for round in 0..3 {
            let now = now + round * 2 * GRACE;
            schedule.record(now, reasons("missing"));
            assert!(schedule.published().is_empty());
            schedule.record(now + GRACE / 2, Vec::new());
            assert!(schedule.is_stable() && schedule.published().is_empty());
        }
    }

    #[test]
    fn published_reason_remains_while_another_one_is_in_its_grace_period() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        schedule.record(now, reasons("first"));
        schedule.record(now + GRACE, reasons("first"));
        schedule.record(now + 2 * GRACE, reasons("second"));
        assert_eq!(schedule.published(), reasons("first"));
        schedule.record(now + 3 * GRACE, reasons("second"));
        assert_eq!(schedule.published(), reasons("second"));
        schedule.record(now + 4 * GRACE, Vec::new());
        assert!(schedule.published().is_empty());
    }

    #[test]
    fn change_keeps_the_grace_period_running() {
        let now = Instant::now();
        let mut schedule = Schedule::new(now);
        schedule.record(now, reasons("missing"));
        schedule.record_change(now + GRACE / 2);
        schedule.record(now + GRACE, reasons("missing"));
        assert_eq!(schedule.published(), reasons("missing"));
    }
}
