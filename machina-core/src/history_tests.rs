use std::sync::Arc;

use super::*;
use crate::ServiceSpec;
use crate::access::{Principal, Role};
use crate::error::ErrorKind;
use crate::health::{Reason, Status};
use crate::machina::Machina;
use crate::store::Backend;
use crate::testing::SimConnector;
use crate::testing::registry_suite::{service, settle};

use HealthState::{Healthy, Recovering, Suspect, Unhealthy, Unknown};

const DAY_MS: i64 = 86_400_000;

fn entry(at_ms: i64, instance: InstanceId, from: HealthState, to: HealthState) -> Entry {
    let (from, to) = (from.as_str().to_owned(), to.as_str().to_owned());
    Entry {
        at: Timestamp::from_millisecond(at_ms).unwrap(),
        service: Some(ServiceName::new("a").unwrap()),
        instance: Some(instance),
        what: What::Transition { from, to, reason: String::new() },
    }
}

fn health(state: HealthState, since_ms: i64) -> Health {
    let since = Timestamp::from_millisecond(since_ms).unwrap();
    Health { state, reason: Reason::default(), ..Health::unknown(since) }
}

/// Slots of 100 ms from 1000 on; now is 1450.
fn bar(
    entries: &[Entry],
    current: Vec<(InstanceId, Health)>,
    known_since: i64,
) -> Vec<(Option<f64>, Option<HealthState>)> {
    let mut bar = Bar { start: 1000, slot_ms: 100, cells: vec![Cell::default(); 5] };
    bar.fill(&timelines(entries, current), known_since, 1450);
    let slots = bar.read(ServiceName::new("a").unwrap()).unwrap().slots;
    slots.iter().map(|slot| (slot.uptime_percentage, slot.worst)).collect()
}

const NONE: (Option<f64>, Option<HealthState>) = (None, None);

fn up(percentage: f64, worst: HealthState) -> (Option<f64>, Option<HealthState>) {
    (Some(percentage), Some(worst))
}

#[test]
fn what_the_first_transition_began_with_was_so_before() {
    let one = InstanceId::generate();
    let entries = [entry(1150, one, Healthy, Unhealthy), entry(1175, one, Unhealthy, Healthy)];
    let seen = bar(&entries, vec![(one, health(Healthy, 1175))], 0);
    assert_eq!(
        seen,
        [up(100.0, Healthy), up(75.0, Unhealthy), up(100.0, Healthy), up(100.0, Healthy), up(100.0, Healthy)]
    );
    let seen = bar(&entries, vec![(one, health(Healthy, 1175))], 1100);
    assert_eq!(seen[0], NONE, "nothing is known from before what the journal keeps");
}

#[test]
fn before_the_first_check_there_is_no_data_and_now_is_known() {
    let one = InstanceId::generate();
    let entries = [entry(1250, one, Unknown, Healthy)];
    let seen = bar(&entries, vec![(one, health(Healthy, 1250))], 0);
    assert_eq!(seen, [NONE, NONE, up(100.0, Healthy), up(100.0, Healthy), up(100.0, Healthy)]);
    assert_eq!(bar(&[], vec![(one, health(Healthy, 10))], 0), [up(100.0, Healthy); 5], "unchanged all the while");
    assert_eq!(bar(&[], vec![(one, health(Unknown, 10))], 0), [NONE; 5]);
    let unwritten = bar(&entries, vec![(one, health(Unhealthy, 1300))], 0);
    assert_eq!(unwritten[3], up(0.0, Unhealthy), "what the journal does not have yet counts");
}

#[test]
fn a_service_is_as_its_best_instance() {
    let (one, two) = (InstanceId::generate(), InstanceId::generate());
    let entries = [
        entry(1000, one, Unknown, Healthy),
        entry(1000, two, Unknown, Healthy),
        entry(1100, one, Healthy, Unhealthy),
        entry(1200, two, Healthy, Suspect),
        entry(1225, two, Suspect, Unhealthy),
        entry(1300, one, Unhealthy, Recovering),
    ];
    let current = vec![(one, health(Recovering, 1300)), (two, health(Unhealthy, 1225))];
    let expected =
        [up(100.0, Healthy), up(100.0, Healthy), up(25.0, Unhealthy), up(0.0, Recovering), up(0.0, Recovering)];
    assert_eq!(bar(&entries, current, 0), expected);
}

#[test]
fn of_what_is_gone_nothing_is_said_after_its_last_word() {
    let (old, new) = (InstanceId::generate(), InstanceId::generate());
    let entries = [entry(1000, old, Unknown, Healthy), entry(1100, old, Healthy, Unknown)];
    assert_eq!(bar(&entries, Vec::new(), 0), [up(100.0, Healthy), NONE, NONE, NONE, NONE]);
    assert_eq!(bar(&entries[..1], Vec::new(), 0), [NONE; 5], "it went without a word");
    let seen = bar(&entries, vec![(new, health(Unhealthy, 1300))], 0);
    assert_eq!(seen[3], up(0.0, Unhealthy), "the old one does not stand in for the new one");
}

#[tokio::test]
async fn slots_are_read_from_the_journal_and_from_now() {
    let (backend, now) = (Backend::of(crate::MemoryStore::new()), clock::now());
    let store = Arc::clone(&backend.journal);
    let machina = Machina::builder().backend(backend).without_monitor().open().await.unwrap();
    let spec = ServiceSpec::parse(r#"{"name": "a", "instances": [{"http": {"url": "http://a.example/"}}]}"#).unwrap();
    let id = machina.register(spec).await.unwrap().service().spec.instances[0].id;
    let midnight = now.as_millisecond().div_euclid(DAY_MS) * DAY_MS;
    let up = (0..1500).map(|n| entry(midnight - 2 * DAY_MS + n, id, Unhealthy, Healthy));
    let down = entry(midnight - DAY_MS + DAY_MS / 4, id, Healthy, Unhealthy);
    store.append(&up.chain([down]).collect::<Vec<_>>()).await.unwrap();
    let bar = machina.system().health_slots("a", 90, Duration::from_secs(86_400)).await.unwrap();
    assert_eq!((bar.slots.len(), bar.slot_ms), (90, 86_400_000));
    let (first, last) = (&bar.slots[0], &bar.slots[89]);
    assert_eq!((last.start.as_millisecond(), last.end.as_millisecond()), (midnight, midnight + DAY_MS));
    assert_eq!(first.start.as_millisecond(), midnight - 89 * DAY_MS);
    assert_eq!((first.uptime_percentage, first.worst), (Some(0.0), Some(Unhealthy)));
    assert_eq!(
        (bar.slots[87].uptime_percentage.unwrap().round(), bar.slots[88].uptime_percentage),
        (100.0, Some(25.0))
    );
    assert_eq!(last.worst, Some(Unhealthy), "what was seen last counts until someone looks again");
    assert!(bar.uptime_percentage.is_some_and(|share| (1.0..2.0).contains(&share)), "{bar:?}");
    assert_eq!(serde_json::from_value::<HealthSlots>(serde_json::to_value(&bar).unwrap()).unwrap(), bar);

    for (slots, seconds, field) in [(0, 3600, "slots"), (367, 3600, "slots"), (1, 59, "slot"), (1, 32 * 86_400, "slot")]
    {
        let error = machina.system().health_slots("a", slots, Duration::from_secs(seconds)).await.unwrap_err();
        assert_eq!((error.kind(), error.context().problems[0].field.as_str()), (ErrorKind::Invalid, field));
    }
    let gone = machina.system().health_slots("b", 1, Duration::from_secs(60)).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn what_another_tenant_had_under_the_name_is_not_shown() {
    let (backend, now) = (Backend::of(crate::MemoryStore::new()), clock::now().as_millisecond());
    let store = Arc::clone(&backend.journal);
    let machina = Machina::builder().backend(backend).without_monitor().open().await.unwrap();
    let declare = |tenant| ServiceSpec::from_value(serde_json::json!({"name": "a", "tenant": tenant})).unwrap();
    machina.register(declare("other")).await.unwrap();
    let id = InstanceId::generate();
    let seen = [entry(now - 2 * DAY_MS, id, Unknown, Healthy), entry(now - DAY_MS, id, Healthy, Unhealthy)];
    store.append(&seen).await.unwrap();
    machina.deregister("a").await.unwrap();
    machina.register(declare("acme")).await.unwrap();
    let uptime = async |principal: Principal| {
        let bar = machina.scoped(principal).health_slots("a", 7, Duration::from_secs(86_400)).await.unwrap();
        bar.uptime_percentage
    };
    assert_eq!(uptime(Principal::new("x", Role::Viewer)).await, Some(100.0));
    assert_eq!(uptime(Principal::new("x", Role::Viewer).of_tenant("acme")).await, None);
}

#[tokio::test(start_paused = true)]
async fn the_journal_says_when_knowledge_ends() {
    let backend = Backend::of(crate::MemoryStore::new());
    let store = Arc::clone(&backend.journal);
    let sim = SimConnector::default();
    let machina = Machina::builder().backend(backend).connector(Arc::new(sim.clone())).open().await.unwrap();
    machina.register(service("a", &[&sim.instance("one"), &sim.instance("two")])).await.unwrap();
    settle(&machina, "a", Status::Healthy).await;
    let first = machina.get("a").unwrap().service().spec.instances[0].id;
    machina.system().remove_instance("a", first, None).await.unwrap();
    machina.close().await;
    let page = store.read(&JournalQuery::of(EntryKind::Transition)).await.unwrap();
    let ends: Vec<_> = page
        .entries
        .iter()
        .filter_map(|entry| match &entry.what {
            What::Transition { from, to, reason } if to == "unknown" => Some((from.as_str(), reason.as_str())),
            _ => None,
        })
        .collect();
    assert_eq!(ends, [("healthy", "the registry was closed"), ("healthy", "the instance was removed")], "newest first");
}
