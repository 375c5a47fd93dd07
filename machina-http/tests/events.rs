//! What changes is told: served as a stream, and read by the client.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use axum::Router;
use machina_core::testing::registry_suite::{service, settle};
use machina_core::{Config, EventKind, EventStream, Machina, Next, Registry as _, Revision, Status, Tasks};
use machina_http::{Client, ServerConfig, router, serve};
use serde_json::{Value, json};
use support::{Server, ports};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

/// An open stream, read frame by frame.
struct Reading {
    response: reqwest::Response,
    text: String,
}

/// One frame: its id, its name, and what it says.
#[derive(Debug, PartialEq)]
struct Frame {
    id: String,
    event: String,
    data: Value,
}

impl Reading {
    async fn open(server: &Server, query: &str, last_event_id: &str) -> Self {
        let url = format!("{}/api/v1/events{query}", server.url);
        let mut request = reqwest::Client::new().get(url);
        if !last_event_id.is_empty() {
            request = request.header("last-event-id", last_event_id);
        }
        let response = request.send().await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()["content-type"]),
            (200, &"text/event-stream".parse().unwrap())
        );
        assert_eq!(response.headers()["cache-control"], "no-cache");
        Self { response, text: String::new() }
    }

    async fn frame(&mut self) -> Frame {
        loop {
            if let Some((frame, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
                let text = |name| field(name).unwrap_or_default().to_owned();
                let data = serde_json::from_str(&text("data")).unwrap_or_default();
                let frame = Frame { id: text("id"), event: text("event"), data };
                self.text = rest.to_owned();
                return frame;
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("something comes");
            self.text.push_str(std::str::from_utf8(&chunk.unwrap().expect("the stream goes on")).unwrap());
        }
    }

    /// Whether the stream has come to its end, in an orderly way.
    async fn ended(&mut self) -> bool {
        tokio::time::timeout(PATIENCE, self.response.chunk()).await.expect("in time").unwrap().is_none()
    }
}

#[tokio::test]
async fn what_happens_is_told_as_it_happens() {
    let server = Server::start().await;
    let mut reading = Reading::open(&server, "", "").await;
    let hello = reading.frame().await;
    assert!(hello.id.starts_with("0.0."), "{hello:?}");
    assert_eq!((hello.event.as_str(), &hello.data), ("", &Value::Null));

    let instance = server.sim.instance("one");
    server.register(json!({"name": "clock", "instances": [instance]})).await;
    let registered = reading.frame().await;
    assert!(registered.id.starts_with("1.1."), "{registered:?}");
    assert_eq!(registered.event, "service_registered");
    assert_eq!(registered.data["type"], "service_registered");
    assert_eq!((&registered.data["service"], &registered.data["revision"]), (&json!("clock"), &json!(1)));

    let mut seen = Vec::new();
    while !seen.contains(&"definitions_changed".to_owned()) || !seen.contains(&"health_changed: healthy".to_owned()) {
        let frame = reading.frame().await;
        let to = frame.data["to"].as_str().map(|to| format!(": {to}")).unwrap_or_default();
        seen.push(format!("{}{to}", frame.event));
    }
    server.machina.deregister("clock").await.unwrap();
    assert_eq!(reading.frame().await.event, "service_deregistered");
}

#[tokio::test]
async fn a_reader_goes_on_from_an_id_without_gap_and_repetition() {
    let server = Server::start().await;
    for name in ["a", "b", "c"] {
        server.register(json!({"name": name})).await;
    }
    let mut reading = Reading::open(&server, "?since=1", "").await;
    let (b, c) = (reading.frame().await, reading.frame().await);
    assert_eq!((&b.data["service"], &c.data["service"]), (&json!("b"), &json!("c")));
    drop(reading);
    server.register(json!({"name": "d"})).await;
    for (query, header) in [(format!("?since={}", b.id), ""), ("?since=0".to_owned(), b.id.as_str())] {
        let mut again = Reading::open(&server, &query, header).await;
        assert_eq!(again.frame().await, c, "{query} {header}");
        assert_eq!(again.frame().await.data["service"], "d");
    }
}

#[tokio::test]
async fn a_reader_who_missed_something_is_told_to_resync() {
    let mut config = Config::default();
    config.limits.events_max = 2;
    let server = Server::with(ServerConfig::default(), config, Router::new()).await;
    server.register(json!({"name": "a"})).await;
    let first = Reading::open(&server, "", "").await.frame().await.id;
    for name in ["b", "c", "d"] {
        server.register(json!({"name": name})).await;
    }
    let stream = first.rsplit('.').next().unwrap();
    for since in [first.as_str(), "1", "99", "4.4.0", &format!("9.99.{stream}")] {
        let resync = Reading::open(&server, &format!("?since={since}"), "").await.frame().await;
        assert_eq!((resync.event.as_str(), &resync.data), ("resync", &json!({"revision": 4})), "{since}");
        assert_eq!(resync.id, format!("4.4.{stream}"));
    }
    let mut reading = Reading::open(&server, "?since=1", "").await;
    reading.frame().await;
    server.register(json!({"name": "e"})).await;
    assert_eq!(reading.frame().await.data["service"], "e");
}

#[tokio::test]
async fn where_to_go_on_must_be_a_revision_or_an_id() {
    let server = Server::start().await;
    for wrong in ["now", "-1", "1.2", "1.2.3.4"] {
        let answer = server.get(&format!("/api/v1/events?since={wrong}")).await;
        answer.assert_problem(wrong, 400, "invalid");
        assert_eq!(answer.field(), "since");
        let answer = server.send("GET", "/api/v1/events", &[("last-event-id", wrong)], None).await;
        answer.assert_problem(wrong, 400, "invalid");
        assert_eq!(answer.field(), "last-event-id");
    }
    server.get("/api/v1/events?until=1").await.assert_problem("a parameter", 400, "invalid");
}

#[tokio::test]
async fn there_is_a_limit_to_open_streams() {
    let server = Server::start().await;
    let mut open = Vec::new();
    for _ in 0..256 {
        open.push(Reading::open(&server, "", "").await);
    }
    let refused = server.get("/api/v1/events").await;
    refused.assert_problem("one more", 429, "overloaded");
    assert_eq!(refused.header("retry-after"), "5");
    drop(open);
    for _ in 0..500 {
        let response = reqwest::get(format!("{}/api/v1/events", server.url)).await.unwrap();
        if response.status() == 200 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the streams were not given back");
}

/// A server that can be told to stop, and one put in its place.
struct Stoppable {
    stop: CancellationToken,
    tasks: Tasks,
    served: tokio::task::JoinHandle<()>,
    address: std::net::SocketAddr,
}

async fn serve_at(address: &str, machina: &Machina) -> Stoppable {
    let listener = ports::listen(address).await;
    let address = listener.local_addr().unwrap();
    let (stop, tasks) = (CancellationToken::new(), Tasks::new());
    let config = ServerConfig::default();
    let serving = serve(listener, router(machina.clone(), &config), &config, stop.clone().cancelled_owned());
    let served = tasks.spawn("serve", async move { serving.await.unwrap() });
    Stoppable { stop, tasks, served, address }
}

impl Stoppable {
    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(10), self.served).await.expect("streams end").unwrap();
        self.tasks.cancel();
    }
}

async fn next(events: &mut EventStream) -> Next {
    tokio::time::timeout(PATIENCE, events.next()).await.expect("something comes")
}

async fn next_service(events: &mut EventStream) -> String {
    match next(events).await {
        Next::Event(event) => event.service.as_ref().unwrap().to_string(),
        Next::Resync => "resync".to_owned(),
    }
}

async fn register(machina: &Machina, name: &str) {
    machina.register(service(name, &[])).await.unwrap();
}

#[tokio::test]
async fn streams_end_when_the_server_stops() {
    let machina = Machina::builder().open().await.unwrap();
    let server = serve_at("127.0.0.1:0", &machina).await;
    let response = reqwest::get(format!("http://{}/api/v1/events", server.address)).await.unwrap();
    let mut reading = Reading { response, text: String::new() };
    reading.frame().await;
    server.stop().await;
    assert!(reading.ended().await);
}

#[tokio::test]
async fn the_client_gets_what_the_registry_tells() {
    let server = Server::start().await;
    let (mut far, mut near) = (server.client().watch(None).await.unwrap(), server.machina.watch());
    let instance = server.sim.instance("one");
    server.machina.register(service("a", &[&instance])).await.unwrap();
    settle(&server.machina, "a", Status::Healthy).await;
    server.machina.deregister("a").await.unwrap();
    loop {
        let (there, here) = (next(&mut far).await, next(&mut near).await);
        assert_eq!(there, here);
        assert_eq!(far.cursor(), near.cursor());
        if matches!(here, Next::Event(event) if event.kind == EventKind::ServiceDeregistered) {
            break;
        }
    }
    let mut since = server.client().watch(Some(Revision(0))).await.unwrap();
    assert_eq!(next_service(&mut since).await, "a");
}

#[tokio::test]
async fn the_client_reconnects_and_misses_nothing() {
    let machina = Machina::builder().open().await.unwrap();
    let server = serve_at("127.0.0.1:0", &machina).await;
    let address = server.address.to_string();
    let client = Client::new(&format!("http://{address}")).unwrap();
    let mut events = client.watch(None).await.unwrap();
    register(&machina, "a").await;
    assert_eq!(next_service(&mut events).await, "a");
    server.stop().await;
    register(&machina, "b").await;
    let server = serve_at(&address, &machina).await;
    register(&machina, "c").await;
    assert_eq!(next_service(&mut events).await, "b");
    assert_eq!(next_service(&mut events).await, "c");
    server.stop().await;

    let other = Machina::builder().open().await.unwrap();
    let server = serve_at(&address, &other).await;
    assert_eq!(next(&mut events).await, Next::Resync, "another process");
    register(&other, "d").await;
    assert_eq!(next_service(&mut events).await, "d");
    server.stop().await;
}

#[tokio::test]
async fn a_stream_that_cannot_be_opened_is_an_error() {
    let server = Server::start().await;
    let elsewhere = Client::new(&format!("{}/elsewhere", server.url)).unwrap();
    assert_eq!(elsewhere.watch(None).await.unwrap_err().kind(), machina_core::ErrorKind::NotFound);
    let closed = ports::closed();
    let url = format!("http://{}", closed.local_addr().unwrap());
    let absent = Client::new(&url).unwrap().watch(None).await.unwrap_err();
    assert_eq!(absent.kind(), machina_core::ErrorKind::Unreachable);
}
