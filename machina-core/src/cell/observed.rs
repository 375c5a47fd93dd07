//! What is observed about one instance, behind the lock of its cell: the health
//! machine, and the health that readers are shown.

use std::sync::Arc;

use tokio::time::Instant;

use crate::clock;
use crate::health::{
    CrashLoop, Effects, Health, HealthEvent, HealthState, Machine, Observation, ProbeOutcome, Reason, ReasonCode,
    SlowStart, Uptime, step,
};
use crate::lease::LeaseClock;
use crate::model::HealthParameters;

#[derive(Debug)]
pub(super) struct Observed {
    pub(super) machine: Machine,
    pub(super) health: Arc<Health>,
    pub(super) parameters: Arc<HealthParameters>,
    pub(super) last_pass: Option<Instant>,
    pub(super) last_probe: Option<Instant>,
    pub(super) last_failed_call: Option<Instant>,
    /// What the process wrote to stderr before the last failure.
    pub(super) stderr_tail: String,
    pub(super) uptime: Uptime,
    /// Whether it joins others that are in use, or was in use itself.
    pub(super) joins: bool,
    pub(super) slow_start: Option<SlowStart>,
    /// Of an instance that registered itself.
    pub(super) lease: Option<LeaseClock>,
    /// The health that the store has, where replicas share one.
    pub(super) shared: Option<Arc<Health>>,
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
    /// It began to flap (with how often it went down), or flaps no more.
    pub(crate) flapping: Option<Flapping>,
    /// It is there and does not answer.
    pub(crate) wedged: bool,
}

/// A change of whether an instance flaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flapping {
    /// It does, having gone down so often within the window.
    Began { downs: u32 },
    /// It does no more.
    Ended,
}

/// Under which circumstances something was seen.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Circumstances {
    /// Soft failures take nothing down at the moment.
    pub(crate) frozen: bool,
    /// The process waits for one of its few starts.
    pub(crate) crash_loop: Option<CrashLoop>,
}

impl Observed {
    pub(super) fn new(now: Instant, parameters: Arc<HealthParameters>) -> Self {
        Self {
            machine: Machine::new(now, &parameters),
            health: Arc::new(Health::unknown(clock::now())),
            parameters,
            last_pass: None,
            last_probe: None,
            last_failed_call: None,
            stderr_tail: String::new(),
            uptime: Uptime::default(),
            joins: false,
            slow_start: None,
            lease: None,
            shared: None,
        }
    }

    pub(super) fn step(&mut self, event: &HealthEvent, now: Instant) -> Effects {
        let parameters = Arc::clone(&self.parameters);
        self.uptime.count(self.machine.state, now);
        let effects = step(&mut self.machine, event, now, &parameters);
        if let Some(flapping) = effects.flapping {
            Arc::make_mut(&mut self.health).flapping = flapping;
        }
        effects
    }

    pub(super) fn recorded(&self, effects: Effects, visible: bool) -> Recorded {
        let began = |flaps| if flaps { Flapping::Began { downs: self.machine.flaps.downs() } } else { Flapping::Ended };
        Recorded {
            health: Arc::clone(&self.health),
            transition: effects.transition,
            visible,
            flapping: effects.flapping.map(began),
            wedged: effects.wedged,
        }
    }

    /// Takes an event into account that is no observation.
    pub(super) fn turn(&mut self, event: &HealthEvent, reason: Reason) -> Option<Recorded> {
        let effects = self.step(event, Instant::now());
        effects.transition?;
        self.enter(self.machine.state, reason);
        Arc::make_mut(&mut self.health).consecutive_failures = self.machine.soft;
        Some(self.recorded(effects, true))
    }

    /// Nothing can be known of it from here, for this reason.
    pub(super) fn elsewhere(&mut self, sequence: u64, reason: Reason) -> Option<Recorded> {
        let effects = self.step(&HealthEvent::Elsewhere { sequence }, Instant::now());
        if effects.transition.is_none() && (self.machine.state != HealthState::Unknown || self.health.reason == reason)
        {
            return None;
        }
        self.enter(self.machine.state, reason);
        Arc::make_mut(&mut self.health).consecutive_failures = 0;
        Some(self.recorded(effects, true))
    }

    fn enter(&mut self, state: HealthState, reason: Reason) {
        let health = Arc::make_mut(&mut self.health);
        if health.state != state {
            health.since = clock::now();
        }
        health.state = state;
        health.reason = reason;
    }

    /// Begins or ends the slow start, where the state says so. One that comes up
    /// for the first time, and no other did before, has nothing to go easy on.
    pub(super) fn start_slowly(&mut self, effects: Effects, now: Instant) {
        let Some((from, to)) = effects.transition else { return };
        if !to.is_up() {
            self.slow_start = None;
        } else if !from.is_up() {
            let lasting = self.parameters.slow_start * if self.machine.flaps.is_flapping() { 2 } else { 1 };
            self.slow_start = (self.joins && !lasting.is_zero()).then_some(SlowStart { since: now, lasting });
            self.joins = true;
        }
    }

    /// Writes what was seen into the reported health; says whether readers would
    /// see more than a new time of the last check.
    pub(super) fn report(
        &mut self,
        observation: &Observation,
        effects: Effects,
        crash_loop: Option<CrashLoop>,
    ) -> bool {
        let code = match observation.outcome {
            ProbeOutcome::Pass => ReasonCode::Passed,
            ProbeOutcome::Degraded => ReasonCode::Degraded,
            ProbeOutcome::AuthRequired => ReasonCode::AuthRequired,
            ProbeOutcome::Fail { hard: false } => ReasonCode::Failing,
            ProbeOutcome::Fail { hard: true } => ReasonCode::Down,
            ProbeOutcome::Inconclusive => return false,
        };
        let reason = Reason { code, message: self.explained(&observation.message, crash_loop) };
        let visible = effects.transition.is_some() || effects.flapping.is_some() || self.health.reason != reason;
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

    /// What was seen, and why that alone does not explain the state.
    fn explained(&self, seen: &str, crash_loop: Option<CrashLoop>) -> String {
        let why = match (self.machine.state, crash_loop) {
            (HealthState::CrashLoop, Some(crash_loop)) => crash_loop.to_string(),
            (HealthState::CrashLoop, None) if seen.is_empty() => "it was started once more and answers".to_owned(),
            (HealthState::Unhealthy | HealthState::Recovering, _) if self.machine.flaps.is_flapping() => {
                let needed = self.machine.needed(&self.parameters);
                format!("it goes down again and again, and has to pass {needed} times in a row")
            }
            _ => return seen.to_owned(),
        };
        if seen.is_empty() { why } else { format!("{seen}; {why}") }
    }
}
