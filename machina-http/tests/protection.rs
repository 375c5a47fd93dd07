//! What holds for every request: who may send it, how large and how slow it may
//! be, what happens when the server breaks, stops or is asked whether it lives.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::routing::get;
use machina_core::{
    Backend, Batch, Changes, Config, ErrorKind, Image, Machina, MemoryStore, Result, Revision, ServiceSpec, Store,
    Tasks,
};
use machina_http::{ServerConfig, router, serve};
use serde_json::json;
use support::Server;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

fn address(server: &Server) -> &str {
    server.url.strip_prefix("http://").unwrap()
}

/// Sends text as it is, and reads until the server closes the connection.
async fn raw(address: &str, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    tokio::time::timeout(Duration::from_secs(10), read).await.expect("the server closes").unwrap();
    answer
}

#[tokio::test]
async fn foreign_hosts_and_origins_are_refused() {
    let config = ServerConfig { allowed_hosts: vec!["machina.example".into()], ..ServerConfig::default() };
    let server = Server::with(config, Config::default(), Router::new()).await;
    let refused = [("host", "evil.example"), ("origin", "http://evil.example"), ("origin", "null")];
    for header in refused {
        for path in ["/api/v1/services", "/livez", "/nothing"] {
            let answer = server.send("GET", path, &[header], None).await;
            answer.assert_problem(&format!("{header:?}"), 403, "forbidden");
        }
    }
    let accepted = [("host", "machina.example"), ("host", "localhost:1"), ("origin", "http://localhost:3000")];
    for header in accepted {
        assert_eq!(server.send("GET", "/api/v1/services", &[header], None).await.status, 200, "{header:?}");
    }
    let hostless = raw(address(&server), "GET /livez HTTP/1.0\r\n\r\n").await;
    assert!(hostless.starts_with("HTTP/1.0 400"), "{hostless}");
}

#[tokio::test]
async fn further_routes_share_the_protection() {
    let extra = Router::new().route("/mcp", get(async || "hello"));
    let server = Server::with(ServerConfig::default(), Config::default(), extra).await;
    let answer = server.get("/mcp").await;
    assert_eq!((answer.status, answer.text.as_str()), (200, "hello"));
    assert!(!answer.header("x-request-id").is_empty());
    let foreign = server.send("GET", "/mcp", &[("origin", "http://evil.example")], None).await;
    foreign.assert_problem("foreign", 403, "forbidden");
    server.send("DELETE", "/mcp", &[], None).await.assert_problem("a method", 405, "invalid");
}

#[tokio::test]
async fn every_answer_has_the_id_of_its_request() {
    let server = Server::start().await;
    for path in ["/api/v1/services", "/nothing", "/"] {
        let brought = server.send("GET", path, &[("x-request-id", "abc-1.2_3:4")], None).await;
        assert_eq!(brought.header("x-request-id"), "abc-1.2_3:4");
        let (one, two) = (server.get(path).await, server.get(path).await);
        assert_eq!(one.header("x-request-id").len(), 36);
        assert_ne!(one.header("x-request-id"), two.header("x-request-id"));
        for insane in ["a b", "<script>", &"x".repeat(129)] {
            let replaced = server.send("GET", path, &[("x-request-id", insane)], None).await;
            assert_eq!(replaced.header("x-request-id").len(), 36, "{insane}");
        }
    }
}

#[tokio::test]
async fn a_panic_is_one_answer_and_not_the_end() {
    let broken = async || -> &'static str { panic!("at the disco, with hunter2") };
    let extra = Router::new().route("/panic", get(broken));
    let server = Server::with(ServerConfig::default(), Config::default(), extra).await;
    let answer = server.get("/panic").await;
    answer.assert_problem("a panic", 500, "internal");
    assert!(!answer.text.contains("disco"), "what a panic says is for the log: {}", answer.text);
    assert_eq!(server.get("/livez").await.status, 200);
}

#[tokio::test]
async fn large_bodies_are_refused() {
    let config = ServerConfig { body_max: 1024, ..ServerConfig::default() };
    let server = Server::with(config, Config::default(), Router::new()).await;
    let record = json!({"name": "x", "description": "d".repeat(1000)});
    for path in ["/api/v1/services", "/api/v1/services:bulk", "/api/v1/tools:find"] {
        let answer = server.post(path, record.clone()).await;
        answer.assert_problem(path, 413, "invalid");
        assert!(answer.body["detail"].as_str().unwrap().contains("1024"));
    }
    let chunks = format!("400\r\n{}\r\n1\r\n}}\r\n0\r\n\r\n", "x".repeat(1024));
    let head = "POST /api/v1/services HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                transfer-encoding: chunked\r\nconnection: close\r\n\r\n";
    let answer = raw(address(&server), &format!("{head}{chunks}")).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(server.machina.view().is_empty());
}

#[tokio::test]
async fn slow_bodies_are_not_waited_for() {
    let config = ServerConfig { request_timeout: Duration::from_millis(200), ..ServerConfig::default() };
    let server = Server::with(config, Config::default(), Router::new()).await;
    server.register(json!({"name": "a"})).await;
    for path in ["/api/v1/services", "/api/v1/services/a/call"] {
        let head = "host: localhost\r\ncontent-type: application/json\r\ncontent-length: 10\r\nconnection: close";
        let answer = raw(address(&server), &format!("POST {path} HTTP/1.1\r\n{head}\r\n\r\n{{")).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
        assert!(answer.contains("\"code\":\"timeout\""), "{answer}");
    }
}

/// A store that waits before it commits or answers while the gate is shut.
#[derive(Debug)]
struct Gated {
    inner: MemoryStore,
    open: watch::Receiver<bool>,
}

impl Gated {
    async fn pass(&self) {
        let mut open = self.open.clone();
        let _ = open.wait_for(|open| *open).await;
    }
}

#[async_trait]
impl Store for Gated {
    async fn load(&self) -> Result<Image> {
        self.inner.load().await
    }
    async fn commit(&self, batch: &Batch) -> Result<Revision> {
        let committed = self.inner.commit(batch).await;
        self.pass().await;
        committed
    }
    async fn changes(&self, after: Revision) -> Result<Changes> {
        self.pass().await;
        self.inner.changes(after).await
    }
    async fn changed(&self) -> Result<()> {
        self.inner.changed().await
    }
}

/// A server on a store whose gate is shut while the value is `false`.
async fn gated() -> (String, Machina, watch::Sender<bool>, Tasks) {
    let gate = watch::Sender::new(true);
    let store = Gated { inner: MemoryStore::default(), open: gate.subscribe() };
    let backend = Backend { store: Arc::new(store), ..Backend::of(MemoryStore::default()) };
    let machina = Machina::builder().backend(backend).open().await.unwrap();
    let config = ServerConfig { request_timeout: Duration::from_millis(100), ..ServerConfig::default() };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (tasks, router) = (Tasks::new(), router(machina.clone(), &config));
    drop(tasks.spawn("serve", async move { serve(listener, router, &config, std::future::pending()).await.unwrap() }));
    (url, machina, gate, tasks)
}

#[tokio::test]
async fn a_change_that_takes_too_long_is_finished_nevertheless() {
    let (url, machina, gate, tasks) = gated().await;
    gate.send_replace(false);
    let request = reqwest::Client::new().post(format!("{url}/api/v1/services")).json(&json!({"name": "a"}));
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 504);
    assert!(response.text().await.unwrap().contains("not done after"));
    assert!(machina.get("a").is_none());
    gate.send_replace(true);
    for _ in 0..500 {
        if machina.get("a").is_some() {
            let error = machina.register(ServiceSpec::new("a").unwrap()).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict);
            tasks.cancel();
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the batch was committed, and no view shows it");
}

#[tokio::test]
async fn a_server_is_ready_while_its_store_answers_and_it_is_not_closing() {
    let server = Server::start().await;
    assert_eq!(server.get("/livez").await.body, json!({"status": "alive"}));
    assert_eq!(server.get("/readyz").await.body, json!({"status": "ready"}));
    assert_eq!(server.get("/healthz").await.body, json!({"status": "ready"}));
    assert_eq!(server.get("/readyz?verbose").await.body["checks"]["store"], "ok");
    server.machina.close().await;
    for path in ["/readyz", "/healthz", "/readyz?verbose"] {
        let closing = server.get(path).await;
        closing.assert_problem(path, 503, "unavailable");
        assert!(closing.body["detail"].as_str().unwrap().contains("closing"));
    }
    assert_eq!(server.get("/livez").await.status, 200);
    let late = server.post("/api/v1/services", json!({"name": "late"})).await;
    late.assert_problem("a write", 503, "unavailable");
}

#[tokio::test]
async fn a_server_whose_store_hangs_is_alive_and_not_ready() {
    let (url, machina, gate, tasks) = gated().await;
    gate.send_replace(false);
    let error = machina.ready().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.message().contains("store"), "{error}");
    let status = async |path: &str| reqwest::get(format!("{url}{path}")).await.unwrap().status();
    assert_eq!(status("/livez").await, 200);
    assert_eq!(status("/readyz").await, 504, "the limit of this server is shorter than the store's");
    gate.send_replace(true);
    assert_eq!(status("/readyz").await, 200);
    tasks.cancel();
}
