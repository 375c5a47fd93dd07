//! Mail, and what becomes of it when the server does not do its part.

use machina_core::{ErrorKind, Tasks};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::certificates::Certificate;
use super::smtp_sink::SmtpSink;
use super::{SECRET, assert_failed, ports, tried, tried_for};

/// A channel to the server on this port, with these settings on top.
fn mail(port: u16, more: &Value) -> Value {
    let mut smtp = json!({"host": "localhost", "port": port, "from": "Machina <machina@a.example>",
        "to": ["ops@a.example", "Ann <ann@b.example>"]});
    smtp.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    json!({"name": "mail", "smtp": smtp})
}

fn with_password(certificate: &Certificate) -> Value {
    json!({"username": "machina", "password": "${env:SECRET}", "ca_file": certificate.certificate()})
}

#[tokio::test]
async fn a_mail_goes_over_starttls_with_a_password() {
    let certificate = Certificate::new();
    let sink = SmtpSink::new(Some(&certificate), Some(SECRET));
    let test = tried(mail(sink.address.port(), &with_password(&certificate))).await;
    assert!(test.delivered && test.kind == "smtp", "{test:?}");
    let mails = sink.mails();
    assert_eq!(mails.len(), 1);
    assert_eq!((mails[0].from.as_str(), mails[0].user.as_deref()), ("machina@a.example", Some("machina")));
    assert_eq!(mails[0].to, ["ops@a.example", "ann@b.example"]);
    let has = |text: &str| assert!(mails[0].text.contains(text), "no `{text}` in {}", mails[0].text);
    has("Subject: machina: [test] machina: this channel works; nothing has happened");
    has("Auto-Submitted: auto-generated");
    has("To: ops@a.example, Ann <ann@b.example>");
    has("@a.example>\r\n");
    has("\r\n\r\n[test] machina: this channel works");
}

#[tokio::test]
async fn tls_may_be_there_from_the_beginning() {
    let (certificate, tasks) = (Certificate::new(), Tasks::new());
    let sink = SmtpSink::new(None, None);
    let port = certificate.before(sink.address, &tasks).await;
    let implicit = |ca_file: Value| mail(port, &json!({"tls": "implicit", "ca_file": ca_file}));
    let test = tried(implicit(json!(certificate.certificate()))).await;
    assert!(test.delivered, "{test:?}");
    assert_eq!(sink.mails().len(), 1);
    assert_failed(&tried(implicit(Value::Null)).await, ErrorKind::Rejected, "there is no TLS");
    assert_eq!(sink.mails().len(), 1);
}

#[tokio::test]
async fn a_server_of_this_machine_may_do_without_tls() {
    let sink = SmtpSink::new(None, None);
    assert!(tried(mail(sink.address.port(), &json!({"tls": "none"}))).await.delivered);
    assert_eq!(sink.mails()[0].user, None);
}

#[tokio::test]
async fn a_wrong_password_is_said_to_be_wrong_and_not_shown() {
    let certificate = Certificate::new();
    let sink = SmtpSink::new(Some(&certificate), Some("another one"));
    let test = tried(mail(sink.address.port(), &with_password(&certificate))).await;
    assert_failed(&test, ErrorKind::Forbidden, "answered 535: it refuses the user name or the password");
    assert_eq!(sink.mails().len(), 0);
}

#[tokio::test]
async fn nothing_is_sent_in_the_clear_where_tls_is_wanted() {
    let certificate = Certificate::new();
    let plain = SmtpSink::new(None, Some(SECRET));
    let test = tried(mail(plain.address.port(), &with_password(&certificate))).await;
    assert_failed(&test, ErrorKind::Rejected, "cannot be talked to");
    let untrusted = SmtpSink::new(Some(&certificate), Some(SECRET));
    let test = tried(mail(untrusted.address.port(), &json!({}))).await;
    assert_failed(&test, ErrorKind::Rejected, "there is no TLS");
    assert_eq!((plain.mails().len(), untrusted.mails().len()), (0, 0));
}

#[tokio::test]
async fn what_the_server_refuses_is_told_apart() {
    let sink = SmtpSink::new(None, None);
    let to = |address: &str| mail(sink.address.port(), &json!({"tls": "none", "to": [address]}));
    assert_failed(&tried(to("nobody@a.example")).await, ErrorKind::Rejected, "answered 550");
    assert_failed(&tried(to("later@a.example")).await, ErrorKind::Unavailable, "answered 451");
    assert_eq!(sink.mails().len(), 0);
}

#[tokio::test]
async fn a_server_that_is_silent_or_gone_is_said_to_be() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let silent = tried_for("1s", mail(port, &json!({"tls": "none"}))).await;
    assert_failed(&silent, ErrorKind::Timeout, "did not answer");
    let closed = ports::closed();
    let gone = tried(mail(closed.local_addr().unwrap().port(), &json!({}))).await;
    assert_failed(&gone, ErrorKind::Unreachable, "cannot be reached");
}
