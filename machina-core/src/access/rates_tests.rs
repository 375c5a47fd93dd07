use std::sync::Arc;

use serde_json::json;

use crate::access::{Principal, Role};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Outcome};
use crate::health::Status;
use crate::machina::{Machina, Router as _};
use crate::model::ServiceSpec;
use crate::route::{CallOptions, UpstreamRequest};
use crate::testing::SimConnector;
use crate::testing::registry_suite::{call, service, settle};

async fn with(config: Config, change: impl FnOnce(&mut ServiceSpec)) -> Machina {
    let sim = SimConnector::seeded(1);
    let builder = Machina::builder().config(config).connector(Arc::new(sim.clone()));
    let machina = builder.open().await.unwrap();
    let mut spec = service("a", &[&sim.instance("one")]);
    change(&mut spec);
    machina.register(spec).await.unwrap();
    settle(&machina, "a", Status::Healthy).await;
    machina
}

async fn echo(machina: &Machina, principal: Principal) -> Result<(), Error> {
    let echo = call("a", "echo", json!({"text": "x"}));
    machina.scoped(principal).call(&echo, &CallOptions::default()).await.map(drop)
}

fn developer(id: &str) -> Principal {
    Principal::new(id, Role::Developer)
}

#[tokio::test(start_paused = true)]
async fn without_limits_any_number_of_calls_passes() {
    let machina = with(Config::default(), |_| {}).await;
    for _ in 0..500 {
        echo(&machina, developer("one")).await.unwrap();
    }
    machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn each_principal_has_so_many_calls() {
    let mut config = Config::default();
    (config.access.calls_per_minute, config.access.calls_burst) = (60, 3);
    let machina = with(config, |_| {}).await;
    for _ in 0..3 {
        echo(&machina, developer("one")).await.unwrap();
    }
    let error = echo(&machina, developer("one")).await.unwrap_err();
    let context = error.context();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert_eq!((context.outcome, context.attempts), (Some(Outcome::NotExecuted), Some(0)));
    assert_eq!(context.service.as_deref(), Some("a"));
    assert!(error.message().contains("`one` may make 60 calls a minute"), "{error}");
    let wait = context.retry_after_ms.unwrap();
    assert!((1..=1000).contains(&wait), "{wait} ms");

    echo(&machina, developer("two")).await.unwrap();
    echo(&machina, developer("one").of_tenant("acme")).await.unwrap_err();
    tokio::time::sleep(std::time::Duration::from_millis(wait + 1)).await;
    echo(&machina, developer("one")).await.unwrap();
    echo(&machina, developer("one")).await.unwrap_err();
    machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_service_takes_so_many_calls_of_all_together() {
    let limit = |spec: &mut ServiceSpec| {
        (spec.routing_policy.calls_per_minute, spec.routing_policy.calls_burst) = (Some(60), Some(2));
    };
    let machina = with(Config::default(), limit).await;
    echo(&machina, developer("one")).await.unwrap();
    echo(&machina, developer("two")).await.unwrap();
    let error = echo(&machina, developer("three")).await.unwrap_err();
    assert!(error.message().contains("`a` takes 60 calls a minute"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Overloaded);

    let read = UpstreamRequest { method: "resources/read".to_owned(), params: serde_json::Map::new() };
    let error = machina.scoped(developer("four")).request("a", &read, &CallOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded, "other requests count, too: {error}");
    machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_let_pass_leaves_no_trace_among_the_calls() {
    let limit = |spec: &mut ServiceSpec| {
        (spec.routing_policy.calls_per_minute, spec.routing_policy.calls_burst) = (Some(1), Some(1));
    };
    let machina = with(Config::default(), limit).await;
    echo(&machina, developer("one")).await.unwrap();
    for _ in 0..100 {
        echo(&machina, developer("one")).await.unwrap_err();
    }
    assert_eq!(machina.get("a").unwrap().statistics().calls.count, 1, "a flood is not to drown out what was done");
    machina.close().await;
}

#[test]
fn limits_out_of_range_are_named() {
    let mut config = Config::default();
    (config.access.calls_per_minute, config.access.calls_burst) = (1_000_001, 0);
    (config.routing.calls_per_minute, config.routing.calls_burst) = (1_000_001, 0);
    let error = config.validate().unwrap_err();
    let fields: Vec<_> = error.context().problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(
        fields,
        ["routing.calls_per_minute", "routing.calls_burst", "access.calls_per_minute", "access.calls_burst"]
    );
}
