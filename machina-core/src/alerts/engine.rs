//! Which alerts fire, and how grave they are: signals and the time in, actions
//! out. Pure: knows no task, lock or clock.
//!
//! Invariants, each a property test: E1 of one key at most one alert fires, and
//! what is told of it is `fired (escalated)* resolved`; E2 a service is down for
//! at least `down_after` without a break when its alert fires, and no longer when
//! the engine is asked in time; E3 nothing fires for a service that is exempt or
//! gone; E4 there are never more than `firing_max` conditions; E5 the deadline
//! lies ahead.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use imbl::{OrdMap, Vector};
use jiff::Timestamp;
use tokio::time::Instant;

use super::alert::{Alert, AlertKey, AlertRule, one_line};
use super::config::AlertsConfig;
use super::signal::{Seen, SeenInstance, Signal, Standing, Terms};
use crate::model::{AlertLevel, InstanceId, ServiceName};

/// The time, in both senses: `instant` measures, `wall` is for records and for
/// the hours of people.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) instant: Instant,
    pub(super) wall: Timestamp,
}

/// What comes in.
#[derive(Debug, Clone)]
pub(super) enum Input {
    Signal(Signal),
    /// Time has passed.
    Tick,
}

/// What comes out.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Action {
    Fired(Arc<Alert>),
    Escalated(Arc<Alert>),
    Resolved(Arc<Alert>),
    /// There was no room for everything, and now there is: look at all again.
    Reread,
}

/// What fires, for those who tell of it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(super) struct Board {
    pub(super) firing: OrdMap<AlertKey, Arc<Alert>>,
    /// What is over, the newest first.
    pub(super) recent: Vector<Arc<Alert>>,
    /// Nothing is to be said: what is seen may be Machina's own fault.
    pub(super) held: bool,
}

/// Something that is so, whether or not anyone is told yet.
#[derive(Debug)]
struct Condition {
    began: Instant,
    /// How long it had lasted before this process knew of it.
    carried: Duration,
    since: Timestamp,
    summary: String,
    terms: Terms,
    alert: Option<Arc<Alert>>,
    due: Option<Instant>,
    /// What happened meanwhile, of what is a moment.
    again: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Hold {
    No,
    Holds,
    Until(Instant),
}

/// Everything the engine knows.
#[derive(Debug)]
pub(super) struct Engine {
    config: AlertsConfig,
    /// How long after the end of self-preservation nothing is said yet: time for
    /// a probe of everything.
    settle: Duration,
    conditions: BTreeMap<AlertKey, Condition>,
    timers: BTreeSet<(Instant, AlertKey)>,
    board: Board,
    hold: Hold,
    overflowed: bool,
    /// How many alerts have fired.
    count: u16,
}

impl Engine {
    pub(super) fn new(config: AlertsConfig, settle: Duration) -> Self {
        Self {
            config,
            settle,
            conditions: BTreeMap::new(),
            timers: BTreeSet::new(),
            board: Board::default(),
            hold: Hold::No,
            overflowed: false,
            count: 0,
        }
    }

    /// What fires now.
    pub(super) fn board(&self) -> &Board {
        &self.board
    }

    /// When it has to be asked again, whatever happens.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let hold = if let Hold::Until(until) = self.hold { Some(until) } else { None };
        self.timers.first().map(|(due, _)| *due).into_iter().chain(hold).min()
    }

    /// Alerts that fired when an earlier process ended.
    pub(super) fn restore(&mut self, alerts: impl IntoIterator<Item = Alert>, now: Moment) {
        for alert in alerts {
            let key = alert.key();
            if !alert.rule.lasts() || self.conditions.len() >= self.config.firing_max as usize {
                continue;
            }
            let carried = Duration::try_from(now.wall.duration_since(alert.since)).unwrap_or_default();
            let terms = Terms { channels: Arc::clone(&alert.channels), ..Terms::general(&self.config) };
            let (since, summary) = (alert.since, alert.summary.clone());
            let alert = Some(Arc::new(alert));
            self.board.firing.extend(alert.clone().map(|alert| (key.clone(), alert)));
            let (began, due, again) = (now.instant, None, None);
            self.conditions.insert(key.clone(), Condition { began, carried, since, summary, terms, alert, due, again });
            self.judge(&key, now, &mut Vec::new());
        }
    }

    /// Takes `input` into account.
    pub(super) fn step(&mut self, input: Input, now: Moment) -> Vec<Action> {
        let mut actions = Vec::new();
        match input {
            Input::Signal(Signal::Service { name, seen }) => self.look(&name, &seen, now, &mut actions),
            Input::Signal(Signal::Gone(name)) => {
                self.end_all(&name, |_| Some("it is not registered any more"), now, &mut actions);
            }
            Input::Signal(Signal::Definitions { name, what, seen }) => {
                self.happened(name, &what, &seen, now, &mut actions);
            }
            Input::Signal(Signal::SelfPreservation { holds, message }) => {
                self.preserve(holds, &message, now, &mut actions);
            }
            Input::Tick => {}
        }
        self.pass(now, &mut actions);
        if self.overflowed && self.conditions.len() <= self.config.firing_max as usize / 2 {
            self.overflowed = false;
            actions.push(Action::Reread);
        }
        actions
    }

    /// The services that something is known of.
    pub(super) fn services(&self) -> Vec<ServiceName> {
        let mut names: Vec<_> = self.conditions.keys().filter_map(|key| key.service.clone()).collect();
        names.dedup();
        names
    }

    fn look(&mut self, name: &ServiceName, seen: &Seen, now: Moment, actions: &mut Vec<Action>) {
        if let Some(why) = seen.exempt {
            let silenced = |key: &AlertKey| (key.rule.lasts() || seen.silent).then_some(why);
            return self.end_all(name, silenced, now, actions);
        }
        let known = |id: InstanceId| seen.instances.iter().any(|instance| instance.id == id);
        let gone =
            |key: &AlertKey| key.instance.is_some_and(|id| !known(id)).then_some("the instance is not in use any more");
        self.end_all(name, gone, now, actions);
        let key = AlertKey { service: Some(name.clone()), rule: AlertRule::ServiceDown, instance: None };
        match &seen.standing {
            Standing::Down(reason) => self.begin(key, format!("`{name}` is down: {reason}"), &seen.terms, now, actions),
            Standing::Up => self.end(&key, "it answers again", now, actions),
            Standing::Undecided => {}
        }
        for instance in &seen.instances {
            self.look_at_instance(name, instance, &seen.terms, now, actions);
        }
    }

    fn look_at_instance(
        &mut self,
        name: &ServiceName,
        seen: &SeenInstance,
        terms: &Terms,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let key = |rule| AlertKey { service: Some(name.clone()), rule, instance: Some(seen.id) };
        match &seen.crash_loop {
            Some(reason) => {
                let summary = format!("`{name}`: an instance does not stay up: {reason}");
                self.begin(key(AlertRule::CrashLoop), summary, terms, now, actions);
            }
            None if seen.up => self.end(&key(AlertRule::CrashLoop), "its process stays", now, actions),
            None => {}
        }
        if seen.flapping {
            let summary = format!("`{name}`: an instance goes down and comes back again and again");
            self.begin(key(AlertRule::Flapping), summary, terms, now, actions);
        } else if !seen.undecided {
            self.end(&key(AlertRule::Flapping), "it is steady", now, actions);
        }
    }

    fn preserve(&mut self, holds: bool, message: &str, now: Moment, actions: &mut Vec<Action>) {
        let key = AlertKey { service: None, rule: AlertRule::SelfPreservation, instance: None };
        if holds {
            self.hold = Hold::Holds;
            let what = "so much fails at once that the fault may be Machina's own, and other alerts are held back";
            let summary = if message.is_empty() { what.to_owned() } else { format!("{what}: {message}") };
            let terms = Terms::general(&self.config);
            if self.config.enabled {
                self.begin(key, summary, &terms, now, actions);
            }
        } else {
            if self.hold == Hold::Holds {
                self.hold = Hold::Until(now.instant + self.settle);
            }
            self.end(&key, "Machina trusts what it sees again", now, actions);
        }
        self.board.held = self.hold != Hold::No;
    }

    /// Something is so.
    fn begin(&mut self, key: AlertKey, summary: String, terms: &Terms, now: Moment, actions: &mut Vec<Action>) {
        if !self.config.rules.contains(&key.rule) {
            return;
        }
        let room = self.conditions.len() < self.config.firing_max as usize;
        match self.conditions.get_mut(&key) {
            Some(condition) => {
                if condition.alert.is_none() {
                    condition.summary = one_line(&summary);
                }
                condition.terms = terms.clone();
            }
            None if room => drop(self.conditions.insert(key.clone(), Condition::new(&summary, terms, now))),
            None => self.overflowed = true,
        }
        self.judge(&key, now, actions);
    }

    /// Something is so no longer.
    fn end(&mut self, key: &AlertKey, resolution: &str, now: Moment, actions: &mut Vec<Action>) {
        let Some(condition) = self.conditions.remove(key) else { return };
        if let Some(due) = condition.due {
            self.timers.remove(&(due, key.clone()));
        }
        let Some(alert) = condition.alert else { return };
        self.board.firing.remove(key);
        let over = Arc::new(alert.over(now.wall, resolution));
        self.board.recent.push_front(Arc::clone(&over));
        self.board.recent.truncate(self.config.recent_max as usize);
        if key.rule.lasts() {
            actions.push(Action::Resolved(over));
        }
    }

    /// Ends what `why` has a word for, of one service.
    fn end_all(
        &mut self,
        name: &ServiceName,
        why: impl Fn(&AlertKey) -> Option<&'static str>,
        now: Moment,
        actions: &mut Vec<Action>,
    ) {
        let first = AlertKey { service: Some(name.clone()), rule: AlertRule::ServiceDown, instance: None };
        let own = self.conditions.range(first..).map(|(key, _)| key);
        let own = own.take_while(|key| key.service.as_ref() == Some(name));
        let ending: Vec<_> = own.filter_map(|key| Some((key.clone(), why(key)?))).collect();
        for (key, resolution) in ending {
            self.end(&key, resolution, now, actions);
        }
    }

    /// Something happened that has no length.
    fn happened(&mut self, name: ServiceName, what: &str, seen: &Seen, now: Moment, actions: &mut Vec<Action>) {
        let wanted = self.config.rules.contains(&AlertRule::DefinitionChanged) && !seen.silent;
        let key = AlertKey { service: Some(name), rule: AlertRule::DefinitionChanged, instance: None };
        if !wanted {
            return;
        }
        if let Some(condition) = self.conditions.get_mut(&key) {
            condition.again = Some(what.to_owned());
            return;
        }
        if self.conditions.len() >= self.config.firing_max as usize {
            return self.overflowed = true;
        }
        let name = key.service.as_ref().map(ServiceName::as_str).unwrap_or_default();
        let condition =
            Condition::new(&format!("`{name}` publishes something else than before: {what}"), &seen.terms, now);
        self.conditions.insert(key.clone(), condition);
        self.judge(&key, now, actions);
    }

    /// What is due by now.
    fn pass(&mut self, now: Moment, actions: &mut Vec<Action>) {
        if matches!(self.hold, Hold::Until(until) if until <= now.instant) {
            self.hold = Hold::No;
            self.board.held = false;
        }
        while let Some((due, key)) = self.timers.first().filter(|(due, _)| *due <= now.instant).cloned() {
            self.timers.remove(&(due, key.clone()));
            if key.rule.lasts() {
                self.judge(&key, now, actions);
                continue;
            }
            let condition = self.conditions.get_mut(&key);
            let again = condition.and_then(|condition| Some((condition.again.take()?, condition.terms.clone())));
            self.end(&key, "nothing else happened since", now, actions);
            if let (Some((what, terms)), Some(name)) = (again, &key.service) {
                let summary = format!("`{name}` publishes something else again: {what}");
                self.conditions.insert(key.clone(), Condition::new(&summary, &terms, now));
                self.judge(&key, now, actions);
            }
        }
    }

    /// Fires or escalates, and sets the timer of, the condition with this key.
    fn judge(&mut self, key: &AlertKey, now: Moment, actions: &mut Vec<Action>) {
        let Some(condition) = self.conditions.get_mut(key) else { return };
        let thresholds = thresholds(key.rule, &self.config, &condition.terms);
        let age = now.instant.duration_since(condition.began) + condition.carried;
        let level = level(key.rule, age, &thresholds, &condition.terms);
        let next = thresholds.iter().copied().filter(|threshold| *threshold > age).min();
        let window = (!key.rule.lasts()).then_some(self.config.definition_window);
        let due = window.or(next.map(|next| next - age)).map(|left| now.instant + left);
        if condition.due != due {
            let before = std::mem::replace(&mut condition.due, due);
            before.map(|before| self.timers.remove(&(before, key.clone())));
        }
        self.timers.extend(due.map(|due| (due, key.clone())));
        let Some(level) = level else { return };
        let fired = condition.alert.is_none();
        if condition
            .alert
            .as_ref()
            .is_some_and(|alert| alert.level >= level && alert.channels == condition.terms.channels)
        {
            return;
        }
        let escalated = condition.alert.as_ref().is_some_and(|alert| alert.level < level);
        self.count = self.count.wrapping_add(u16::from(fired));
        let alert = Arc::new(condition.at_level(key, level, now, self.count));
        condition.alert = Some(Arc::clone(&alert));
        self.board.firing.insert(key.clone(), Arc::clone(&alert));
        if fired {
            actions.push(Action::Fired(alert));
        } else if escalated {
            actions.push(Action::Escalated(alert));
        }
    }
}

impl Condition {
    fn new(summary: &str, terms: &Terms, now: Moment) -> Self {
        Self {
            began: now.instant,
            carried: Duration::ZERO,
            since: now.wall,
            summary: one_line(summary),
            terms: terms.clone(),
            alert: None,
            due: None,
            again: None,
        }
    }

    /// Its alert, at least at this level.
    fn at_level(&self, key: &AlertKey, level: AlertLevel, now: Moment, count: u16) -> Alert {
        let channels = Arc::clone(&self.terms.channels);
        if let Some(alert) = &self.alert {
            return Alert { level: alert.level.max(level), channels, ..Alert::clone(alert) };
        }
        Alert {
            id: Alert::identity(key, now.wall, count),
            rule: key.rule,
            level,
            service: key.service.clone(),
            instance: key.instance,
            summary: self.summary.clone(),
            since: self.since,
            fired_at: now.wall,
            resolved_at: None,
            resolution: None,
            channels,
        }
    }
}

/// The ages at which an alert becomes a warning, critical, and an emergency.
fn thresholds(rule: AlertRule, config: &AlertsConfig, terms: &Terms) -> [Duration; 3] {
    let after = if rule == AlertRule::ServiceDown { terms.down_after } else { Duration::ZERO };
    [after, config.critical_after.max(after), config.emergency_after.max(after)]
}

/// The level at this age; none while it is too young for the levels there are.
fn level(rule: AlertRule, age: Duration, thresholds: &[Duration; 3], terms: &Terms) -> Option<AlertLevel> {
    let (least, most) = rule.levels();
    let reached = AlertLevel::ALL.iter().zip(thresholds).rfind(|(_, threshold)| age >= **threshold)?;
    let reached = (*reached.0).clamp(least, most);
    let allowed = |level: &&AlertLevel| terms.levels.is_empty() || terms.levels.contains(level);
    AlertLevel::ALL.iter().filter(|level| **level <= reached).rfind(allowed).copied()
}

#[cfg(test)]
#[path = "engine_tests.rs"]
mod tests;
