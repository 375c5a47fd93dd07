//! The facade under paused time, against simulated instances.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, json};
use tokio::time::Instant;

use super::*;
use crate::access::{Principal, Role};
use crate::error::{ErrorKind, Outcome};
use crate::event::{EventKind, Next};
use crate::health::{HealthState, Status};
use crate::model::Instance;
use crate::route::UpstreamRequest;
use crate::store::{EntryKind, What};
use crate::testing::registry_suite::{Subject, call, service, settle};
use crate::testing::{Behaviour, SimConnector, add_tool, echo_tool};

async fn open() -> Subject<Machina> {
    let sim = SimConnector::default();
    let registry = Machina::builder().connector(Arc::new(sim.clone())).open().await.unwrap();
    Subject { registry, sim }
}

crate::registry_suite!(open().await);

mod scoped {
    use super::*;
    use crate::access::{Principal, Role, Scoped};

    async fn open_scoped() -> Subject<Scoped> {
        let Subject { registry, sim } = open().await;
        Subject { registry: registry.scoped(Principal::new("ann", Role::Admin)), sim }
    }

    crate::registry_suite!(open_scoped().await);

    #[tokio::test(start_paused = true)]
    async fn each_role_may_do_what_it_may() {
        let Subject { registry, sim } = open().await;
        registry.register(service("a", &[&sim.instance("one")])).await.unwrap();
        settle(&registry, "a", Status::Healthy).await;
        let (put, echo) = (Mutation::Put(service("b", &[])), call("a", "echo", json!({})));
        for (role, may_call, may_write) in
            [(Role::Viewer, false, false), (Role::Developer, true, false), (Role::Admin, true, true)]
        {
            let scoped = registry.scoped(Principal::new("ann", role));
            assert!(Registry::get(&scoped, "a").await.is_ok());
            let called = Router::call(&scoped, &echo, &CallOptions::default()).await;
            assert_eq!(called.map_err(|error| error.kind()).err(), (!may_call).then_some(ErrorKind::Forbidden));
            let written = Registry::apply(&scoped, vec![put.clone()]).await;
            assert_eq!(written.map_err(|error| error.kind()).err(), (!may_write).then_some(ErrorKind::Forbidden));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_tenant_sees_and_writes_its_own_only() {
        let Subject { registry, .. } = open().await;
        let of = |name: &str, tenant: &str| {
            ServiceSpec::parse(&format!(r#"{{"name": "{name}", "tenant": "{tenant}"}}"#)).unwrap()
        };
        registry.register(of("a", "acme")).await.unwrap();
        registry.register(of("b", "bolt")).await.unwrap();
        let acme = registry.scoped(Principal::new("ann", Role::Admin).of_tenant("acme"));
        assert_eq!(acme.find(&Query::default()).await.unwrap().items.len(), 1);
        assert_eq!(acme.get("b").await.unwrap_err().kind(), ErrorKind::NotFound);
        let foreign = acme.apply(vec![Mutation::Register(of("c", "bolt"))]).await.unwrap_err();
        assert_eq!(foreign.kind(), ErrorKind::Forbidden);
        let name = ServiceName::new("b").unwrap();
        let foreign = acme.apply(vec![Mutation::Deregister { name, expected: None }]).await.unwrap_err();
        assert_eq!(foreign.kind(), ErrorKind::NotFound);
    }

    #[tokio::test(start_paused = true)]
    async fn what_someone_changes_is_in_the_audit_trail() {
        let Subject { registry, .. } = open().await;
        let ann = registry.scoped(Principal::new("ann", Role::Admin));
        ann.apply(vec![Mutation::Register(service("a", &[]))]).await.unwrap();
        let page = registry.journal(&JournalQuery::of(EntryKind::Audit)).await.unwrap();
        let What::Audit { principal, action, .. } = &page.entries[0].what else { panic!("{page:?}") };
        assert_eq!((principal.as_str(), action.as_str()), ("ann", "register"));
        let viewer = registry.scoped(Principal::new("bob", Role::Viewer));
        let refused = viewer.journal(&JournalQuery::of(EntryKind::Audit)).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Forbidden);
    }
}

async fn two(subject: &Subject<Machina>, trust: bool) -> [Instance; 2] {
    let instances = [subject.sim.instance("one"), subject.sim.instance("two")];
    let mut spec = service("a", &[&instances[0], &instances[1]]);
    spec.routing_policy.trust_annotations = Some(trust);
    subject.registry.register(spec).await.unwrap();
    settle(&subject.registry, "a", Status::Healthy).await;
    instances
}

#[tokio::test(start_paused = true)]
async fn a_trusted_read_only_call_survives_a_lost_answer() {
    let subject = open().await;
    let instances = two(&subject, true).await;
    subject.sim.set(&instances[0], Behaviour::LoseAnswers);
    for _ in 0..20 {
        let report = subject.registry.call(&call("a", "echo", json!({})), &CallOptions::default()).await.unwrap();
        assert!(report.result.text().contains("two"));
    }
}

#[tokio::test(start_paused = true)]
async fn an_idempotency_key_allows_what_nothing_else_does() {
    let subject = open().await;
    let instances = two(&subject, false).await;
    instances.iter().for_each(|instance| subject.sim.set(instance, Behaviour::LoseAnswers));
    let options = CallOptions { idempotency_key: Some("k".into()), ..CallOptions::default() };
    let error = subject.registry.call(&call("a", "add", json!({})), &options).await.unwrap_err();
    assert_eq!(error.context().attempts, Some(3), "attempts_max, though there are two instances");
    assert_eq!(error.context().outcome, Some(Outcome::Unknown));
}

#[tokio::test(start_paused = true)]
async fn a_trusted_call_survives_the_death_of_the_only_process() {
    let subject = open().await;
    let process = subject.sim.process("one");
    let mut spec = service("a", &[&process]);
    spec.routing_policy.trust_annotations = Some(true);
    subject.registry.register(spec).await.unwrap();
    settle(&subject.registry, "a", Status::Healthy).await;
    subject.sim.set_latency(&process, Duration::from_millis(100));
    let (sim, dying) = (subject.sim.clone(), process.clone());
    let die = async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        sim.set(&dying, Behaviour::Refuse);
        sim.set(&dying, Behaviour::Up);
    };
    let request = call("a", "echo", json!({}));
    let options = CallOptions::default();
    let (outcome, ()) = tokio::join!(subject.registry.call(&request, &options), die);
    assert_eq!(outcome.unwrap().attempts.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn progress_that_was_forwarded_forbids_a_repetition() {
    let subject = open().await;
    let instances = two(&subject, false).await;
    instances.iter().for_each(|instance| subject.sim.set(instance, Behaviour::LoseAfterProgress));
    let progress: crate::connect::ProgressSink = Arc::new(|_| {});
    let options = CallOptions { progress: Some(progress), ..CallOptions::default() };
    let error = subject.registry.call(&call("a", "add", json!({})), &options).await.unwrap_err();
    assert_eq!(error.context().attempts, Some(1));
}

#[tokio::test(start_paused = true)]
async fn a_wedged_instance_times_out_and_is_cancelled_upstream() {
    let subject = open().await;
    let instance = subject.sim.instance("one");
    subject.registry.register(service("a", &[&instance])).await.unwrap();
    settle(&subject.registry, "a", Status::Healthy).await;
    subject.sim.set(&instance, Behaviour::Wedged);
    let options = CallOptions { timeout: Some(Duration::from_secs(2)), ..CallOptions::default() };
    let started = Instant::now();
    let error = subject.registry.call(&call("a", "add", json!({})), &options).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.context().outcome, Some(Outcome::Unknown));
    assert_eq!(started.elapsed(), Duration::from_secs(2));
    assert_eq!(subject.sim.cancellations(&instance), 1);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_gives_up_is_heard() {
    let subject = open().await;
    let instance = subject.sim.instance("one");
    subject.registry.register(service("a", &[&instance])).await.unwrap();
    settle(&subject.registry, "a", Status::Healthy).await;
    subject.sim.set_latency(&instance, Duration::from_secs(30));
    let options = CallOptions::default();
    let token = options.cancelled.clone();
    let request = call("a", "echo", json!({}));
    let calling = subject.registry.call(&request, &options);
    let cancelling = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        token.cancel();
    };
    let (outcome, ()) = tokio::join!(calling, cancelling);
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(subject.sim.cancellations(&instance), 1);
    assert_eq!(subject.registry.get("a").unwrap().status(), Status::Healthy, "no fault of the instance");
}

#[tokio::test(start_paused = true)]
async fn a_dead_instance_is_found_and_comes_back() {
    let subject = open().await;
    let instance = subject.sim.instance("one");
    subject.registry.register(service("a", &[&instance])).await.unwrap();
    settle(&subject.registry, "a", Status::Healthy).await;
    let mut events = subject.registry.watch();
    subject.sim.set(&instance, Behaviour::Refuse);
    let died = Instant::now();
    settle(&subject.registry, "a", Status::Unhealthy).await;
    assert!(died.elapsed() <= Duration::from_secs(31), "{:?}", died.elapsed());
    subject.sim.set(&instance, Behaviour::Up);
    let back = Instant::now();
    settle(&subject.registry, "a", Status::Healthy).await;
    assert!(back.elapsed() <= Duration::from_secs(15), "{:?}", back.elapsed());
    let mut states = Vec::new();
    while let Some(Next::Event(event)) = events.try_next() {
        if let EventKind::HealthChanged { to, .. } = event.kind {
            states.push(to);
        }
    }
    use HealthState::{Healthy, Recovering, Suspect, Unhealthy};
    assert_eq!(states, [Suspect, Unhealthy, Recovering, Healthy]);
}

#[tokio::test(start_paused = true)]
async fn the_last_instance_is_tried_though_it_fails_its_checks() {
    let subject = open().await;
    let instance = subject.sim.instance("one");
    subject.registry.register(service("a", &[&instance])).await.unwrap();
    settle(&subject.registry, "a", Status::Healthy).await;
    subject.sim.set(&instance, Behaviour::Refuse);
    settle(&subject.registry, "a", Status::Unhealthy).await;
    subject.sim.set(&instance, Behaviour::Up);
    let report = subject.registry.call(&call("a", "echo", json!({})), &CallOptions::default()).await;
    assert!(report.is_ok(), "{report:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_operator_says_wins() {
    let subject = open().await;
    let instances = two(&subject, false).await;
    let view = subject.registry.get("a").unwrap();
    let first = view.instances().next().unwrap().0.id;
    subject.registry.set_admin_state("a", Some(first), AdminState::Draining).await.unwrap();
    for _ in 0..5 {
        subject.registry.call(&call("a", "add", json!({})), &CallOptions::default()).await.unwrap();
    }
    assert_eq!(subject.sim.executions(&instances[0]), 0);
    subject.registry.set_admin_state("a", None, AdminState::Disabled).await.unwrap();
    let error = subject.registry.call(&call("a", "add", json!({})), &CallOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("the service is disabled"), "{error}");
    assert_eq!(subject.registry.get("a").unwrap().status(), Status::Disabled);
}

#[tokio::test(start_paused = true)]
async fn a_change_of_tools_is_seen_told_and_routed() {
    let subject = open().await;
    let instances = two(&subject, false).await;
    let mut events = subject.registry.watch();
    let mut changed = echo_tool();
    changed["description"] = json!("Something else.");
    let extra = json!({"name": "extra", "inputSchema": {"type": "object"}});
    subject.sim.set_tools(&instances[0], vec![changed, add_tool(), extra]);
    let told = loop {
        let Next::Event(event) = events.next().await else { panic!("no gap") };
        if let EventKind::DefinitionsChanged { added, removed, changed, .. } = &event.kind {
            break (added.clone(), removed.clone(), changed.clone());
        }
    };
    assert_eq!(told, (vec!["extra".to_owned()], vec![], vec!["echo".to_owned()]));
    for _ in 0..4 {
        subject.registry.call(&call("a", "extra", json!({})), &CallOptions::default()).await.unwrap();
    }
    assert_eq!(subject.sim.executions(&instances[1]), 0, "only one of them offers it");
}

#[tokio::test(start_paused = true)]
async fn a_change_of_prompts_alone_is_told() {
    let subject = open().await;
    let instances = two(&subject, false).await;
    let mut events = subject.registry.watch();
    subject.sim.set_prompts(&instances[0], vec![json!({"name": "greet"})]);
    let told = loop {
        let Next::Event(event) = events.next().await else { panic!("no gap") };
        if let EventKind::DefinitionsChanged { .. } = &event.kind {
            break serde_json::to_value(&event.kind).unwrap();
        }
    };
    let instance = &instances[0].id;
    assert_eq!(
        told,
        json!({"type": "definitions_changed", "instance": instance, "added": [], "removed": [], "changed": [], "prompts": true})
    );
}

#[tokio::test(start_paused = true)]
async fn history_is_written() {
    let subject = open().await;
    two(&subject, false).await;
    subject.registry.call(&call("a", "echo", json!({})), &CallOptions::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    for (kind, least) in
        [(EntryKind::Transition, 2), (EntryKind::Sample, 2), (EntryKind::Call, 1), (EntryKind::Audit, 1)]
    {
        let page = subject.registry.journal(&JournalQuery::of(kind)).await.unwrap();
        assert!(page.entries.len() >= least, "{kind:?}: {page:?}");
    }
    subject.registry.close().await;
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_tools_are_known_and_nothing_is_announced() {
    let sim = SimConnector::default();
    let backend = crate::store::Backend::of(crate::memory::MemoryStore::new());
    let build = || Machina::builder().connector(Arc::new(sim.clone())).backend(backend.clone());
    let first = build().open().await.unwrap();
    first.register(service("a", &[&sim.instance("one")])).await.unwrap();
    settle(&first, "a", Status::Healthy).await;
    let revision = first.view().revision();
    first.close().await;
    let second = build().without_monitor().open().await.unwrap();
    assert_eq!(second.view().revision(), revision);
    assert_eq!(second.get("a").unwrap().tools().len(), 2);
    assert_eq!(second.find_tools("echo", 1).await.unwrap().len(), 1);
    assert_eq!(second.watch().try_next(), None);
}

#[tokio::test(start_paused = true)]
async fn a_new_instance_keeps_its_identity_and_a_copied_one_gets_another() {
    let subject = open().await;
    let instance = subject.sim.instance("one");
    let ids = |view: &ServiceView| view.instances().map(|(instance, _)| instance.id).collect::<Vec<_>>();
    let first = subject.registry.register(service("a", &[&instance])).await.unwrap();
    assert_eq!(ids(&first), [instance.id]);
    let second = subject.registry.register(service("b", &[&instance, &instance])).await.unwrap();
    let [one, two] = ids(&second)[..] else { panic!("two instances") };
    assert!(one != two && ![one, two].contains(&instance.id));
    let mut record = serde_json::to_value(subject.registry.system().get("a").await.unwrap()).unwrap();
    record["name"] = json!("c");
    let third = subject.registry.register(ServiceSpec::from_value(record).unwrap()).await.unwrap();
    assert_ne!(ids(&third), [instance.id]);
}

#[tokio::test(start_paused = true)]
async fn concurrent_callers_share_one_connection() {
    let subject = open().await;
    let instance = subject.sim.instance("one");
    subject.sim.set_latency(&instance, Duration::from_secs(1));
    subject.registry.register(service("a", &[&instance])).await.unwrap();
    let started = Instant::now();
    let request = call("a", "echo", json!({}));
    let options = CallOptions::default();
    let calls = (0..50).map(|_| subject.registry.call(&request, &options));
    for outcome in futures_join(calls).await {
        outcome.unwrap();
    }
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
    assert_eq!(subject.sim.executions(&instance), 50);
}

/// Awaits futures together, in the order given.
async fn futures_join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|cx| {
        for (future, output) in &mut pending {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(cx)
            {
                *output = Some(ready);
            }
        }
        if pending.iter().all(|(_, output)| output.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    pending.into_iter().filter_map(|(_, output)| output).collect()
}

fn read(uri: &str) -> UpstreamRequest {
    UpstreamRequest { method: "resources/read".into(), params: Map::from_iter([("uri".into(), json!(uri))]) }
}

#[tokio::test(start_paused = true)]
async fn what_a_service_publishes_besides_tools_is_read_wherever_it_can_be() {
    let subject = open().await;
    let instances = two(&subject, false).await;
    subject.sim.set(&instances[0], Behaviour::LoseAnswers);
    let trace = Map::from_iter([("traceparent".into(), json!("00-1-2-01"))]);
    let options = CallOptions { meta: trace, ..CallOptions::default() };
    let reader = subject.registry.scoped(Principal::new("dev", Role::Developer));
    for _ in 0..20 {
        let read = reader.request("a", &read("file:///x"), &options).await.unwrap();
        assert_eq!((&read["params"]["uri"], &read["meta"]["traceparent"]), (&json!("file:///x"), &json!("00-1-2-01")));
    }
}

#[tokio::test(start_paused = true)]
async fn only_reading_is_passed_on_and_only_for_those_who_may_call() {
    let subject = open().await;
    two(&subject, false).await;
    let options = CallOptions::default();
    let other = UpstreamRequest { method: "tools/call".into(), params: Map::new() };
    let refused = subject.registry.system().request("a", &other, &options).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unsupported);
    let viewer = subject.registry.scoped(Principal::new("bob", Role::Viewer));
    let refused = viewer.request("a", &read("file:///x"), &options).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Forbidden);
    let missing = subject.registry.system().request("b", &read("file:///x"), &options).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::NotFound);
}
