//! Everything observed about one instance, in one place that every view shares.
//!
//! [`Cell::record`] is the only place where health changes. What changes with
//! every call (latency, calls in flight) is read straight from the cell; health
//! is copied into the next view.

mod observed;
mod shared;

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use self::observed::Observed;
pub(crate) use self::observed::{Circumstances, Flapping, Recorded};
pub(crate) use self::shared::age;
use crate::clock;
use crate::health::{Evidence, Health, HealthEvent, HealthState, Observation, ProbeOutcome, Reason, probe_delay};
use crate::lease::LeaseClock;
use crate::model::HealthParameters;
use crate::route::RouteCell;
use crate::statistics::InstanceCounters;

/// What is observed about one instance.
#[derive(Debug)]
pub(crate) struct Cell {
    observed: Mutex<Observed>,
    sequence: AtomicU64,
    stale_definitions: AtomicBool,
    /// Probes since the definitions were last listed.
    unlisted_probes: AtomicU32,
    /// Whether a slow start is under way: nearly never, and then nothing is locked.
    starts_slowly: AtomicBool,
    pub(crate) statistics: InstanceCounters,
    /// What routing knows of it.
    pub(crate) routing: RouteCell,
}

/// What a look at a lease shows.
#[derive(Debug)]
pub(crate) enum LeaseLook {
    /// There is none.
    None,
    /// Nothing is to be done before then.
    Until(Instant),
    /// It has just run out; the instance is to be removed at `remove_at`.
    Expired { recorded: Recorded, remove_at: Instant },
    /// It ran out so long ago that the instance is to be removed.
    Over,
}

impl Cell {
    pub(crate) fn new(parameters: Arc<HealthParameters>) -> Self {
        let now = Instant::now();
        Self {
            observed: Mutex::new(Observed::new(now, parameters)),
            sequence: AtomicU64::new(0),
            stale_definitions: AtomicBool::new(true),
            unlisted_probes: AtomicU32::new(0),
            starts_slowly: AtomicBool::new(false),
            statistics: InstanceCounters::default(),
            routing: RouteCell::new(now),
        }
    }

    /// The same of an instance that joins others which are in use: it starts slowly.
    pub(crate) fn joining(parameters: Arc<HealthParameters>) -> Self {
        let cell = Self::new(parameters);
        cell.observed().joins = true;
        cell
    }

    fn observed(&self) -> MutexGuard<'_, Observed> {
        self.observed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number for evidence that begins now: whatever is recorded with a later
    /// number makes it stale.
    pub(crate) fn ticket(&self) -> u64 {
        self.sequence.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Takes an observation into account.
    pub(crate) fn record(&self, sequence: u64, observation: Observation, under: Circumstances) -> Recorded {
        let now = Instant::now();
        let mut observed = self.observed();
        let passed = matches!(observation.outcome, ProbeOutcome::Pass | ProbeOutcome::Degraded);
        let failed = matches!(observation.outcome, ProbeOutcome::Fail { .. });
        let evidence = Evidence { sequence, observation: observation.clone() };
        let (frozen, crash_loop) = (under.frozen, under.crash_loop.is_some());
        let effects = observed.step(&HealthEvent::Observed { evidence, frozen, crash_loop }, now);
        if effects.applied && passed {
            observed.last_pass = Some(now);
        }
        if effects.transition.is_some_and(|(_, to)| matches!(to, HealthState::Suspect | HealthState::Unhealthy)) {
            self.routing.doubt();
        }
        let visible = effects.applied && observed.report(&observation, effects, under.crash_loop);
        if effects.applied {
            if !failed || !observation.stderr_tail.is_empty() {
                observed.stderr_tail = observation.stderr_tail;
            }
            observed.start_slowly(effects, now);
            self.starts_slowly.store(observed.slow_start.is_some(), Ordering::Relaxed);
        }
        observed.recorded(effects, visible)
    }

    /// What was held for a while ends by itself: returns what readers see of that.
    pub(crate) fn pass_time(&self) -> Option<Recorded> {
        let mut observed = self.observed();
        let effects = observed.step(&HealthEvent::TimePassed, Instant::now());
        effects.flapping?;
        Some(observed.recorded(effects, true))
    }

    /// The share of its calls that the instance should get, from 0.1 to 1: less
    /// than all while it has just come back.
    pub(crate) fn share(&self) -> f64 {
        if !self.starts_slowly.load(Ordering::Relaxed) {
            return 1.0;
        }
        let mut observed = self.observed();
        let share = observed.slow_start.map_or(1.0, |start| start.share(Instant::now()));
        if share >= 1.0 {
            observed.slow_start = None;
            self.starts_slowly.store(false, Ordering::Relaxed);
        }
        share
    }

    /// The first attempt to reach the instance begins.
    pub(crate) fn starting(&self) -> Option<Recorded> {
        self.observed().turn(&HealthEvent::Starting, Reason::default())
    }

    /// Nothing can be known of the instance from this process, for this reason:
    /// returns what readers see of that, if they saw something else before.
    pub(crate) fn elsewhere(&self, reason: Reason) -> Option<Recorded> {
        self.observed().elsewhere(self.ticket(), reason)
    }

    /// The instance is declared with this lease, or without one. A lease that it
    /// did not have begins; without one, an expired instance is back, if that is
    /// for this process to say.
    pub(crate) fn set_lease(&self, ttl: Option<Duration>, in_charge: bool) -> Option<Recorded> {
        let mut observed = self.observed();
        observed.lease = match (ttl, observed.lease) {
            (Some(ttl), Some(lease)) => Some(lease.lasting(ttl)),
            (Some(ttl), None) => Some(LeaseClock::start(ttl, Instant::now(), clock::now())),
            (None, _) => None,
        };
        if observed.lease.is_some() || !in_charge {
            return None;
        }
        observed.turn(&HealthEvent::Returned { sequence: self.ticket() }, Reason::default())
    }

    /// The instance was heard of: its lease begins anew. `None` when it has none.
    pub(crate) fn renew(&self) -> Option<LeaseClock> {
        let mut observed = self.observed();
        let lease = observed.lease.as_mut()?;
        lease.renew(Instant::now(), clock::now());
        Some(*lease)
    }

    /// Whether the lease has run out by now, and what is to be done about it.
    pub(crate) fn look_at_lease(&self, retention: Duration) -> LeaseLook {
        let now = Instant::now();
        let mut observed = self.observed();
        let Some(lease) = observed.lease else { return LeaseLook::None };
        let remove_at = lease.until() + retention;
        if now < lease.until() {
            return LeaseLook::Until(lease.until());
        }
        match observed.turn(&HealthEvent::Expired, lease.reason()) {
            Some(recorded) => LeaseLook::Expired { recorded, remove_at },
            None if now < remove_at => LeaseLook::Until(remove_at),
            None => LeaseLook::Over,
        }
    }

    /// When the lease runs out; `None` when there is none.
    pub(crate) fn lease_until(&self) -> Option<Instant> {
        self.observed().lease.map(|lease| lease.until())
    }

    pub(crate) fn lease(&self) -> Option<LeaseClock> {
        self.observed().lease
    }

    /// The policy changed: what is known stays.
    pub(crate) fn set_parameters(&self, parameters: Arc<HealthParameters>) {
        self.observed().parameters = parameters;
    }

    pub(crate) fn parameters(&self) -> Arc<HealthParameters> {
        Arc::clone(&self.observed().parameters)
    }

    pub(crate) fn health(&self) -> Arc<Health> {
        Arc::clone(&self.observed().health)
    }

    /// What the process wrote to stderr before the last failure; empty when the
    /// last check passed.
    pub(crate) fn stderr_tail(&self) -> String {
        self.observed().stderr_tail.clone()
    }

    /// The process wrote this to stderr before it was ended.
    pub(crate) fn keep_stderr_tail(&self, tail: String) {
        self.observed().stderr_tail = tail;
    }

    /// Something says that the instance is worth a look.
    pub(crate) fn triggered(&self) {
        self.observed().machine.triggered(Instant::now());
    }

    /// Time until the next probe, before jitter.
    pub(crate) fn probe_delay(&self) -> Duration {
        let observed = self.observed();
        probe_delay(&observed.machine, Instant::now(), &observed.parameters)
    }

    /// How long ago the instance answered last.
    pub(crate) fn since_last_pass(&self) -> Option<Duration> {
        self.observed().last_pass.map(|at| Instant::now().saturating_duration_since(at))
    }

    /// Whether the instance is healthy and answered within `window`.
    pub(crate) fn answered_within(&self, window: Duration) -> bool {
        let observed = self.observed();
        observed.machine.state == HealthState::Healthy
            && observed.last_pass.is_some_and(|at| Instant::now().saturating_duration_since(at) < window)
    }

    /// Whether the definitions are to be listed with this probe: they may have
    /// changed, or `every` probes have passed.
    pub(crate) fn definitions_are_due(&self, every: u32) -> bool {
        let probes = self.unlisted_probes.fetch_add(1, Ordering::Relaxed) + 1;
        self.stale_definitions.load(Ordering::Relaxed) || probes >= every
    }

    /// Whether the definitions may have changed since they were listed.
    pub(crate) fn is_in_doubt(&self) -> bool {
        self.stale_definitions.load(Ordering::Relaxed)
    }

    /// The definitions may have changed.
    pub(crate) fn doubt_definitions(&self) {
        self.stale_definitions.store(true, Ordering::Relaxed);
    }

    /// The definitions are being listed now.
    pub(crate) fn listing_definitions(&self) {
        self.stale_definitions.store(false, Ordering::Relaxed);
        self.unlisted_probes.store(0, Ordering::Relaxed);
    }

    /// A probe begins now.
    pub(crate) fn probing(&self) {
        self.observed().last_probe = Some(Instant::now());
    }

    /// Whether no probe has begun within `window`: then a failed call is reason
    /// enough for one.
    pub(crate) fn is_unprobed_for(&self, window: Duration) -> bool {
        let last = self.observed().last_probe;
        last.is_none_or(|last| Instant::now().saturating_duration_since(last) >= window)
    }

    /// Whether a failed call counts as evidence of its own: not when another did
    /// within `window`.
    pub(crate) fn counts_failed_call(&self, window: Duration) -> bool {
        let now = Instant::now();
        let mut observed = self.observed();
        let counts = observed.last_failed_call.is_none_or(|last| now.saturating_duration_since(last) >= window);
        if counts {
            observed.last_failed_call = Some(now);
        }
        counts
    }

    /// The share of time that the instance was up, in percent, since this
    /// process first knew; `None` before that.
    pub(crate) fn uptime_percentage(&self) -> Option<f64> {
        let observed = self.observed();
        observed.uptime.percentage(observed.machine.state, Instant::now())
    }

    /// How long it has been in the state that it is in.
    pub(crate) fn in_state_for(&self) -> Duration {
        Instant::now().saturating_duration_since(self.observed().machine.entered)
    }
}

#[cfg(test)]
mod tests;
