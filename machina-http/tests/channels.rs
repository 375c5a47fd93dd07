//! The WebSocket channels: what they say first, what they tell, how they end.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use machina_core::testing::registry_suite::settle;
use machina_core::{Config, Machina, Status, Tasks};
use machina_http::{ServerConfig, router, serve};
use serde_json::{Value, json};
use support::Server;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::{Error, Message};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(20);

struct Channel(WebSocketStream<MaybeTlsStream<TcpStream>>);

async fn open(url: &str, path: &str) -> Channel {
    Channel(connect_async(format!("{}{path}", url.replace("http://", "ws://"))).await.unwrap().0)
}

impl Channel {
    async fn message(&mut self) -> Message {
        tokio::time::timeout(PATIENCE, self.0.next()).await.expect("a message comes").unwrap().unwrap()
    }

    async fn frame(&mut self) -> Value {
        match self.message().await {
            Message::Text(text) => serde_json::from_str(&text).unwrap(),
            other => panic!("{other:?} is no text"),
        }
    }

    async fn close_code(&mut self) -> u16 {
        loop {
            if let Message::Close(frame) = self.message().await {
                return frame.expect("a code").code.into();
            }
        }
    }
}

/// The status and code of the answer to a handshake that fails.
async fn refused(server: &Server, path: &str, headers: &[(&'static str, &str)]) -> (u16, Value) {
    let mut request = format!("{}{path}", server.url.replace("http://", "ws://")).into_client_request().unwrap();
    for (name, value) in headers {
        request.headers_mut().insert(*name, value.parse().unwrap());
    }
    match connect_async(request).await.unwrap_err() {
        Error::Http(answer) => {
            let body = answer.body().as_deref().unwrap_or_default();
            let problem: Value = serde_json::from_slice(body).unwrap_or_default();
            (answer.status().as_u16(), problem["code"].clone())
        }
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn health_is_told_from_a_snapshot_on() {
    let server = Server::start().await;
    let (one, two) = (server.sim.instance("one"), server.sim.instance("two"));
    server.register(json!({"name": "clock", "instances": [one]})).await;
    settle(&server.machina, "clock", Status::Healthy).await;
    let mut channel = open(&server.url, "/ws/health").await;
    let hello = channel.frame().await;
    assert_eq!((&hello["type"], &hello["channel"]), (&json!("hello"), &json!("health")), "{hello}");
    assert_eq!(hello["version"], env!("CARGO_PKG_VERSION"));
    assert!(hello["revision"].as_u64().unwrap() >= 1 && hello["cursor"].is_string(), "{hello}");
    let snapshot = channel.frame().await;
    assert_eq!(snapshot["type"], "snapshot");
    let clock = &snapshot["services"][0];
    assert_eq!((&clock["service"], &clock["status"]), (&json!("clock"), &json!("healthy")), "{snapshot}");
    assert_eq!(clock["instances"][0]["state"], "healthy");

    server.register(json!({"name": "other", "instances": [two]})).await;
    let mut states = Vec::new();
    while states.last() != Some(&json!("healthy")) {
        let event = channel.frame().await;
        assert_eq!((&event["type"], &event["service"]), (&json!("health_changed"), &json!("other")), "{event}");
        assert!(event["cursor"].is_string() && event["reason"]["code"].is_string(), "{event}");
        states.push(event["to"].clone());
    }
}

#[tokio::test]
async fn declarations_are_told_on_the_other_channel() {
    let server = Server::start().await;
    let mut channel = open(&server.url, "/ws/config").await;
    assert_eq!(channel.frame().await["type"], "hello");
    let instance = server.sim.instance("one");
    server.register(json!({"name": "clock", "instances": [instance]})).await;
    let registered = channel.frame().await;
    assert_eq!((&registered["type"], &registered["service"]), (&json!("service_registered"), &json!("clock")));
    let defined = channel.frame().await;
    assert_eq!((&defined["type"], &defined["service"]), (&json!("definitions_changed"), &json!("clock")), "{defined}");
    assert!(!defined["added"].as_array().unwrap().is_empty());
    assert_eq!(server.post("/api/v1/groups", json!({"name": "g"})).await.status, 201);
    let grouped = channel.frame().await;
    assert_eq!((&grouped["type"], &grouped["group"]), (&json!("group_changed"), &json!("g")), "{grouped}");
    server.machina.deregister("clock").await.unwrap();
    assert_eq!(channel.frame().await["type"], "service_deregistered");
}

#[tokio::test]
async fn a_channel_goes_on_where_another_stopped() {
    let server = Server::start().await;
    for name in ["a", "b"] {
        server.register(json!({"name": name})).await;
    }
    let mut since_revision = open(&server.url, "/ws/config?since=1").await;
    assert_eq!(since_revision.frame().await["type"], "hello");
    let event = since_revision.frame().await;
    assert_eq!(event["service"], "b");
    drop(since_revision);
    server.register(json!({"name": "c"})).await;
    let cursor = event["cursor"].as_str().unwrap();
    let mut since_cursor = open(&server.url, &format!("/ws/config?since={cursor}")).await;
    assert_eq!(since_cursor.frame().await["type"], "hello");
    assert_eq!(since_cursor.frame().await["service"], "c");
}

#[tokio::test]
async fn who_comes_too_late_is_told_to_resync() {
    let mut config = Config::default();
    config.limits.events_max = 16;
    let server = Server::with(ServerConfig::default(), config, axum::Router::new()).await;
    for number in 0..40 {
        server.register(json!({"name": format!("s{number}")})).await;
    }
    for (path, then) in [("/ws/config?since=1", None), ("/ws/health?since=999", Some("snapshot"))] {
        let mut channel = open(&server.url, path).await;
        let hello = channel.frame().await;
        assert_eq!((&hello["type"], &hello["cursor"]), (&json!("hello"), &Value::Null), "{path}");
        let resync = channel.frame().await;
        assert_eq!(resync["type"], "resync", "{path}: {resync}");
        assert!(resync["cursor"].is_string());
        if let Some(then) = then {
            assert_eq!(channel.frame().await["type"], then);
        }
    }
}

#[tokio::test]
async fn foreign_pages_and_other_requests_are_refused() {
    let server = Server::start().await;
    let foreign = refused(&server, "/ws/health", &[("origin", "https://evil.example")]).await;
    assert_eq!(foreign, (403, json!("forbidden")));
    assert_eq!(refused(&server, "/ws/health?since=x", &[]).await, (400, json!("invalid")));
    assert_eq!(refused(&server, "/ws/config?token=x", &[]).await, (400, json!("invalid")));
    assert_eq!(refused(&server, "/ws/builds", &[]).await, (404, json!("not_found")));
    let plain = server.get("/ws/health").await;
    plain.assert_problem("no upgrade", 400, "invalid");
    assert_eq!(plain.field(), "upgrade");
    server.send("POST", "/ws/health", &[], None).await.assert_problem("a method", 405, "invalid");
}

#[tokio::test]
async fn channels_count_as_streams() {
    let server = Server::start().await;
    let mut channels = Vec::new();
    for _ in 0..256 {
        channels.push(open(&server.url, "/ws/config").await);
    }
    assert_eq!(refused(&server, "/ws/config", &[]).await, (429, json!("overloaded")));
    let stream = server.get("/api/v1/events").await;
    stream.assert_problem("a stream", 429, "overloaded");
    channels.pop();
    let begun = tokio::time::Instant::now();
    while connect_async(format!("{}/ws/config", server.url.replace("http://", "ws://"))).await.is_err() {
        assert!(begun.elapsed() < PATIENCE, "the place is not given back");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn what_the_reader_says_is_passed_over_unless_it_is_long() {
    let server = Server::start().await;
    let mut channel = open(&server.url, "/ws/config").await;
    assert_eq!(channel.frame().await["type"], "hello");
    channel.0.send(Message::text("hello yourself")).await.unwrap();
    channel.0.send(Message::Ping(vec![1].into())).await.unwrap();
    assert_eq!(channel.message().await, Message::Pong(vec![1].into()));
    server.register(json!({"name": "a"})).await;
    assert_eq!(channel.frame().await["service"], "a");
    channel.0.send(Message::text("x".repeat(100_000))).await.unwrap();
    let ended = tokio::time::timeout(PATIENCE, channel.0.next()).await.expect("it ends");
    assert!(matches!(ended, None | Some(Err(_) | Ok(Message::Close(_)))), "{ended:?}");
}

#[tokio::test]
async fn the_end_of_the_server_is_said() {
    let machina = Machina::builder().open().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop, tasks, config) = (CancellationToken::new(), Tasks::new(), ServerConfig::default());
    let serving = serve(listener, router(machina.clone(), &config), &config, stop.clone().cancelled_owned());
    let served = tasks.spawn("serve", async move { serving.await.unwrap() });
    let mut channel = open(&url, "/ws/config").await;
    assert_eq!(channel.frame().await["type"], "hello");
    stop.cancel();
    assert_eq!(channel.close_code().await, 1012);
    tokio::time::timeout(Duration::from_secs(5), served).await.expect("the server ends").unwrap();
    machina.close().await;
}
