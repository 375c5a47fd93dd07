//! The log of a simulation, the truth about its instances, and whatever was wrong.
//! Everyone who takes part writes into it, in the order in which things happen.

use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::super::{Deed, Onlooker};
use super::truth::Truth;
use crate::error::{Outcome, Result};
use crate::event::{Event, EventKind};
use crate::health::{HealthState, ReasonCode};
use crate::model::InstanceId;
use crate::route::CallReport;

/// How long after its last fault an instance may still be found to have one.
const AFTERMATH: Duration = Duration::from_secs(60);

/// A call that was made.
#[derive(Debug)]
struct Made {
    begun: Instant,
    /// Whether it may be executed more than once.
    repeatable: bool,
    executed: u32,
}

#[derive(Debug)]
pub(super) struct Pages {
    begun: Instant,
    pub(super) log: String,
    pub(super) wrong: Vec<String>,
    pub(super) truths: Vec<Truth>,
    places: HashMap<String, usize>,
    ids: HashMap<InstanceId, usize>,
    calls: HashMap<u64, Made>,
    pub(super) answered: u64,
    pub(super) failed: u64,
    pub(super) events: u64,
    /// Whether self-preservation holds, and when it last did, or took its share.
    pub(super) preserved: bool,
    pub(super) preserved_until: Option<Instant>,
    /// When soft evidence last took instances down, and of how many then.
    pub(super) ejections: Vec<(Instant, usize)>,
    pub(super) flapping: Vec<bool>,
}

/// The book, shared by all who write into it.
#[derive(Debug)]
pub(super) struct Book(Mutex<Pages>);

impl Book {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Pages {
            begun: Instant::now(),
            log: String::new(),
            wrong: Vec::new(),
            truths: Vec::new(),
            places: HashMap::new(),
            ids: HashMap::new(),
            calls: HashMap::new(),
            answered: 0,
            failed: 0,
            events: 0,
            preserved: false,
            preserved_until: None,
            ejections: Vec::new(),
            flapping: Vec::new(),
        }))
    }

    pub(super) fn pages(&self) -> MutexGuard<'_, Pages> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Pages {
    pub(super) fn add(&mut self, location: String, id: InstanceId, truth: Truth) {
        self.places.insert(location, self.truths.len());
        self.ids.insert(id, self.truths.len());
        self.truths.push(truth);
        self.flapping.push(false);
    }

    /// The instance at `location` has this identity now.
    pub(super) fn known_as(&mut self, location: &str, id: InstanceId) {
        if let Some(place) = self.places.get(location) {
            self.ids.insert(id, *place);
        }
    }

    /// Virtual time since the beginning.
    pub(super) fn time(&self) -> Duration {
        self.begun.elapsed()
    }

    pub(super) fn note(&mut self, what: fmt::Arguments<'_>) {
        let at = self.time().as_secs_f64();
        // Writing into a string does not fail.
        let _ = writeln!(self.log, "{at:>10.3} {what}");
    }

    /// Something is not as it must be.
    pub(super) fn accuse(&mut self, what: fmt::Arguments<'_>) {
        self.note(format_args!("WRONG: {what}"));
        let at = self.time().as_secs_f64();
        self.wrong.push(format!("at {at:.3} s: {what}"));
    }

    pub(super) fn called(&mut self, number: u64, repeatable: bool) {
        self.calls.insert(number, Made { begun: Instant::now(), repeatable, executed: 0 });
    }

    /// A call has ended, as its caller was told.
    pub(super) fn returned(&mut self, number: u64, outcome: &Result<CallReport>) {
        let executed = self.calls.get(&number).map_or(0, |call| call.executed);
        match outcome {
            Ok(report) => {
                self.answered += 1;
                let by = self.name(report.instance);
                self.note(format_args!("call {number} answered by {by} after {} attempts", report.attempts.len()));
                if executed == 0 {
                    self.accuse(format_args!("call {number} was answered, and nobody executed it"));
                }
            }
            Err(error) => {
                self.failed += 1;
                let context = error.context();
                self.note(format_args!(
                    "call {number} failed: {} {:?} after {:?} attempts: {}",
                    error.kind(),
                    context.outcome,
                    context.attempts,
                    error.message()
                ));
                if context.outcome == Some(Outcome::NotExecuted) && executed > 0 {
                    self.accuse(format_args!("call {number} is said not to have been executed, and was"));
                }
            }
        }
    }

    pub(super) fn name(&self, id: InstanceId) -> String {
        self.ids.get(&id).map_or_else(|| format!("unknown {id}"), |place| self.truths[*place].name.clone())
    }

    /// Machina says that something happened.
    pub(super) fn heard(&mut self, event: &Event) {
        self.events += 1;
        let service = event.service.as_ref().map(ToString::to_string).unwrap_or_default();
        match &event.kind {
            EventKind::HealthChanged { instance, from, to, reason } => {
                let name = self.name(*instance);
                self.note(format_args!(
                    "{name} {} -> {} ({:?}) {}",
                    from.as_str(),
                    to.as_str(),
                    reason.code,
                    reason.message
                ));
                if let Some(place) = self.ids.get(instance).copied() {
                    self.judge(place, *from, *to, reason.code);
                    self.truths[place].reported(*to);
                }
            }
            EventKind::SelfPreservation { active, failing, targets, .. } => {
                self.note(format_args!("self-preservation {active}: {failing} of {targets} fail"));
                self.preserved = *active;
                self.preserved_until = Some(Instant::now());
            }
            EventKind::FlappingBegan { instance, .. } => self.flaps(*instance, true),
            EventKind::FlappingEnded { instance } => self.flaps(*instance, false),
            EventKind::DefinitionsChanged { instance, added, removed, .. } => {
                let name = self.name(*instance);
                self.note(format_args!("{name} publishes {added:?} more and {removed:?} no longer"));
            }
            EventKind::ServiceRegistered | EventKind::ServiceUpdated | EventKind::ServiceDeregistered => {
                self.note(format_args!("{service} {:?}", event.kind));
            }
            other => self.note(format_args!("{service} {}", kind(other))),
        }
    }

    fn flaps(&mut self, instance: InstanceId, flaps: bool) {
        let name = self.name(instance);
        self.note(format_args!("{name} flaps: {flaps}"));
        if let Some(place) = self.ids.get(&instance) {
            self.flapping[*place] = flaps;
        }
    }

    /// Holds a change of health against what the instance did (S1, S3).
    fn judge(&mut self, place: usize, from: HealthState, to: HealthState, code: ReasonCode) {
        let truth = &self.truths[place];
        let (name, failures, passes) = (truth.name.clone(), truth.failures_by_now(), truth.passes);
        let (fall, rise) = (truth.parameters.failure_threshold, truth.parameters.success_threshold);
        let well = truth.well_since.is_some_and(|since| since.elapsed() > AFTERMATH);
        let gone = truth.gone_since.is_some_and(|since| since.elapsed() > AFTERMATH);
        let hard = truth.hard;
        let falls = from.is_up() && to == HealthState::Unhealthy;
        if falls && code == ReasonCode::Failing {
            let owned = self.truths.iter().filter(|truth| truth.owned).count();
            self.ejections.push((Instant::now(), owned));
            if failures < fall {
                self.accuse(format_args!("S1: {name} is taken down after {failures} failures of {fall}"));
            }
            if self.preserved {
                self.accuse(format_args!("S7: {name} is taken down softly while self-preservation holds"));
            }
        }
        if falls && well {
            self.accuse(format_args!("S1: {name} is taken down though it is well"));
        }
        if to == HealthState::Healthy && passes == 0 {
            self.accuse(format_args!("S3: {name} is healthy without having answered"));
        }
        if to == HealthState::Healthy && from == HealthState::Recovering && !hard && passes < rise {
            self.accuse(format_args!("S3: {name} is healthy after {passes} of {rise} passes"));
        }
        if to == HealthState::Healthy && gone {
            self.accuse(format_args!("S3: {name} is healthy though it answers nothing"));
        }
    }
}

/// The word of an event, without what it carries.
fn kind(event: &EventKind) -> String {
    let json = serde_json::to_value(event).unwrap_or_default();
    json.get("type").and_then(serde_json::Value::as_str).unwrap_or("event").to_owned()
}

impl Onlooker for Book {
    fn saw(&self, location: &str, deed: Deed<'_>) {
        let mut pages = self.pages();
        let Some(place) = pages.places.get(location).copied() else { return };
        let truth = &mut pages.truths[place];
        match deed {
            Deed::Began(contact) => {
                truth.began(contact);
                if truth.is_probed_twice() {
                    let name = truth.name.clone();
                    pages.accuse(format_args!("S9: two probes of {name} run at once"));
                }
            }
            Deed::Ended { contact, began, ending } => truth.ended(contact, began, ending),
            Deed::Executed { arguments, .. } => {
                let Some(number) = arguments.get("call").and_then(serde_json::Value::as_u64) else { return };
                pages.executed(place, number);
            }
        }
    }
}

impl Pages {
    /// An instance executes a call.
    fn executed(&mut self, place: usize, number: u64) {
        let truth = &self.truths[place];
        let (name, admitted, since) = (truth.name.clone(), truth.admitted, truth.admitted_since);
        let Some(call) = self.calls.get_mut(&number) else { return };
        call.executed += 1;
        let (times, repeatable, begun) = (call.executed, call.repeatable, call.begun);
        self.note(format_args!("{name} executes call {number}"));
        if times > 1 && !repeatable {
            self.accuse(format_args!("call {number} must not be repeated, and {name} executes it again"));
        }
        if !admitted && begun > since {
            self.accuse(format_args!("S6: {name} executes call {number} though the operator took it out"));
        }
    }
}
