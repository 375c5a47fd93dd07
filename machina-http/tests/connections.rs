//! One connection after another: heads that are too long, too slow or no heads at
//! all, connections that are idle, too many of them, and the end of the server.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use machina_core::Config;
use machina_http::{ServerConfig, router_with, serve};
use serde_json::Value;
use support::Server;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

const PATIENCE: Duration = Duration::from_secs(10);

async fn connected(server: &Server) -> TcpStream {
    TcpStream::connect(server.url.strip_prefix("http://").unwrap()).await.unwrap()
}

async fn started(config: ServerConfig) -> Server {
    Server::with(config, Config::default(), Router::new()).await
}

/// What comes until the server closes the connection; an abrupt end is one too.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    let _ = timeout(PATIENCE, stream.read_to_end(&mut bytes)).await.expect("the server closes");
    String::from_utf8(bytes).unwrap()
}

/// Sends a request on a connection that stays open, and reads its short answer.
async fn exchange(stream: &mut TcpStream, path: &str) -> String {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n\r\n").as_bytes()).await.unwrap();
    let mut bytes = vec![0; 16 * 1024];
    let read = timeout(PATIENCE, stream.read(&mut bytes)).await.expect("an answer").unwrap();
    String::from_utf8(bytes[..read].to_vec()).unwrap()
}

fn assert_problem(answer: &str, status: u16) {
    assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("content-type: application/problem+json") && head.contains("x-request-id: "), "{head}");
    let problem: Value = serde_json::from_str(body).unwrap();
    assert_eq!((problem["status"].as_u64(), problem["code"].as_str()), (Some(status.into()), Some("invalid")));
    let id = problem["instance"].as_str().unwrap();
    assert!(head.contains(id), "{answer}");
}

#[tokio::test]
async fn what_is_no_request_gets_a_problem_too() {
    let server = Server::start().await;
    let many: String = (0..101).map(|number| format!("x-{number}: 1\r\n")).collect();
    let cases = [
        ("nonsense\r\n\r\n".to_owned(), 400),
        ("GET / HTTP/1.1\r\nhost: localhost\r\nbad header: 1\r\n\r\n".to_owned(), 400),
        (format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "y".repeat(16 * 1024)), 431),
        (format!("GET / HTTP/1.1\r\nhost: localhost\r\n{many}\r\n"), 431),
        (format!("GET /{} HTTP/1.1\r\nhost: localhost\r\n\r\n", "y".repeat(20 * 1024)), 431),
    ];
    for (text, status) in cases {
        let mut stream = connected(&server).await;
        stream.write_all(text.as_bytes()).await.unwrap();
        assert_problem(&rest(&mut stream).await, status);
        let mut second = connected(&server).await;
        assert!(exchange(&mut second, "/livez").await.starts_with("HTTP/1.1 200"));
        second.write_all(text.as_bytes()).await.unwrap();
        assert_problem(&rest(&mut second).await, status);
    }
}

#[tokio::test]
async fn a_head_of_16_kib_is_read() {
    let server = Server::start().await;
    let filler = "y".repeat(16 * 1024 - 200);
    let answer = server.send("GET", "/livez", &[("x-filler", &filler)], None).await;
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn answers_of_handlers_are_left_alone() {
    let bare = || async { http::StatusCode::BAD_REQUEST };
    let server =
        Server::with(ServerConfig::default(), Config::default(), Router::new().route("/bare", get(bare))).await;
    let mut stream = connected(&server).await;
    for _ in 0..3 {
        let answer = exchange(&mut stream, "/bare").await;
        assert!(answer.starts_with("HTTP/1.1 400") && answer.ends_with("\r\n\r\n"), "{answer}");
    }
}

#[tokio::test]
async fn half_a_head_holds_no_connection() {
    let limit = Duration::from_millis(300);
    let server = started(ServerConfig { header_timeout: limit, ..ServerConfig::default() }).await;
    for text in ["", "GET / HTTP/1.1\r\nhost: loc"] {
        let (mut stream, begun) = (connected(&server).await, Instant::now());
        stream.write_all(text.as_bytes()).await.unwrap();
        assert_eq!(rest(&mut stream).await, "");
        assert!(begun.elapsed() >= limit && begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    }
    // A byte now and then does not help.
    let (mut stream, begun) = (connected(&server).await, Instant::now());
    while stream.write_all(b"x").await.is_ok() {
        tokio::time::sleep(Duration::from_millis(50)).await;
        assert!(begun.elapsed() < PATIENCE, "the connection is held");
    }
    // After an answer, neither.
    let mut stream = connected(&server).await;
    assert!(exchange(&mut stream, "/livez").await.contains("alive"));
    stream.write_all(b"GET").await.unwrap();
    let begun = Instant::now();
    assert_eq!(rest(&mut stream).await, "");
    assert!(begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn idle_connections_are_closed_and_busy_ones_are_not() {
    let (idle, takes) = (Duration::from_secs(2), Duration::from_secs(3));
    let slow = get(move || async move {
        tokio::time::sleep(takes).await;
        "done"
    });
    let config = ServerConfig { idle_timeout: idle, header_timeout: idle, ..ServerConfig::default() };
    let server = Server::with(config, Config::default(), Router::new().route("/slow", slow)).await;
    let mut stream = connected(&server).await;
    for _ in 0..6 {
        assert!(exchange(&mut stream, "/livez").await.contains("alive"));
        tokio::time::sleep(idle / 4).await;
    }
    assert!(exchange(&mut stream, "/slow").await.ends_with("done"), "a request may take longer than nothing");
    let begun = Instant::now();
    assert_eq!(rest(&mut stream).await, "");
    assert!(begun.elapsed() >= idle / 2 && begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
}

/// A server with one place for a connection, and an answer that no buffer holds.
async fn with_one_place(idle_timeout: Duration) -> Server {
    let large = get(|| async { vec![b'x'; LARGE] });
    let config = ServerConfig { idle_timeout, connections_max: 1, ..ServerConfig::default() };
    Server::with(config, Config::default(), Router::new().route("/large", large)).await
}

const LARGE: usize = 64 * 1024 * 1024;
const ASK_FOR_IT: &[u8] = b"GET /large HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";

#[tokio::test]
async fn who_takes_nothing_of_an_answer_holds_no_connection() {
    let idle = Duration::from_millis(300);
    let server = with_one_place(idle).await;
    let (mut stalled, begun) = (connected(&server).await, Instant::now());
    stalled.write_all(ASK_FOR_IT).await.unwrap();
    let mut second = connected(&server).await;
    assert!(exchange(&mut second, "/livez").await.contains("alive"), "its turn comes");
    assert!(begun.elapsed() >= idle && begun.elapsed() < PATIENCE / 2, "{:?}", begun.elapsed());
    assert!(rest(&mut stalled).await.len() < LARGE);
}

#[tokio::test]
async fn who_takes_an_answer_slowly_gets_all_of_it() {
    let server = with_one_place(Duration::from_secs(3)).await;
    let mut stream = connected(&server).await;
    stream.write_all(ASK_FOR_IT).await.unwrap();
    let (mut bytes, mut read) = (vec![0; 1024 * 1024], 0);
    for _ in 0..40 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        read += timeout(PATIENCE, stream.read(&mut bytes)).await.expect("more of it").unwrap();
    }
    assert!(read + rest(&mut stream).await.len() > LARGE);
}

#[tokio::test]
async fn connections_beyond_the_limit_wait() {
    let server = started(ServerConfig { connections_max: 2, ..ServerConfig::default() }).await;
    let (mut one, mut two) = (connected(&server).await, connected(&server).await);
    for stream in [&mut one, &mut two] {
        assert!(exchange(stream, "/livez").await.contains("alive"));
    }
    let mut three = connected(&server).await;
    three.write_all(b"GET /livez HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut bytes = [0; 1024];
    assert!(timeout(Duration::from_millis(300), three.read(&mut bytes)).await.is_err(), "it was answered");
    drop(one);
    let read = timeout(PATIENCE, three.read(&mut bytes)).await.expect("its turn has come").unwrap();
    assert!(String::from_utf8_lossy(&bytes[..read]).contains("alive"));
}

/// A request to `/slow`: when it is being answered, and when that may end.
#[derive(Debug, Clone, Default)]
struct Slow {
    begun: Arc<Notify>,
    may_end: Arc<Notify>,
}

impl Slow {
    async fn answer(self) -> &'static str {
        self.begun.notify_one();
        self.may_end.notified().await;
        "done"
    }
}

/// A server with a slow route that can be told to stop.
async fn stoppable(config: ServerConfig, slow: Slow) -> (String, CancellationToken, tokio::task::JoinHandle<()>) {
    let slow = get(move || slow.clone().answer());
    let machina = machina_core::Machina::builder().open().await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, stop) = (listener.local_addr().unwrap().to_string(), CancellationToken::new());
    let router = router_with(machina, &config, Router::new().route("/slow", slow));
    let serving = serve(listener, router, &config, stop.clone().cancelled_owned());
    let served = machina_core::Tasks::new().spawn("serve", async move { serving.await.unwrap() });
    (address, stop, served)
}

#[tokio::test]
async fn the_end_waits_for_what_runs_and_for_nothing_else() {
    let slow = Slow::default();
    let (address, stop, served) = stoppable(ServerConfig::default(), slow.clone()).await;
    let open = || async { TcpStream::connect(&address).await.unwrap() };
    let (mut idle, mut fresh, mut half, mut running) = (open().await, open().await, open().await, open().await);
    assert!(exchange(&mut idle, "/livez").await.contains("alive"));
    half.write_all(b"GET / HTTP/1.1\r\nhost: lo").await.unwrap();
    running.write_all(b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    timeout(PATIENCE, slow.begun.notified()).await.expect("all have come before it");
    stop.cancel();
    let begun = Instant::now();
    for stream in [&mut idle, &mut fresh, &mut half] {
        assert_eq!(rest(stream).await, "");
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "closed at once, not after {:?}", begun.elapsed());
    assert!(TcpStream::connect(&address).await.is_err(), "it takes no more connections");
    assert!(!served.is_finished(), "it waits for what runs");
    slow.may_end.notify_one();
    let ends = Instant::now();
    let answer = rest(&mut running).await;
    assert!(answer.starts_with("HTTP/1.1 200") && answer.ends_with("done"), "{answer}");
    assert!(answer.contains("connection: close"), "{answer}");
    timeout(PATIENCE, served).await.expect("the server ends").unwrap();
    assert!(ends.elapsed() < PATIENCE, "{:?}", ends.elapsed());
}

#[tokio::test]
async fn the_end_waits_a_moment_for_the_rest_of_a_body() {
    const HEAD: &[u8] = b"POST /api/v1/groups HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
                          content-length: 12\r\n\r\n{\"name\"";
    let (address, stop, served) = stoppable(ServerConfig::default(), Slow::default()).await;
    let (mut whole, mut half) =
        (TcpStream::connect(&address).await.unwrap(), TcpStream::connect(&address).await.unwrap());
    for stream in [&mut whole, &mut half] {
        stream.write_all(HEAD).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    stop.cancel();
    let begun = Instant::now();
    tokio::time::sleep(Duration::from_millis(100)).await;
    whole.write_all(b":\"g\"}").await.unwrap();
    let answer = rest(&mut whole).await;
    assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    let answer = rest(&mut half).await;
    assert!(answer.starts_with("HTTP/1.1 408") && answer.contains("the server stops"), "{answer}");
    timeout(PATIENCE, served).await.expect("the server ends").unwrap();
    assert!(begun.elapsed() < PATIENCE, "{:?}", begun.elapsed());
}

#[tokio::test]
async fn readiness_ends_before_service_does() {
    let delay = Duration::from_secs(3);
    let config = ServerConfig { shutdown_delay: delay, ..ServerConfig::default() };
    let (address, stop, served) = stoppable(config, Slow::default()).await;
    // To make a client takes a while; each request has a new connection, because those are taken too.
    let client = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let ask = async |path: &str| client.get(format!("http://{address}{path}")).send().await.unwrap().status().as_u16();
    assert_eq!((ask("/readyz").await, ask("/api/v1/services").await), (200, 200));
    let begun = Instant::now();
    stop.cancel();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!((ask("/readyz").await, ask("/api/v1/services").await, ask("/livez").await), (503, 200, 200));
    timeout(PATIENCE, served).await.expect("the server ends").unwrap();
    assert!(begun.elapsed() >= delay, "{:?}", begun.elapsed());
}
