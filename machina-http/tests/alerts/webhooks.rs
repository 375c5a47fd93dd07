//! Webhooks, and what becomes of them when the other side does not do its part.

use std::fmt::Write as _;
use std::time::Duration;

use hmac::{Hmac, KeyInit as _, Mac as _};
use machina_core::ErrorKind;
use serde_json::{Value, json};
use sha2::Sha256;

use super::certificates::Certificate;
use super::http_sink::HttpSink;
use super::{SECRET, assert_failed, config, ports, tried, tried_for};

fn webhook(url: &str) -> Value {
    json!({"name": "hook", "webhook": {"url": url}})
}

fn signed(timestamp: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(SECRET.as_bytes()).unwrap();
    mac.update(timestamp.as_bytes());
    mac.update(b".");
    mac.update(body);
    mac.finalize().into_bytes().iter().fold("sha256=".to_owned(), |mut text, byte| {
        write!(text, "{byte:02x}").unwrap();
        text
    })
}

#[tokio::test]
async fn a_message_is_signed_and_brings_the_headers_it_should() {
    let sink = HttpSink::new().await;
    let target = json!({"url": sink.url("/in/${env:SECRET}"), "secret": "${env:SECRET}",
        "headers": {"Authorization": "Bearer ${env:SECRET}"}});
    let test = tried(json!({"name": "hook", "webhook": target})).await;
    assert!(test.delivered && test.kind == "webhook", "{test:?}");
    let received = sink.received();
    assert_eq!(received.len(), 1);
    let one = &received[0];
    assert_eq!(one.path, format!("/in/{SECRET}"));
    assert_eq!(one.header("authorization"), format!("Bearer {SECRET}"));
    assert_eq!(one.header("content-type"), "application/json");
    assert_eq!(one.header("x-machina-signature"), signed(one.header("x-machina-timestamp"), &one.body));
    let body = one.json();
    assert_eq!((&body["kind"], &body["source"]), (&json!("test"), &json!("machina")));
    assert_eq!(body["id"], one.header("x-machina-id"));
}

#[tokio::test]
async fn without_a_secret_nothing_is_signed() {
    let sink = HttpSink::new().await;
    assert!(tried(webhook(&sink.url("/"))).await.delivered);
    assert_eq!(sink.received()[0].header("x-machina-signature"), "");
}

#[tokio::test]
async fn every_answer_has_its_word() {
    let sink = HttpSink::new().await;
    let url = sink.url(&format!("/{SECRET}"));
    for (status, kind) in [
        (500, ErrorKind::Unavailable),
        (503, ErrorKind::Unavailable),
        (429, ErrorKind::Overloaded),
        (404, ErrorKind::Rejected),
        (410, ErrorKind::Rejected),
        (401, ErrorKind::Forbidden),
        (403, ErrorKind::Forbidden),
        (302, ErrorKind::Rejected),
        (307, ErrorKind::Rejected),
    ] {
        sink.answer(status);
        let says = format!("http://{} answered {status}", sink.address);
        assert_failed(&tried(webhook(&url)).await, kind, &says);
    }
    let received = sink.received();
    assert!(received.len() == 9 && received.iter().all(|one| one.path != "/elsewhere"), "a redirect was followed");
}

#[tokio::test]
async fn a_server_that_is_slow_or_gone_is_said_to_be() {
    let slow = HttpSink::slow(Duration::from_secs(30)).await;
    let late = tried_for("1s", webhook(&slow.url(&format!("/{SECRET}")))).await;
    assert_failed(&late, ErrorKind::Timeout, "did not answer");
    let closed = ports::closed();
    let gone = format!("http://{}/{SECRET}", closed.local_addr().unwrap());
    assert_failed(&tried(webhook(&gone)).await, ErrorKind::Unreachable, "cannot be reached");
}

#[tokio::test]
async fn tls_that_cannot_be_trusted_is_refused() {
    let (sink, certificate) = (HttpSink::new().await, Certificate::new());
    let port = certificate.before(sink.address, &sink.tasks).await;
    let url = format!("https://localhost:{port}/{SECRET}");
    assert_failed(&tried(webhook(&url)).await, ErrorKind::Unreachable, "certificate");
    let plain = format!("https://{}/{SECRET}", sink.address);
    assert_failed(&tried(webhook(&plain)).await, ErrorKind::Unreachable, "cannot be reached");
    assert_eq!(sink.received().len(), 0);
    let target = json!({"url": url, "ca_file": certificate.certificate()});
    assert!(tried(json!({"name": "hook", "webhook": target})).await.delivered);
    assert_eq!(sink.received().len(), 1);
}

#[tokio::test]
async fn slack_gets_what_it_understands() {
    let sink = HttpSink::new().await;
    let test = tried(json!({"name": "chat", "slack": {"url": sink.url("/services/${env:SECRET}")}})).await;
    assert!(test.delivered && test.kind == "slack", "{test:?}");
    let body = sink.received()[0].json();
    assert!(body["text"].as_str().unwrap().starts_with("[test] machina"), "{body}");
    assert_eq!(body["attachments"][0]["footer"], "machina");
}

#[test]
fn everything_that_is_wrong_with_the_channels_is_named() {
    let channels = json!([
        {"name": "a", "webhook": {"url": "${env:URL}", "secret": "${env:SHORT}"}},
        {"name": "b", "slack": {"url": "${env:NONE}"}},
        {"name": "c", "webhook": {"url": "http://a.example", "headers": {"a b": "c"}}},
        {"name": "d", "webhook": {"url": "http://a.example", "secret": "${env:SHORT}"}},
        {"name": "e", "slack": {"url": "http://a.example", "ca_file": "no/such/file"}},
        {"name": "f", "smtp": {"host": "localhost", "from": "a@b@c", "to": ["o@a.example"]}},
        {"name": "g"},
    ]);
    let config = config(json!({ "channels": channels }));
    let resolve = |field: &str, text: &str| match text {
        "${env:URL}" => Ok(format!("ftp://{SECRET}")),
        "${env:NONE}" => Err(machina_core::Error::invalid_field(field, "the environment variable NONE is not set")),
        "${env:SHORT}" => Ok("hunter2".to_owned()),
        text => Ok(text.to_owned()),
    };
    let error = machina_http::notifiers(&config.alerts, &resolve).unwrap_err();
    let fields: Vec<_> = error.context().problems.iter().map(|problem| problem.field.as_str()).collect();
    let expected = [
        "alerts.channels[0].webhook.secret",
        "alerts.channels[1].slack.url",
        "alerts.channels[2].webhook.headers.a b",
        "alerts.channels[3].webhook.secret",
        "alerts.channels[4].slack.ca_file",
        "alerts.channels[5].smtp.from",
    ];
    assert_eq!(fields, expected);
    assert!(!error.message().contains("hunter2"), "{error}");
}
