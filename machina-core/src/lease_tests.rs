use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::sleep;

use super::*;
use crate::ServiceSpec;
use crate::config::Config;
use crate::error::ErrorKind;
use crate::event::{EventKind, Next};
use crate::health::Status;
use crate::machina::{Machina, Registry as _};
use crate::model::{AdminState, Instance};
use crate::route::{CallOptions, Standing};
use crate::store::{Backend, EntryKind, JournalQuery, What};
use crate::testing::registry_suite::{call, service, settle};
use crate::testing::{Behaviour, SimConnector};

const TTL: Duration = Duration::from_secs(90);
const MS: Duration = Duration::from_millis(1);
const RETENTION: Duration = Duration::from_secs(30 * 60);

fn leased(sim: &SimConnector, name: &str) -> Instance {
    let mut instance = sim.instance(name);
    instance.lease_ttl = Some(TTL);
    instance
}

async fn open(sim: &SimConnector) -> Machina {
    Machina::builder().connector(Arc::new(sim.clone())).open().await.unwrap()
}

/// A registry with one service `a` that has registered itself and is healthy;
/// its lease was renewed just now.
async fn one() -> (Machina, SimConnector, Instance) {
    let sim = SimConnector::default();
    let (machina, instance) = (open(&sim).await, leased(&sim, "one"));
    machina.register(service("a", &[&instance])).await.unwrap();
    settle(&machina, "a", Status::Healthy).await;
    machina.system().heartbeat("a", None).unwrap();
    (machina, sim, instance)
}

fn state(machina: &Machina) -> HealthState {
    let view = machina.get("a").unwrap();
    view.instances().next().unwrap().1.health.state
}

fn instances(machina: &Machina) -> usize {
    machina.get("a").map_or(0, |view| view.instances().len())
}

#[test]
fn a_lease_is_declared_as_text_and_has_a_range() {
    let spec = |lease: serde_json::Value| {
        ServiceSpec::from_value(
            json!({"name": "a", "instances": [{"http": {"url": "http://a.x/"}, "lease_ttl": lease}]}),
        )
    };
    let read = spec(json!("1m 30s")).unwrap();
    assert_eq!(read.instances[0].lease_ttl, Some(TTL));
    assert_eq!(serde_json::to_value(&read).unwrap()["instances"][0]["lease_ttl"], "1m 30s");
    assert_eq!(spec(json!(null)).unwrap().instances[0].lease_ttl, None);
    for wrong in ["4s", "61m", "never"] {
        let error = spec(json!(wrong)).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid);
        assert!(error.context().problems[0].field.starts_with("instances[0]"), "{wrong}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn renewal_keeps_an_instance_alive() {
    let (machina, ..) = one().await;
    for _ in 0..100 {
        sleep(TTL - MS * 10).await;
        let beat = machina.system().heartbeat("a", None).unwrap();
        let lease = beat.lease.unwrap();
        assert_eq!((lease.ttl_ms, lease.renew_after_ms, beat.health), (90_000, 30_000, Some(HealthState::Healthy)));
        assert!(lease.expires_at > crate::now());
    }
    assert_eq!(state(&machina), HealthState::Healthy);
    machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_runs_out_exactly_at_its_end() {
    let (machina, _, instance) = one().await;
    let mut events = machina.watch();
    sleep(TTL - MS * 2).await;
    assert_eq!(state(&machina), HealthState::Healthy);
    sleep(MS * 4).await;
    assert_eq!(state(&machina), HealthState::Expired);
    let view = machina.get("a").unwrap();
    assert_eq!(view.status(), Status::Unhealthy);

    let Next::Event(event) = events.next().await else { panic!("an event is missing") };
    let EventKind::HealthChanged { from, to, reason, .. } = &event.kind else { panic!("{event:?}") };
    assert_eq!((*from, *to, reason.code), (HealthState::Healthy, HealthState::Expired, ReasonCode::Expired));
    let report = machina.health("a").await.unwrap().instances.remove(0).health;
    let heard = report.last_heartbeat.unwrap();
    assert!(reason.message.contains(&heard.to_string()), "{}", reason.message);
    assert_eq!(report.lease_expires_at.unwrap(), heard.checked_add(TTL).unwrap());
    machina.system().core.recorder.finish(Vec::new(), TTL).await;
    let page = machina.journal(&JournalQuery::of(EntryKind::Transition)).await.unwrap();
    assert!(matches!(&page.entries[0].what, What::Transition { to, .. } if to == "expired"), "{page:?}");

    // It answers probes, and is not routed to for all that.
    let explained = machina.explain("a", Some("echo")).await.unwrap();
    assert_eq!(explained.candidates[0].standing, Standing::Excluded);
    let refused = machina.call(&call("a", "echo", json!({})), &CallOptions::default()).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    assert!(refused.message().contains("expired: no heartbeat for 90s"), "{refused}");
    machina.check("a").await.unwrap();
    assert_eq!(state(&machina), HealthState::Expired, "an answer is no heartbeat");
    assert_eq!(machina.get("a").unwrap().instances().next().unwrap().0.id, instance.id);
    machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_brings_an_expired_instance_back_to_be_probed() {
    let (machina, sim, instance) = one().await;
    sleep(TTL * 2).await;
    assert_eq!(state(&machina), HealthState::Expired);
    sim.set(&instance, Behaviour::Refuse);
    let beat = machina.system().heartbeat("a", Some(instance.id)).unwrap();
    assert_eq!((beat.health, beat.instance), (Some(HealthState::Unknown), Some(instance.id)));
    sleep(Duration::from_secs(2)).await;
    assert_eq!(state(&machina), HealthState::Starting, "it says it is there, and does not answer");
    sim.set(&instance, Behaviour::Up);
    settle(&machina, "a", Status::Healthy).await;
    machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn who_registers_again_is_heard_of() {
    let (machina, sim, _) = one().await;
    sleep(TTL * 2).await;
    let mut same = sim.instance("one");
    same.lease_ttl = Some(TTL);
    let before = machina.get("a").unwrap().service().revision;
    machina.apply(vec![Mutation::Put(service("a", &[&same]))]).await.unwrap();
    assert_eq!(machina.get("a").unwrap().service().revision, before, "nothing is written");
    settle(&machina, "a", Status::Healthy).await;
    sleep(TTL + MS * 2).await;
    assert_eq!(state(&machina), HealthState::Expired);
    machina.system().patch("a", &json!({"title": "A"}), None).await.unwrap();
    assert_eq!(state(&machina), HealthState::Expired, "an operator's change is no heartbeat");
    machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_stays_expired_is_removed_with_its_service() {
    let (machina, ..) = one().await;
    sleep(TTL + RETENTION - MS * 10).await;
    assert_eq!(instances(&machina), 1);
    sleep(MS * 20).await;
    assert!(machina.get("a").is_none());
    let page = machina.journal(&JournalQuery::of(EntryKind::Audit)).await.unwrap();
    let What::Audit { principal, action, .. } = &page.entries[0].what else { panic!("{page:?}") };
    assert_eq!((principal.as_str(), action.as_str()), ("lease-expiry", "deregister"));
    let unknown = machina.system().heartbeat("a", None).unwrap_err();
    assert_eq!((unknown.kind(), unknown.context().service.as_deref()), (ErrorKind::NotFound, Some("a")));
    machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_heartbeat_in_the_last_moment_puts_the_removal_off() {
    let (machina, ..) = one().await;
    sleep(TTL + RETENTION - MS * 10).await;
    machina.system().heartbeat("a", None).unwrap();
    sleep(TTL + RETENTION - MS * 10).await;
    assert_eq!((instances(&machina), state(&machina)), (1, HealthState::Expired));
    machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_declared_instance_never_expires_and_keeps_its_service() {
    let sim = SimConnector::default();
    let (machina, declared, guest) = (open(&sim).await, sim.instance("one"), leased(&sim, "two"));
    machina.register(service("a", &[&declared, &guest])).await.unwrap();
    settle(&machina, "a", Status::Healthy).await;
    let beat = machina.system().heartbeat("a", Some(declared.id)).unwrap();
    assert_eq!((beat.lease, beat.instance), (None, Some(declared.id)), "accepted, and of no effect");
    sleep(TTL + RETENTION + Duration::from_secs(1)).await;
    let view = machina.get("a").unwrap();
    let left: Vec<_> = view.instances().map(|(instance, seen)| (instance.id, seen.health.state)).collect();
    assert_eq!(left, [(declared.id, HealthState::Healthy)]);
    let gone = machina.system().heartbeat("a", Some(guest.id)).unwrap_err();
    assert_eq!((gone.kind(), gone.context().instance.clone()), (ErrorKind::NotFound, Some(guest.id.to_string())));
    let none = machina.system().heartbeat("a", None).unwrap();
    assert_eq!((none.instance, none.lease, none.health), (None, None, None));
    sleep(RETENTION * 100).await;
    assert_eq!(state(&machina), HealthState::Healthy);
    machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn of_several_instances_the_one_alive_is_named() {
    let sim = SimConnector::default();
    let (machina, first, second) = (open(&sim).await, leased(&sim, "one"), leased(&sim, "two"));
    machina.register(service("a", &[&first, &second])).await.unwrap();
    settle(&machina, "a", Status::Healthy).await;
    let unclear = machina.system().heartbeat("a", None).unwrap_err();
    assert_eq!(unclear.context().problems[0].field, "instance");
    assert!(unclear.message().contains(&second.id.to_string()), "{unclear}");
    for _ in 0..5 {
        sleep(TTL / 2).await;
        machina.system().heartbeat("a", Some(second.id)).unwrap();
    }
    let view = machina.get("a").unwrap();
    let states: Vec<_> = view.instances().map(|(_, seen)| seen.health.state).collect();
    assert_eq!(states, [HealthState::Expired, HealthState::Healthy]);
    sleep(RETENTION).await;
    assert_eq!(instances(&machina), 1, "the silent one is gone and the service stays");
    machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_a_lease_begins_anew() {
    let sim = SimConnector::default();
    let backend = Backend::of(crate::MemoryStore::new());
    let build = || Machina::builder().connector(Arc::new(sim.clone())).backend(backend.clone());
    let first = build().open().await.unwrap();
    first.register(service("a", &[&leased(&sim, "one")])).await.unwrap();
    settle(&first, "a", Status::Healthy).await;
    sleep(TTL - MS * 10).await;
    first.close().await;
    let second = build().open().await.unwrap();
    settle(&second, "a", Status::Healthy).await;
    let report = second.health("a").await.unwrap().instances.remove(0).health;
    assert_eq!((report.last_heartbeat, report.lease_expires_at.is_some()), (None, true));
    let begun = Instant::now();
    while state(&second) == HealthState::Healthy {
        sleep(MS * 100).await;
    }
    assert!(begun.elapsed() > TTL / 2 && begun.elapsed() <= TTL, "{:?}", begun.elapsed());
    let view = second.get("a").unwrap();
    let reason = &view.instances().next().unwrap().1.health.reason;
    assert!(reason.message.contains("none has come since"), "{}", reason.message);
    second.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_lease_can_be_changed_and_ended() {
    let (machina, _, instance) = one().await;
    let system = machina.system();
    system.patch_instance("a", instance.id, &json!({"lease_ttl": "10s"}), None).await.unwrap();
    sleep(Duration::from_secs(11)).await;
    assert_eq!(state(&machina), HealthState::Expired);
    system.patch_instance("a", instance.id, &json!({"lease_ttl": null}), None).await.unwrap();
    settle(&machina, "a", Status::Healthy).await;
    sleep(RETENTION * 2).await;
    assert_eq!(state(&machina), HealthState::Healthy, "it is a declared instance now");
    system.patch_instance("a", instance.id, &json!({"lease_ttl": "10s"}), None).await.unwrap();
    sleep(Duration::from_secs(11)).await;
    assert_eq!(state(&machina), HealthState::Expired);
    machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_the_operator_says_wins_over_a_lease() {
    let (machina, ..) = one().await;
    machina.set_admin_state("a", None, AdminState::Maintenance).await.unwrap();
    sleep(TTL * 2).await;
    assert_eq!((state(&machina), machina.get("a").unwrap().status()), (HealthState::Expired, Status::Maintenance));
    machina.system().heartbeat("a", None).unwrap();
    assert_eq!(machina.get("a").unwrap().status(), Status::Maintenance);
    machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn only_those_who_may_call_may_send_heartbeats() {
    let (machina, ..) = one().await;
    let refused = machina.scoped(Principal::new("eve", Role::Viewer)).heartbeat("a", None).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Forbidden);
    machina.scoped(Principal::new("dan", Role::Developer)).heartbeat("a", None).unwrap();
    let other = machina.scoped(Principal::new("dan", Role::Developer).of_tenant("other"));
    assert_eq!(other.heartbeat("a", None).unwrap_err().kind(), ErrorKind::NotFound);
    machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_monitor_nothing_expires() {
    let machina = Machina::builder().config(Config::default()).without_monitor().open().await.unwrap();
    let sim = SimConnector::default();
    machina.register(service("a", &[&leased(&sim, "one")])).await.unwrap();
    sleep(TTL + RETENTION * 2).await;
    assert_eq!((instances(&machina), state(&machina)), (1, HealthState::Unknown));
    assert!(machina.system().get("a").await.is_ok());
    machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn timers_go_with_their_instances() {
    let sim = SimConnector::default();
    let machina = open(&sim).await;
    for _ in 0..50 {
        machina.register(service("a", &[&leased(&sim, "one"), &sim.instance("two")])).await.unwrap();
        machina.deregister("a").await.unwrap();
    }
    let left = || {
        let timers = machina.system().core.leases.timers();
        (timers.of.len(), timers.due.len())
    };
    assert_eq!(left(), (0, 0));
    machina.close().await;
}
