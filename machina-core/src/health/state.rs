//! The health of one instance as a pure state machine: evidence in, state and
//! effects out. Knows no task, lock or clock; `now` is an argument.
//!
//! ```text
//! unknown ─→ starting ─→ healthy ⇄ suspect ─→ unhealthy ─→ recovering ─→ healthy
//!    any ─→ expired ─→ unknown                            (leases; see `lease.rs`)
//! ```
//!
//! Invariants, each a property test below: S1 only `fall` soft failures in a row
//! or one hard one take a healthy instance down; S2 a pass zeroes the soft count;
//! S3 only `rise` passes in a row bring it back; S4 inconclusive evidence changes
//! nothing, nor does any while the lease is over; S5 evidence older than what was
//! seen changes nothing. What the operator said (S6) is not in here at all: it
//! cannot be overridden.

use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::probe::{Observation, ProbeOutcome};

/// The reported health of an instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HealthState {
    /// Nothing is known yet.
    #[default]
    Unknown,
    /// It has not answered yet and may still be starting.
    Starting,
    /// It answers.
    Healthy,
    /// It answered until recently; too few failures to be sure.
    Suspect,
    /// It does not answer.
    Unhealthy,
    /// It answers again, not yet often enough to be sure.
    Recovering,
    /// It registered itself, and its heartbeats have stopped.
    Expired,
}

impl HealthState {
    /// Every state.
    pub const ALL: &'static [Self] = &[
        Self::Unknown,
        Self::Starting,
        Self::Healthy,
        Self::Suspect,
        Self::Unhealthy,
        Self::Recovering,
        Self::Expired,
    ];

    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Suspect => "suspect",
            Self::Unhealthy => "unhealthy",
            Self::Recovering => "recovering",
            Self::Expired => "expired",
        }
    }

    /// The state with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.as_str() == word)
    }

    /// How far it is from well: the health of a service is that of its best
    /// instance.
    pub(crate) const fn severity(self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::Suspect => 1,
            Self::Recovering => 2,
            Self::Starting => 3,
            Self::Unknown => 4,
            Self::Unhealthy => 5,
            Self::Expired => 6,
        }
    }

    /// Whether a call may be expected to succeed.
    #[must_use]
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Healthy | Self::Suspect)
    }

    /// Whether nothing has been decided yet.
    #[must_use]
    pub const fn is_undecided(self) -> bool {
        matches!(self, Self::Unknown | Self::Starting)
    }
}

/// The one coarse word about a service or an instance, for people and filters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// All is well.
    Healthy,
    /// It works, but not all of it, or not well.
    Degraded,
    /// It does not work.
    Unhealthy,
    /// It is not known yet.
    #[default]
    Unknown,
    /// The operator switched it off.
    Disabled,
    /// The operator is working on it.
    Maintenance,
}

impl Status {
    /// Every value.
    pub const ALL: &'static [Self] =
        &[Self::Healthy, Self::Degraded, Self::Unhealthy, Self::Unknown, Self::Disabled, Self::Maintenance];

    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
            Self::Unknown => "unknown",
            Self::Disabled => "disabled",
            Self::Maintenance => "maintenance",
        }
    }
}

/// What kind of evidence a state rests on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReasonCode {
    /// It was not checked yet.
    #[default]
    Unchecked,
    /// The last check passed.
    Passed,
    /// It answers, but slowly, or asks to slow down.
    Degraded,
    /// It is alive and wants credentials.
    AuthRequired,
    /// Checks fail, in a way that may pass.
    Failing,
    /// It is certainly down: its process ended, or its command does not exist.
    Down,
    /// Its heartbeats have stopped.
    Expired,
}

/// Why the state is what it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reason {
    /// For programs.
    pub code: ReasonCode,
    /// For people; empty when all is well.
    pub message: String,
}

/// What is reported about the health of an instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// The state.
    pub state: HealthState,
    /// Why.
    pub reason: Reason,
    /// Since when.
    pub since: Timestamp,
    /// When it was last checked, by a probe or by a call.
    pub last_check: Option<Timestamp>,
    /// How long the last successful probe took, in milliseconds.
    pub response_time_ms: Option<f64>,
    /// Failures in a row.
    pub consecutive_failures: u32,
}

impl Health {
    /// The health of an instance that was never checked.
    #[must_use]
    pub fn unknown(since: Timestamp) -> Self {
        Self {
            state: HealthState::Unknown,
            reason: Reason::default(),
            since,
            last_check: None,
            response_time_ms: None,
            consecutive_failures: 0,
        }
    }
}

/// The thresholds and times of one service; see [`crate::HealthPolicy`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthParameters {
    /// Time between two probes.
    pub interval: Duration,
    /// Time between two probes while the state is in doubt.
    pub fast_interval: Duration,
    /// How long one attempt of a probe may take.
    pub timeout: Duration,
    /// How long a new instance may take to answer for the first time.
    pub startup_grace: Duration,
    /// Soft failures in a row until unhealthy.
    pub fall: u32,
    /// Passes in a row until healthy again.
    pub rise: u32,
}

/// An observation with its place in the order of evidence.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// The order: later evidence has a higher number.
    pub sequence: u64,
    /// What was seen.
    pub observation: Observation,
}

/// What may happen to the machine.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum HealthEvent {
    /// Something was seen.
    Observed(Evidence),
    /// The first attempt to reach the instance begins.
    Starting,
    /// The lease of the instance ran out.
    Expired,
    /// An instance whose lease ran out was heard of again. Evidence up to this
    /// number is of its earlier life.
    Returned {
        /// The order, as in [`Evidence`].
        sequence: u64,
    },
}

/// What follows from a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Effects {
    /// The state changed from the first to the second.
    pub(crate) transition: Option<(HealthState, HealthState)>,
    /// Whether the evidence was taken into account at all.
    pub(crate) applied: bool,
}

/// The state of the machine between two steps.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Machine {
    pub(crate) state: HealthState,
    /// Soft failures in a row.
    pub(crate) soft: u32,
    /// Passes in a row while unhealthy or recovering.
    pub(crate) passes: u32,
    /// Passes in a row needed to be healthy again.
    pub(crate) needed: u32,
    /// The newest evidence taken into account.
    pub(crate) newest: u64,
    /// When the state was entered.
    pub(crate) entered: Instant,
    /// Until when failures mean "still starting".
    pub(crate) grace_until: Instant,
}

impl Machine {
    pub(crate) fn new(now: Instant, parameters: &HealthParameters) -> Self {
        Self {
            state: HealthState::Unknown,
            soft: 0,
            passes: 0,
            needed: 1,
            newest: 0,
            entered: now,
            grace_until: now + parameters.startup_grace,
        }
    }

    fn enter(&mut self, state: HealthState, now: Instant) {
        if self.state != state {
            self.state = state;
            self.entered = now;
        }
    }
}

/// One step. The machine is changed in place; the same events in the same order
/// always give the same machine.
pub(crate) fn step(machine: &mut Machine, event: &HealthEvent, now: Instant, parameters: &HealthParameters) -> Effects {
    let before = machine.state;
    let applied = match event {
        HealthEvent::Starting => {
            let unknown = machine.state == HealthState::Unknown;
            if unknown {
                machine.enter(HealthState::Starting, now);
            }
            unknown
        }
        HealthEvent::Expired => {
            let runs_out = machine.state != HealthState::Expired;
            (machine.soft, machine.passes) = (0, 0);
            machine.enter(HealthState::Expired, now);
            runs_out
        }
        HealthEvent::Returned { sequence } => {
            let returns = machine.state == HealthState::Expired;
            if returns {
                machine.needed = 1;
                machine.newest = machine.newest.max(*sequence);
                machine.grace_until = now + parameters.startup_grace;
                machine.enter(HealthState::Unknown, now);
            }
            returns
        }
        HealthEvent::Observed(evidence) => observe(machine, evidence, now, parameters),
    };
    let after = machine.state;
    Effects { transition: (before != after).then_some((before, after)), applied }
}

fn observe(machine: &mut Machine, evidence: &Evidence, now: Instant, parameters: &HealthParameters) -> bool {
    if evidence.sequence <= machine.newest || machine.state == HealthState::Expired {
        return false;
    }
    match evidence.observation.outcome {
        ProbeOutcome::Inconclusive => return false,
        ProbeOutcome::Pass | ProbeOutcome::Degraded | ProbeOutcome::AuthRequired => passed(machine, now),
        ProbeOutcome::Fail { hard: false } => failed_softly(machine, now, parameters),
        ProbeOutcome::Fail { hard: true } => {
            machine.soft = machine.soft.saturating_add(1);
            machine.passes = 0;
            machine.needed = 1;
            machine.enter(HealthState::Unhealthy, now);
        }
    }
    machine.newest = evidence.sequence;
    true
}

fn passed(machine: &mut Machine, now: Instant) {
    machine.soft = 0;
    match machine.state {
        HealthState::Healthy | HealthState::Suspect | HealthState::Unknown | HealthState::Starting => {
            machine.enter(HealthState::Healthy, now);
        }
        HealthState::Unhealthy | HealthState::Recovering => {
            machine.passes += 1;
            let up = machine.passes >= machine.needed;
            machine.enter(if up { HealthState::Healthy } else { HealthState::Recovering }, now);
        }
        HealthState::Expired => {}
    }
    if machine.state == HealthState::Healthy {
        machine.passes = 0;
    }
}

fn failed_softly(machine: &mut Machine, now: Instant, parameters: &HealthParameters) {
    machine.soft = machine.soft.saturating_add(1);
    machine.passes = 0;
    let fallen = machine.soft >= parameters.fall;
    match machine.state {
        HealthState::Unknown | HealthState::Starting if now < machine.grace_until || !fallen => {
            machine.enter(HealthState::Starting, now);
        }
        HealthState::Unknown | HealthState::Starting => machine.enter(HealthState::Unhealthy, now),
        HealthState::Healthy | HealthState::Suspect if !fallen => machine.enter(HealthState::Suspect, now),
        HealthState::Healthy | HealthState::Suspect => {
            machine.needed = parameters.rise;
            machine.enter(HealthState::Unhealthy, now);
        }
        HealthState::Unhealthy | HealthState::Recovering => machine.enter(HealthState::Unhealthy, now),
        HealthState::Expired => {}
    }
}

/// Time until the next probe, before jitter: often while in doubt, less and less
/// often while down.
pub(crate) fn probe_delay(machine: &Machine, now: Instant, parameters: &HealthParameters) -> Duration {
    const MINUTE: Duration = Duration::from_secs(60);
    let fast = parameters.fast_interval;
    let delay = match machine.state {
        HealthState::Healthy | HealthState::Expired => parameters.interval,
        HealthState::Unknown | HealthState::Starting | HealthState::Suspect | HealthState::Recovering => fast,
        HealthState::Unhealthy => match now.saturating_duration_since(machine.entered) {
            down if down < 5 * MINUTE => fast,
            down if down < 10 * MINUTE => Duration::from_secs(10),
            down if down < 20 * MINUTE => Duration::from_secs(30),
            _ => MINUTE,
        },
    };
    delay.min(parameters.interval.max(fast))
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
