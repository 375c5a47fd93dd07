//! Whether an instance takes part in balancing, by how its calls end (the circuit
//! breaker, whose words "open" and "closed" mislead): healthy, ejected, or on
//! probation. Pure: time and chance come in as arguments.
//!
//! ```text
//! healthy ─→ ejected ─→ probation: a probe ─→ probation: one call ─→ healthy
//!               ↑____________________|____________________|
//! ```
//!
//! Refuses to take a service away: who is ejected says only who is not preferred
//! (see `eligible.rs`).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use crate::model::RoutingParameters;

/// Into how many parts the window is cut in which calls are counted.
const BUCKETS: usize = 10;

/// After so long without an answer, a probe is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// What the calls of an instance say about it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum BreakerState {
    /// They succeed.
    #[default]
    Healthy,
    /// Too many failed: it gets none for a while.
    Ejected,
    /// The while is over: it must pass a probe, and then carry one call.
    Probation,
}

/// What one call says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CallEvidence {
    /// The instance answered.
    Success,
    /// It did not.
    Failure,
    /// It said that it has too much to do.
    Limited,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Healthy,
    Ejected {
        until: Instant,
    },
    /// It waits for a probe, which is asked for again at `ask_at`.
    Waiting {
        ask_at: Instant,
    },
    /// The probe passed: it may have one call.
    Trial,
    /// That call is under way.
    Trying,
}

#[derive(Debug, Clone, Copy, Default)]
struct Bucket {
    slot: u64,
    good: u32,
    bad: u32,
}

/// The breaker of one instance.
#[derive(Debug, Clone)]
pub(crate) struct Breaker {
    stage: Stage,
    /// Failures in a row.
    failures: u32,
    /// Ejections in a row.
    ejections: u32,
    released: Option<Instant>,
    begun: Instant,
    buckets: [Bucket; BUCKETS],
}

impl Breaker {
    pub(crate) fn new(now: Instant) -> Self {
        let buckets = [Bucket::default(); BUCKETS];
        Self { stage: Stage::Healthy, failures: 0, ejections: 0, released: None, begun: now, buckets }
    }

    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    /// Takes into account how a call ended. `random` is from 0 up to 1. Says
    /// whether the instance is ejected by it.
    pub(crate) fn record(
        &mut self,
        evidence: CallEvidence,
        now: Instant,
        parameters: &RoutingParameters,
        random: f64,
    ) -> bool {
        match (self.stage, evidence) {
            (Stage::Healthy, _) => {
                self.count(evidence, now, parameters);
                let falls = evidence != CallEvidence::Success && self.fails(now, parameters);
                if falls {
                    self.eject(now, parameters, random);
                }
                falls
            }
            // What began before does not count twice; the time stays as it was set.
            (Stage::Ejected { .. }, _) => false,
            (_, CallEvidence::Success) => {
                self.release(now);
                false
            }
            (_, CallEvidence::Failure) => {
                self.eject(now, parameters, random);
                true
            }
            (_, CallEvidence::Limited) => {
                self.end_trial();
                false
            }
        }
    }

    /// Takes a probe into account, which matters only on probation.
    pub(crate) fn probed(&mut self, passed: bool, now: Instant, parameters: &RoutingParameters, random: f64) {
        match (self.stage, passed) {
            (Stage::Waiting { .. }, true) => self.stage = Stage::Trial,
            (Stage::Ejected { until }, true) if until <= now => self.stage = Stage::Trial,
            (Stage::Waiting { .. } | Stage::Trial, false) => self.eject(now, parameters, random),
            _ => {}
        }
    }

    /// Lets time pass; says whether a probe is to be asked for now.
    pub(crate) fn is_due(&mut self, now: Instant) -> bool {
        let due = match self.stage {
            Stage::Ejected { until } => until <= now,
            Stage::Waiting { ask_at } => ask_at <= now,
            Stage::Healthy | Stage::Trial | Stage::Trying => false,
        };
        if due {
            self.stage = Stage::Waiting { ask_at: now + ASK_AGAIN };
        }
        due
    }

    /// The one call of a trial begins; `false` when there is none to be had.
    pub(crate) fn begin_trial(&mut self) -> bool {
        let begins = self.stage == Stage::Trial;
        if begins {
            self.stage = Stage::Trying;
        }
        begins
    }

    /// The call of a trial has ended, and said nothing if this still is one.
    pub(crate) fn end_trial(&mut self) {
        if self.stage == Stage::Trying {
            self.stage = Stage::Trial;
        }
    }

    fn fails(&self, now: Instant, parameters: &RoutingParameters) -> bool {
        if self.failures >= parameters.ejection_failures {
            return true;
        }
        let (good, bad) = self.counted(now, parameters);
        let total = good + bad;
        total >= u64::from(parameters.ejection_samples)
            && good * 100 < total * u64::from(parameters.ejection_success_percentage)
    }

    fn eject(&mut self, now: Instant, parameters: &RoutingParameters, random: f64) {
        let (first, most) = (parameters.ejection_time, parameters.ejection_time_max);
        if self.released.is_some_and(|released| now.saturating_duration_since(released) > most) {
            self.ejections = 0;
        }
        let doublings = 1_u32.checked_shl(self.ejections).unwrap_or(u32::MAX);
        // Jitter only shortens, so that the bound holds.
        let time = first.saturating_mul(doublings).min(most).mul_f64(0.5_f64.mul_add(-random, 1.0));
        self.ejections = self.ejections.saturating_add(1).min(31);
        self.stage = Stage::Ejected { until: now + time };
        self.forget();
    }

    fn release(&mut self, now: Instant) {
        self.stage = Stage::Healthy;
        self.released = Some(now);
        self.forget();
    }

    fn forget(&mut self) {
        (self.failures, self.buckets) = (0, [Bucket::default(); BUCKETS]);
    }

    fn count(&mut self, evidence: CallEvidence, now: Instant, parameters: &RoutingParameters) {
        match evidence {
            CallEvidence::Success => self.failures = 0,
            CallEvidence::Failure => self.failures = self.failures.saturating_add(1),
            CallEvidence::Limited => {}
        }
        let slot = self.slot(now, parameters);
        let bucket = &mut self.buckets[usize::try_from(slot % BUCKETS as u64).unwrap_or(0)];
        if bucket.slot != slot {
            *bucket = Bucket { slot, good: 0, bad: 0 };
        }
        let count = if evidence == CallEvidence::Success { &mut bucket.good } else { &mut bucket.bad };
        *count = count.saturating_add(1);
    }

    /// The calls that succeeded, and those that did not, within the window.
    fn counted(&self, now: Instant, parameters: &RoutingParameters) -> (u64, u64) {
        let newest = self.slot(now, parameters);
        let oldest = newest.saturating_sub(BUCKETS as u64 - 1);
        let counted = self.buckets.iter().filter(|bucket| (oldest..=newest).contains(&bucket.slot));
        counted.fold((0, 0), |(good, bad), bucket| (good + u64::from(bucket.good), bad + u64::from(bucket.bad)))
    }

    fn slot(&self, now: Instant, parameters: &RoutingParameters) -> u64 {
        let width = (parameters.ejection_window / 10).as_nanos().max(1);
        let elapsed = now.saturating_duration_since(self.begun).as_nanos();
        u64::try_from(elapsed / width).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
