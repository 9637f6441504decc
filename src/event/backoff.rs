//! How long to wait before doing the same thing once more: at once for the first few times,
//! then longer and longer, as long as it is undone sooner than that. Pure; the time is given.

use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Nothing for that long, and it begins anew.
const QUIET: Duration = Duration::from_secs(10);

/// One thing that is repeated.
#[derive(Debug)]
pub struct Backoff {
    /// How often it is done without a pause.
    burst: u32,
    count: u32,
    last: Option<Last>,
    /// It has to be done again, and has to wait.
    is_held: bool,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    done: Instant,
    /// When it had to be done for the last time.
    needed: Instant,
}

impl Backoff {
    pub const fn new(burst: u32) -> Self {
        Self {
            burst,
            count: 0,
            last: None,
            is_held: false,
        }
    }

    /// It was done. Only what had to wait lengthens the pause: a change now and then is put
    /// right at once, however often that happens.
    pub fn record(&mut self, now: Instant) {
        if self.is_quiet(now) {
            self.count = 0;
        }
        if self.count <= self.burst || self.is_held {
            self.count = self.count.saturating_add(1);
        }
        self.is_held = false;
        self.last = Some(Last {
            done: now,
            needed: now,
        });
    }

    /// It has to be done; not before when? `None`: now.
    pub fn delay_until(&mut self, now: Instant) -> Option<Instant> {
        if self.is_quiet(now) {
            return None;
        }
        let last = self.last.as_mut()?;
        last.needed = now;
        let until = self.until().filter(|until| *until > now);
        self.is_held |= until.is_some();
        until
    }

    /// It need not be done any more.
    pub fn release(&mut self, now: Instant) {
        if let Some(last) = &mut self.last
            && self.is_held
        {
            last.needed = now;
            self.is_held = false;
        }
    }

    /// The next time does not wait.
    pub fn reset(&mut self, now: Instant) {
        if let Some(last) = &mut self.last {
            last.done = now.checked_sub(LONGEST_PAUSE).unwrap_or(last.done);
        }
    }

    /// Whether it was done too often in short order.
    pub fn is_flapping(&self, now: Instant) -> bool {
        self.count > self.burst && !self.is_quiet(now)
    }

    /// Whether it was not needed for a while.
    pub fn is_quiet(&self, now: Instant) -> bool {
        self.quiet_at().is_none_or(|quiet| quiet <= now) && !self.is_held
    }

    /// When something changes though nothing happens.
    pub fn next(&self) -> Option<Instant> {
        if self.is_held {
            self.until()
        } else {
            self.quiet_at().filter(|_| self.count > self.burst)
        }
    }

    fn quiet_at(&self) -> Option<Instant> {
        self.last.map(|last| last.needed + QUIET)
    }

    fn until(&self) -> Option<Instant> {
        self.last.map(|last| last.done + self.pause())
    }

    fn pause(&self) -> Duration {
        match self.count.saturating_sub(self.burst) {
            0 => Duration::ZERO,
            over => FIRST_PAUSE
                .saturating_mul(1 << (over - 1).min(16))
                .min(LONGEST_PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Something else that happens every `period` for `times`: the pauses in seconds, from
    /// each time until it is put right.
    fn pauses(backoff: &mut Backoff, mut now: Instant, period: Duration, times: usize) -> Vec<u64> {
        (0..times)
            .map(|_| {
                let needed = now;
                while let Some(until) = backoff.delay_until(now) {
                    assert_eq!(backoff.next(), Some(until));
                    now = until;
                }
                backoff.record(now);
                let pause = now - needed;
                now += period;
                pause.as_secs()
            })
            .collect()
    }

    #[test]
    fn the_first_few_times_are_free_and_then_pauses_grow_up_to_a_limit() {
        let mut backoff = Backoff::new(2);
        let now = Instant::now();
        assert_eq!(
            pauses(&mut backoff, now, Duration::ZERO, 11),
            [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60]
        );
        assert!(backoff.is_flapping(now));
    }

    #[test]
    fn what_comes_after_the_pause_does_not_wait_and_stays_too_much() {
        let mut backoff = Backoff::new(2);
        let now = Instant::now();
        let period = Duration::from_millis(2500);
        assert_eq!(pauses(&mut backoff, now, period, 20), [0; 20]);
        assert!(backoff.is_flapping(now + 19 * period));
    }

    #[test]
    fn what_comes_now_and_then_is_never_too_much() {
        let mut backoff = Backoff::new(2);
        let now = Instant::now();
        assert_eq!(pauses(&mut backoff, now, QUIET, 20), [0; 20]);
        assert!(!backoff.is_flapping(now + 20 * QUIET));
    }

    #[test]
    fn after_a_quiet_time_it_begins_anew_and_waiting_is_not_quiet() {
        let mut backoff = Backoff::new(0);
        let now = Instant::now();
        assert_eq!(
            pauses(&mut backoff, now, Duration::ZERO, 6),
            [0, 1, 2, 4, 8, 16]
        );
        let now = backoff.last.unwrap().done;
        let later = now + Duration::from_secs(20);
        assert_eq!(
            backoff.delay_until(now),
            Some(now + Duration::from_secs(32))
        );
        assert!(backoff.is_flapping(later) && !backoff.is_quiet(later));
        // In the middle of being rewritten it is neither right nor wrong.
        backoff.release(later);
        assert!(backoff.is_flapping(later));
        let quiet = backoff.next().unwrap();
        assert_eq!(quiet, later + QUIET);
        assert!(backoff.is_quiet(quiet) && !backoff.is_flapping(quiet));
        assert_eq!(backoff.delay_until(quiet), None);
    }

    #[test]
    fn in_a_hurry_it_does_not_wait_and_yet_is_too_much() {
        let mut backoff = Backoff::new(0);
        let now = Instant::now();
        pauses(&mut backoff, now, Duration::ZERO, 3);
        let now = backoff.last.unwrap().done;
        assert!(backoff.delay_until(now).is_some());
        backoff.reset(now);
        assert_eq!(backoff.delay_until(now), None);
        assert!(backoff.is_flapping(now));
    }
}
