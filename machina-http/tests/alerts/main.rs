//! Alerts that reach real servers on sockets of this machine: HTTP by axum, mail
//! by `mailin-embedded`, TLS by rustls with a certificate of the test's own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod certificates;
mod http_sink;
mod mail;
mod outage;
#[path = "../support/ports.rs"]
mod ports;
mod rest;
mod smtp_sink;
mod webhooks;

use std::sync::Arc;

use machina_core::testing::SimConnector;
use machina_core::{ChannelTest, Config, ErrorKind, Machina};
use machina_http::notifiers;
use serde_json::{Value, json};

/// What stands in every address and password, and never in an error.
const SECRET: &str = "hunter2hunter2hunter2";

/// A configuration with these alerts.
fn config(alerts: Value) -> Config {
    serde_json::from_value(json!({ "alerts": alerts })).unwrap()
}

/// A registry with the channels of its configuration.
async fn open(config: Config, sim: &SimConnector) -> Machina {
    let resolve = |_: &str, text: &str| Ok(text.replace("${env:SECRET}", SECRET));
    let mut builder = Machina::builder().connector(Arc::new(sim.clone()));
    for notifier in notifiers(&config.alerts, &resolve).unwrap() {
        assert!(!format!("{notifier:?}").contains(SECRET), "{notifier:?}");
        builder = builder.notifier(notifier);
    }
    builder.config(config).open().await.unwrap()
}

/// What comes of a test message to this one channel.
async fn tried(channel: Value) -> ChannelTest {
    tried_for("20s", channel).await
}

/// The same, where this is how long an answer is waited for.
async fn tried_for(timeout: &str, channel: Value) -> ChannelTest {
    let config = config(json!({"delivery_timeout": timeout, "channels": [channel]}));
    let machina = open(config, &SimConnector::default()).await;
    let mut tests = machina.system().test_alerts(None).await.unwrap();
    machina.close().await;
    let test = tests.pop().unwrap();
    assert!(!format!("{test:?}").contains(SECRET), "{test:?}");
    test
}

/// The error, and that it is of this kind and says this.
fn assert_failed(test: &ChannelTest, kind: ErrorKind, says: &str) {
    let error = test.error.as_ref().unwrap_or_else(|| panic!("was delivered: {test:?}"));
    assert_eq!(error.code, kind.code(), "{error:?}");
    assert!(error.message.contains(says), "{error:?} does not say `{says}`");
}
