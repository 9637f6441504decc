//! How long to wait before doing the same thing once more: at once for the first few times,
//! then longer and longer. Pure; the time is given.

use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Nothing for that long, and it begins anew.
const QUIET: Duration = Duration::from_secs(10);

/// One thing that is repeated.
#[derive(Debug)]
pub struct Backoff {
    /// How often it is done without a pause.
    free: u32,
    count: u32,
    last: Option<Instant>,
}

impl Backoff {
    pub const fn new(free: u32) -> Self {
        Self {
            free,
            count: 0,
            last: None,
        }
    }

    /// It was done.
    pub fn record(&mut self, now: Instant) {
        self.forget_if_quiet(now);
        self.count = self.count.saturating_add(1);
        self.last = Some(now);
    }

    pub const fn reset(&mut self) {
        self.count = 0;
        self.last = None;
    }

    /// How often it was done in short order; `None`: not often enough to speak of.
    pub fn excess(&mut self, now: Instant) -> Option<u32> {
        self.forget_if_quiet(now);
        (self.count > self.free).then_some(self.count)
    }

    /// When it may be done again; `None`: now.
    pub fn not_before(&mut self, now: Instant) -> Option<Instant> {
        self.forget_if_quiet(now);
        let until = self.last? + self.pause();
        (until > now).then_some(until)
    }

    /// When it counts as quiet, if nothing happens.
    pub fn quiet_at(&self) -> Option<Instant> {
        Some(self.last? + self.pause() + QUIET)
    }

    fn pause(&self) -> Duration {
        match self.count.saturating_sub(self.free) {
            0 => Duration::ZERO,
            over => FIRST_PAUSE
                .saturating_mul(1 << (over - 1).min(16))
                .min(LONGEST_PAUSE),
        }
    }

    fn forget_if_quiet(&mut self, now: Instant) {
        if self.quiet_at().is_some_and(|quiet| quiet <= now) {
            self.reset();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_few_times_are_free_and_then_pauses_grow_up_to_a_limit() {
        let mut backoff = Backoff::new(2);
        let mut now = Instant::now();
        let mut pauses = Vec::new();
        for _ in 0..10 {
            backoff.record(now);
            let until = backoff.not_before(now).unwrap_or(now);
            pauses.push(until.duration_since(now).as_secs());
            now = until;
        }
        assert_eq!(pauses, [0, 0, 1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(backoff.excess(now), Some(10));
    }

    #[test]
    fn after_a_quiet_time_it_begins_anew() {
        let mut backoff = Backoff::new(0);
        let now = Instant::now();
        backoff.record(now);
        let busy = now + FIRST_PAUSE;
        assert_eq!(
            (backoff.not_before(busy), backoff.excess(busy)),
            (None, Some(1))
        );
        let quiet = backoff.quiet_at().unwrap();
        assert_eq!((backoff.excess(quiet), backoff.quiet_at()), (None, None));
    }
}
