//! Everything observed about one instance, in one place that every view shares.
//!
//! [`Cell::record`] is the only place where health changes. What changes with
//! every call (latency, calls in flight) is read straight from the cell; health
//! is copied into the next view.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::clock;
use crate::health::{
    Effects, Evidence, Health, HealthEvent, HealthParameters, HealthState, Machine, Observation, ProbeOutcome, Reason,
    ReasonCode, Uptime, probe_delay, step,
};
use crate::lease::{Lease, LeaseClock};
use crate::route::Ewma;
use crate::statistics::InstanceCounters;

/// What is observed about one instance.
#[derive(Debug)]
pub(crate) struct Cell {
    observed: Mutex<Observed>,
    sequence: AtomicU64,
    in_flight: AtomicU32,
    latency: Mutex<Ewma>,
    stale_definitions: AtomicBool,
    /// Probes since the definitions were last listed.
    unlisted_probes: AtomicU32,
    pub(crate) statistics: InstanceCounters,
}

#[derive(Debug)]
struct Observed {
    machine: Machine,
    health: Arc<Health>,
    parameters: HealthParameters,
    last_pass: Option<Instant>,
    last_exit: Option<Instant>,
    last_probe: Option<Instant>,
    last_failed_call: Option<Instant>,
    /// What the process wrote to stderr before the last failure.
    stderr_tail: String,
    uptime: Uptime,
    /// Of an instance that registered itself.
    lease: Option<LeaseClock>,
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

/// What came of recording an observation.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    /// The health now.
    pub(crate) health: Arc<Health>,
    /// The state changed from the first to the second.
    pub(crate) transition: Option<(HealthState, HealthState)>,
    /// Whether readers would see a difference (a new state or another reason).
    pub(crate) visible: bool,
}

impl Cell {
    pub(crate) fn new(parameters: HealthParameters) -> Self {
        let now = Instant::now();
        Self {
            observed: Mutex::new(Observed {
                machine: Machine::new(now, &parameters),
                health: Arc::new(Health::unknown(clock::now())),
                parameters,
                last_pass: None,
                last_exit: None,
                last_probe: None,
                last_failed_call: None,
                stderr_tail: String::new(),
                uptime: Uptime::default(),
                lease: None,
            }),
            sequence: AtomicU64::new(0),
            in_flight: AtomicU32::new(0),
            latency: Mutex::new(Ewma::new(now)),
            stale_definitions: AtomicBool::new(true),
            unlisted_probes: AtomicU32::new(0),
            statistics: InstanceCounters::default(),
        }
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
    pub(crate) fn record(&self, sequence: u64, observation: Observation) -> Recorded {
        let now = Instant::now();
        let mut observed = self.observed();
        let passed = matches!(observation.outcome, ProbeOutcome::Pass | ProbeOutcome::Degraded);
        let event = HealthEvent::Observed(Evidence { sequence, observation: observation.clone() });
        let effects = observed.step(&event, now);
        if effects.applied && passed {
            observed.last_pass = Some(now);
        }
        let visible = effects.applied && observed.report(&observation, effects);
        if effects.applied {
            observed.stderr_tail = observation.stderr_tail;
        }
        Recorded { health: Arc::clone(&observed.health), transition: effects.transition, visible }
    }

    /// The first attempt to reach the instance begins.
    pub(crate) fn starting(&self) -> Option<Recorded> {
        self.observed().turn(&HealthEvent::Starting, Reason::default())
    }

    /// The instance is declared with this lease, or without one. A lease that it
    /// did not have begins; without one, an expired instance is back.
    pub(crate) fn set_lease(&self, ttl: Option<Duration>) -> Option<Recorded> {
        let mut observed = self.observed();
        observed.lease = match (ttl, observed.lease) {
            (Some(ttl), Some(lease)) => Some(lease.lasting(ttl)),
            (Some(ttl), None) => Some(LeaseClock::start(ttl, Instant::now(), clock::now())),
            (None, _) => None,
        };
        if observed.lease.is_some() {
            return None;
        }
        observed.turn(&HealthEvent::Returned { sequence: self.ticket() }, Reason::default())
    }

    /// The instance was heard of: its lease begins anew, and if it had run out,
    /// the instance is back. `None` when it has no lease.
    pub(crate) fn renew(&self) -> Option<(Lease, Option<Recorded>)> {
        let mut observed = self.observed();
        let lease = observed.lease.as_mut()?;
        lease.renew(Instant::now(), clock::now());
        let lease = lease.lease();
        let recorded = observed.turn(&HealthEvent::Returned { sequence: self.ticket() }, Reason::default());
        Some((lease, recorded))
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
    pub(crate) fn set_parameters(&self, parameters: HealthParameters) {
        self.observed().parameters = parameters;
    }

    pub(crate) fn parameters(&self) -> HealthParameters {
        self.observed().parameters
    }

    pub(crate) fn health(&self) -> Arc<Health> {
        Arc::clone(&self.observed().health)
    }

    /// What the process wrote to stderr before the last failure; empty when the
    /// last check passed.
    pub(crate) fn stderr_tail(&self) -> String {
        self.observed().stderr_tail.clone()
    }

    /// Time until the next probe, before jitter.
    pub(crate) fn probe_delay(&self) -> Duration {
        let observed = self.observed();
        probe_delay(&observed.machine, Instant::now(), &observed.parameters)
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

    /// Notes that the process ended; says whether it had held for `window`, so
    /// that starting it again at once makes sense.
    pub(crate) fn exited(&self, window: Duration) -> bool {
        let now = Instant::now();
        let before = self.observed().last_exit.replace(now);
        before.is_none_or(|before| now.saturating_duration_since(before) >= window)
    }

    /// The share of time that the instance was up, in percent, since this
    /// process first knew; `None` before that.
    pub(crate) fn uptime_percentage(&self) -> Option<f64> {
        let observed = self.observed();
        observed.uptime.percentage(observed.machine.state, Instant::now())
    }

    pub(crate) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Counts a call as in flight until the guard is dropped.
    pub(crate) fn enter(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// The expected latency, failures included, in seconds.
    pub(crate) fn latency(&self) -> f64 {
        self.latency.lock().unwrap_or_else(PoisonError::into_inner).value(Instant::now())
    }

    pub(crate) fn observe_latency(&self, latency: Duration) {
        self.latency.lock().unwrap_or_else(PoisonError::into_inner).observe(latency, Instant::now());
    }
}

impl Observed {
    fn step(&mut self, event: &HealthEvent, now: Instant) -> Effects {
        let parameters = self.parameters;
        self.uptime.count(self.machine.state, now);
        step(&mut self.machine, event, now, &parameters)
    }

    /// Takes an event into account that is no observation.
    fn turn(&mut self, event: &HealthEvent, reason: Reason) -> Option<Recorded> {
        let effects = self.step(event, Instant::now());
        effects.transition?;
        self.enter(self.machine.state, reason);
        Arc::make_mut(&mut self.health).consecutive_failures = self.machine.soft;
        Some(Recorded { health: Arc::clone(&self.health), transition: effects.transition, visible: true })
    }

    fn enter(&mut self, state: HealthState, reason: Reason) {
        let health = Arc::make_mut(&mut self.health);
        if health.state != state {
            health.since = clock::now();
        }
        health.state = state;
        health.reason = reason;
    }

    /// Writes what was seen into the reported health; says whether readers would
    /// see more than a new time of the last check.
    fn report(&mut self, observation: &Observation, effects: Effects) -> bool {
        let code = match observation.outcome {
            ProbeOutcome::Pass => ReasonCode::Passed,
            ProbeOutcome::Degraded => ReasonCode::Degraded,
            ProbeOutcome::AuthRequired => ReasonCode::AuthRequired,
            ProbeOutcome::Fail { hard: false } => ReasonCode::Failing,
            ProbeOutcome::Fail { hard: true } => ReasonCode::Down,
            ProbeOutcome::Inconclusive => return false,
        };
        let reason = Reason { code, message: observation.message.clone() };
        let visible = effects.transition.is_some() || self.health.reason != reason;
        self.enter(self.machine.state, reason);
        let soft = self.machine.soft;
        let health = Arc::make_mut(&mut self.health);
        health.last_check = Some(clock::now());
        health.consecutive_failures = soft;
        if let Some(time) = observation.response_time {
            health.response_time_ms = Some(time.as_secs_f64() * 1000.0);
        }
        visible
    }
}

/// A call in flight at an instance.
#[derive(Debug)]
pub(crate) struct InFlight(Arc<Cell>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HealthConfig;
    use crate::model::HealthPolicy;

    fn cell() -> Cell {
        Cell::new(HealthConfig::default().parameters(&HealthPolicy::default(), false))
    }

    #[tokio::test(start_paused = true)]
    async fn a_probe_that_began_before_newer_evidence_is_stale() {
        let cell = cell();
        let probe = cell.ticket();
        cell.record(cell.ticket(), Observation::pass(Duration::from_millis(1)));
        let late = cell.record(probe, Observation::new(ProbeOutcome::Fail { hard: true }, "exited"));
        assert_eq!(late.health.state, HealthState::Healthy);
        assert!(!late.visible);
    }

    #[tokio::test(start_paused = true)]
    async fn the_reason_and_the_count_are_reported() {
        let cell = cell();
        cell.record(cell.ticket(), Observation::pass(Duration::from_millis(2)));
        assert_eq!(cell.health().response_time_ms, Some(2.0));
        let failed = cell.record(cell.ticket(), Observation::new(ProbeOutcome::Fail { hard: false }, "no answer"));
        assert_eq!(failed.transition, Some((HealthState::Healthy, HealthState::Suspect)));
        assert_eq!((failed.health.consecutive_failures, failed.health.reason.code), (1, ReasonCode::Failing));
        let passed = cell.record(cell.ticket(), Observation::pass(Duration::from_millis(2)));
        assert_eq!((passed.health.consecutive_failures, passed.health.reason.message.as_str()), (0, ""));
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_in_flight_is_counted_until_its_guard_goes() {
        let cell = Arc::new(cell());
        let guard = cell.enter();
        assert_eq!(cell.in_flight(), 1);
        drop(guard);
        assert_eq!(cell.in_flight(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn a_recent_answer_replaces_a_probe_only_for_a_while() {
        let cell = cell();
        cell.record(cell.ticket(), Observation::pass(Duration::ZERO));
        assert!(cell.answered_within(Duration::from_secs(15)));
        tokio::time::advance(Duration::from_secs(15)).await;
        assert!(!cell.answered_within(Duration::from_secs(15)));
    }
}
