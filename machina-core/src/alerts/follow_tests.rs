//! From an instance that fails to the message that arrives, under paused time.

use std::sync::{Mutex as SyncMutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use super::*;
use crate::alerts::{AlertMessageKind, AlertRule};
use crate::error::ErrorKind;
use crate::testing::registry_suite::{service, settle};
use crate::testing::{Behaviour, SimConnector, add_tool, echo_tool};
use crate::{
    AdminState, Backend, Config, EntryKind, Instance, JournalQuery, Machina, MemoryStore, Principal, Role, ServiceSpec,
    Status,
};

const SECOND: Duration = Duration::from_secs(1);

/// What a channel does with a message.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Manner {
    Takes,
    Refuses(ErrorKind),
    Hangs,
}

/// A channel that keeps what it is told.
#[derive(Debug)]
struct Kept {
    name: String,
    manner: SyncMutex<Manner>,
    said: SyncMutex<Vec<AlertMessage>>,
    attempts: SyncMutex<u32>,
}

impl Kept {
    fn new(name: &str) -> Arc<Self> {
        let (manner, said, attempts) = (SyncMutex::new(Manner::Takes), SyncMutex::default(), SyncMutex::default());
        Arc::new(Self { name: name.to_owned(), manner, said, attempts })
    }

    fn behave(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    fn attempts(&self) -> u32 {
        std::mem::take(&mut self.attempts.lock().unwrap())
    }

    /// What it was told since the last time.
    fn said(&self) -> Vec<String> {
        let said = std::mem::take(&mut *self.said.lock().unwrap_or_else(PoisonError::into_inner));
        said.into_iter().map(|message| message.text).collect()
    }
}

#[async_trait]
impl Notifier for Kept {
    fn name(&self) -> &str {
        &self.name
    }

    fn kind(&self) -> &str {
        "kept"
    }

    async fn notify(&self, message: &AlertMessage) -> Result<()> {
        *self.attempts.lock().unwrap() += 1;
        let manner = *self.manner.lock().unwrap();
        match manner {
            Manner::Takes => {
                self.said.lock().unwrap().push(message.clone());
                Ok(())
            }
            Manner::Refuses(kind) => Err(Error::new(kind, "as it was told")),
            Manner::Hangs => std::future::pending().await,
        }
    }
}

struct World {
    machina: Machina,
    sim: SimConnector,
    backend: Backend,
}

fn config(alerts: serde_json::Value) -> Config {
    Config { alerts: serde_json::from_value(alerts).unwrap(), ..Config::default() }
}

impl World {
    async fn new(config: Config, channels: &[&Arc<Kept>]) -> Self {
        Self::on(Backend::of(MemoryStore::new()), SimConnector::default(), config, channels).await
    }

    async fn on(backend: Backend, sim: SimConnector, config: Config, channels: &[&Arc<Kept>]) -> Self {
        let mut builder = Machina::builder().config(config).backend(backend.clone()).connector(Arc::new(sim.clone()));
        for channel in channels {
            builder = builder.notifier(Arc::clone(channel) as Arc<dyn Notifier>);
        }
        Self { machina: builder.open().await.unwrap(), sim, backend }
    }

    /// A service with one instance that is healthy.
    async fn up(&self, name: &str) -> Instance {
        let instance = self.sim.instance(name);
        self.machina.register(service(name, &[&instance])).await.unwrap();
        settle(&self.machina, name, Status::Healthy).await;
        instance
    }

    /// Takes it down, and waits until that is known.
    async fn down(&self, name: &str, instance: &Instance) {
        self.sim.set(instance, Behaviour::Refuse);
        for _ in 0..3600 {
            if self.machina.get(name).unwrap().status() == Status::Unhealthy {
                return;
            }
            tokio::time::sleep(SECOND / 10).await;
        }
        panic!("`{name}` is not found to be down");
    }
}

async fn wait(seconds: u32) {
    tokio::time::sleep(SECOND * seconds).await;
}

#[tokio::test(start_paused = true)]
async fn a_service_that_goes_down_is_told_once_and_so_is_its_return() {
    let channel = Kept::new("c");
    let world = World::new(Config::default(), &[&channel]).await;
    let instance = world.up("a").await;
    world.down("a", &instance).await;
    wait(58).await;
    assert_eq!(channel.said(), Vec::<String>::new());
    wait(4).await;
    let said = channel.said();
    assert!(said.len() == 1 && said[0].starts_with("[warning] `a` is down: "), "{said:?}");
    wait(200).await;
    assert_eq!(channel.said(), Vec::<String>::new(), "it is told once");
    wait(60).await;
    let said = channel.said();
    assert!(said.len() == 1 && said[0].starts_with("[critical] `a` is down: "), "{said:?}");
    let report = world.machina.system().alerts();
    assert_eq!((report.firing[0].rule, report.firing[0].level), (AlertRule::ServiceDown, AlertLevel::Critical));
    let counts = world.machina.system().measured().unwrap().alerts;
    assert_eq!(counts.firing, [(AlertLevel::Warning, 0), (AlertLevel::Critical, 1), (AlertLevel::Emergency, 0)]);
    assert_eq!((counts.channels[0].delivered, counts.channels[0].failed), (2, 0));
    world.sim.set(&instance, Behaviour::Up);
    wait(90).await;
    let said = channel.said();
    assert!(said.len() == 1 && said[0].starts_with("[resolved] `a` is down: "), "{said:?}");
    let report = world.machina.system().alerts();
    assert!(report.firing.is_empty() && report.recent[0].resolution.as_deref() == Some("it answers again"));
    world.machina.close().await;
    let entries = world.backend.journal.read(&JournalQuery::of(EntryKind::Alert)).await.unwrap().entries;
    let kinds: Vec<_> =
        entries.into_iter().map(|entry| serde_json::to_value(entry).unwrap()["message"].clone()).collect();
    assert_eq!(kinds, ["resolved", "escalated", "firing"]);
}

#[tokio::test(start_paused = true)]
async fn what_was_told_is_not_told_again_after_a_restart() {
    let channel = Kept::new("c");
    let world = World::new(Config::default(), &[&channel]).await;
    let (a, b) = (world.up("a").await, world.up("b").await);
    world.down("a", &a).await;
    world.down("b", &b).await;
    wait(70).await;
    assert_eq!(channel.said().len(), 2);
    world.machina.close().await;
    let World { sim, backend, .. } = world;
    sim.set(&b, Behaviour::Up);
    let world = World::on(backend, sim, Config::default(), &[&channel]).await;
    assert_eq!(world.machina.system().alerts().firing.len(), 0, "not read yet");
    wait(100).await;
    let said = channel.said();
    assert!(said.len() == 1 && said[0].starts_with("[resolved] `b` is down"), "{said:?}");
    assert_eq!(world.machina.system().alerts().firing.len(), 1);
    // Wall time does not pass here: the age begins anew.
    wait(250).await;
    let said = channel.said();
    assert!(said.len() == 1 && said[0].starts_with("[critical] `a` is down"), "{said:?}");
    world.machina.deregister("a").await.unwrap();
    wait(2).await;
    let said = channel.said();
    assert!(said.len() == 1 && said[0].contains("it is not registered any more"), "{said:?}");
    world.machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_channel_that_does_not_answer_delays_no_other() {
    let (dead, alive, refusing) = (Kept::new("dead"), Kept::new("alive"), Kept::new("refusing"));
    dead.behave(Manner::Hangs);
    refusing.behave(Manner::Refuses(ErrorKind::Forbidden));
    let world = World::new(Config::default(), &[&dead, &alive, &refusing]).await;
    let instance = world.up("a").await;
    world.down("a", &instance).await;
    wait(62).await;
    assert_eq!(alive.said().len(), 1);
    assert_eq!((dead.attempts(), refusing.attempts()), (1, 1));
    wait(70).await;
    assert_eq!(dead.attempts(), 3, "four attempts are allowed");
    assert_eq!(refusing.attempts(), 1, "what is refused is left alone for 30 s, and then for 60 s");
    let channels = world.machina.system().alerts().channels;
    let error = channels[0].last_error.as_ref().unwrap();
    assert_eq!((error.code.as_str(), channels[0].failed, channels[0].delivered), ("timeout", 1, 0));
    assert!(error.message.contains("10s"), "{}", error.message);
    assert_eq!(channels[2].last_error.as_ref().unwrap().code, "forbidden");
    dead.behave(Manner::Takes);
    wait(60).await;
    assert_eq!(dead.said().len(), 1, "it is told when it is back");
    let channels = world.machina.system().alerts().channels;
    assert!(channels[0].last_error.is_none() && channels[0].last_delivered_at.is_some());
    world.machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_passes_is_tried_again_with_the_same_message() {
    let channel = Kept::new("c");
    channel.behave(Manner::Refuses(ErrorKind::Unavailable));
    let world = World::new(Config::default(), &[&channel]).await;
    let instance = world.up("a").await;
    world.down("a", &instance).await;
    wait(62).await;
    assert!(channel.attempts() >= 1);
    channel.behave(Manner::Takes);
    wait(5).await;
    assert_eq!((channel.said().len(), world.machina.system().alerts().channels[0].failed), (1, 0));
    world.machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_operator_took_out_is_not_told() {
    let channel = Kept::new("c");
    let world = World::new(Config::default(), &[&channel]).await;
    let (a, b) = (world.up("a").await, world.up("b").await);
    for (name, instance, state) in [("a", &a, AdminState::Maintenance), ("b", &b, AdminState::Disabled)] {
        world.down(name, instance).await;
        world.machina.set_admin_state(name, None, state).await.unwrap();
    }
    wait(3600).await;
    assert_eq!(channel.said(), Vec::<String>::new());
    world.machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_says_whom_and_when_to_tell() {
    let (mail, hook) = (Kept::new("mail"), Kept::new("hook"));
    let world = World::new(Config::default(), &[&mail, &hook]).await;
    let policies = [("never", json!({"enabled": false})), ("mail", json!({"channels": ["mail"], "down_after": "10s"}))];
    for (name, alerting) in policies {
        let instance = world.sim.instance(name);
        let mut spec = service(name, &[&instance]);
        spec.health_policy.alerting = Some(serde_json::from_value(alerting).unwrap());
        world.machina.register(spec).await.unwrap();
        settle(&world.machina, name, Status::Healthy).await;
        world.down(name, &instance).await;
    }
    wait(12).await;
    assert_eq!((mail.said().len(), hook.said().len()), (1, 0));
    wait(48).await;
    assert_eq!((mail.said().len(), hook.said().len()), (0, 0));
    world.machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn other_tools_than_before_are_told_and_the_first_are_not() {
    let channel = Kept::new("c");
    let world = World::new(Config::default(), &[&channel]).await;
    let instance = world.up("a").await;
    wait(5).await;
    assert_eq!(channel.said(), Vec::<String>::new());
    let mut echo = echo_tool();
    echo["description"] = "Says something else.".into();
    let mut other = add_tool();
    other["name"] = "other".into();
    world.sim.set_tools(&instance, vec![echo, other]);
    wait(60).await;
    let expected = "[warning] `a` publishes something else than before: changed `echo`; removed `add`; new `other`";
    assert_eq!(channel.said(), [expected]);
    world.machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn dropped_events_are_made_up_for() {
    let channel = Kept::new("c");
    let mut config = Config::default();
    config.limits.events_max = 1;
    let world = World::new(config, &[&channel]).await;
    let instances = [world.up("a").await, world.up("b").await, world.up("c").await];
    // All at once, so that the events of two are dropped before anyone reads them.
    for instance in &instances {
        world.sim.set(instance, Behaviour::Refuse);
    }
    wait(240).await;
    let said = channel.said();
    assert_eq!(said.len(), 3, "{said:?}");
    world.machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_channel_and_a_notifier_belong_together() {
    let open = |config: Config, channels: Vec<Arc<Kept>>| async move {
        let builder = Machina::builder().config(config);
        let builder = channels.into_iter().fold(builder, |builder, channel| builder.notifier(channel));
        builder.open().await.map(drop).map_err(|error| error.context().problems[0].field.clone())
    };
    let named = json!({"channels": [{"name": "a"}, {"name": "b"}]});
    assert_eq!(open(config(named.clone()), vec![Kept::new("a")]).await, Err("alerts.channels[1]".to_owned()));
    assert_eq!(open(Config::default(), vec![Kept::new("a"), Kept::new("a")]).await, Err("alerts.channels".to_owned()));
    open(config(named), vec![Kept::new("b"), Kept::new("a"), Kept::new("c")]).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_test_says_what_came_of_each_channel() {
    let (good, bad, hanging) = (Kept::new("good"), Kept::new("bad"), Kept::new("hanging"));
    bad.behave(Manner::Refuses(ErrorKind::Forbidden));
    hanging.behave(Manner::Hangs);
    let world = World::new(Config::default(), &[&good, &bad, &hanging]).await;
    let system = world.machina.system();
    let all = system.test_alerts(None).await.unwrap();
    let outcomes: Vec<_> = all.iter().map(|test| test.error.as_ref().map(|error| error.code.as_str())).collect();
    assert_eq!(outcomes, [None, Some("forbidden"), Some("timeout")]);
    assert!(all[0].delivered && all[2].duration_ms >= 10_000.0);
    let said = std::mem::take(&mut *good.said.lock().unwrap());
    assert_eq!((said.len(), said[0].kind), (1, AlertMessageKind::Test));
    assert_eq!(system.test_alerts(Some("good")).await.unwrap().len(), 1);
    let unknown = system.test_alerts(Some("x")).await.unwrap_err();
    assert_eq!(unknown.context().problems[0].field, "channel");
    assert!(unknown.message().contains("good, bad, hanging"), "{unknown}");
    let (first, second) = tokio::join!(system.test_alerts(None), system.test_alerts(None));
    assert_eq!((first.is_ok(), second.unwrap_err().kind()), (true, ErrorKind::Overloaded));
    for principal in [Principal::new("d", Role::Developer), Principal::new("t", Role::Admin).of_tenant("t")] {
        let refused = world.machina.scoped(principal).test_alerts(None).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Forbidden);
    }
    world.machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_tenant_sees_the_alerts_of_its_own_services() {
    let channel = Kept::new("c");
    let world = World::new(Config::default(), &[&channel]).await;
    for tenant in ["acme", "bolt"] {
        let instance = world.sim.instance(tenant);
        let spec = ServiceSpec { tenant: Some(tenant.to_owned()), ..service(tenant, &[&instance]) };
        world.machina.register(spec).await.unwrap();
        settle(&world.machina, tenant, Status::Healthy).await;
        world.down(tenant, &instance).await;
    }
    wait(70).await;
    let acme = world.machina.scoped(Principal::new("ann", Role::Viewer).of_tenant("acme")).alerts();
    let services: Vec<_> = acme.firing.iter().map(|alert| alert.service.as_ref().unwrap().as_str()).collect();
    assert_eq!((services, acme.channels.len()), (vec!["acme"], 0));
    assert_eq!(world.machina.scoped(Principal::new("ann", Role::Viewer)).alerts().firing.len(), 2);
    world.machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_comes_and_goes_is_told_once() {
    let channel = Kept::new("c");
    let world = World::new(config(json!({"rules": ["flapping"]})), &[&channel]).await;
    let instance = world.up("a").await;
    world.sim.set(&instance, Behaviour::Flap { period: SECOND * 60 });
    wait(900).await;
    let said = channel.said();
    assert!(said.len() == 1 && said[0].starts_with("[warning] `a`: an instance goes down and comes back"), "{said:?}");
    assert_eq!(world.machina.system().alerts().firing[0].instance, Some(instance.id));
    world.sim.set(&instance, Behaviour::Up);
    wait(3600).await;
    let said = channel.said();
    assert!(said.len() == 1 && said[0].ends_with(": it is steady, after 0s"), "{said:?}");
    world.machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_does_not_stay_is_told_once() {
    let channel = Kept::new("c");
    let world = World::new(config(json!({"rules": ["crash_loop"]})), &[&channel]).await;
    let instance = world.sim.process("a");
    world.machina.register(service("a", &[&instance])).await.unwrap();
    settle(&world.machina, "a", Status::Healthy).await;
    for _ in 0..600 {
        world.sim.exit(&instance);
        wait(1).await;
    }
    world.sim.set(&instance, Behaviour::Killed);
    wait(600).await;
    let said = channel.said();
    let (first, then) = (said.first().cloned().unwrap_or_default(), said.get(1..).unwrap_or_default());
    assert!(first.starts_with("[warning] `a`: an instance does not stay up: "), "{said:?}");
    assert!(first.contains("the process ended 11 times within 600s"), "{said:?}");
    assert!(then.iter().all(|text| text.starts_with("[critical] ")), "{said:?}");
    world.sim.set(&instance, Behaviour::Up);
    wait(1200).await;
    let said = channel.said();
    assert!(said.len() == 1 && said[0].starts_with("[resolved] `a`: an instance does not stay up"), "{said:?}");
    world.machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_our_own_is_all_that_is_told() {
    let channel = Kept::new("c");
    let world = World::new(config(json!({"down_after": "0s"})), &[&channel]).await;
    let mut instances = Vec::new();
    for number in 0..20 {
        instances.push(world.up(&format!("s{number}")).await);
    }
    wait(90).await;
    instances[1..].iter().for_each(|instance| world.sim.set(instance, Behaviour::BlackHole));
    wait(40).await;
    // Certain, and held back all the same.
    world.sim.set(&instances[0], Behaviour::Killed);
    wait(20).await;
    let said = channel.said();
    assert!(said.len() == 1 && said[0].starts_with("[critical] so much fails at once"), "{said:?}");
    let report = world.machina.system().alerts();
    assert!(report.held && report.firing.iter().any(|alert| alert.rule == AlertRule::ServiceDown), "{report:?}");
    instances.iter().for_each(|instance| world.sim.set(instance, Behaviour::Up));
    wait(300).await;
    let said = channel.said();
    assert!(said.len() == 1 && said[0].starts_with("[resolved] so much fails at once"), "{said:?}");
    assert!(!world.machina.system().alerts().held);
    world.machina.close().await;
}
