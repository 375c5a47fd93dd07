//! The health of a service over time, in slots of equal length: what a status
//! bar shows. Put together from the transitions in the journal and from what is
//! known now.
//!
//! The journal says when knowledge ends: an instance that is removed, or a
//! registry that is closed, leaves a transition to `unknown`. After a crash there
//! is none, and what was seen last counts until the next start.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::access::Scoped;
use crate::clock;
use crate::core::Core;
use crate::error::{Error, Problem, Result};
use crate::health::{Health, HealthState, ProbeOutcome};
use crate::model::{InstanceId, ServiceName};
use crate::rollup::roll_up;
use crate::statistics::Tallied;
use crate::store::{Entry, EntryKind, JournalQuery, What};
use crate::view::{InstanceView, ServiceView};

/// How many slots there may be.
const SLOTS_MAX: u32 = 366;

/// How short and how long a slot may be.
const SLOT_LEAST: Duration = Duration::from_secs(60);
const SLOT_MOST: Duration = Duration::from_secs(31 * 24 * 3600);

/// How many transitions are read at most; of the time before there is no data then.
const ENTRIES_MAX: usize = 20_000;
const DAY_MS: i64 = 24 * 3600 * 1000;
const PAGE: u32 = 1000;

/// The health of a service over time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthSlots {
    /// The service.
    pub service: ServiceName,
    /// How long each slot is, in milliseconds.
    pub slot_ms: u64,
    /// The share of time that it was up, in percent, of the time for which there
    /// is data; none where there is no data at all.
    pub uptime_percentage: Option<f64>,
    /// The slots, oldest first; the last one is under way.
    pub slots: Vec<HealthSlot>,
}

/// One slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthSlot {
    /// When it begins. Slots begin at multiples of their length: those of a day at
    /// midnight UTC.
    pub start: Timestamp,
    /// When it ends.
    pub end: Timestamp,
    /// The share of time that the service was up, in percent, of the time for
    /// which there is data; none where there is no data.
    pub uptime_percentage: Option<f64>,
    /// The worst state that the service was in, which at any time is that of its
    /// best instance; none where there is no data.
    pub worst: Option<HealthState>,
    /// How many probes of its instances were answered.
    pub passes: u64,
    /// How many were not.
    pub failures: u64,
    /// An estimate of the response time that half of the answered ones kept to, in
    /// milliseconds.
    pub p50_ms: Option<f64>,
    /// The same for 95 of 100.
    pub p95_ms: Option<f64>,
}

impl Scoped {
    /// The health of a service in the last `slots` slots of length `slot`, the one
    /// under way included. The service counts as up while one of its instances is.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound); [`Invalid`](crate::ErrorKind::Invalid)
    /// unless there are 1 to 366 slots of 1 minute to 31 days, in whole
    /// milliseconds; whatever the store says.
    pub async fn health_slots(&self, service: &str, slots: u32, slot: Duration) -> Result<HealthSlots> {
        check(slots, slot)?;
        let view = self.service(service)?;
        let now = clock::now();
        let slot_ms = i64::try_from(slot.as_millis()).unwrap_or(i64::MAX);
        let end = (now.as_millisecond().div_euclid(slot_ms) + 1) * slot_ms;
        let start = end - i64::from(slots) * slot_ms;
        let since = Timestamp::from_millisecond(start).unwrap_or(Timestamp::MIN);
        let since = self.own_since(&view).await?.map_or(since, |own| own.max(since));
        let kept_since = now.checked_sub(self.core.config.journal.keep).unwrap_or(Timestamp::MIN);
        let (entries, known_since) = self.transitions(&view, since).await?;
        let current = view.instances().map(|(instance, seen)| (instance.id, seen.cell.health()));
        let timelines = timelines(&entries, current.map(|(id, health)| (id, (*health).clone())).collect());
        let mut bar = Bar { start, slot_ms, cells: vec![Cell::default(); slots as usize] };
        bar.fill(&timelines, known_since.max(kept_since).as_millisecond(), now.as_millisecond());
        self.probes(&view, since, &mut bar).await?;
        bar.read(view.service().name().clone())
    }

    /// The transitions of a service since then, oldest first, and since when they
    /// are complete.
    async fn transitions(&self, view: &ServiceView, since: Timestamp) -> Result<(Vec<Entry>, Timestamp)> {
        let (entries, all) = self.entries(view, EntryKind::Transition, since).await?;
        let oldest = entries.first().filter(|_| !all).map(|entry| entry.at);
        Ok((entries, oldest.unwrap_or(since)))
    }

    /// The newest entries of a kind about a service since then, oldest first, and
    /// whether these are all.
    async fn entries(&self, view: &ServiceView, kind: EntryKind, since: Timestamp) -> Result<(Vec<Entry>, bool)> {
        let service = Some(view.service().name().clone());
        let mut query = JournalQuery { service, since: Some(since), limit: PAGE, ..JournalQuery::of(kind) };
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let page = self.core.journal.read(&query).await?;
            entries.extend(page.entries);
            query.before = page.next;
            if query.before.is_none() || entries.len() >= ENTRIES_MAX {
                break;
            }
        }
        entries.reverse();
        Ok((entries, query.before.is_none()))
    }

    /// Adds what the probes came to: out of the roll-ups for slots of a day and
    /// more, out of the samples for shorter ones.
    async fn probes(&self, view: &ServiceView, since: Timestamp, bar: &mut Bar) -> Result<()> {
        let daily = bar.slot_ms >= DAY_MS;
        let kind = if daily { EntryKind::Rollup } else { EntryKind::Sample };
        for entry in self.entries(view, kind, since).await?.0 {
            match &entry.what {
                What::Rollup { since, failures, durations, .. } => {
                    if let Some(probes) = bar.probes(since.as_millisecond()) {
                        probes.add(*failures, durations);
                    }
                }
                What::Sample { outcome, response_time_ms, .. } => {
                    let failed = *outcome == ProbeOutcome::Fail { hard: false }.as_str();
                    let answered = *outcome != ProbeOutcome::Inconclusive.as_str();
                    let took = response_time_ms.filter(|_| answered);
                    let took = took.and_then(|ms| Duration::try_from_secs_f64(ms / 1000.0).ok());
                    if let Some(probes) = bar.probes(entry.at.as_millisecond()) {
                        probes.add_sample(failed, took);
                    }
                }
                _ => {}
            }
        }
        if daily {
            let now = clock::now().as_millisecond();
            for (_, seen) in view.instances() {
                let live = seen.cell.statistics.tally.seen();
                if let Some(probes) = bar.probes(now) {
                    probes.add(live.failures, &live.durations);
                }
            }
        }
        Ok(())
    }
}

fn check(slots: u32, slot: Duration) -> Result<()> {
    let mut problems = Vec::new();
    if !(1..=SLOTS_MAX).contains(&slots) {
        let detail = format!("must be 1 to {SLOTS_MAX}, is {slots}");
        problems.push(Problem { field: "slots".to_owned(), detail });
    }
    if !(SLOT_LEAST..=SLOT_MOST).contains(&slot) || !slot.subsec_nanos().is_multiple_of(1_000_000) {
        let detail = format!("must be 1 minute to 31 days, in whole milliseconds, is {slot:?}");
        problems.push(Problem { field: "slot".to_owned(), detail });
    }
    if problems.is_empty() { Ok(()) } else { Err(Error::invalid_fields(problems)) }
}

/// The states of one instance: what it was at first, and each change with its
/// time in milliseconds.
#[derive(Debug, Default)]
struct Timeline {
    first: Option<HealthState>,
    changes: Vec<(i64, Option<HealthState>)>,
}

/// A decided state; of the others nothing can be said about the time.
fn decided(state: HealthState) -> Option<HealthState> {
    (!state.is_undecided()).then_some(state)
}

/// What the journal and the instances that there are now say, by instance.
fn timelines(entries: &[Entry], current: Vec<(InstanceId, Health)>) -> Vec<Timeline> {
    let mut known: HashMap<InstanceId, Timeline> = HashMap::new();
    for entry in entries {
        let (Some(instance), What::Transition { from, to, .. }) = (entry.instance, &entry.what) else { continue };
        let state = |word: &str| HealthState::from_word(word).and_then(decided);
        let timeline = known.entry(instance).or_insert_with(|| Timeline { first: state(from), changes: Vec::new() });
        timeline.changes.push((entry.at.as_millisecond(), state(to)));
    }
    let current = current.into_iter().map(|(instance, health)| {
        let mut timeline = known.remove(&instance).unwrap_or_default();
        let (since, now) = (health.since.as_millisecond(), decided(health.state));
        // The newest transitions may not have been written yet.
        if timeline.changes.last().is_none_or(|(at, state)| *at <= since && *state != now) {
            timeline.changes.push((since, now));
        }
        timeline
    });
    let mut timelines: Vec<Timeline> = current.collect();
    // Of those that are gone without a word nothing is known after their last one.
    timelines.extend(known.into_values().map(|mut gone| {
        gone.changes.extend(gone.changes.last().map(|(at, _)| (*at, None)));
        gone
    }));
    timelines
}

/// What is added up for one slot.
#[derive(Debug, Clone, Default)]
struct Cell {
    up_ms: i64,
    decided_ms: i64,
    worst: Option<HealthState>,
    probes: Tallied,
}

struct Bar {
    start: i64,
    slot_ms: i64,
    cells: Vec<Cell>,
}

impl Bar {
    /// Adds what was between `known_since` and `now`.
    fn fill(&mut self, timelines: &[Timeline], known_since: i64, now: i64) {
        let mut states: Vec<Option<HealthState>> = timelines.iter().map(|one| one.first).collect();
        let mut changes: Vec<(i64, usize, Option<HealthState>)> = Vec::new();
        for (index, timeline) in timelines.iter().enumerate() {
            changes.extend(timeline.changes.iter().map(|(at, state)| (*at, index, *state)));
        }
        // Stable: changes of one instance at one moment stay in their order.
        changes.sort_by_key(|(at, ..)| *at);
        let mut counts = [0_usize; HealthState::ALL.len()];
        states.iter().flatten().for_each(|state| counts[usize::from(state.severity())] += 1);
        let mut from = known_since.max(self.start);
        for (at, index, state) in changes {
            self.add(from, at.min(now), best(&counts));
            from = from.max(at.min(now));
            if let Some(before) = std::mem::replace(&mut states[index], state) {
                counts[usize::from(before.severity())] -= 1;
            }
            if let Some(after) = state {
                counts[usize::from(after.severity())] += 1;
            }
        }
        self.add(from, now, best(&counts));
    }

    /// The service was in this state from then until then.
    fn add(&mut self, mut from: i64, until: i64, state: Option<HealthState>) {
        let Some(state) = state else { return };
        while from < until {
            let Ok(index) = usize::try_from((from - self.start).div_euclid(self.slot_ms)) else { return };
            let Some(cell) = self.cells.get_mut(index) else { return };
            let end = until.min(self.start + (i64::try_from(index).unwrap_or(i64::MAX) + 1) * self.slot_ms);
            cell.decided_ms += end - from;
            cell.up_ms += if state.is_up() { end - from } else { 0 };
            cell.worst = cell.worst.into_iter().chain([state]).max_by_key(|state| state.severity());
            from = end;
        }
    }

    /// The probes of the slot that this moment lies in.
    fn probes(&mut self, at: i64) -> Option<&mut Tallied> {
        let index = usize::try_from((at - self.start).div_euclid(self.slot_ms)).ok()?;
        self.cells.get_mut(index).map(|cell| &mut cell.probes)
    }

    fn read(self, service: ServiceName) -> Result<HealthSlots> {
        let at = |ms| Timestamp::from_millisecond(ms).map_err(|_| Error::invalid_field("slot", "reaches too far back"));
        let (mut slots, mut from) = (Vec::with_capacity(self.cells.len()), self.start);
        for cell in &self.cells {
            let (start, end) = (at(from)?, at(from + self.slot_ms)?);
            let uptime_percentage = percentage(cell.up_ms, cell.decided_ms);
            let probes = &cell.probes;
            slots.push(HealthSlot {
                start,
                end,
                uptime_percentage,
                worst: cell.worst,
                passes: probes.passes(),
                failures: probes.failures,
                p50_ms: probes.quantile(0.5),
                p95_ms: probes.quantile(0.95),
            });
            from += self.slot_ms;
        }
        let sum = |ms: fn(&Cell) -> i64| self.cells.iter().map(ms).sum();
        let uptime_percentage = percentage(sum(|cell| cell.up_ms), sum(|cell| cell.decided_ms));
        Ok(HealthSlots { service, slot_ms: self.slot_ms.unsigned_abs(), uptime_percentage, slots })
    }
}

/// The state of the best of so many instances of each severity.
fn best(counts: &[usize; HealthState::ALL.len()]) -> Option<HealthState> {
    let severity = counts.iter().position(|count| *count > 0)?;
    HealthState::ALL.iter().copied().find(|state| usize::from(state.severity()) == severity)
}

#[allow(clippy::cast_precision_loss, reason = "a year has 3·10^10 milliseconds")]
fn percentage(up_ms: i64, decided_ms: i64) -> Option<f64> {
    (decided_ms > 0).then(|| 100.0 * up_ms as f64 / decided_ms as f64)
}

impl Core {
    /// Says in the journal that nothing more is known of instances that `new`
    /// does not have any more, and forgets their leases.
    pub(crate) fn depart(&self, old: Option<&ServiceView>, new: Option<&ServiceView>) {
        let Some(old) = old else { return };
        self.drop_leases(old, new);
        for (instance, seen) in old.instances() {
            if new.is_none_or(|new| new.instance(instance.id).is_none()) {
                let name = old.service().name();
                let owned = self.replicas.owns(instance.id).then_some(seen);
                let lost = owned.and_then(|seen| lost_sight(name, instance.id, seen, "the instance was removed"));
                roll_up(name, instance.id, &seen.cell, clock::now())
                    .into_iter()
                    .chain(lost)
                    .for_each(|entry| self.recorder.record(entry));
            }
        }
    }

    /// What the journal is told when the registry closes: the roll-ups, and that nobody
    /// looks at the instances from now on that were looked after here, unless another replica does.
    pub(crate) fn last_words(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        let (is_last, now) = (self.replicas.is_alone(), clock::now());
        for view in self.view().services() {
            let name = view.service().name();
            for (instance, seen) in view.instances() {
                entries.extend(roll_up(name, instance.id, &seen.cell, now));
                if is_last && self.replicas.owns(instance.id) {
                    entries.extend(lost_sight(name, instance.id, seen, "the registry was closed"));
                }
            }
        }
        entries
    }

    /// What the journal is told by the first of several replicas when it opens: what the
    /// store knows of the health of instances is shown again from now on.
    pub(crate) fn first_words(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for view in self.view().services() {
            for (instance, seen) in view.instances() {
                let Some(shared) = seen.cell.shared().filter(|shared| !shared.state.is_undecided()) else { continue };
                // What was seen since then has been told already.
                if seen.cell.health().state == shared.state {
                    let health = Health { since: clock::now(), ..(*shared).clone() };
                    entries.push(transition(view.service().name(), instance.id, HealthState::Unknown, &health));
                }
            }
        }
        entries
    }
}

/// What the journal says of an instance that was in the state `from` until now.
pub(crate) fn transition(service: &ServiceName, instance: InstanceId, from: HealthState, health: &Health) -> Entry {
    let (from, to) = (from.as_str().to_owned(), health.state.as_str().to_owned());
    let what = What::Transition { from, to, reason: health.reason.message.clone() };
    Entry { at: health.since, service: Some(service.clone()), instance: Some(instance), what }
}

fn lost_sight(service: &ServiceName, instance: InstanceId, seen: &InstanceView, reason: &str) -> Option<Entry> {
    let before = seen.cell.health().state;
    if before.is_undecided() {
        return None;
    }
    let mut unknown = Health::unknown(clock::now());
    unknown.reason.message = reason.to_owned();
    Some(transition(service, instance, before, &unknown))
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
