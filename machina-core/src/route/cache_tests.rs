use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::*;
use crate::access::{Principal, Role};
use crate::error::ErrorKind;
use crate::health::Status;
use crate::machina::{Machina, Router as _};
use crate::memory::MemoryStore;
use crate::model::{Instance, ServiceSpec, TimeLimit};
use crate::scratch::{MemoryScratch, Scratch};
use crate::store::Backend;
use crate::testing::registry_suite::{call, service, settle};
use crate::testing::{SimConnector, add_tool, echo_tool};

const SECOND: Duration = Duration::from_secs(1);

/// A registry with a service `a`; the answers of its `echo` are to be kept for a minute.
struct Stage {
    machina: Machina,
    sim: SimConnector,
    instance: Instance,
}

impl Stage {
    async fn on(scratch: Option<Arc<dyn Scratch>>, change: impl FnOnce(&mut ServiceSpec)) -> Self {
        let sim = SimConnector::seeded(1);
        let instance = sim.instance("one");
        let mut spec = service("a", &[&instance]);
        spec.routing_policy.trust_annotations = Some(true);
        spec.routing_policy.cached_tools = [("echo".to_owned(), TimeLimit(SECOND * 60))].into();
        change(&mut spec);
        let backend = Backend { scratch, ..Backend::of(MemoryStore::new()) };
        let machina = Machina::builder().backend(backend).connector(Arc::new(sim.clone())).open().await.unwrap();
        machina.register(spec).await.unwrap();
        settle(&machina, "a", Status::Healthy).await;
        Self { machina, sim, instance }
    }

    async fn new() -> Self {
        Self::on(None, |_| {}).await
    }

    async fn echo(&self, text: &str) -> CallReport {
        self.echo_with(text, &CallOptions::default()).await
    }

    async fn echo_with(&self, text: &str, options: &CallOptions) -> CallReport {
        self.machina.call(&call("a", "echo", json!({"text": text})), options).await.unwrap()
    }

    fn executions(&self) -> u64 {
        self.sim.executions(&self.instance)
    }
}

#[tokio::test(start_paused = true)]
async fn the_same_question_is_asked_once() {
    let stage = Stage::new().await;
    let first = stage.echo("x").await;
    assert_eq!((first.age_ms, first.attempts.len(), stage.executions()), (None, 1, 1));
    tokio::time::sleep(SECOND).await;
    let again = stage.echo("x").await;
    assert_eq!((&again.result, again.instance), (&first.result, first.instance));
    assert!(again.age_ms.is_some() && again.attempts.is_empty(), "{again:?}");
    assert_eq!(stage.executions(), 1);
    let told = again.annotated();
    assert!(told.0["_meta"][CallReport::META_KEY]["age_ms"].is_u64(), "{told:?}");

    stage.echo("y").await;
    assert_eq!(stage.executions(), 2, "another question");
    let view = stage.machina.get("a").unwrap();
    assert_eq!(view.statistics().calls.count, 3, "each of them is a call");
    stage.machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_kept_for_its_time() {
    let stage = Stage::new().await;
    stage.echo("x").await;
    tokio::time::sleep(SECOND * 59).await;
    assert!(stage.echo("x").await.age_ms.is_some());
    tokio::time::sleep(SECOND * 2).await;
    assert!(stage.echo("x").await.age_ms.is_none());
    assert_eq!(stage.executions(), 2);
    stage.machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_order_of_the_arguments_makes_no_other_question() {
    let stage = Stage::new().await;
    let ask =
        async |arguments| stage.machina.call(&call("a", "echo", arguments), &CallOptions::default()).await.unwrap();
    let first = ask(json!({"text": "x", "b": 2})).await;
    let again = ask(json!({"b": 2, "text": "x"})).await;
    assert_eq!((first.age_ms, again.age_ms.is_some(), first.result == again.result), (None, true, true));
    stage.machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn only_what_is_listed_trusted_and_read_only_is_kept() {
    let unlisted: fn(&mut ServiceSpec) = |spec| spec.routing_policy.cached_tools.clear();
    let untrusted: fn(&mut ServiceSpec) = |spec| spec.routing_policy.trust_annotations = Some(false);
    for change in [unlisted, untrusted] {
        let stage = Stage::on(None, change).await;
        stage.echo("x").await;
        assert!(stage.echo("x").await.age_ms.is_none());
        stage.machina.close().await;
    }
    let stage = Stage::on(None, |spec| spec.routing_policy.idempotent_tools = vec!["echo".to_owned()]).await;
    let mut spec = stage.machina.get("a").unwrap().service().spec.clone();
    spec.routing_policy.pins = [("echo".to_owned(), "0".repeat(64))].into();
    stage.machina.update("a", spec, None).await.unwrap();
    stage.echo("x").await;
    assert!(stage.echo("x").await.age_ms.is_none(), "it is another tool than was pinned");
    stage.machina.close().await;
    let stage = Stage::new().await;
    let mut writes = echo_tool();
    writes["annotations"]["readOnlyHint"] = false.into();
    stage.sim.set_tools(&stage.instance, vec![writes]);
    listed_again(&stage).await;
    stage.echo("x").await;
    assert!(stage.echo("x").await.age_ms.is_none(), "repeating it is harmless, and yet it writes");
    stage.machina.close().await;
}

async fn listed_again(stage: &Stage) {
    let view = stage.machina.get("a").unwrap();
    view.instance(stage.instance.id).unwrap().1.cell.doubt_definitions();
    stage.machina.check("a").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_changed_tool_or_service_is_asked_anew() {
    let stage = Stage::new().await;
    stage.echo("x").await;
    let mut other = echo_tool();
    other["description"] = "Repeats the text, louder.".into();
    stage.sim.set_tools(&stage.instance, vec![other, add_tool()]);
    listed_again(&stage).await;
    assert!(stage.echo("x").await.age_ms.is_none(), "the tool is another one");
    assert!(stage.echo("x").await.age_ms.is_some());

    let mut spec = stage.machina.get("a").unwrap().service().spec.clone();
    spec.description = "Something else now.".to_owned();
    stage.machina.apply(vec![crate::write::Mutation::Put(spec)]).await.unwrap();
    assert!(stage.echo("x").await.age_ms.is_none(), "the service is another one");
    stage.machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn errors_and_long_answers_are_not_kept() {
    let kept = |spec: &mut ServiceSpec| {
        spec.routing_policy.cached_tools.insert("add".to_owned(), TimeLimit(SECOND));
    };
    let stage = Stage::on(None, kept).await;
    let mut reads = add_tool();
    reads["annotations"] = json!({"readOnlyHint": true});
    stage.sim.set_tools(&stage.instance, vec![reads, echo_tool()]);
    listed_again(&stage).await;
    let add =
        async |arguments| stage.machina.call(&call("a", "add", arguments), &CallOptions::default()).await.unwrap();
    for _ in 0..2 {
        let failed = add(json!({"fail": true})).await;
        assert!(failed.result.is_error() && failed.age_ms.is_none());
    }
    assert_eq!(stage.executions(), 2);
    add(json!({"amount": 1})).await;
    assert!(add(json!({"amount": 1})).await.age_ms.is_some(), "it is the error that is not kept");

    let long = "x".repeat(ANSWER_BYTES_MAX);
    stage.echo(&long).await;
    assert!(stage.echo(&long).await.age_ms.is_none());
    stage.machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn who_sees_other_services_gets_other_answers() {
    let stage = Stage::on(None, |spec| spec.tenant = Some("acme".to_owned())).await;
    let echo = call("a", "echo", json!({"text": "x"}));
    let ask = async |principal: Principal| {
        let scoped = stage.machina.scoped(principal);
        scoped.call(&echo, &CallOptions::default()).await.map(|report| report.age_ms.is_some())
    };
    let developer = |id: &str| Principal::new(id, Role::Developer);
    assert!(!ask(developer("all")).await.unwrap());
    assert!(ask(developer("another who sees all")).await.unwrap());
    assert!(!ask(developer("one").of_tenant("acme")).await.unwrap(), "of a tenant: its first question");
    assert!(ask(developer("two").of_tenant("acme")).await.unwrap());
    let hidden = ask(developer("three").of_tenant("other")).await.unwrap_err();
    assert_eq!(hidden.kind(), ErrorKind::NotFound, "what is kept is no way around what one may see");
    stage.machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_goes_along_can_make_it_another_question() {
    let stage = Stage::new().await;
    stage.echo("x").await;
    let with = |name: &str| CallOptions {
        meta: [(name.to_owned(), Value::from("00-1"))].into_iter().collect(),
        ..CallOptions::default()
    };
    assert!(stage.echo_with("x", &with("traceparent")).await.age_ms.is_some());
    assert!(stage.echo_with("x", &with("example.com/user")).await.age_ms.is_none());
    stage.machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn replicas_share_what_is_kept() {
    let shared: Arc<dyn Scratch> = Arc::new(MemoryScratch::new());
    let one = Stage::on(Some(Arc::clone(&shared)), |_| {}).await;
    let service = Arc::clone(one.machina.get("a").unwrap().service());
    one.echo("x").await;

    // A replica: the same service, at the same revision, in another process.
    let other = Recall::of(
        &one.machina.get("a").unwrap(),
        None,
        &call("a", "echo", json!({"text": "x"})),
        &CallOptions::default(),
    );
    let (other, scratches) = (other.unwrap(), Scratches::new(Some(Arc::clone(&shared))));
    let found = other.find(&scratches, Instant::now()).await.unwrap();
    assert!(found.age_ms.is_some() && scratches.own(&other.key).is_some(), "of {:?}", service.id);

    // What is no answer, or one from too long ago, is none.
    for odd in [&b"{}"[..], b"\xff", br#"{"at": 0, "instance": "01890a5d-ac96-774b-bcce-b302099a8057", "result": {}}"#]
    {
        let scratches = Scratches::new(Some(Arc::clone(&shared)));
        shared.put(&other.key, odd, SECOND).await;
        assert!(other.find(&scratches, Instant::now()).await.is_none());
    }
    one.machina.close().await;
}
