//! `Idempotency-Key` over HTTP: what was done once is answered again, and not done.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use machina_core::testing::registry_suite::settle;
use machina_core::testing::{Behaviour, SimConnector};
use machina_core::{Instance, Machina, Status, Tasks};
use machina_http::{ServerConfig, router, serve};
use serde_json::json;
use support::{Answer, Server};
use tokio::net::TcpListener;
use tokio::time::{sleep, timeout};

const KEY: &str = "idempotency-key";
const CALL: &str = "/api/v1/services/clock/tools/add/call";

/// How long what must come may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until the instance has executed more calls than `before`.
async fn executes(sim: &SimConnector, instance: &Instance, before: u64) {
    let executes = async {
        while sim.executions(instance) <= before {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, executes).await.expect("the call comes to the instance");
}

/// Asserts that `again` is the answer `first` once more.
fn assert_replayed(first: &Answer, again: &Answer) {
    assert_eq!((first.header("idempotency-replayed"), again.header("idempotency-replayed")), ("", "true"));
    assert_eq!((first.status, &first.text), (again.status, &again.text));
    for name in ["content-type", "etag", "location", "x-machina-revision", "cache-control"] {
        assert_eq!(first.header(name), again.header(name), "{name}");
    }
    assert_ne!(first.header("x-request-id"), again.header("x-request-id"), "it is another request");
}

#[tokio::test]
async fn what_was_created_is_created_once() {
    let (server, _) = Server::with_clock(["one"]).await;
    let bulk = json!({"mutations": [{"register": {"name": "b"}}]}).to_string();
    for (path, body) in [
        ("/api/v1/services", r#"{"name": "a"}"#),
        ("/api/v1/services:bulk", &bulk),
        ("/api/v1/groups", r#"{"name": "g"}"#),
        ("/api/v1/services/clock/instances", r#"{"http": {"url": "http://two.sim/mcp"}}"#),
    ] {
        let key = [(KEY, path)];
        let first = server.send("POST", path, &key, Some(body)).await;
        assert!(matches!(first.status, 200 | 201), "{path}: {}", first.text);
        let revision = server.machina.view().revision();
        let spaced = format!(" {body} ");
        assert_replayed(&first, &server.send("POST", path, &key, Some(&spaced)).await);
        assert_eq!(server.machina.view().revision(), revision, "{path} was done twice");
    }
    assert_eq!(server.machina.get("clock").unwrap().service().spec.instances.len(), 2);
}

#[tokio::test]
async fn a_call_is_executed_once() {
    let (server, [instance]) = Server::with_clock(["one"]).await;
    let first = server.send("POST", CALL, &[(KEY, "\"k\"")], Some(r#"{"arguments": {"amount": 1}}"#)).await;
    assert_eq!(first.status, 200, "{}", first.text);
    let again = server.send("POST", CALL, &[(KEY, "k")], Some(r#"{"arguments": {"amount": 1}}"#)).await;
    assert_replayed(&first, &again);
    assert_eq!(server.sim.executions(&instance), 1);
    let body = json!({"tool": "add", "idempotency_key": "in body"});
    let first = server.post("/api/v1/services/clock/call", body.clone()).await;
    assert_replayed(&first, &server.post("/api/v1/services/clock/call", body).await);
    assert_eq!(server.sim.executions(&instance), 2);
    let without = server.post(CALL, json!({"arguments": {"amount": 1}})).await;
    assert_eq!((without.status, server.sim.executions(&instance)), (200, 3));
}

#[tokio::test]
async fn another_request_with_the_key_is_refused() {
    let (server, [instance]) = Server::with_clock(["one"]).await;
    server.send("POST", CALL, &[(KEY, "k")], Some(r#"{"arguments": {"amount": 1}}"#)).await;
    for (path, body) in [
        (CALL, r#"{"arguments": {"amount": 2}}"#),
        ("/api/v1/services/clock/tools/echo/call", r#"{"arguments": {"amount": 1}}"#),
        ("/api/v1/groups", r#"{"name": "g"}"#),
    ] {
        let other = server.send("POST", path, &[(KEY, "k")], Some(body)).await;
        other.assert_problem(path, 422, "invalid");
        assert_eq!(other.field(), KEY);
    }
    let in_body = server.post(CALL, json!({"idempotency_key": "k"})).await;
    in_body.assert_problem("in the body", 422, "invalid");
    assert_eq!(in_body.field(), "#/idempotency_key");
    assert_eq!(server.sim.executions(&instance), 1);
    let long = "k".repeat(256);
    let malformed = server.send("POST", "/api/v1/groups", &[(KEY, &long)], Some(r#"{"name": "g"}"#)).await;
    malformed.assert_problem("too long", 422, "invalid");
    assert_eq!(malformed.field(), KEY);
    assert!(server.machina.system().groups().is_empty());
}

#[tokio::test]
async fn who_asks_while_it_is_done_is_told_to_wait() {
    let (server, [instance]) = Server::with_clock(["one"]).await;
    server.sim.set_latency(&instance, Duration::from_secs(2));
    let call = || server.send("POST", CALL, &[(KEY, "k")], Some("{}"));
    let later = async {
        executes(&server.sim, &instance, 0).await;
        call().await
    };
    let (first, meanwhile) = tokio::join!(call(), later);
    meanwhile.assert_problem("meanwhile", 409, "conflict");
    assert_eq!(meanwhile.header("retry-after"), "1");
    assert_replayed(&first, &call().await);
    assert_eq!(server.sim.executions(&instance), 1);
}

#[tokio::test]
async fn who_went_away_finds_the_answer() {
    let (server, [instance]) = Server::with_clock(["one"]).await;
    server.sim.set_latency(&instance, Duration::from_secs(1));
    let call = || server.send("POST", CALL, &[(KEY, "k")], Some("{}"));
    tokio::select! {
        answer = call() => panic!("nobody went away: {answer:?}"),
        () = executes(&server.sim, &instance, 0) => {}
    }
    let answered = async {
        loop {
            let answer = call().await;
            if answer.status != 409 {
                return answer;
            }
            sleep(Duration::from_millis(50)).await;
        }
    };
    let answer = timeout(PATIENCE, answered).await.expect("it is done at some time");
    assert_eq!((answer.status, answer.header("idempotency-replayed")), (200, "true"), "{}", answer.text);
    assert_eq!(server.sim.executions(&instance), 1);
}

#[tokio::test]
async fn errors_are_remembered_unless_nothing_was_done() {
    let cases = [
        (Behaviour::LoseAnswers, 502, true),
        (Behaviour::Reject, 502, true),
        (Behaviour::Refuse, 502, false),
        (Behaviour::Busy, 429, false),
    ];
    for (behaviour, status, remembered) in cases {
        let (server, [instance]) = Server::with_clock(["one"]).await;
        server.sim.set(&instance, behaviour);
        let first = server.send("POST", CALL, &[(KEY, "k")], Some("{}")).await;
        assert_eq!(first.status, status, "{behaviour:?}: {}", first.text);
        let executions = server.sim.executions(&instance);
        server.sim.set(&instance, Behaviour::Up);
        server.machina.check("clock").await.unwrap();
        let again = server.send("POST", CALL, &[(KEY, "k")], Some("{}")).await;
        if remembered {
            assert_replayed(&first, &again);
            assert_eq!(server.sim.executions(&instance), executions, "{behaviour:?}");
        } else {
            assert_eq!((again.status, again.header("idempotency-replayed")), (200, ""), "{behaviour:?}");
        }
    }
    let (server, _) = Server::with_clock(["one"]).await;
    let wrong = server.send("POST", "/api/v1/services", &[(KEY, "w")], Some(r#"{"name": "A B"}"#)).await;
    wrong.assert_problem("wrong", 422, "invalid");
    assert_replayed(&wrong, &server.send("POST", "/api/v1/services", &[(KEY, "w")], Some(r#"{"name": "A B"}"#)).await);
}

/// A server on the store at `url`, and what ends it.
async fn on_store(url: &str, sim: &SimConnector) -> (String, Machina, Tasks) {
    let backend = machina_store::open(url).await.unwrap();
    let machina = Machina::builder().backend(backend).connector(Arc::new(sim.clone())).open().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let (tasks, router) = (Tasks::new(), router(machina.clone(), &ServerConfig::default()));
    drop(tasks.spawn("serve", async move {
        serve(listener, router, &ServerConfig::default(), std::future::pending()).await.unwrap()
    }));
    (address, machina, tasks)
}

/// Calls with `key`: the status, whether the answer was given before, the body.
async fn call(address: &str, key: &str) -> (u16, bool, String) {
    let request = reqwest::Client::new().post(format!("{address}{CALL}")).json(&json!({})).header(KEY, key);
    let response = request.send().await.unwrap();
    let replayed = response.headers().contains_key("idempotency-replayed");
    (response.status().as_u16(), replayed, response.text().await.unwrap())
}

/// Calls with the key `done`, and with the key `begun` without waiting for the
/// end; returns the answer to the first.
async fn done_and_begun(address: &str, machina: &Machina, sim: &SimConnector, instance: &Instance) -> String {
    let spec = json!({"name": "clock", "instances": [instance]});
    machina.register(machina_core::ServiceSpec::from_value(spec).unwrap()).await.unwrap();
    settle(machina, "clock", Status::Healthy).await;
    let (status, replayed, text) = call(address, "done").await;
    assert_eq!((status, replayed), (200, false), "{text}");
    sim.set_latency(instance, Duration::from_secs(20));
    let before = sim.executions(instance);
    tokio::select! {
        answer = call(address, "begun") => panic!("it was not cut off: {answer:?}"),
        () = executes(sim, instance, before) => {}
    }
    text
}

/// Asserts that a server on the store remembers both, and does nothing again;
/// returns the answer to the request that was begun.
async fn remembered(store: &str, sim: &SimConnector, instance: &Instance, done: String) -> (u16, bool, String) {
    sim.set_latency(instance, Duration::from_millis(1));
    let executions = sim.executions(instance);
    let (address, machina, tasks) = on_store(store, sim).await;
    settle(&machina, "clock", Status::Healthy).await;
    assert_eq!(call(&address, "done").await, (200, true, done));
    let begun = call(&address, "begun").await;
    assert!(begun.2.contains(r#""outcome":"unknown""#), "{begun:?}");
    assert_eq!(sim.executions(instance), executions, "nothing was done again");
    machina.close().await;
    tasks.cancel();
    begun
}

fn store_in(directory: &tempfile::TempDir) -> String {
    format!("sqlite:{}", directory.path().join("machina.db").display())
}

#[tokio::test]
async fn a_restart_forgets_nothing() {
    let (directory, sim) = (tempfile::tempdir().unwrap(), SimConnector::default());
    let (store, instance) = (store_in(&directory), sim.instance("one"));
    let (address, machina, tasks) = on_store(&store, &sim).await;
    let done = done_and_begun(&address, &machina, &sim, &instance).await;
    machina.close().await;
    tasks.cancel();
    let (status, replayed, _) = remembered(&store, &sim, &instance, done).await;
    assert_eq!((status, replayed), (503, true), "closing ends what runs, and that is its answer");
}

#[tokio::test]
async fn what_a_crash_cut_off_is_not_done_again() {
    let (directory, sim) = (tempfile::tempdir().unwrap(), SimConnector::default());
    let (store, instance) = (store_in(&directory), sim.instance("one"));
    let doomed = (store.clone(), sim.clone(), instance.clone());
    let done = tokio::task::spawn_blocking(move || {
        let (store, sim, instance) = doomed;
        // Dropped with everything that runs in it, at whatever point that is.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (address, machina, _) = on_store(&store, &sim).await;
            done_and_begun(&address, &machina, &sim, &instance).await
        })
    });
    let (status, replayed, begun) = remembered(&store, &sim, &instance, done.await.unwrap()).await;
    assert_eq!((status, replayed), (502, false), "{begun}");
    assert!(begun.contains(r#""code":"lost""#), "{begun}");
}
