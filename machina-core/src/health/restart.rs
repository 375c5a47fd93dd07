//! When a process that ended may be started again, and when it has ended so often
//! that only a start now and then is worth while (`reliability.md` §3.5). Pure:
//! the time and the chance are arguments.
//!
//! A crash loop is over for this policy only when the process has held for
//! `restart_reset`: one that answers and ends again before is back in it at once.
//! That an instance in a crash loop counts as healthy after `rise` passes is said
//! by [`step`](super::state::step).

use std::collections::VecDeque;
use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::SessionParameters;

/// The longest that the second restart in a row is delayed; each further one up
/// to twice as long.
const FIRST_DELAY: Duration = Duration::from_secs(1);

/// How often the process of one instance ended, and what follows from it.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Restarts {
    /// When it ended within the window, oldest first; one more than is allowed
    /// says all.
    ends: VecDeque<Instant>,
    /// How often it ended without having held in between.
    in_a_row: u32,
    /// Since when it is ready for requests.
    ready_since: Option<Instant>,
    not_before: Option<Instant>,
    looping: bool,
}

/// A process that ends again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct CrashLoop {
    /// How often it ended within the time, at least.
    pub(crate) ends: u32,
    /// That time.
    pub(crate) window: Duration,
    /// How often it is still started.
    pub(crate) interval: Duration,
}

impl fmt::Display for CrashLoop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { ends, window, interval } = self;
        write!(f, "the process ended {ends} times within {window:?} and is started every {interval:?}")
    }
}

impl Restarts {
    /// The process was started and answers.
    pub(crate) fn ready(&mut self, now: Instant) {
        self.ready_since = Some(now);
        self.not_before = None;
    }

    /// The process was stopped because nobody needs it.
    pub(crate) fn stopped(&mut self, now: Instant, parameters: &SessionParameters) {
        self.forgive(now, parameters);
        self.ready_since = None;
    }

    /// The process ended, never got ready, or had to be killed. `chance` is a
    /// number from 0 up to 1.
    pub(crate) fn ended(&mut self, now: Instant, chance: f64, parameters: &SessionParameters) {
        self.forgive(now, parameters);
        self.ready_since = None;
        self.ends.retain(|end| now.saturating_duration_since(*end) < parameters.crash_loop_window);
        self.ends.push_back(now);
        let most = parameters.crash_loop_restarts as usize;
        let surplus = self.ends.len().saturating_sub(most + 1);
        self.ends.drain(..surplus);
        self.looping |= self.ends.len() > most;
        let delay = if self.looping { parameters.crash_loop_interval } else { self.delay(chance, parameters) };
        self.in_a_row = self.in_a_row.saturating_add(1);
        self.not_before = Some(now + delay);
    }

    /// A process that has held for long enough begins anew.
    fn forgive(&mut self, now: Instant, parameters: &SessionParameters) {
        let held = |since: Instant| now.saturating_duration_since(since) >= parameters.restart_reset;
        if self.ready_since.is_some_and(held) {
            *self = Self::default();
        }
    }

    fn delay(&self, chance: f64, parameters: &SessionParameters) -> Duration {
        let Some(doublings) = self.in_a_row.checked_sub(1) else { return Duration::ZERO };
        let longest = FIRST_DELAY.saturating_mul(2_u32.saturating_pow(doublings)).min(parameters.restart_delay_max);
        longest.mul_f64(chance)
    }

    /// How long it must not be started yet; `None` when it may be, or runs.
    pub(crate) fn wait(&self, now: Instant) -> Option<Duration> {
        let wait = self.not_before?.saturating_duration_since(now);
        (!wait.is_zero()).then_some(wait)
    }

    /// Whether it is in a crash loop and does not run.
    pub(crate) fn crash_loop(&self, parameters: &SessionParameters) -> Option<CrashLoop> {
        let ends = u32::try_from(self.ends.len()).unwrap_or(u32::MAX);
        (self.looping && self.ready_since.is_none()).then_some(CrashLoop {
            ends,
            window: parameters.crash_loop_window,
            interval: parameters.crash_loop_interval,
        })
    }
}

#[cfg(test)]
#[path = "restart_tests.rs"]
mod tests;
