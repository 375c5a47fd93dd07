//! Limits on calls, and answers that are kept, as they look over REST.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use axum::Router;
use machina_core::testing::registry_suite::{call, settle};
use machina_core::{CallOptions, Config, ErrorKind, Router as _, Status};
use machina_http::ServerConfig;
use serde_json::{Value, json};

use support::Server;

async fn with_clock(config: Config, policy: Value) -> Server {
    let server = Server::with(ServerConfig::default(), config, Router::new()).await;
    let instance = server.sim.instance("one");
    server.register(json!({"name": "clock", "instances": [instance], "routing_policy": policy})).await;
    settle(&server.machina, "clock", Status::Healthy).await;
    server
}

const CALL: &str = "/api/v1/services/clock/call";

fn echo(text: &str) -> Value {
    json!({"tool": "echo", "arguments": {"text": text}})
}

#[tokio::test]
async fn who_calls_too_often_is_told_when_to_come_again() {
    let mut config = Config::default();
    (config.access.calls_per_minute, config.access.calls_burst) = (20, 2);
    let server = with_clock(config, json!({})).await;
    for _ in 0..2 {
        assert_eq!(server.post(CALL, echo("x")).await.status, 200);
    }
    let refused = server.post(CALL, echo("x")).await;
    assert_eq!((refused.status, &refused.body["code"]), (429, &json!("overloaded")), "{}", refused.text);
    assert_eq!(refused.body["outcome"], "not_executed");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((1..=3).contains(&wait), "{wait}");
    assert_eq!(server.get("/api/v1/services/clock").await.status, 200, "only calls are counted");

    let error = server.client().call(&call("clock", "echo", json!({})), &CallOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(error.context().retry_after_ms.is_some(), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_was_kept_says_so() {
    let policy = json!({"trust_annotations": true, "cached_tools": {"echo": "1m"}});
    let server = with_clock(Config::default(), policy).await;
    let first = server.post(CALL, echo("x")).await;
    let again = server.post(CALL, echo("x")).await;
    let how = |answer: &support::Answer| answer.body["_meta"]["dev.machina/call"].clone();
    assert_eq!((first.status, again.status), (200, 200), "{}", again.text);
    assert!(how(&first).get("age_ms").is_none() && how(&again)["age_ms"].is_u64(), "{}", again.text);
    assert_eq!((&how(&again)["attempts"], &how(&again)["tried"]), (&json!(0), &json!([])));
    assert_eq!(first.body["content"], again.body["content"]);

    let asked = call("clock", "echo", json!({"text": "x"}));
    let report = server.client().call(&asked, &CallOptions::default()).await.unwrap();
    assert!(report.age_ms.is_some() && report.attempts.is_empty(), "{report:?}");
}

#[tokio::test]
async fn what_is_out_of_range_is_named() {
    let server = Server::start().await;
    let policy = json!({"calls_per_minute": 1_000_001, "calls_burst": 0, "cached_tools": {"echo": "25h"}});
    let refused = server.post("/api/v1/services", json!({"name": "a", "routing_policy": policy})).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    for field in ["calls_per_minute", "calls_burst", "cached_tools/echo"] {
        let pointer = format!("#/routing_policy/{field}");
        let errors = refused.body["errors"].as_array().unwrap();
        assert!(errors.iter().any(|error| error["pointer"] == pointer), "{pointer}: {}", refused.text);
    }
}
