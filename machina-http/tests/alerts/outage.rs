//! An outage from its beginning to its end, on every kind of channel at once.

use std::time::Duration;

use machina_core::testing::{Behaviour, SimConnector};
use machina_core::{ServiceSpec, Status};
use serde_json::{Value, json};
use tokio::net::TcpListener;

use super::http_sink::HttpSink;
use super::open;
use super::smtp_sink::SmtpSink;

async fn wait_until(what: &str, so: impl Fn() -> bool) {
    for _ in 0..1000 {
        if so() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn everyone_is_told_of_its_beginning_and_its_end() {
    let (hook, chat, mail) = (HttpSink::new().await, HttpSink::new().await, SmtpSink::new(None, None));
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let smtp = json!({"host": "localhost", "port": mail.address.port(), "tls": "none",
        "from": "machina@a.example", "to": ["ops@a.example"]});
    let alerts = json!({"down_after": "0s", "source": "lab", "channels": [
        {"name": "dead", "webhook": {"url": format!("http://{}/", silent.local_addr().unwrap())}},
        {"name": "hook", "webhook": {"url": hook.url("/hook")}},
        {"name": "chat", "slack": {"url": chat.url("/chat")}},
        {"name": "mail", "smtp": smtp},
        {"name": "night", "minimum_level": "emergency", "webhook": {"url": hook.url("/night")}},
    ]});
    let health = json!({"interval": "1s", "fast_interval": "100ms"});
    let config = serde_json::from_value(json!({"alerts": alerts, "health": health})).unwrap();
    let sim = SimConnector::default();
    let machina = open(config, &sim).await;
    let instance = sim.instance("a");
    machina.register(ServiceSpec::new("a").unwrap().instance(instance.clone())).await.unwrap();
    wait_until("healthy", || machina.get("a").unwrap().status() == Status::Healthy).await;
    sim.set(&instance, Behaviour::Refuse);
    let of_kind = |kind: &'static str| move |received: &super::http_sink::Received| received.json()["kind"] == kind;
    let firing = hook.wait_for(of_kind("firing")).await.json();
    assert_eq!((&firing["source"], &firing["level"]), (&json!("lab"), &json!("warning")));
    let alert = &firing["alerts"][0];
    assert_eq!((&alert["rule"], &alert["service"]), (&json!("service_down"), &json!("a")));
    let down =
        |received: &super::http_sink::Received| received.json()["text"].as_str().unwrap().starts_with("[warning]");
    let said: Value = chat.wait_for(down).await.json();
    assert_eq!(said["attachments"][0]["fields"][1]["value"], "a");
    wait_until("the mail", || !mail.mails().is_empty()).await;
    sim.set(&instance, Behaviour::Up);
    let resolved = hook.wait_for(of_kind("resolved")).await.json();
    assert_eq!(
        (&resolved["alerts"][0]["id"], &resolved["alerts"][0]["resolution"]),
        (&alert["id"], &json!("it answers again"))
    );
    wait_until("the second mail", || mail.mails().len() == 2).await;
    let mails = mail.mails();
    assert!(mails[0].text.contains("Subject: lab: [warning] `a` is down"), "{}", mails[0].text);
    assert!(mails[1].text.contains("  how       it answers again\r\n"), "{}", mails[1].text);
    assert_eq!(hook.received().iter().filter(|received| received.path == "/night").count(), 0);
    machina.close().await;
}
