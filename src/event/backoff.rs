//! Delays the repetitions of one action: after a burst without delays the pauses double, until
//! the action was not needed for a while. Pure: the time is passed in.

use std::time::{Duration, Instant};

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// If the action was not needed for this long, the count starts again at zero.
const QUIET: Duration = Duration::from_secs(10);

/// The repetitions of one action.
#[derive(Debug)]
pub struct Backoff {
    /// Repetitions without a pause.
    burst: u32,
    count: u32,
    last: Option<Last>,
    /// The action is needed, but its pause has not ended.
    is_delayed: bool,
}

#[derive(Debug, Clone, Copy)]
struct Last {
    done: Instant,
    /// When the action was last needed.
    needed: Instant,
}

impl Backoff {
    pub const fn new(burst: u32) -> Self {
        Self {
            burst,
            count: 0,
            last: None,
            is_delayed: false,
        }
    }

    /// Counts a repetition. Beyond the burst, only a delayed repetition makes the next pause
    /// longer: an action that is needed every few seconds is never delayed.
    pub fn record(&mut self, now: Instant) {
        if self.is_quiet(now) {
            self.count = 0;
        }
        if self.count <= self.burst || self.is_delayed {
            self.count = self.count.saturating_add(1);
        }
        self.is_delayed = false;
        self.last = Some(Last {
            done: now,
            needed: now,
        });
    }

    /// Records that the action is needed. Returns when it may be done; `None` means now.
    pub fn delay_until(&mut self, now: Instant) -> Option<Instant> {
        if self.is_quiet(now) {
            return None;
        }
        let last = self.last.as_mut()?;
        last.needed = now;
        let until = self.pause_end().filter(|until| *until > now);
        self.is_delayed |= until.is_some();
        until
    }

    /// Records that the action is no longer needed.
    pub fn release(&mut self, now: Instant) {
        if let Some(last) = &mut self.last
            && self.is_delayed
        {
            last.needed = now;
            self.is_delayed = false;
        }
    }

    /// Ends the current pause.
    pub fn reset(&mut self, now: Instant) {
        if let Some(last) = &mut self.last {
            last.done = now.checked_sub(MAX_PAUSE).unwrap_or(last.done);
        }
    }

    /// Whether the burst is used up.
    pub fn is_flapping(&self, now: Instant) -> bool {
        self.count > self.burst && !self.is_quiet(now)
    }

    /// Whether the action was not needed for a while.
    pub fn is_quiet(&self, now: Instant) -> bool {
        self.quiet_at().is_none_or(|quiet| quiet <= now) && !self.is_delayed
    }

    /// When the state changes by the passing of time alone.
    pub fn next(&self) -> Option<Instant> {
        if self.is_delayed {
            self.pause_end()
        } else {
            self.quiet_at().filter(|_| self.count > self.burst)
        }
    }

    fn quiet_at(&self) -> Option<Instant> {
        self.last.map(|last| last.needed + QUIET)
    }

    fn pause_end(&self) -> Option<Instant> {
        self.last.map(|last| last.done + self.pause())
    }

    fn pause(&self) -> Duration {
        match self.count.saturating_sub(self.burst) {
            0 => Duration::ZERO,
            // 2^16 s is far beyond the maximum.
            over => FIRST_PAUSE
                .saturating_mul(1 << (over - 1).min(16))
                .min(MAX_PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Simulates an action that becomes needed every `period`, `times` times. Returns the delays
    /// of the action, in seconds.
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
    fn burst_is_free_and_then_pauses_double_up_to_the_maximum() {
        let mut backoff = Backoff::new(2);
        let now = Instant::now();
        assert_eq!(
            pauses(&mut backoff, now, Duration::ZERO, 11),
            [0, 0, 0, 1, 2, 4, 8, 16, 32, 60, 60]
        );
        assert!(backoff.is_flapping(now));
    }

    #[test]
    fn action_needed_after_the_pause_is_not_delayed_but_still_flapping() {
        let mut backoff = Backoff::new(2);
        let now = Instant::now();
        let period = Duration::from_millis(2500);
        assert_eq!(pauses(&mut backoff, now, period, 20), [0; 20]);
        assert!(backoff.is_flapping(now + 19 * period));
    }

    #[test]
    fn rarely_needed_action_is_never_flapping() {
        let mut backoff = Backoff::new(2);
        let now = Instant::now();
        assert_eq!(pauses(&mut backoff, now, QUIET, 20), [0; 20]);
        assert!(!backoff.is_flapping(now + 20 * QUIET));
    }

    #[test]
    fn quiet_time_resets_the_count_and_a_delay_is_not_quiet() {
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
        // For example while another process is still writing the file.
        backoff.release(later);
        assert!(backoff.is_flapping(later));
        let quiet = backoff.next().unwrap();
        assert_eq!(quiet, later + QUIET);
        assert!(backoff.is_quiet(quiet) && !backoff.is_flapping(quiet));
        assert_eq!(backoff.delay_until(quiet), None);
    }

    #[test]
    fn reset_ends_the_pause_but_not_the_flapping() {
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
