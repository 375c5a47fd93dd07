//! One channel, by example and by its invariants.

use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::model::ServiceName;

const SECOND: Duration = Duration::from_secs(1);

struct World {
    outlet: Outlet,
    board: Board,
    now: Moment,
    fired: u64,
}

impl World {
    fn new(config: AlertsConfig) -> Self {
        let now = Moment { instant: Instant::now(), wall: "2026-01-01T12:00:00Z".parse().unwrap() };
        let outlet = Outlet::new(&AlertChannel::new("c"), ["c".to_owned(), "d".to_owned()].into(), &config);
        Self { outlet, board: Board::default(), now, fired: 0 }
    }

    fn pass(&mut self, time: Duration) -> &mut Self {
        self.now.instant += time;
        self.now.wall += time;
        self
    }

    fn key(service: &str, rule: AlertRule) -> AlertKey {
        AlertKey { service: Some(service.parse::<ServiceName>().unwrap()), rule, instance: None }
    }

    fn fire(&mut self, service: &str, level: AlertLevel) -> &mut Self {
        self.fire_rule(service, AlertRule::ServiceDown, level)
    }

    fn fire_rule(&mut self, service: &str, rule: AlertRule, level: AlertLevel) -> &mut Self {
        let key = Self::key(service, rule);
        let known = self.board.firing.get(&key).map(|alert| alert.id);
        self.fired += 1;
        let id = known.unwrap_or_else(|| Uuid::from_u128(u128::from(self.fired)));
        let alert = json!({"id": id, "rule": rule, "level": level, "service": service, "summary": service,
            "since": self.now.wall, "fired_at": self.now.wall});
        self.board.firing.insert(key, Arc::new(serde_json::from_value(alert).unwrap()));
        self
    }

    fn end(&mut self, service: &str, rule: AlertRule) -> &mut Self {
        if let Some(alert) = self.board.firing.remove(&Self::key(service, rule)) {
            self.board.recent.push_front(Arc::new(alert.over(self.now.wall, "it answers again")));
        }
        self
    }

    fn next(&mut self) -> Due {
        self.outlet.next(&self.board, self.now)
    }

    fn wait(&mut self) -> Option<Duration> {
        match self.next() {
            Due::Wait(until) => until.map(|until| until - self.now.instant),
            Due::Say(draft) => panic!("says {draft:?}"),
        }
    }

    /// Says everything that may be said now; each message as its kind and what it is about.
    fn say(&mut self) -> Vec<String> {
        let mut said = Vec::new();
        while let Due::Say(draft) = self.next() {
            said.push(in_words(&draft));
            self.outlet.delivered(&draft, self.now);
            assert!(said.len() < 100, "{said:?}");
        }
        said
    }
}

fn in_words(draft: &Draft) -> String {
    let about: Vec<_> = draft.items().iter().map(|item| item.alert.summary.as_str()).collect();
    match draft.items() {
        [item] => format!("{} {}", item.kind.as_str(), about[0]),
        _ => format!("summary {}", about.join(" ")),
    }
}

const W: AlertLevel = AlertLevel::Warning;
const C: AlertLevel = AlertLevel::Critical;
const E: AlertLevel = AlertLevel::Emergency;

fn none() -> Vec<String> {
    Vec::new()
}

#[test]
fn each_thing_is_said_once() {
    let mut world = World::new(AlertsConfig::default());
    assert_eq!(world.fire("a", W).say(), ["firing a"]);
    assert_eq!(world.pass(600 * SECOND).say(), none());
    assert_eq!(world.fire("a", C).say(), ["escalated a"]);
    assert_eq!(world.end("a", AlertRule::ServiceDown).say(), ["resolved a"]);
    assert_eq!(world.pass(600 * SECOND).say(), none());
    assert_eq!(world.wait(), None);
    assert_eq!(world.fire("a", W).say(), ["firing a"]);
}

#[test]
fn the_gravest_comes_first_and_what_is_over_last() {
    let mut world = World::new(AlertsConfig::default());
    world.fire("old", W).say();
    world.end("old", AlertRule::ServiceDown).fire("w", W).fire("e", E).fire("c", C);
    assert_eq!(world.say(), ["firing e", "firing c", "firing w", "resolved old"]);
}

#[test]
fn what_is_over_before_it_could_be_said_is_never_said() {
    let mut world = World::new(AlertsConfig::default());
    world.fire("a", W);
    let Due::Say(draft) = world.next() else { panic!("is silent") };
    world.outlet.failed(&draft, world.now);
    assert_eq!(world.wait(), Some(30 * SECOND));
    world.end("a", AlertRule::ServiceDown).pass(31 * SECOND);
    assert_eq!(world.say(), none());
}

#[test]
fn a_channel_that_fails_is_left_alone_for_longer_each_time() {
    let mut world = World::new(AlertsConfig::default());
    world.fire("a", W);
    for expected in [30, 60, 120, 240, 480, 900, 900] {
        let Due::Say(draft) = world.next() else { panic!("is silent") };
        world.outlet.failed(&draft, world.now);
        assert_eq!(world.wait(), Some(expected * SECOND));
        world.pass(expected * SECOND);
    }
    assert_eq!(world.say(), ["firing a"]);
}

#[test]
fn what_cannot_be_delivered_delays_no_other() {
    let mut world = World::new(AlertsConfig::default());
    world.fire("a", E).fire("b", W);
    let Due::Say(draft) = world.next() else { panic!("is silent") };
    assert_eq!(in_words(&draft), "firing a");
    world.outlet.failed(&draft, world.now);
    assert_eq!(world.pass(31 * SECOND).say(), ["firing b", "firing a"]);
}

#[test]
fn reminders_come_only_if_they_are_wanted() {
    let config = AlertsConfig { reminder_interval: 600 * SECOND, ..AlertsConfig::default() };
    let mut world = World::new(config);
    world.fire("a", W).fire_rule("a", AlertRule::DefinitionChanged, W).say();
    assert_eq!(world.wait(), Some(600 * SECOND));
    assert_eq!(world.pass(599 * SECOND).say(), none());
    assert_eq!(world.pass(SECOND).say(), ["reminder a"]);
    assert_eq!(world.pass(599 * SECOND).say(), none());
    assert_eq!(world.fire("a", C).say(), ["escalated a"]);
    assert_eq!(world.wait(), Some(600 * SECOND));
}

#[test]
fn only_what_concerns_the_channel_is_said() {
    let mut world = World::new(AlertsConfig::default());
    world.outlet.minimum_level = C;
    assert_eq!(world.fire("a", W).say(), none());
    assert_eq!(world.end("a", AlertRule::ServiceDown).say(), none());
    assert_eq!(world.fire("b", W).fire("b", C).say(), ["firing b"]);
    world.fire("c", E);
    let key = World::key("c", AlertRule::ServiceDown);
    let other = Alert { channels: ["d".to_owned()].into(), ..Alert::clone(&world.board.firing[&key]) };
    world.board.firing.insert(key.clone(), Arc::new(other.clone()));
    assert_eq!(world.say(), none());
    let nobody = Alert { channels: ["x".to_owned()].into(), ..other };
    world.board.firing.insert(key, Arc::new(nobody));
    assert_eq!(world.say(), ["firing c"], "nobody else would be told");
}

#[test]
fn a_mass_of_alerts_is_summed_up_in_the_last_message_of_the_minute() {
    let mut world = World::new(AlertsConfig { messages_per_minute_max: 3, ..AlertsConfig::default() });
    for number in 0..50 {
        world.fire(&format!("s{number:02}"), W);
    }
    assert_eq!(world.say(), ["firing s00", "firing s01"]);
    assert_eq!(world.wait(), Some(GATHER));
    world.fire("late", W).pass(GATHER);
    let summary = world.say();
    assert!(summary.len() == 1 && summary[0].starts_with("summary s02") && summary[0].ends_with("late"), "{summary:?}");
    assert_eq!(world.fire("later", E).wait(), Some(MINUTE - GATHER));
    assert_eq!(world.pass(MINUTE - GATHER).say(), ["firing later"]);
    for number in 0..50 {
        world.end(&format!("s{number:02}"), AlertRule::ServiceDown);
    }
    let over = world.pass(MINUTE).say();
    assert_eq!(over[..2], ["resolved s00".to_owned(), "resolved s01".to_owned()]);
    assert_eq!(world.pass(GATHER).say().len(), 1);
}

#[test]
fn one_message_a_minute_is_possible() {
    let mut world = World::new(AlertsConfig { messages_per_minute_max: 1, ..AlertsConfig::default() });
    assert_eq!(world.fire("a", W).say(), ["firing a"]);
    assert_eq!(world.fire("b", W).fire("c", W).wait(), Some(MINUTE));
    assert_eq!(world.pass(MINUTE).say(), ["summary b c"]);
}

fn quiet_nights() -> AlertsConfig {
    let hours = json!([{"from": "22:00", "to": "06:00"}]);
    AlertsConfig { quiet_hours: serde_json::from_value(hours).unwrap(), ..AlertsConfig::default() }
}

#[test]
fn quiet_hours_hold_back_until_their_end() {
    let mut world = World::new(quiet_nights());
    world.fire("day", W).say();
    world.pass(11 * 3600 * SECOND).fire("a", W).fire("b", C).fire("c", W).end("day", AlertRule::ServiceDown);
    assert_eq!((world.say(), world.wait()), (none(), Some(LOOK_EVERY)));
    assert_eq!(world.fire("b", E).say(), ["firing b"], "an emergency is said");
    world.end("c", AlertRule::ServiceDown).fire("d", W).say();
    assert_eq!(world.outlet.held_count(), 5);
    assert_eq!(world.pass(7 * 3600 * SECOND).say(), ["summary a d day"], "what still fires, and what was told before");
    assert_eq!((world.say(), world.wait()), (none(), None));
}

#[test]
fn one_thing_that_was_held_back_is_said_as_such() {
    let mut world = World::new(quiet_nights());
    world.pass(11 * 3600 * SECOND).fire("a", W).say();
    assert_eq!(world.pass(7 * 3600 * SECOND).say(), ["firing a"]);
}

#[test]
fn a_moment_of_the_night_is_told_in_the_morning() {
    let mut world = World::new(quiet_nights());
    world.pass(11 * 3600 * SECOND).fire_rule("a", AlertRule::DefinitionChanged, W).say();
    world.pass(600 * SECOND).end("a", AlertRule::DefinitionChanged).say();
    assert_eq!(world.pass(7 * 3600 * SECOND).say(), ["firing a"]);
    assert_eq!(world.say(), none());
    world.board.recent.clear();
    assert_eq!(world.say(), none());
    assert!(world.outlet.told.is_empty() && world.outlet.moments.is_empty());
}

#[test]
fn while_machina_distrusts_itself_only_that_is_said() {
    let mut world = World::new(AlertsConfig::default());
    world.board.held = true;
    let alert = json!({"id": Uuid::from_u128(99), "rule": "self_preservation", "level": "critical",
        "summary": "distrust", "since": world.now.wall, "fired_at": world.now.wall});
    let alert: Alert = serde_json::from_value(alert).unwrap();
    world.board.firing.insert(alert.key(), Arc::new(alert));
    assert_eq!(world.fire("a", E).fire("b", E).fire("c", E).say(), ["firing distrust"]);
    world.end("a", AlertRule::ServiceDown).board.held = false;
    assert_eq!(world.say(), ["summary b c"]);
}

#[test]
fn what_was_told_before_a_restart_is_not_told_again() {
    let mut world = World::new(AlertsConfig::default());
    world.fire("a", W).fire("b", W);
    let told: Vec<_> = world.board.firing.values().cloned().collect();
    world.outlet.restore(told, world.now.instant);
    assert_eq!(world.say(), none());
    assert_eq!(world.fire("a", C).end("b", AlertRule::ServiceDown).say(), ["escalated a", "resolved b"]);
}

#[derive(Debug, Clone)]
enum Step {
    Fire(u8, AlertRule, AlertLevel),
    End(u8, AlertRule),
    Hold(bool),
    Wait(u16),
    /// The channel takes the next so many messages, or takes none.
    Say(u8, bool),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let rule = prop_oneof![Just(AlertRule::ServiceDown), Just(AlertRule::DefinitionChanged)];
    let level = prop_oneof![Just(W), Just(C), Just(E)];
    let step = prop_oneof![
        4 => (0..8_u8, rule.clone(), level).prop_map(|(service, rule, level)| Step::Fire(service, rule, level)),
        3 => (0..8_u8, rule).prop_map(|(service, rule)| Step::End(service, rule)),
        1 => any::<bool>().prop_map(Step::Hold),
        3 => (0..4000_u16).prop_map(Step::Wait),
        4 => (1..6_u8, prop::bool::weighted(0.8)).prop_map(|(count, takes)| Step::Say(count, takes)),
    ];
    prop::collection::vec(step, 1..80)
}

/// What the channel was told, held against the invariants.
#[derive(Default)]
struct Model {
    said: Vec<Instant>,
    told: BTreeMap<Uuid, (AlertLevel, bool)>,
    last: BTreeMap<AlertKey, Uuid>,
}

impl Model {
    fn hear(&mut self, draft: &Draft, world: &World, per_minute_max: usize) {
        self.said.push(world.now.instant);
        let recent = self.said.iter().filter(|said| **said + MINUTE > world.now.instant).count();
        assert!(recent <= per_minute_max, "O1");
        assert!(!world.board.held, "O2");
        for Item { kind, alert } in draft.items() {
            let night = !(6..22).contains(&world.now.wall.to_zoned(jiff::tz::TimeZone::UTC).hour());
            assert!(!night || alert.level == E, "O3");
            self.last.insert(alert.key(), alert.id);
            match kind {
                AlertMessageKind::Firing => {
                    assert!(self.told.insert(alert.id, (alert.level, false)).is_none(), "O4: once");
                }
                AlertMessageKind::Escalated => {
                    let before = self.told.insert(alert.id, (alert.level, false)).expect("O4: it fired");
                    assert!(before.0 < alert.level && !before.1, "O4");
                }
                AlertMessageKind::Resolved => {
                    let before = self.told.insert(alert.id, (alert.level, true)).expect("O4: it fired");
                    assert!(!before.1 && alert.resolved_at.is_some() && alert.rule.lasts(), "O4");
                }
                other => panic!("nobody asked for {other:?}"),
            }
        }
    }
}

fn run(steps: Vec<Step>) {
    let per_minute_max = 3;
    let mut world = World::new(AlertsConfig { messages_per_minute_max: 3, ..quiet_nights() });
    let mut model = Model::default();
    let mut levels: BTreeMap<AlertKey, AlertLevel> = BTreeMap::new();
    for step in steps {
        match step {
            Step::Fire(service, rule, level) => {
                let service = format!("s{service}");
                let least = levels.entry(World::key(&service, rule)).or_insert(level);
                *least = level.max(*least);
                let level = *least;
                world.fire_rule(&service, rule, level);
            }
            Step::End(service, rule) => {
                let service = format!("s{service}");
                levels.remove(&World::key(&service, rule));
                world.end(&service, rule);
            }
            Step::Hold(holds) => world.board.held = holds,
            Step::Wait(seconds) => drop(world.pass(SECOND * u32::from(seconds))),
            Step::Say(count, takes) => {
                for _ in 0..count {
                    let Due::Say(draft) = world.next() else { break };
                    if takes {
                        model.hear(&draft, &world, per_minute_max);
                        world.outlet.delivered(&draft, world.now);
                    } else {
                        world.outlet.failed(&draft, world.now);
                    }
                }
            }
        }
    }
    // O5: by day, in peace, and whenever it wants to be asked.
    world.board.held = false;
    world.now.wall = "2026-01-02T08:00:00Z".parse().unwrap();
    for _ in 0..200 {
        match world.next() {
            Due::Say(draft) => {
                model.hear(&draft, &world, per_minute_max);
                world.outlet.delivered(&draft, world.now);
            }
            Due::Wait(Some(until)) => drop(world.pass(until - world.now.instant)),
            Due::Wait(None) => break,
        }
    }
    for alert in world.board.firing.values() {
        assert_eq!(model.told.get(&alert.id).copied(), Some((alert.level, false)), "O5: {alert:?}");
    }
    for alert in world.board.recent.iter().filter(|alert| alert.rule.lasts()) {
        // What the channel heard last of this key is that it is over.
        let last = model.last.get(&alert.key()).is_some_and(|id| *id == alert.id);
        assert!(!last || model.told[&alert.id].1, "O5: {alert:?}");
    }
}

proptest! {
    #[test]
    fn o1_to_o5_hold_whatever_happens(steps in steps()) {
        run(steps);
    }
}
