//! The engine, by example and by its invariants.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// An engine with a clock of its own.
struct World {
    engine: Engine,
    now: Moment,
    seen: Vec<Action>,
}

fn terms() -> Terms {
    Terms::general(&AlertsConfig::default())
}

fn seen(standing: Standing) -> Seen {
    Seen { exempt: None, silent: false, standing, instances: Vec::new(), terms: terms() }
}

fn down() -> Seen {
    seen(Standing::Down("refused".to_owned()))
}

fn up() -> Seen {
    seen(Standing::Up)
}

fn distrust(holds: bool) -> Signal {
    Signal::SelfPreservation { holds, message: "3 of 4 fail".to_owned() }
}

fn name(text: &str) -> ServiceName {
    text.parse().unwrap()
}

impl World {
    fn new(config: AlertsConfig) -> Self {
        let now = Moment { instant: Instant::now(), wall: "2026-01-01T00:00:00Z".parse().unwrap() };
        Self { engine: Engine::new(config, 30 * SECOND), now, seen: Vec::new() }
    }

    fn pass(&mut self, time: Duration) {
        self.now.instant += time;
        self.now.wall += time;
    }

    fn signal(&mut self, signal: Signal) -> &mut Self {
        let actions = self.engine.step(Input::Signal(signal), self.now);
        self.seen.extend(actions);
        self
    }

    fn look(&mut self, service: &str, seen: Seen) -> &mut Self {
        self.signal(Signal::Service { name: name(service), seen })
    }

    /// Lets the time pass, and asks whenever the engine wants to be asked.
    fn wait(&mut self, time: Duration) -> &mut Self {
        let end = self.now.instant + time;
        while let Some(deadline) = self.engine.deadline().filter(|deadline| *deadline <= end) {
            assert!(deadline > self.now.instant, "E5: the deadline lies ahead");
            self.pass(deadline - self.now.instant);
            let actions = self.engine.step(Input::Tick, self.now);
            self.seen.extend(actions);
        }
        self.pass(end - self.now.instant);
        self
    }

    /// What was done since the last time, in words.
    fn done(&mut self) -> Vec<String> {
        let word = |action: &Action| match action {
            Action::Fired(alert) => format!("fired {} {}", alert.rule.as_str(), alert.level.as_str()),
            Action::Escalated(alert) => format!("escalated {} {}", alert.rule.as_str(), alert.level.as_str()),
            Action::Resolved(alert) => format!("resolved {}", alert.rule.as_str()),
            Action::Reread => "reread".to_owned(),
        };
        std::mem::take(&mut self.seen).iter().map(word).collect()
    }
}

#[test]
fn an_alert_fires_after_a_while_and_becomes_graver_until_it_is_over() {
    let mut world = World::new(AlertsConfig::default());
    world.look("a", down()).wait(59 * SECOND);
    assert_eq!(world.done(), Vec::<String>::new());
    world.wait(SECOND);
    assert_eq!(world.done(), ["fired service_down warning"]);
    world.look("a", down()).wait(239 * SECOND);
    assert_eq!(world.done(), Vec::<String>::new());
    world.wait(SECOND);
    assert_eq!(world.done(), ["escalated service_down critical"]);
    world.wait(25 * 60 * SECOND);
    assert_eq!(world.done(), ["escalated service_down emergency"]);
    world.wait(24 * 3600 * SECOND).look("a", up());
    assert_eq!(world.done(), ["resolved service_down"]);
    let over = world.engine.board().recent[0].clone();
    assert_eq!(over.summary, "`a` is down: refused");
    assert_eq!(over.resolution.as_deref(), Some("it answers again"));
    assert!(world.engine.deadline().is_none() && world.engine.board().firing.is_empty());
}

#[test]
fn what_is_short_is_not_told() {
    let mut world = World::new(AlertsConfig::default());
    for _ in 0..10 {
        world.look("a", down()).wait(59 * SECOND).look("a", up()).wait(SECOND);
    }
    assert_eq!(world.done(), Vec::<String>::new());
}

#[test]
fn what_is_not_known_changes_nothing() {
    let mut world = World::new(AlertsConfig::default());
    world.look("a", down()).wait(60 * SECOND).look("a", seen(Standing::Undecided)).wait(SECOND);
    assert_eq!(world.done(), ["fired service_down warning"]);
    world.look("a", down());
    assert_eq!((world.done(), world.engine.board().firing.len()), (Vec::new(), 1));
}

#[test]
fn what_the_operator_took_out_is_over_at_once() {
    let mut world = World::new(AlertsConfig::default());
    world.look("a", down()).wait(60 * SECOND);
    world.look("a", Seen { exempt: Some("the operator works on it"), ..down() }).wait(3600 * SECOND);
    assert_eq!(world.done(), ["fired service_down warning", "resolved service_down"]);
    world.look("a", down()).wait(60 * SECOND).signal(Signal::Gone(name("a")));
    assert_eq!(world.done(), ["fired service_down warning", "resolved service_down"]);
}

#[test]
fn a_service_has_its_own_terms() {
    let mut world = World::new(AlertsConfig::default());
    let levels = vec![AlertLevel::Critical];
    let own = Terms { down_after: 10 * SECOND, levels, channels: ["mail".to_owned()].into() };
    world.look("a", Seen { terms: own, ..down() }).wait(299 * SECOND);
    assert_eq!(world.done(), Vec::<String>::new(), "it has no warnings");
    world.wait(3600 * SECOND);
    assert_eq!(world.done(), ["fired service_down critical"]);
    assert_eq!(&*world.engine.board().firing.values().next().unwrap().channels, ["mail".to_owned()]);
    let sooner = Terms { down_after: 10 * SECOND, ..terms() };
    world.look("b", Seen { terms: sooner, ..down() }).wait(10 * SECOND);
    assert_eq!(world.done(), ["fired service_down warning"]);
}

#[test]
fn instances_have_alerts_of_their_own_that_wake_nobody() {
    let mut world = World::new(AlertsConfig::default());
    let (a, b) = (InstanceId::generate(), InstanceId::generate());
    let with = |loops: Option<&str>, flapping, ids: &[InstanceId]| {
        let instance = |id: &InstanceId| {
            let (crash_loop, flapping) = (loops.map(str::to_owned).filter(|_| *id == a), flapping && *id == b);
            SeenInstance { id: *id, up: crash_loop.is_none(), undecided: false, crash_loop, flapping }
        };
        Seen { instances: ids.iter().map(instance).collect(), ..up() }
    };
    world.look("s", with(Some("exit 1"), true, &[a, b]));
    assert_eq!(world.done(), ["fired crash_loop warning", "fired flapping warning"]);
    world.wait(24 * 3600 * SECOND);
    assert_eq!(world.done(), ["escalated crash_loop critical"]);
    world.look("s", with(None, true, &[a, b]));
    assert_eq!(world.done(), ["resolved crash_loop"]);
    world.look("s", with(None, false, &[a]));
    assert_eq!(world.done(), ["resolved flapping"]);
    assert_eq!(world.engine.board().recent[0].resolution.as_deref(), Some("the instance is not in use any more"));
}

#[test]
fn changes_of_definitions_are_gathered() {
    let mut world = World::new(AlertsConfig::default());
    let change = |world: &mut World, what: &str| {
        let (what, seen) = (what.to_owned(), Seen { exempt: Some("it is quarantined"), ..down() });
        world.signal(Signal::Definitions { name: name("a"), what, seen });
    };
    for number in 0..100 {
        change(&mut world, &format!("changed `t{number}`"));
        world.wait(SECOND);
    }
    assert_eq!(world.done(), ["fired definition_changed warning"]);
    world.wait(600 * SECOND);
    assert_eq!(world.done(), ["fired definition_changed warning"], "what came later is told later, at once");
    let last = world.engine.board().firing.values().next().unwrap().clone();
    assert_eq!(last.summary, "`a` publishes something else again: changed `t99`");
    world.wait(3600 * SECOND);
    assert_eq!((world.done(), world.engine.board().firing.len()), (Vec::new(), 0), "a moment has no end to tell of");
    assert_eq!(world.engine.board().recent.len(), 2);
    let silent = Seen { silent: true, ..up() };
    world.signal(Signal::Definitions { name: name("a"), what: "new `x`".to_owned(), seen: silent });
    assert_eq!(world.done(), Vec::<String>::new());
}

#[test]
fn distrust_is_told_and_holds_until_all_was_looked_at_again() {
    let mut world = World::new(AlertsConfig::default());
    world.signal(distrust(true)).look("a", down()).wait(60 * SECOND);
    assert_eq!(world.done(), ["fired self_preservation critical", "fired service_down warning"]);
    assert!(world.engine.board().held);
    assert!(world.engine.board().firing.values().any(|alert| alert.summary.ends_with(": 3 of 4 fail")));
    world.signal(distrust(false)).wait(29 * SECOND);
    assert!(world.engine.board().held, "one interval is left for probes");
    world.look("a", up()).wait(SECOND);
    assert!(!world.engine.board().held);
    assert_eq!(world.done(), ["resolved self_preservation", "resolved service_down"]);
    world.signal(distrust(false));
    assert!(!world.engine.board().held, "it did not hold");
}

#[test]
fn rules_that_are_off_find_nothing() {
    let mut world = World::new(AlertsConfig { rules: vec![AlertRule::Flapping], ..AlertsConfig::default() });
    world.look("a", down()).signal(distrust(true));
    world.signal(Signal::Definitions { name: name("a"), what: "new `x`".to_owned(), seen: up() }).wait(3600 * SECOND);
    assert_eq!(world.done(), Vec::<String>::new());
    assert!(world.engine.board().held, "distrust counts whether or not it is told");
}

#[test]
fn what_fired_before_the_restart_goes_on() {
    let mut before = World::new(AlertsConfig::default());
    before.look("a", down()).look("b", down()).wait(100 * SECOND);
    let fired: Vec<Alert> = before.engine.board().firing.values().map(|alert| Alert::clone(alert)).collect();
    let mut world = World::new(AlertsConfig::default());
    world.pass(200 * SECOND);
    world.engine.restore(fired.clone(), world.now);
    assert_eq!(world.engine.board().firing.len(), 2);
    world.look("a", seen(Standing::Undecided)).look("b", down()).wait(99 * SECOND);
    assert_eq!(world.done(), Vec::<String>::new());
    world.wait(SECOND);
    assert_eq!(world.done(), ["escalated service_down critical", "escalated service_down critical"]);
    world.look("a", up()).signal(Signal::Gone(name("b")));
    assert_eq!(world.done(), ["resolved service_down", "resolved service_down"]);
    assert_eq!(world.engine.board().recent[0].id, fired[1].id);
}

#[test]
fn too_many_are_left_out_and_looked_at_when_there_is_room() {
    let mut world = World::new(AlertsConfig { firing_max: 4, ..AlertsConfig::default() });
    for number in 0..10 {
        world.look(&format!("s{number}"), down());
    }
    world.wait(60 * SECOND);
    assert_eq!(world.done().len(), 4);
    world.look("s0", up());
    assert_eq!(world.done(), ["resolved service_down"]);
    world.look("s1", up());
    assert_eq!(world.done(), ["resolved service_down", "reread"]);
}

/// What may happen to one of a few services.
#[derive(Debug, Clone)]
enum Step {
    Look(u8, Standing),
    Exempt(u8),
    Gone(u8),
    Definitions(u8),
    Preserve(bool),
    Wait(u16),
    /// Time passes and nobody asks the engine.
    Late(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let service = 0..4_u8;
    let standing = prop_oneof![Just(Standing::Up), Just(Standing::Down("x".to_owned())), Just(Standing::Undecided)];
    let step = prop_oneof![
        6 => (service.clone(), standing).prop_map(|(service, standing)| Step::Look(service, standing)),
        1 => service.clone().prop_map(Step::Exempt),
        1 => service.clone().prop_map(Step::Gone),
        1 => service.prop_map(Step::Definitions),
        1 => any::<bool>().prop_map(Step::Preserve),
        6 => (0..700_u16).prop_map(Step::Wait),
        1 => (0..700_u16).prop_map(Step::Late),
    ];
    prop::collection::vec(step, 1..60)
}

/// What the invariants are held against.
#[derive(Default)]
struct Model {
    down_since: BTreeMap<String, Instant>,
    told: BTreeMap<AlertKey, AlertLevel>,
    ids: std::collections::BTreeSet<uuid::Uuid>,
}

impl Model {
    fn check(&mut self, action: &Action, now: Moment) {
        match action {
            Action::Fired(alert) => {
                assert!(self.told.insert(alert.key(), alert.level).is_none() || !alert.rule.lasts(), "E1");
                assert!(self.ids.insert(alert.id), "E1: another identity each time");
                if alert.rule == AlertRule::ServiceDown {
                    let since = self.down_since.get(alert.service.as_ref().unwrap().as_str()).expect("E3: it is down");
                    assert!(now.instant - *since >= AlertsConfig::default().down_after, "E2");
                }
            }
            Action::Escalated(alert) => {
                let before = self.told.insert(alert.key(), alert.level).expect("E1: fired before");
                assert!(before < alert.level, "E1");
            }
            Action::Resolved(alert) => assert!(self.told.remove(&alert.key()).is_some() && alert.rule.lasts(), "E1"),
            Action::Reread => {}
        }
    }
}

fn run(steps: Vec<Step>, firing_max: u32) {
    let mut world = World::new(AlertsConfig { firing_max, ..AlertsConfig::default() });
    let mut model = Model::default();
    for step in steps {
        let text = |service: u8| format!("s{service}");
        match step {
            Step::Look(service, standing) => {
                match &standing {
                    Standing::Down(_) => drop(model.down_since.entry(text(service)).or_insert(world.now.instant)),
                    Standing::Up => drop(model.down_since.remove(&text(service))),
                    Standing::Undecided => {}
                }
                world.look(&text(service), seen(standing));
            }
            Step::Exempt(service) => {
                model.down_since.remove(&text(service));
                world.look(&text(service), Seen { exempt: Some("x"), silent: true, ..up() });
            }
            Step::Gone(service) => {
                model.down_since.remove(&text(service));
                world.signal(Signal::Gone(name(&text(service))));
            }
            Step::Definitions(service) => {
                let what = "new `x`".to_owned();
                world.signal(Signal::Definitions { name: name(&text(service)), what, seen: up() });
            }
            Step::Preserve(holds) => drop(world.signal(distrust(holds))),
            Step::Wait(seconds) => drop(world.wait(SECOND * u32::from(seconds))),
            Step::Late(seconds) => {
                world.pass(SECOND * u32::from(seconds));
                let actions = world.engine.step(Input::Tick, world.now);
                world.seen.extend(actions);
            }
        }
        for action in std::mem::take(&mut world.seen) {
            model.check(&action, world.now);
        }
        assert!(world.engine.conditions.len() <= firing_max as usize, "E4");
        assert!(world.engine.deadline().is_none_or(|deadline| deadline > world.now.instant), "E5");
        for alert in world.engine.board().firing.values().filter(|alert| alert.rule == AlertRule::ServiceDown) {
            assert!(model.down_since.contains_key(alert.service.as_ref().unwrap().as_str()), "E3");
        }
        if firing_max > 10 {
            let long = model.down_since.iter().filter(|(_, since)| world.now.instant - **since >= 60 * SECOND);
            for (service, _) in long {
                let key = AlertKey { service: Some(name(service)), rule: AlertRule::ServiceDown, instance: None };
                assert!(world.engine.board().firing.contains_key(&key), "E2: {service} is down long enough");
            }
        }
    }
}

proptest! {
    #[test]
    fn e1_to_e5_hold_whatever_happens(steps in steps()) {
        run(steps, 10_000);
    }

    #[test]
    fn e1_to_e5_hold_where_there_is_no_room(steps in steps()) {
        run(steps, 2);
    }
}
