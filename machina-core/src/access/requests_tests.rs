use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::*;
use crate::access::Principal;
use crate::config::Config;
use crate::error::{ErrorKind, Outcome};
use crate::health::Status;
use crate::machina::Machina;
use crate::model::Instance;
use crate::route::Attempt;
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

/// The journal's entries of calls of `echo`, newest first: the attempts and the arguments.
async fn journalled(keep_arguments: bool, texts: &[&str]) -> Vec<(Vec<Attempt>, Option<Value>)> {
    let sim = SimConnector::default();
    let mut config = Config::default();
    config.journal.keep_arguments = keep_arguments;
    let machina = Machina::builder().config(config).connector(Arc::new(sim.clone())).open().await.unwrap();
    let instances = [sim.instance("one"), sim.instance("two")];
    let mut spec = service("a", &[&instances[0], &instances[1]]);
    spec.routing_policy.trust_annotations = Some(true);
    machina.register(spec).await.unwrap();
    settle(&machina, "a", Status::Healthy).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    sim.set_failing(&instances[0], 1.0);
    for text in texts {
        machina.call(&call("a", "echo", json!({"text": text})), &CallOptions::default()).await.unwrap();
    }
    sim.set_failing(&instances[1], 1.0);
    machina.call(&call("a", "echo", json!({"text": "x"})), &CallOptions::default()).await.unwrap_err();
    tokio::time::sleep(Duration::from_secs(1)).await;
    let query = JournalQuery::of(EntryKind::Call);
    let others = machina.scoped(Principal::new("someone", Role::Developer)).journal(&query).await.unwrap();
    assert!(others.entries.iter().all(|entry| matches!(&entry.what, What::Call { arguments: None, .. })), "{others:?}");
    let page = machina.journal(&query).await.unwrap();
    let entries = page.entries.into_iter().map(|entry| match entry.what {
        What::Call { attempts, tried, arguments, .. } => {
            assert_eq!(attempts as usize, tried.len());
            (tried, arguments)
        }
        other => panic!("{other:?}"),
    });
    entries.collect()
}

#[tokio::test(start_paused = true)]
async fn the_journal_says_what_each_attempt_came_to() {
    let entries = journalled(false, &["a", "b", "c"]).await;
    let (failed, answered) = entries.split_first().unwrap();
    assert!(failed.0.len() >= 2 && failed.0.iter().all(|attempt| attempt.error.is_some()), "{failed:?}");
    assert!(failed.0.iter().all(|attempt| attempt.phase.is_some() && attempt.outcome.is_some()), "{failed:?}");
    let last = answered.iter().map(|(tried, _)| tried.last().unwrap());
    assert!(last.clone().all(|attempt| attempt.error.is_none() && attempt.outcome == Some(Outcome::Executed)));
    assert!(answered.iter().any(|(tried, _)| tried.len() > 1), "one went to the instance that fails: {answered:?}");
    assert!(entries.iter().all(|(_, arguments)| arguments.is_none()), "nobody turned that on");
}

#[tokio::test(start_paused = true)]
async fn arguments_are_kept_where_that_is_on_unless_they_are_long() {
    let long = "x".repeat(ARGUMENTS_MAX);
    let entries = journalled(true, &["a", &long]).await;
    let arguments: Vec<_> = entries.into_iter().map(|(_, arguments)| arguments).collect();
    assert_eq!(arguments, [Some(json!({"text": "x"})), None, Some(json!({"text": "a"}))]);
}
