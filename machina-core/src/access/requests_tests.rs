use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::error::{ErrorKind, Outcome};
use crate::health::Status;
use crate::machina::Machina;
use crate::model::Instance;
use crate::store::{EntryKind, JournalQuery};
use crate::testing::registry_suite::{call, service, settle};
use crate::testing::{Behaviour, SimConnector};

/// A service `a` with two instances whose annotations are trusted.
pub(super) async fn with_two(sim: &SimConnector) -> (Machina, [Instance; 2]) {
    let machina = Machina::builder().connector(Arc::new(sim.clone())).open().await.unwrap();
    let instances = [sim.instance("one"), sim.instance("two")];
    let mut spec = service("a", &[&instances[0], &instances[1]]);
    spec.routing_policy.trust_annotations = Some(true);
    machina.register(spec).await.unwrap();
    settle(&machina, "a", Status::Healthy).await;
    (machina, instances)
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_no_result_is_a_failed_call_and_never_repeated() {
    let sim = SimConnector::default();
    let (machina, instances) = with_two(&sim).await;
    instances.iter().for_each(|instance| sim.set(instance, Behaviour::AsksForInput));

    let echo = call("a", "echo", json!({"text": "x"}));
    let error = machina.call(&echo, &CallOptions::default()).await.unwrap_err();
    let context = error.context();
    assert_eq!(
        (error.kind(), context.outcome, context.attempts),
        (ErrorKind::Rejected, Some(Outcome::Unknown), Some(1))
    );
    assert_eq!((context.service.as_deref(), context.tool.as_deref()), (Some("a"), Some("echo")));
    assert!(error.message().contains("asks for input"), "{error}");
    assert_eq!(instances.iter().map(|instance| sim.executions(instance)).sum::<u64>(), 1);

    let view = machina.get("a").unwrap();
    assert_eq!(view.statistics().calls.errors_by_kind["rejected"], 1);
    assert_eq!(view.status(), Status::Healthy, "it answered");
    tokio::time::sleep(Duration::from_secs(1)).await;
    let page = machina.journal(&JournalQuery::of(EntryKind::Call)).await.unwrap();
    let What::Call { success, error, .. } = &page.entries[0].what else { panic!("{page:?}") };
    assert_eq!((*success, error.as_deref()), (false, Some("rejected")));
    assert_eq!(page.entries[0].instance.map(|id| id.to_string()), context.instance, "the last one tried");
    machina.close().await;
}
