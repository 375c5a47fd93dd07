//! What routing knows of one instance, shared by every view: its latency, its
//! breaker, how long it asked to be left alone, and the calls in flight. Reads
//! take no lock; only the end of a call does, for a few lines.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use super::breaker::{Breaker, BreakerState, CallEvidence, Stage};
use super::latency::{Ewma, faded};
use crate::model::RoutingParameters;

/// What is shown of the latency of an instance that was never called.
const NEVER: u64 = u64::MAX;

/// What routing knows of one instance.
#[derive(Debug)]
pub(crate) struct RouteCell {
    begun: Instant,
    live: Mutex<Live>,
    /// The average in seconds, as `f32`, and when it was taken, in milliseconds.
    latency: AtomicU64,
    /// The stage of the breaker, and until when, in milliseconds.
    stage: AtomicU64,
    /// Until when it wants to be left alone, in milliseconds.
    held_until: AtomicU64,
    /// Whether it ever answered.
    answered: AtomicBool,
    in_flight: AtomicU32,
    /// Since when it has calls and has ended none, in milliseconds.
    silent_since: AtomicU64,
    doubts: Notify,
}

#[derive(Debug)]
struct Live {
    latency: Ewma,
    breaker: Breaker,
}

/// What the breaker of an instance says at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BreakerLook {
    pub(crate) state: BreakerState,
    /// Whether it may have a call: any, or the one of its trial.
    pub(crate) admits: bool,
    /// Whether that call would be its trial.
    pub(crate) is_trial: bool,
    /// Whether something is to be done: see [`RouteCell::wants_probe`].
    pub(crate) is_due: bool,
    /// How long it stays ejected.
    pub(crate) ejected_for: Duration,
}

impl RouteCell {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            begun: now,
            live: Mutex::new(Live { latency: Ewma::default(), breaker: Breaker::new(now) }),
            latency: AtomicU64::new(NEVER),
            stage: AtomicU64::new(0),
            held_until: AtomicU64::new(0),
            answered: AtomicBool::new(false),
            in_flight: AtomicU32::new(0),
            silent_since: AtomicU64::new(0),
            doubts: Notify::new(),
        }
    }

    fn live(&self) -> MutexGuard<'_, Live> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn millis(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.begun).as_millis()).unwrap_or(u64::MAX)
    }

    /// A call has ended. `random` is from 0 up to 1. Says whether the instance is
    /// ejected by it.
    pub(crate) fn record(
        &self,
        evidence: CallEvidence,
        latency: Duration,
        now: Instant,
        parameters: &RoutingParameters,
        random: f64,
    ) -> bool {
        if evidence == CallEvidence::Success {
            self.note_answer();
        }
        self.silent_since.store(self.millis(now), Ordering::Relaxed);
        let mut live = self.live();
        live.latency.observe(latency, now, parameters);
        let ejected = live.breaker.record(evidence, now, parameters, random);
        self.show(&live);
        ejected
    }

    fn note_answer(&self) {
        // A store for each call would go back and forth between the processors.
        if !self.answered.load(Ordering::Relaxed) {
            self.answered.store(true, Ordering::Relaxed);
        }
    }

    /// The instance no longer answers its probes as it should.
    pub(crate) fn doubt(&self) {
        self.doubts.notify_waiters();
    }

    /// Waits until the instance no longer answers its probes as it should.
    pub(crate) async fn doubted(&self) {
        self.doubts.notified().await;
    }

    /// For how many seconds it has calls and has ended none: what a call costs there
    /// that comes now, at least.
    #[allow(clippy::cast_precision_loss, reason = "an estimate")]
    pub(crate) fn silence(&self, now: Instant) -> f64 {
        if self.in_flight() == 0 {
            return 0.0;
        }
        self.millis(now).saturating_sub(self.silent_since.load(Ordering::Relaxed)) as f64 / 1000.0
    }

    /// A call was given up after `latency`, which is no fault of the instance.
    pub(crate) fn gave_up(&self, latency: Duration, now: Instant) {
        let mut live = self.live();
        live.latency.at_least(latency, now);
        self.show(&live);
    }

    /// A probe has ended.
    pub(crate) fn probed(&self, passed: bool, now: Instant, parameters: &RoutingParameters, random: f64) {
        if passed {
            self.note_answer();
        }
        if self.stage.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut live = self.live();
        live.breaker.probed(passed, now, parameters, random);
        self.show(&live);
    }

    /// Lets the breaker's time pass; says whether the instance is to be probed now.
    pub(crate) fn wants_probe(&self, now: Instant) -> bool {
        let mut live = self.live();
        let due = live.breaker.is_due(now);
        self.show(&live);
        due
    }

    /// Leaves the instance alone for so long, as it asked.
    pub(crate) fn hold(&self, time: Duration, now: Instant) {
        self.held_until.fetch_max(self.millis(now + time), Ordering::Relaxed);
    }

    /// How long it still is to be left alone.
    pub(crate) fn held_for(&self, now: Instant) -> Duration {
        let until = self.held_until.load(Ordering::Relaxed);
        if until == 0 { Duration::ZERO } else { Duration::from_millis(until.saturating_sub(self.millis(now))) }
    }

    /// Whether it ever answered a call or a probe.
    pub(crate) fn has_answered(&self) -> bool {
        self.answered.load(Ordering::Relaxed)
    }

    /// The expected latency in seconds, failures included.
    #[allow(clippy::cast_possible_truncation, reason = "taken apart as it was put together")]
    pub(crate) fn latency(&self, now: Instant, parameters: &RoutingParameters) -> f64 {
        let packed = self.latency.load(Ordering::Relaxed);
        if packed == NEVER {
            return parameters.latency_default.as_secs_f64();
        }
        let seconds = f64::from(f32::from_bits((packed >> 32) as u32));
        // The counter of milliseconds wraps around; an age does not, for seven weeks.
        let age = (self.millis(now) as u32).wrapping_sub(packed as u32);
        faded(seconds, Duration::from_millis(u64::from(age)), parameters)
    }

    /// What the breaker says now.
    pub(crate) fn breaker(&self, now: Instant) -> BreakerLook {
        let packed = self.stage.load(Ordering::Relaxed);
        if packed == 0 {
            return BreakerLook {
                state: BreakerState::Healthy,
                admits: true,
                is_trial: false,
                is_due: false,
                ejected_for: Duration::ZERO,
            };
        }
        let (stage, until) = (packed & 7, packed >> 3);
        let left = Duration::from_millis(until.saturating_sub(self.millis(now)));
        let ejected = stage == EJECTED && !left.is_zero();
        BreakerLook {
            state: if ejected { BreakerState::Ejected } else { BreakerState::Probation },
            admits: stage == TRIAL,
            is_trial: stage == TRIAL,
            is_due: matches!(stage, EJECTED | WAITING) && left.is_zero(),
            ejected_for: if ejected { left } else { Duration::ZERO },
        }
    }

    /// The one call of a trial begins; `false` when another one was faster.
    pub(crate) fn begin_trial(&self) -> bool {
        let mut live = self.live();
        let begun = live.breaker.begin_trial();
        self.show(&live);
        begun
    }

    /// The call of a trial is over.
    pub(crate) fn end_trial(&self) {
        let mut live = self.live();
        live.breaker.end_trial();
        self.show(&live);
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::SeqCst)
    }

    /// Counts one more call as in flight, if there is room for it.
    pub(crate) fn try_enter(&self, most: u32, now: Instant) -> bool {
        let one_more = |count: u32| (count < most).then_some(count + 1);
        let entered = self.in_flight.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more);
        if entered == Ok(0) {
            self.silent_since.store(self.millis(now), Ordering::Relaxed);
        }
        entered.is_ok()
    }

    /// One call fewer is in flight.
    pub(crate) fn leave(&self) {
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
    }

    /// Shows readers what holds now. The caller has the lock.
    #[allow(clippy::cast_possible_truncation, reason = "an average needs no more; see `latency` about the time")]
    fn show(&self, live: &Live) {
        if let Some((seconds, since)) = live.latency.observed() {
            let packed = u64::from((seconds as f32).to_bits()) << 32 | u64::from(self.millis(since) as u32);
            self.latency.store(packed, Ordering::Relaxed);
        }
        let stage = match live.breaker.stage() {
            Stage::Healthy => 0,
            // Rounded up: it is not over before it is.
            Stage::Ejected { until } => EJECTED | (self.millis(until) + 1) << 3,
            Stage::Waiting { ask_at } => WAITING | (self.millis(ask_at) + 1) << 3,
            Stage::Trial => TRIAL,
            Stage::Trying => TRYING,
        };
        self.stage.store(stage, Ordering::Relaxed);
    }
}

const EJECTED: u64 = 1;
const WAITING: u64 = 2;
const TRIAL: u64 = 3;
const TRYING: u64 = 4;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_is_shown_is_what_the_breaker_and_the_average_say() {
        let (mut now, parameters) = (Instant::now(), RoutingParameters::default());
        let cell = RouteCell::new(now);
        assert!((cell.latency(now, &parameters) - 0.03).abs() < 1e-9);
        assert!(cell.breaker(now).admits && !cell.has_answered());
        cell.record(CallEvidence::Success, SECOND * 2, now, &parameters, 0.0);
        assert!((cell.latency(now, &parameters) - 2.0).abs() < 1e-6);
        assert!(cell.latency(now + SECOND * 10, &parameters) < 1.0);
        assert!(cell.has_answered());

        let failures = (0..5).filter(|_| cell.record(CallEvidence::Failure, SECOND, now, &parameters, 0.0));
        assert_eq!(failures.count(), 1, "the last one ejects");
        let look = cell.breaker(now);
        assert_eq!((look.state, look.admits, look.is_due), (BreakerState::Ejected, false, false));
        assert!(look.ejected_for >= SECOND && look.ejected_for <= SECOND + Duration::from_millis(1));
        now += SECOND + Duration::from_millis(2);
        assert!(cell.breaker(now).is_due && cell.wants_probe(now) && !cell.breaker(now).is_due);
        cell.probed(true, now, &parameters, 0.0);
        let look = cell.breaker(now);
        assert_eq!((look.state, look.admits, look.is_trial), (BreakerState::Probation, true, true));
        assert!(cell.begin_trial() && !cell.breaker(now).admits);
        cell.end_trial();
        assert!(cell.begin_trial());
        cell.record(CallEvidence::Success, SECOND, now, &parameters, 0.0);
        assert_eq!(cell.breaker(now).state, BreakerState::Healthy);
    }

    #[test]
    fn an_instance_takes_as_many_calls_as_it_may() {
        let now = Instant::now();
        let cell = RouteCell::new(now);
        assert!(cell.try_enter(2, now) && cell.try_enter(2, now) && !cell.try_enter(2, now));
        cell.leave();
        assert!(cell.in_flight() == 1 && cell.try_enter(2, now));
    }

    #[test]
    fn one_that_ends_no_call_grows_dear() {
        let (now, parameters) = (Instant::now(), RoutingParameters::default());
        let cell = RouteCell::new(now);
        assert!(
            cell.silence(now + SECOND) == 0.0 && cell.try_enter(9, now + SECOND) && cell.try_enter(9, now + SECOND * 2)
        );
        assert!((cell.silence(now + SECOND * 3) - 2.0).abs() < 1e-9);
        cell.record(CallEvidence::Success, SECOND, now + SECOND * 4, &parameters, 0.0);
        cell.leave();
        assert!((cell.silence(now + SECOND * 5) - 1.0).abs() < 1e-9, "of the two one is still there");
    }

    #[test]
    fn the_longest_hold_counts() {
        let now = Instant::now();
        let cell = RouteCell::new(now);
        assert_eq!(cell.held_for(now), Duration::ZERO);
        cell.hold(SECOND * 3, now);
        cell.hold(SECOND, now);
        assert_eq!(cell.held_for(now + SECOND), SECOND * 2);
        assert_eq!(cell.held_for(now + SECOND * 4), Duration::ZERO);
    }
}
