//! The health of one instance as a pure state machine: evidence in, state and
//! effects out. Knows no task, lock or clock; `now` is an argument.
//!
//! ```text
//! unknown ─→ starting ─→ healthy ⇄ suspect ─→ unhealthy ─→ recovering ─→ healthy
//!    any ─→ crash_loop ─→ healthy                 (processes; see `restart.rs`)
//!    any ─→ expired ─→ unknown                            (leases; see `lease.rs`)
//! ```
//!
//! Invariants, each a property test below: S1 only `fall` soft failures in a row,
//! a hard one, or the end of a process in a crash loop take a healthy instance
//! down; S2 a pass zeroes the soft count; S3 only `rise` passes in a row bring it
//! back; S4 inconclusive evidence changes nothing, nor does any while the lease is
//! over; S5 evidence older than what was seen changes nothing. What the operator
//! said (S6) is not in here at all: it cannot be overridden.
//!
//! While soft ejections are frozen (the fault seems to be Machina's own), soft
//! failures leave a healthy instance suspect, however many there are. They are
//! counted all the same, so that the first one after the freeze takes it down.

use std::time::Duration;

use tokio::time::Instant;

use super::flaps::Flaps;
use super::probe::{Observation, ProbeOutcome};
use super::reported::HealthState;
use crate::model::HealthParameters;

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
    Observed {
        /// What.
        evidence: Evidence,
        /// Whether soft failures take nothing down at the moment.
        frozen: bool,
        /// Whether the process ended so often that it waits for one of its few starts.
        crash_loop: bool,
    },
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
    /// What there was of it in this process is there no more, or never was: from
    /// here nothing can be known of it. Evidence up to this number is of before.
    Elsewhere {
        /// The order, as in [`Evidence`].
        sequence: u64,
    },
    /// The replica that looks after the instance says how it is.
    Told(Told),
    /// Nothing but time has passed.
    TimePassed,
}

/// What another replica says of an instance.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Told {
    /// The order, as in [`Evidence`]: evidence up to this number is of before.
    pub(crate) sequence: u64,
    pub(crate) state: HealthState,
    /// Failures in a row.
    pub(crate) failures: u32,
    /// Whether it is certainly down.
    pub(crate) hard: bool,
    /// Since when it is in the state.
    pub(crate) since: Instant,
}

/// What follows from a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Effects {
    /// The state changed from the first to the second.
    pub(crate) transition: Option<(HealthState, HealthState)>,
    /// Whether the evidence was taken into account at all.
    pub(crate) applied: bool,
    /// It began to flap (`true`), or flaps no more.
    pub(crate) flapping: Option<bool>,
    /// It is there and does not answer: as many soft failures in a row have been
    /// seen of it as take a healthy instance down, or as many more.
    pub(crate) wedged: bool,
}

/// The state of the machine between two steps.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Machine {
    pub(crate) state: HealthState,
    /// Soft failures in a row.
    pub(crate) soft: u32,
    /// Passes in a row while unhealthy, recovering or in a crash loop.
    pub(crate) passes: u32,
    /// Passes in a row that an instance needs to be healthy which does not flap.
    rise: u32,
    pub(crate) flaps: Flaps,
    /// The newest evidence taken into account.
    pub(crate) newest: u64,
    /// When the state was entered.
    pub(crate) entered: Instant,
    /// From when on probes of an instance that is down become rarer.
    rarer_from: Instant,
    /// Until when failures mean "still starting".
    pub(crate) grace_until: Instant,
}

impl Machine {
    pub(crate) fn new(now: Instant, parameters: &HealthParameters) -> Self {
        Self {
            state: HealthState::Unknown,
            soft: 0,
            passes: 0,
            rise: 1,
            flaps: Flaps::default(),
            newest: 0,
            entered: now,
            rarer_from: now,
            grace_until: now + parameters.startup_grace,
        }
    }

    /// Passes in a row needed to be healthy again.
    pub(crate) fn needed(&self, parameters: &HealthParameters) -> u32 {
        if self.flaps.is_flapping() { self.rise.max(parameters.flap_success_threshold) } else { self.rise }
    }

    /// Something says that the instance is worth a look: it is looked at as often as
    /// if it had gone down just now.
    pub(crate) const fn triggered(&mut self, now: Instant) {
        self.rarer_from = now;
    }

    fn enter(&mut self, state: HealthState, now: Instant) {
        if self.state != state {
            (self.state, self.entered, self.rarer_from) = (state, now, now);
        }
    }
}

/// One step. The machine is changed in place; the same events in the same order
/// always give the same machine.
pub(crate) fn step(machine: &mut Machine, event: &HealthEvent, now: Instant, parameters: &HealthParameters) -> Effects {
    let (before, flapped) = (machine.state, machine.flaps.is_flapping());
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
            (machine.soft, machine.passes, machine.flaps) = (0, 0, Flaps::default());
            machine.enter(HealthState::Expired, now);
            runs_out
        }
        HealthEvent::Returned { sequence } => {
            let returns = machine.state == HealthState::Expired;
            if returns {
                machine.rise = 1;
                machine.newest = machine.newest.max(*sequence);
                machine.grace_until = now + parameters.startup_grace;
                machine.enter(HealthState::Unknown, now);
            }
            returns
        }
        HealthEvent::Elsewhere { sequence } => {
            let leaves = !matches!(machine.state, HealthState::Unknown | HealthState::Expired);
            if leaves {
                let newest = machine.newest.max(*sequence);
                *machine = Machine { newest, ..Machine::new(now, parameters) };
            }
            leaves
        }
        HealthEvent::Told(told) => {
            take_over(machine, told, now, parameters);
            true
        }
        HealthEvent::Observed { evidence, frozen, crash_loop } => {
            observe(machine, evidence, (*frozen, *crash_loop), now, parameters)
        }
        HealthEvent::TimePassed => {
            machine.flaps.pass_time(now, parameters);
            false
        }
    };
    let (after, flaps) = (machine.state, machine.flaps.is_flapping());
    let soft = matches!(event, HealthEvent::Observed { evidence, .. }
        if evidence.observation.outcome == ProbeOutcome::Fail { hard: false });
    let fallen = before.is_up() || machine.soft.is_multiple_of(parameters.failure_threshold);
    Effects {
        transition: (before != after).then_some((before, after)),
        applied,
        flapping: (flapped != flaps).then_some(flaps),
        wedged: applied && soft && fallen && matches!(after, HealthState::Unhealthy | HealthState::CrashLoop),
    }
}

/// Stands where the other stood, as far as that can be told: on from there it goes
/// as if the evidence had been this machine's own.
fn take_over(machine: &mut Machine, told: &Told, now: Instant, parameters: &HealthParameters) {
    let was_up = machine.state.is_up();
    machine.newest = machine.newest.max(told.sequence);
    machine.soft = told.failures;
    machine.passes = u32::from(told.state == HealthState::Recovering);
    machine.rise = if told.hard || machine.state == HealthState::Unknown { 1 } else { parameters.success_threshold };
    if machine.state != told.state {
        let since = told.since.min(now);
        (machine.state, machine.entered, machine.rarer_from) = (told.state, since, since);
    }
    machine.flaps.pass_time(now, parameters);
    if was_up && !machine.state.is_up() {
        machine.flaps.went_down(now, parameters);
    }
}

fn observe(
    machine: &mut Machine,
    evidence: &Evidence,
    (frozen, crash_loop): (bool, bool),
    now: Instant,
    parameters: &HealthParameters,
) -> bool {
    if evidence.sequence <= machine.newest || machine.state == HealthState::Expired {
        return false;
    }
    let was_up = machine.state.is_up();
    match evidence.observation.outcome {
        ProbeOutcome::Inconclusive => return false,
        ProbeOutcome::Pass | ProbeOutcome::Degraded | ProbeOutcome::AuthRequired => {
            machine.flaps.pass_time(now, parameters);
            passed(machine, now, parameters);
        }
        ProbeOutcome::Fail { hard } => {
            machine.flaps.pass_time(now, parameters);
            machine.soft = machine.soft.saturating_add(1);
            machine.passes = 0;
            match (crash_loop, hard) {
                (true, _) => fall(machine, HealthState::CrashLoop, parameters.success_threshold, now),
                (false, true) => fall(machine, HealthState::Unhealthy, 1, now),
                (false, false) => failed_softly(machine, frozen, now, parameters),
            }
        }
    }
    if was_up && !machine.state.is_up() {
        machine.flaps.went_down(now, parameters);
    }
    machine.newest = evidence.sequence;
    true
}

fn passed(machine: &mut Machine, now: Instant, parameters: &HealthParameters) {
    machine.soft = 0;
    match machine.state {
        HealthState::Healthy | HealthState::Suspect | HealthState::Unknown | HealthState::Starting => {
            machine.enter(HealthState::Healthy, now);
        }
        HealthState::Unhealthy | HealthState::Recovering | HealthState::CrashLoop => {
            machine.passes += 1;
            if machine.passes >= machine.needed(parameters) {
                machine.enter(HealthState::Healthy, now);
            } else if machine.state != HealthState::CrashLoop {
                machine.enter(HealthState::Recovering, now);
            }
        }
        HealthState::Expired => {}
    }
    if machine.state == HealthState::Healthy {
        machine.passes = 0;
    }
}

/// Goes down, to come back after `rise` passes. Only passes end a crash loop.
fn fall(machine: &mut Machine, to: HealthState, rise: u32, now: Instant) {
    if machine.state != HealthState::CrashLoop {
        machine.rise = rise;
        machine.enter(to, now);
    }
}

fn failed_softly(machine: &mut Machine, frozen: bool, now: Instant, parameters: &HealthParameters) {
    let fallen = machine.soft >= parameters.failure_threshold;
    match machine.state {
        HealthState::Unknown | HealthState::Starting if now < machine.grace_until || !fallen => {
            machine.enter(HealthState::Starting, now);
        }
        HealthState::Unknown | HealthState::Starting => machine.enter(HealthState::Unhealthy, now),
        HealthState::Healthy | HealthState::Suspect if frozen || !fallen => machine.enter(HealthState::Suspect, now),
        HealthState::Healthy | HealthState::Suspect => {
            fall(machine, HealthState::Unhealthy, parameters.success_threshold, now);
        }
        HealthState::Unhealthy | HealthState::Recovering => machine.enter(HealthState::Unhealthy, now),
        HealthState::CrashLoop | HealthState::Expired => {}
    }
}

/// Time until the next probe, before jitter: often while in doubt, less and less
/// often while down.
pub(crate) fn probe_delay(machine: &Machine, now: Instant, parameters: &HealthParameters) -> Duration {
    const MINUTE: Duration = Duration::from_secs(60);
    let fast = parameters.fast_interval;
    let delay = match machine.state {
        HealthState::Healthy | HealthState::Expired => parameters.interval,
        HealthState::Unknown
        | HealthState::Starting
        | HealthState::Suspect
        | HealthState::Recovering
        | HealthState::CrashLoop => fast,
        HealthState::Unhealthy => match now.saturating_duration_since(machine.rarer_from) {
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

#[cfg(test)]
#[path = "invariant_tests.rs"]
mod invariants;

#[cfg(test)]
#[path = "bound_tests.rs"]
mod bounds;
