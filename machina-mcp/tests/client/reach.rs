//! Where connectors go, and what they tell of what they met there.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use machina_core::{
    Connector, EgressConfig, Error, ErrorKind, HttpEndpoint, Instance, Phase, Reach, Result, Target, Tasks,
};
use machina_mcp::client::{Environment, HttpConfig, SseConnector, WebSocketConnector};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use crate::http_server::{Piece, Server, event, json as json_reply, reply, stream_head};
use crate::http_support::{answering, call, connector, done, target};
use crate::ports;

const PATIENCE: Duration = Duration::from_secs(10);
const CANARY: &str = "canary-4711";

fn allowing(networks: &[&str]) -> Reach {
    Reach::outside(&EgressConfig { allow: networks.iter().map(|network| network.parse().unwrap()).collect() })
}

/// The instance `{kind: {"url": …}}`, at the address `url` of a server.
fn instance(kind: &str, url: &str) -> Instance {
    let url = if kind == "websocket" { url.replacen("http", "ws", 1) } else { url.to_owned() };
    serde_json::from_value(json!({kind: {"url": url}})).unwrap()
}

type Connectors = [(&'static str, Box<dyn Connector>); 3];

fn connectors() -> Connectors {
    let (config, environment) = (HttpConfig::default(), Environment::default());
    [
        ("http", Box::new(connector())),
        ("sse", Box::new(SseConnector::new(config.clone(), environment.clone()).unwrap())),
        ("websocket", Box::new(WebSocketConnector::new(config, environment).unwrap())),
    ]
}

/// What comes of connecting to `url` in each way.
async fn attempts(connectors: &Connectors, url: &str, reach: &Reach) -> Vec<(&'static str, Error)> {
    let attempts = connectors.iter().map(async |(kind, connector)| {
        let mut target = target(HttpEndpoint::new(url), None);
        (target.instance, target.reach) = (instance(kind, url), reach.clone());
        let attempt = timeout(PATIENCE, connector.connect(&target)).await.expect("it ends");
        (*kind, attempt.expect_err(kind))
    });
    join_all(attempts).await
}

fn is_barred(error: &Error) -> bool {
    let context = error.context();
    error.kind() == ErrorKind::Unreachable && context.phase == Some(Phase::NotSent) && context.hard
}

#[tokio::test]
async fn this_machine_is_out_of_reach_for_what_was_registered_from_outside() {
    let server = answering(done).await;
    let port = server.url.rsplit_once(':').unwrap().1;
    let (connectors, reach) = (connectors(), allowing(&["10.0.0.0/8"]));
    for host in ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "[::ffff:127.0.0.1]", "[::1]", "0x7f000001"] {
        for scheme in ["http", "https"] {
            for (kind, error) in attempts(&connectors, &format!("{scheme}://{host}:{port}"), &reach).await {
                assert!(is_barred(&error), "{kind} {host}: {error:?}");
                assert!(error.message().contains("egress.allow"), "{kind} {host}: {error}");
            }
        }
    }
    assert!(server.received().is_empty());
    let mut target = target(HttpEndpoint::new(&server.url), None);
    target.reach = allowing(&["127.0.0.0/8"]);
    call(&connector().connect(&target).await.unwrap()).await.unwrap();
}

#[tokio::test]
async fn metadata_is_out_of_reach_at_once_for_everyone() {
    let connectors = connectors();
    let begun = Instant::now();
    for url in [
        "http://169.254.169.254/latest/meta-data/",
        "https://2852039166/",
        "http://[::ffff:a9fe:a9fe]/",
        "http://[64:ff9b::a9fe:a9fe]/",
        "http://[fe80::1]/",
        "http://0.0.0.0:80/",
        concat!("http://", "metadata.google.internal/"),
    ] {
        for reach in [Reach::inside(), allowing(&["0.0.0.0/0", "::/0"])] {
            for (kind, error) in attempts(&connectors, url, &reach).await {
                assert!(is_barred(&error), "{kind} {url}: {error:?}");
            }
        }
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "nothing is dialled");
}

/// A server that nobody here trusts.
async fn stranger(tasks: &Tasks) -> u16 {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder().with_no_client_auth();
    let config = config.with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let (acceptor, listener) = (TlsAcceptor::from(Arc::new(config)), TcpListener::bind("127.0.0.1:0").await.unwrap());
    let port = listener.local_addr().unwrap().port();
    tasks.spawn("stranger", async move {
        while let Ok((connection, _)) = listener.accept().await {
            assert!(acceptor.accept(connection).await.is_err(), "nobody stays");
        }
    });
    port
}

#[tokio::test]
async fn a_server_that_cannot_show_who_it_is_is_down_for_certain() {
    let (connectors, tasks) = (connectors(), Tasks::new());
    for (kind, error) in
        attempts(&connectors, &format!("https://localhost:{}", stranger(&tasks).await), &Reach::inside()).await
    {
        let context = error.context();
        assert!(context.hard && error.message().contains("certificate"), "{kind}: {error:?}");
        assert_eq!((error.kind(), context.phase), (ErrorKind::Unreachable, Some(Phase::NotSent)), "{kind}");
    }
    let (_held, closed) = ports::closed().await;
    for (kind, error) in attempts(&connectors, &format!("https://{closed}"), &Reach::inside()).await {
        assert!(!error.context().hard, "{kind}: {error:?}");
    }
}

/// The whole of what is told about `error`, to whomever.
fn told(error: &Error) -> String {
    format!("{error} {error:?} {}", serde_json::to_string(error.context()).unwrap())
}

#[tokio::test]
async fn what_a_server_says_that_does_not_speak_mcp_is_told_to_nobody() {
    let html = format!("<html>{CANARY}</html>");
    let json = json!({"error": {"message": CANARY}, CANARY: 1}).to_string();
    for (status, kind, body) in [
        (200, "text/html; x=canary-4711", html.as_str()),
        (200, "application/json", &json),
        (200, "application/json", CANARY),
        (200, "text/plain", CANARY),
        (302, "text/html", &html),
        (400, "text/plain", CANARY),
        (404, "text/html", &html),
        (405, "application/json", &json),
        (500, "application/json", &json),
        (503, "text/plain", CANARY),
        (200, "canary-4711/canary-4711", CANARY),
    ] {
        let body = body.to_owned();
        let server = Server::start(move |_| reply(status, &[("content-type", kind), ("x-more", CANARY)], &body)).await;
        for reach in [Reach::inside(), allowing(&["127.0.0.0/8"])] {
            for (way, error) in attempts(&connectors(), &server.url, &reach).await {
                let type_only = kind.starts_with("canary") && reach == Reach::inside();
                assert!(type_only || !told(&error).contains(CANARY), "{way} {status} {kind}: {error:?}");
                let class = format!("HTTP {}", status / 100);
                assert!(status == 200 || error.message().contains(&class), "{way} {status}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn what_a_server_says_before_it_is_known_to_speak_mcp_is_told_to_those_inside_only() {
    let server = Server::start(|request| {
        json_reply(&json!({"jsonrpc": "2.0", "id": request.body["id"],
            "error": {"code": -32000, "message": CANARY, "data": CANARY}}))
    })
    .await;
    let mut target = target(HttpEndpoint::new(&server.url), None);
    let error = connector().connect(&target).await.unwrap_err();
    assert!(error.message().contains(CANARY), "{error}");
    target.reach = allowing(&["127.0.0.0/8"]);
    let error = connector().connect(&target).await.unwrap_err();
    assert!(!told(&error).contains(CANARY), "{error:?}");
    assert_eq!((error.kind(), error.context().upstream_code), (ErrorKind::Rejected, Some(-32000)));
    // A stream of events that is none of MCP.
    let server = Server::start(|_| vec![stream_head(), event(&json!(CANARY))]).await;
    for (way, error) in attempts(&connectors(), &server.url, &allowing(&["127.0.0.0/8"])).await {
        assert!(!told(&error).contains(CANARY), "{way}: {error:?}");
    }
}

async fn check(server: &str, endpoint: &str, expected: &[u16], reach: Reach) -> Vec<Result<()>> {
    let mut outcomes = Vec::new();
    for (kind, connector) in connectors() {
        let mut target: Target = target(HttpEndpoint::new(server), None);
        (target.instance, target.reach) = (instance(kind, server), reach.clone());
        let endpoint = serde_json::from_value(json!(endpoint)).unwrap();
        let looked = timeout(PATIENCE, connector.check(&target, &endpoint, expected)).await;
        outcomes.push(looked.expect("it ends"));
    }
    outcomes
}

#[tokio::test]
async fn a_health_endpoint_must_answer_with_an_expected_status() {
    let beyond = Server::start(|_| reply(200, &[], "")).await;
    let location = beyond.url.clone();
    let server = Server::start(move |request| match request.path.as_str() {
        "/healthz?deep=1" => reply(204, &[], ""),
        "/moved" => reply(302, &[("location", &location)], ""),
        "/busy" => reply(429, &[("retry-after", "7")], CANARY),
        "/closed" => reply(401, &[], CANARY),
        _ => reply(500, &[], CANARY),
    })
    .await;
    let inside = Reach::inside;
    for (endpoint, expected) in [("/healthz?deep=1", &[][..]), ("/moved", &[301, 302]), ("/x", &[500])] {
        for looked in check(&server.url, endpoint, expected, inside()).await {
            looked.unwrap_or_else(|error| panic!("{endpoint}: {error}"));
        }
    }
    for (endpoint, expected, kind, status) in [
        ("/moved", &[][..], ErrorKind::Rejected, 302),
        ("/healthz?deep=1", &[200], ErrorKind::Rejected, 204),
        ("/busy", &[], ErrorKind::Overloaded, 429),
        ("/closed", &[], ErrorKind::Rejected, 401),
        ("/x", &[], ErrorKind::Rejected, 500),
    ] {
        for looked in check(&server.url, endpoint, expected, inside()).await {
            let error = looked.unwrap_err();
            let context = error.context();
            assert_eq!((error.kind(), context.upstream_status), (kind, Some(status)), "{endpoint}: {error}");
            assert!(!context.hard && context.phase == Some(Phase::Refused), "{error:?}");
            assert_eq!(context.retry_after_ms, (status == 429).then_some(7_000));
            assert!(!told(&error).contains(CANARY), "{error:?}");
        }
    }
    assert!(beyond.received().is_empty(), "a redirect is an answer");
    assert!(server.received().iter().all(|request| request.verb == "GET"));
}

#[tokio::test]
async fn a_body_without_an_end_does_not_hold_up_a_check() {
    let server = Server::start(|_| {
        let head = Piece::Bytes(b"HTTP/1.1 200 X\r\ncontent-length: 999999999\r\n\r\n".to_vec());
        let rest = (0..100).flat_map(|_| [Piece::Bytes(vec![b'x'; 64]), Piece::Pause(Duration::from_millis(500))]);
        [head].into_iter().chain(rest).collect()
    })
    .await;
    let begun = Instant::now();
    for looked in check(&server.url, "/", &[], Reach::inside()).await {
        looked.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn what_is_told_to_an_instance_in_confidence_is_told_to_no_other_place() {
    let (own, other) = (Server::start(|_| reply(200, &[], "")).await, Server::start(|_| reply(200, &[], "")).await);
    let mut endpoint = HttpEndpoint::new(&own.url);
    endpoint.headers.insert("Authorization".to_owned(), machina_core::Sensitive::secret("Bearer hunter2"));
    let target = target(endpoint, None);
    let look = async |endpoint: &str| {
        let endpoint = serde_json::from_value(json!(endpoint)).unwrap();
        connector().check(&target, &endpoint, &[]).await
    };
    look("/healthz").await.unwrap();
    look(&other.url).await.unwrap();
    assert_eq!(own.received()[0].header("authorization"), Some("Bearer hunter2"));
    assert_eq!((own.received()[0].path.as_str(), other.received()[0].header("authorization")), ("/healthz", None));
    let elsewhere = look(&format!("/\\{}", other.url.trim_start_matches("http://"))).await.unwrap_err();
    assert_eq!((elsewhere.kind(), other.received().len()), (ErrorKind::Invalid, 1), "{elsewhere}");
}

#[tokio::test]
async fn a_port_must_take_a_connection() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let place = listener.local_addr().unwrap();
    let url = format!("http://{place}/mcp");
    for looked in check(&url, &format!("tcp://{place}"), &[], Reach::inside()).await {
        looked.unwrap();
    }
    drop(listener);
    let _port = ports::hold(place).await;
    for looked in check(&url, &format!("tcp://{place}"), &[], Reach::inside()).await {
        let error = looked.unwrap_err();
        assert_eq!((error.kind(), error.context().phase), (ErrorKind::Unreachable, Some(Phase::NotSent)));
        let cause = std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
        assert_eq!(cause.map(std::io::Error::kind), Some(std::io::ErrorKind::ConnectionRefused), "{error:?}");
    }
}

#[tokio::test]
async fn checks_reach_no_further_than_calls() {
    let server = Server::start(|_| reply(200, &[], "")).await;
    let place = server.url.trim_start_matches("http://").trim_end_matches("/mcp").to_owned();
    for (endpoint, reach) in [
        ("/healthz".to_owned(), allowing(&[])),
        (server.url.clone(), allowing(&[])),
        (format!("tcp://{place}"), allowing(&[])),
        ("tcp://0x7f.1:80".to_owned(), allowing(&[])),
        ("http://169.254.169.254/".to_owned(), Reach::inside()),
        ("tcp://2852039166:80".to_owned(), Reach::inside()),
    ] {
        for looked in check(&server.url, &endpoint, &[], reach.clone()).await {
            assert!(is_barred(&looked.unwrap_err()), "{endpoint}");
        }
    }
    assert!(server.received().is_empty());
    for looked in check(&server.url, "/healthz", &[], allowing(&["127.0.0.1"])).await {
        looked.unwrap();
    }
}

#[tokio::test]
async fn what_has_no_address_of_its_own_can_be_looked_at_elsewhere() {
    let server = Server::start(|_| reply(200, &[], "")).await;
    let mut target = target(HttpEndpoint::new(&server.url), None);
    target.instance = Instance::new(machina_core::StdioEndpoint::new("server", ["--port", "1"]));
    let look = async |endpoint: &str| {
        let endpoint = serde_json::from_value(json!(endpoint)).unwrap();
        connector().check(&target, &endpoint, &[]).await
    };
    look(&server.url).await.unwrap();
    assert_eq!(look("/healthz").await.unwrap_err().kind(), ErrorKind::Unsupported);
}
