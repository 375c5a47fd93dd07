//! What one channel is told next: what fires and the time in, one message or a
//! moment to wait for out. Pure: knows no task, lock or clock.
//!
//! It holds no queue of messages. It knows what the channel was told, compares
//! that with what fires, and the difference is due: so what is over before it
//! could be said is never said, and nothing is said twice.
//!
//! Invariants, each a property test: O1 never more messages in any minute than
//! allowed; O2 while Machina distrusts what it sees, only that is said; O3 in
//! quiet hours, only the levels that are let through; O4 of one alert the channel
//! is told that it fires, that it became graver, that it is over, each once and
//! in this order; O5 left in peace, it has been told everything.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;
use uuid::Uuid;

use super::alert::{Alert, AlertKey, AlertRule};
use super::config::{AlertChannel, AlertsConfig};
use super::engine::{Board, Moment};
use super::hours::Quiet;
use super::message::{AlertMessage, AlertMessageKind};
use crate::model::AlertLevel;

/// The time in which messages are counted.
const MINUTE: Duration = Duration::from_secs(60);

/// How long the last message that is allowed waits for more to sum up.
const GATHER: Duration = Duration::from_secs(5);

/// How often it is looked whether quiet hours are over.
const LOOK_EVERY: Duration = Duration::from_secs(15);

/// How long a channel is left alone after a message could not be delivered: twice
/// as long each time, within these.
const ALONE: (Duration, Duration) = (Duration::from_secs(30), Duration::from_secs(15 * 60));

/// What is to be done.
#[derive(Debug)]
pub(super) enum Due {
    Say(Draft),
    /// Nothing before this time, unless something else fires or is over.
    Wait(Option<Instant>),
}

/// A message, and what the channel knows once it has it.
#[derive(Debug, Clone)]
pub(super) struct Draft {
    items: Vec<Item>,
    /// Why they are summed up.
    why: &'static str,
}

/// One thing to be said.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) kind: AlertMessageKind,
    pub(super) alert: Arc<Alert>,
}

#[derive(Debug, Clone)]
struct Told {
    alert: Arc<Alert>,
    at: Instant,
}

/// Everything that is known about one channel.
#[derive(Debug)]
pub(super) struct Outlet {
    name: String,
    /// The names of all channels there are.
    known: Arc<[String]>,
    minimum_level: AlertLevel,
    per_minute_max: usize,
    reminder: Option<Duration>,
    quiet: Vec<Quiet>,
    moments_max: usize,
    told: BTreeMap<AlertKey, Told>,
    /// What happened and has not been told; it does not fire for long.
    moments: BTreeMap<AlertKey, Arc<Alert>>,
    said: VecDeque<Instant>,
    /// What quiet hours hold back, or self-preservation does.
    held: BTreeSet<AlertKey>,
    held_count: u64,
    /// Since when the last message waits for more.
    gathering: Option<Instant>,
    alone_until: Option<Instant>,
    failures: u32,
    /// How often each could not be delivered: what never can be delays no other.
    refused: BTreeMap<AlertKey, u32>,
}

impl Outlet {
    pub(super) fn new(channel: &AlertChannel, known: Arc<[String]>, config: &AlertsConfig) -> Self {
        let per_minute_max = channel.messages_per_minute_max.unwrap_or(config.messages_per_minute_max);
        Self {
            name: channel.name.clone(),
            known,
            minimum_level: channel.minimum_level,
            per_minute_max: per_minute_max as usize,
            reminder: Some(config.reminder_interval).filter(|interval| !interval.is_zero()),
            quiet: config.quiet_hours.iter().filter_map(|hours| hours.of_channel(&channel.name)).collect(),
            moments_max: config.firing_max as usize,
            told: BTreeMap::new(),
            moments: BTreeMap::new(),
            said: VecDeque::new(),
            held: BTreeSet::new(),
            held_count: 0,
            gathering: None,
            alone_until: None,
            failures: 0,
            refused: BTreeMap::new(),
        }
    }

    /// What the channel was told by an earlier process, and has not ended since.
    pub(super) fn restore(&mut self, alerts: impl IntoIterator<Item = Arc<Alert>>, now: Instant) {
        self.told.extend(alerts.into_iter().map(|alert| (alert.key(), Told { alert, at: now })));
    }

    /// How many messages were held back so far, by quiet hours or self-preservation.
    pub(super) fn held_count(&self) -> u64 {
        self.held_count
    }

    /// What is to be said now.
    pub(super) fn next(&mut self, board: &Board, now: Moment) -> Due {
        self.remember_moments(board);
        while self.said.front().is_some_and(|said| *said + MINUTE <= now.instant) {
            self.said.pop_front();
        }
        let (due, reminder) = self.due(board, now);
        if let Some(until) = self.alone_until.filter(|until| *until > now.instant) {
            return Due::Wait(Some(until));
        }
        if due.is_empty() {
            self.gathering = None;
            let look = (!self.held.is_empty()).then(|| now.instant + LOOK_EVERY);
            return Due::Wait(reminder.into_iter().chain(look).min());
        }
        self.draft(due, now)
    }

    /// One of `due`, or all of them, as far as the limit allows.
    fn draft(&mut self, mut due: Vec<Item>, now: Moment) -> Due {
        let left = self.per_minute_max.saturating_sub(self.said.len());
        let was_held = due.iter().filter(|item| self.held.contains(&item.alert.key())).count();
        if left == 0 {
            return Due::Wait(self.said.front().map(|first| *first + MINUTE));
        }
        if was_held > 1 {
            due.retain(|item| self.held.contains(&item.alert.key()));
            return Due::Say(Draft { items: due, why: ", held back until now" });
        }
        if left > 1 {
            self.gathering = None;
        } else if !self.said.is_empty() {
            let until = *self.gathering.get_or_insert(now.instant) + GATHER;
            if until > now.instant {
                return Due::Wait(Some(until));
            }
        }
        if left > 1 || due.len() == 1 {
            due.truncate(1);
        }
        Due::Say(Draft { items: due, why: ", in one message because there are so many" })
    }

    /// Everything that differs between what fires and what the channel was told,
    /// the most urgent first, and when there may be more.
    fn due(&mut self, board: &Board, now: Moment) -> (Vec<Item>, Option<Instant>) {
        let mut wake: Option<Instant> = None;
        let mut items = Vec::new();
        let moments = self.moments.values().filter(|alert| !board.firing.contains_key(&alert.key()));
        for alert in board.firing.values().chain(moments).filter(|alert| self.concerns(alert)) {
            let Some(kind) = self.difference(alert, now, &mut wake) else { continue };
            items.push(Item { kind, alert: Arc::clone(alert) });
        }
        let over = self.told.iter().filter(|(key, _)| key.rule.lasts() && !board.firing.contains_key(*key));
        items.extend(
            over.map(|(_, told)| Item { kind: AlertMessageKind::Resolved, alert: ended(told, board, now.wall) }),
        );
        let (passing, held): (Vec<_>, Vec<_>) = items.into_iter().partition(|item| !self.holds_back(item, board, now));
        self.hold_back(&held, &passing);
        let mut passing = passing;
        passing.sort_by_cached_key(|item| {
            let refused = self.refused.get(&item.alert.key()).copied().unwrap_or_default();
            let over = item.kind == AlertMessageKind::Resolved;
            (refused, over, std::cmp::Reverse(item.alert.level), item.alert.since, item.alert.id)
        });
        (passing, wake)
    }

    /// A service that names only channels that there are not is told to all:
    /// better to the wrong one than to nobody.
    fn concerns(&self, alert: &Alert) -> bool {
        let unknown = !alert.channels.iter().any(|name| self.known.contains(name));
        let named = unknown || alert.channels.contains(&self.name);
        named && alert.level >= self.minimum_level
    }

    /// What the channel does not know of an alert that fires.
    fn difference(&self, alert: &Alert, now: Moment, wake: &mut Option<Instant>) -> Option<AlertMessageKind> {
        let Some(told) = self.told.get(&alert.key()).filter(|told| told.alert.id == alert.id) else {
            return Some(AlertMessageKind::Firing);
        };
        if alert.level > told.alert.level {
            return Some(AlertMessageKind::Escalated);
        }
        let again = told.at + self.reminder.filter(|_| alert.rule.lasts())?;
        if again <= now.instant {
            return Some(AlertMessageKind::Reminder);
        }
        *wake = Some(wake.map_or(again, |wake| wake.min(again)));
        None
    }

    fn holds_back(&self, item: &Item, board: &Board, now: Moment) -> bool {
        let distrust = board.held && item.alert.rule != AlertRule::SelfPreservation;
        distrust || self.quiet.iter().any(|quiet| quiet.holds(item.alert.level, now.wall))
    }

    /// Remembers, and counts once, what is held back.
    fn hold_back(&mut self, held: &[Item], passing: &[Item]) {
        let keys: BTreeSet<AlertKey> = held.iter().map(|item| item.alert.key()).collect();
        self.held_count += keys.difference(&self.held).count() as u64;
        let passing: BTreeSet<AlertKey> = passing.iter().map(|item| item.alert.key()).collect();
        self.held.retain(|key| passing.contains(key));
        self.held.extend(keys);
    }

    /// What is a moment is told though it is over by then.
    fn remember_moments(&mut self, board: &Board) {
        let forgotten = |key: &AlertKey| !key.rule.lasts() && !board.firing.contains_key(key);
        let happened = board.firing.values().chain(&board.recent).filter(|alert| !alert.rule.lasts());
        for alert in happened.filter(|alert| self.concerns(alert)).cloned().collect::<Vec<_>>() {
            let key = alert.key();
            let newer = |known: &Alert| known.id >= alert.id;
            let told = self.told.get(&key).is_some_and(|told| newer(&told.alert));
            let known = self.moments.get(&key).is_some_and(|known| newer(known));
            if !told && !known && self.moments.len() < self.moments_max {
                self.moments.insert(key, alert);
            }
        }
        let recent: BTreeSet<AlertKey> = board.recent.iter().map(|alert| alert.key()).collect();
        self.told.retain(|key, _| !forgotten(key) || recent.contains(key));
    }

    /// The channel has the message.
    pub(super) fn delivered(&mut self, draft: &Draft, now: Moment) {
        self.said.push_back(now.instant);
        (self.gathering, self.alone_until, self.failures) = (None, None, 0);
        for Item { kind, alert } in &draft.items {
            let key = alert.key();
            self.held.remove(&key);
            self.refused.remove(&key);
            self.moments.remove(&key);
            if *kind == AlertMessageKind::Resolved {
                self.told.remove(&key);
            } else {
                self.told.insert(key, Told { alert: Arc::clone(alert), at: now.instant });
            }
        }
    }

    /// The channel does not have the message, as far as anyone knows.
    pub(super) fn failed(&mut self, draft: &Draft, now: Moment) {
        self.said.push_back(now.instant);
        self.gathering = None;
        let alone = ALONE.0 * 2_u32.saturating_pow(self.failures.min(16));
        self.failures += 1;
        self.alone_until = Some(now.instant + alone.min(ALONE.1));
        for item in &draft.items {
            *self.refused.entry(item.alert.key()).or_default() += 1;
        }
        let (told, moments) = (&self.told, &self.moments);
        if self.refused.len() > self.moments_max {
            self.refused.retain(|key, _| told.contains_key(key) || moments.contains_key(key));
        }
    }
}

/// An alert that was told and fires no longer, as it ended.
fn ended(told: &Told, board: &Board, now: Timestamp) -> Arc<Alert> {
    let over = board.recent.iter().find(|alert| alert.id == told.alert.id);
    over.cloned().unwrap_or_else(|| Arc::new(told.alert.over(now, "it is over")))
}

impl Draft {
    /// What the message is about.
    pub(super) fn items(&self) -> &[Item] {
        &self.items
    }

    /// The message.
    pub(super) fn message(&self, source: &str, id: Uuid, at: Timestamp) -> AlertMessage {
        match self.items.as_slice() {
            [Item { kind, alert }] => AlertMessage::about(*kind, alert, source, id, at),
            items => {
                let alerts: Vec<_> = items.iter().map(|item| Arc::clone(&item.alert)).collect();
                AlertMessage::summary(&alerts, self.why, source, id, at)
            }
        }
    }
}

#[cfg(test)]
#[path = "outlet_tests.rs"]
mod tests;
