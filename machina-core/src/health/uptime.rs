//! The share of time that an instance was up. Pure: `now` is an argument.

use std::time::Duration;

use tokio::time::Instant;

use super::reported::HealthState;

/// How long the instance was up, of the time since it was first decided.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Uptime {
    up: Duration,
    total: Duration,
    counted_until: Option<Instant>,
}

impl Uptime {
    /// Counts the time until `now`, during which the instance was in `state`.
    pub(crate) fn count(&mut self, state: HealthState, now: Instant) {
        if state.is_undecided() {
            return;
        }
        if let Some(since) = self.counted_until {
            let elapsed = now.saturating_duration_since(since);
            self.total += elapsed;
            if state.is_up() {
                self.up += elapsed;
            }
        }
        self.counted_until = Some(now);
    }

    /// The share in percent until `now`; `None` before anything was decided.
    pub(crate) fn percentage(mut self, state: HealthState, now: Instant) -> Option<f64> {
        self.count(state, now);
        self.counted_until?;
        if self.total.is_zero() {
            return Some(if state.is_up() { 100.0 } else { 0.0 });
        }
        // In this order: a number divided by itself is 1.
        Some(100.0 * (self.up.as_secs_f64() / self.total.as_secs_f64()))
    }
}
