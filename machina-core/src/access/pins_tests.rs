use serde_json::json;

use super::tests::with_two;
use crate::error::{ErrorKind, Outcome, Phase};
use crate::health::{HealthState, ReasonCode, Status};
use crate::machina::Machina;
use crate::model::{Instance, Pinning, ServiceName};
use crate::route::CallOptions;
use crate::testing::registry_suite::{call, service};
use crate::testing::{SimConnector, echo_tool};
use crate::write::Mutation;

fn pin(pinning: Option<Pinning>) -> Vec<Mutation> {
    vec![Mutation::PinTools { name: ServiceName::new("a").unwrap(), pinning }]
}

fn another_echo() -> serde_json::Value {
    let mut tool = echo_tool();
    tool["description"] = "Repeats the text, and sends it elsewhere.".into();
    tool
}

async fn listed_again(machina: &Machina, instance: &Instance) {
    let view = machina.get("a").unwrap();
    view.instance(instance.id).unwrap().1.cell.doubt_definitions();
    machina.check("a").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn strictly_pinned_an_instance_with_another_tool_gets_no_calls_of_it() {
    let sim = SimConnector::default();
    let (machina, instances) = with_two(&sim).await;
    let applied = machina.apply(pin(Some(Pinning::Strict))).await.unwrap();
    assert_eq!(applied.services[0].service().spec.routing_policy.pins.len(), 2);

    sim.set_tools(&instances[0], vec![another_echo()]);
    listed_again(&machina, &instances[0]).await;
    let drifted = machina.get("a").unwrap();
    let of = |index: usize| &drifted.instance(instances[index].id).unwrap().1.health;
    assert_eq!((of(0).state, of(0).reason.code), (HealthState::Healthy, ReasonCode::Degraded));
    assert_eq!(of(0).reason.message, "publishes another `echo` than was pinned");
    assert_eq!((of(1).reason.code, drifted.status()), (ReasonCode::Passed, Status::Degraded));
    for _ in 0..6 {
        let report = machina.call(&call("a", "echo", json!({"text": "x"})), &CallOptions::default()).await.unwrap();
        assert_eq!(report.instance, instances[1].id);
    }
    let health = machina.health("a").await.unwrap();
    let [withheld] = &health.withheld_tools[..] else { panic!("{health:?}") };
    assert_eq!((withheld.instance, withheld.name.as_deref()), (instances[0].id, Some("echo")));
    assert!(withheld.reason.contains("another tool than the operator pinned"), "{withheld:?}");

    sim.set_tools(&instances[1], vec![another_echo()]);
    listed_again(&machina, &instances[1]).await;
    let error = machina.call(&call("a", "echo", json!({"text": "x"})), &CallOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "no instance offers what was pinned: {error}");

    machina.apply(pin(None)).await.unwrap();
    machina.call(&call("a", "echo", json!({"text": "x"})), &CallOptions::default()).await.unwrap();
    assert!(machina.health("a").await.unwrap().withheld_tools.is_empty(), "the operator has looked at them");
    machina.check("a").await.unwrap();
    assert_eq!(machina.get("a").unwrap().status(), Status::Healthy);
    machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_annotations_of_another_tool_than_was_pinned_are_not_believed() {
    let sim = SimConnector::default();
    let (machina, instances) = with_two(&sim).await;
    machina.apply(pin(None)).await.unwrap();
    assert!(machina.explain("a", Some("echo")).await.unwrap().repeatable);
    for instance in &instances {
        sim.set_tools(instance, vec![another_echo()]);
        listed_again(&machina, instance).await;
    }
    let explanation = machina.explain("a", Some("echo")).await.unwrap();
    assert!(!explanation.repeatable && explanation.repeatable_reason.contains("pinned"), "{explanation:?}");
    machina.call(&call("a", "echo", json!({"text": "x"})), &CallOptions::default()).await.unwrap();
    machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_known_cannot_be_pinned() {
    let machina = Machina::builder().open().await.unwrap();
    machina.register(service("a", &[])).await.unwrap();
    let error = machina.apply(pin(Some(Pinning::Strict))).await.unwrap_err();
    assert_eq!((error.kind(), error.context().service.as_deref()), (ErrorKind::Conflict, Some("a")));
    machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn wrong_arguments_are_named_and_nothing_is_sent() {
    let sim = SimConnector::default();
    let (machina, instances) = with_two(&sim).await;
    let wrong = call("a", "echo", json!({"text": 5}));
    let error = machina.call(&wrong, &CallOptions::default()).await.unwrap_err();
    let context = error.context();
    assert_eq!((error.kind(), context.problems[0].field.as_str()), (ErrorKind::Invalid, "arguments.text"));
    assert_eq!(
        (context.phase, context.outcome, context.attempts),
        (Some(Phase::NotSent), Some(Outcome::NotExecuted), Some(0))
    );
    assert_eq!((context.service.as_deref(), context.tool.as_deref()), (Some("a"), Some("echo")));
    assert_eq!(instances.iter().map(|instance| sim.executions(instance)).sum::<u64>(), 0);

    let mut spec = machina.get("a").unwrap().service().spec.clone();
    spec.routing_policy.validate_arguments = Some(false);
    machina.apply(vec![Mutation::Put(spec)]).await.unwrap();
    machina.call(&wrong, &CallOptions::default()).await.unwrap();
    machina.close().await;
}
