//! Child processes as they should be, in both eras.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::stdio_support::*;
use machina_core::{CallContext, Connector, Era, ErrorKind, Notice, Outcome, Phase, StdioEndpoint};
use machina_mcp::client::{Environment, StdioConfig, StdioConnector};
use serde_json::{Map, Value, json};
use tokio::time::{Instant, sleep, timeout};

#[tokio::test]
async fn lists_what_the_server_publishes_and_keeps_it_word_for_word() {
    let session = connect(&["legacy"]).await;
    let definitions = session.definitions().await.unwrap();
    assert_eq!(definitions.protocol_version, "2025-11-25");
    assert_eq!(definitions.instructions.as_deref(), Some("be kind"));
    assert_eq!(definitions.server_info["name"], "fixture");
    let names: Vec<_> = definitions.tools.iter().map(|tool| tool.name().as_str()).collect();
    assert_eq!(names, ["echo", "sleep"]);
    assert_eq!(definitions.tools[0].definition()["x-unknown"].to_string(), r#"{"z":1,"a":2}"#);
    assert_eq!(definitions.rejected[0].name.as_deref(), Some("broken"));
    assert_eq!(definitions.prompts, [json!({"name": "greet", "x-more": true})]);
    assert!(definitions.resources.is_empty(), "advertised, but answered with an error");
    session.close().await;
}

#[tokio::test]
async fn results_are_passed_on_word_for_word_and_errors_told_apart() {
    let session = connect(&["legacy"]).await;
    let context = within();
    let result = session.call("echo", &object(json!({"b": 1, "a": 2})), &context).await.unwrap();
    assert!((60..160).contains(&context.carried.sent()), "{:?}", context.carried);
    assert!((90..250).contains(&context.carried.received()), "{:?}", context.carried);
    assert_eq!(result.text(), r#"{"b": 1, "a": 2}"#);
    let keys: Vec<_> = result.0.keys().map(String::as_str).collect();
    assert_eq!(keys, ["content", "zz", "aa"]);
    assert_eq!(result.0["aa"].to_string(), r#"{"y":1,"b":2}"#);
    let failed = session.call("fail", &Map::new(), &within()).await.unwrap();
    assert!(failed.is_error(), "a tool that says it failed has answered");
    let error = session.call("no_such_tool", &Map::new(), &within()).await.unwrap_err();
    assert_eq!((error.kind(), error.context().phase), (ErrorKind::Rejected, Some(Phase::Answered)));
    assert_eq!(error.context().upstream_code, Some(-32602));
    let error = session.request("no/such", json!({}), &within()).await.unwrap_err();
    assert_eq!(error.context().upstream_code, Some(-32601));
    let prompt = session.request("prompts/get", json!({"name": "greet"}), &within()).await.unwrap();
    assert_eq!(prompt, json!({"messages": [], "for": "greet"}));
    session.probe(Duration::from_secs(5)).await.unwrap();
    session.close().await;
}

#[tokio::test]
async fn the_era_is_found_out_and_reported() {
    for (args, era, version) in [
        (&["legacy"][..], None, "2025-11-25"),
        (&["modern"], None, "2026-07-28"),
        (&["both"], None, "2026-07-28"),
        (&["both"], Some(Era::Legacy), "2025-11-25"),
        (&["legacy"], Some(Era::Modern), "2025-11-25"),
        (&["modern"], Some(Era::Legacy), "2026-07-28"),
        (&["legacy", "junk"], None, "2025-11-25"),
        (&["legacy", "exit_on_discover"], None, "2025-11-25"),
        (&["legacy", "slow_start"], None, "2025-11-25"),
        (&["both", "slow_start"], None, "2025-11-25"),
        (&["modern", "slow_start"], None, "2026-07-28"),
    ] {
        // Only who starts slowly is to be silent for longer than the question may stay unanswered.
        let discover_timeout = Duration::from_secs(if args.contains(&"slow_start") { 1 } else { 10 });
        let connector = StdioConnector::new(StdioConfig { discover_timeout, ..config() }, environment());
        let session = connector.connect(&target(endpoint(args), era)).await;
        let session = session.unwrap_or_else(|error| panic!("{args:?}: {error:?}"));
        assert_eq!(session.protocol_version(), version, "{args:?} {era:?}");
        session.probe(Duration::from_secs(5)).await.unwrap();
        assert_eq!(call(&session, "echo", json!({"n": 1})).await.unwrap(), r#"{"n": 1}"#);
        session.close().await;
    }
}

#[tokio::test]
async fn requests_of_the_stateless_era_carry_their_context() {
    let session = connect_to(endpoint(&["modern"]), Some(Era::Modern)).await.unwrap();
    let meta = call(&session, "meta", json!({})).await.unwrap();
    assert!(meta.contains(r#""io.modelcontextprotocol/protocolVersion": "2026-07-28""#), "{meta}");
    assert!(meta.contains(r#""name": "machina""#), "{meta}");
    session.close().await;
}

#[tokio::test]
async fn changes_of_the_lists_are_noticed_in_both_eras() {
    for era in ["legacy", "modern"] {
        let session = connect_to(endpoint(&[era]), None).await.unwrap();
        // The subscription of the stateless era is made in the background.
        sleep(Duration::from_millis(300)).await;
        call(&session, "grow", json!({})).await.unwrap();
        let notice = timeout(Duration::from_secs(5), session.notice()).await.expect("a notice");
        assert!(matches!(notice, Notice::DefinitionsChanged), "{era}");
        assert!(session.definitions().await.unwrap().tool("grown0").is_some());
        session.close().await;
    }
}

#[tokio::test]
async fn requests_of_the_server_are_answered_truthfully() {
    let session = connect(&["legacy"]).await;
    let replies: Value = serde_json::from_str(&call(&session, "ask", json!({})).await.unwrap()).unwrap();
    assert_eq!(replies, json!({"ask-0": {"roots": []}, "ask-1": {}, "ask-2": -32601, "ask-3": -32601}));
    session.close().await;
}

#[tokio::test]
async fn progress_is_passed_on_and_extends_the_idle_limit_but_not_the_deadline() {
    let session = connect(&["legacy"]).await;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let sink = seen.clone();
    let mut context = CallContext::within(Duration::from_secs(20));
    context.idle_timeout = Some(Duration::from_secs(3));
    context.progress = Some(Arc::new(move |progress| sink.lock().unwrap().push(progress)));
    let arguments = object(json!({"seconds": 5.0, "steps": 5}));
    assert_eq!(session.call("sleep", &arguments, &context).await.unwrap().text(), "slept");
    let steps: Vec<_> = seen.lock().unwrap().iter().map(|p| (p.progress, p.total)).collect();
    assert_eq!(steps, [1.0, 2.0, 3.0, 4.0, 5.0].map(|n| (n, Some(5.0))));

    context.deadline = Instant::now() + Duration::from_secs(3);
    let error = session.call("sleep", &arguments, &context).await.unwrap_err();
    assert_eq!((error.kind(), error.context().phase), (ErrorKind::Timeout, Some(Phase::Committed)));
    context.deadline = Instant::now() + Duration::from_secs(20);
    let error = session.call("sleep", &object(json!({"seconds": 30})), &context).await.unwrap_err();
    assert_eq!((error.kind(), error.context().phase), (ErrorKind::Timeout, Some(Phase::MaybeExecuted)));
    assert!(error.message().contains("progress"), "{error}");
    session.close().await;
}

#[tokio::test]
async fn a_log_reaches_whoever_wants_it_and_is_asked_for_once_a_session() {
    for (era, asked) in [("legacy", r#"["debug"]"#), ("modern", r#"["debug", "error"]"#)] {
        let endpoint = endpoint(&[era]).env("TOKEN", "hunter2-hunter2");
        let session = connect_to(endpoint, None).await.unwrap();
        assert_eq!(call(&session, "log", json!({})).await.unwrap(), "[]", "nobody wants to hear of it");
        let told = Arc::new(Mutex::new(Vec::new()));
        let sink = told.clone();
        let mut context = within();
        context.log = Some(Arc::new(move |params| sink.lock().unwrap().push(params)));
        session.call("log", &Map::new(), &context).await.unwrap();
        context.meta.insert(machina_core::LOG_LEVEL.to_owned(), json!("error"));
        assert_eq!(session.call("log", &Map::new(), &context).await.unwrap().text(), asked, "{era}");
        call(&session, "log", json!({})).await.unwrap();
        let told: Vec<_> = told.lock().unwrap().iter().map(ToString::to_string).collect();
        let line = |n| format!(r#"{{"level":"info","data":[{n},"********"],"x-more":true}}"#);
        assert_eq!(told, [0, 1, 2, 0, 1, 2].map(line), "{era}: in order, and without secrets");
        session.close().await;
    }
}

#[tokio::test]
async fn a_server_that_does_not_log_is_not_asked_to() {
    let session = connect(&["legacy", "no_logging"]).await;
    let mut context = within();
    context.log = Some(Arc::new(|params| panic!("{params}")));
    assert_eq!(session.call("log", &Map::new(), &context).await.unwrap().text(), "[]");
    session.close().await;
}

#[tokio::test]
async fn what_an_error_adds_reaches_the_caller_without_secrets() {
    let endpoint = endpoint(&["legacy"]).env("TOKEN", "hunter2-hunter2");
    let session = connect_to(endpoint, Some(Era::Legacy)).await.unwrap();
    let error = call(&session, "lacking", json!({})).await.unwrap_err();
    let context = error.context();
    assert_eq!((error.kind(), context.upstream_code), (ErrorKind::Rejected, Some(-32021)));
    let data = json!({"requiredCapabilities": {"sampling": {}}, "token": "********"});
    assert_eq!(context.upstream_data, Some(data));
    let error = call(&session, "no such tool", json!({})).await.unwrap_err();
    assert_eq!(error.context().upstream_data, None);
    session.close().await;
}

#[tokio::test]
async fn whoever_stops_waiting_cancels_upstream() {
    let session = connect(&["legacy"]).await;
    let long = object(json!({"seconds": 30}));
    let short = CallContext::within(Duration::from_millis(200));
    let error = session.call("sleep", &long, &short).await.unwrap_err();
    assert_eq!((error.kind(), error.context().outcome), (ErrorKind::Timeout, Some(Outcome::Unknown)));

    let context = within();
    context.cancelled.cancel();
    sleep(Duration::from_millis(50)).await;
    assert!(session.call("sleep", &long, &context).await.is_err());
    let context = within();
    let cancelled = context.cancelled.clone();
    let (result, ()) = tokio::join!(session.call("sleep", &long, &context), async {
        sleep(Duration::from_millis(100)).await;
        cancelled.cancel();
    });
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Lost);
    assert!(timeout(Duration::from_millis(100), session.call("sleep", &long, &within())).await.is_err());
    sleep(Duration::from_millis(100)).await;
    let seen: Vec<u64> = serde_json::from_str(&call(&session, "cancelled", json!({})).await.unwrap()).unwrap();
    assert!((3..=4).contains(&seen.len()), "{seen:?}");
    session.close().await;
}

#[tokio::test]
async fn a_child_sees_only_its_own_environment() {
    let variables = ["PATH", "HOME"].map(|name| (name.to_owned(), environment().get(name).unwrap().to_owned()));
    let secret = ("AWS_SECRET_ACCESS_KEY".to_owned(), "not for children".to_owned());
    let environment = Environment::new(variables.into_iter().chain([secret]));
    let mut target = target(endpoint(&[]).env("OWN", "${HOME}/own").env("BOTH", "instance"), Some(Era::Legacy));
    target.env.insert("BOTH".into(), machina_core::Sensitive::secret("service"));
    target.env.insert("SHARED".into(), machina_core::Sensitive::secret("yes"));
    let session = StdioConnector::new(config(), environment.clone()).connect(&target).await.unwrap();
    let env: BTreeMap<String, String> = serde_json::from_str(&call(&session, "env", json!({})).await.unwrap()).unwrap();
    assert_eq!(env["OWN"], format!("{}/own", environment.get("HOME").unwrap()));
    assert_eq!((env["BOTH"].as_str(), env["SHARED"].as_str()), ("instance", "yes"));
    assert!(!env.contains_key("AWS_SECRET_ACCESS_KEY"));
    session.close().await;
}

#[tokio::test]
async fn the_working_directory_is_the_declared_one() {
    let endpoint = StdioEndpoint { cwd: Some("/usr".into()), ..endpoint(&[]) };
    let session = connect_to(endpoint, Some(Era::Legacy)).await.unwrap();
    assert_eq!(call(&session, "cwd", json!({})).await.unwrap(), "/usr");
    session.close().await;
}
