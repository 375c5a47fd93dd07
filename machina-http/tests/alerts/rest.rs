//! `/api/v1/alerts`, its client, and the numbers.

use machina_core::testing::SimConnector;
use machina_core::{ErrorKind, Machina, Tasks};
use machina_http::{Client, ServerConfig, router, serve};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpSocket};

use super::http_sink::HttpSink;
use super::{SECRET, config, open, ports};

/// A server with a channel that takes messages and one that refuses them.
struct Served {
    url: String,
    machina: Machina,
    sink: HttpSink,
    /// Where the second channel leads.
    _closed: TcpSocket,
    tasks: Tasks,
}

impl Served {
    async fn new() -> Self {
        let (sink, tasks) = (HttpSink::new().await, Tasks::new());
        let closed = ports::closed();
        let gone = closed.local_addr().unwrap();
        let channels = json!([
            {"name": "good", "webhook": {"url": sink.url(&format!("/{SECRET}"))}},
            {"name": "bad", "minimum_level": "critical", "slack": {"url": format!("http://{gone}/{SECRET}")}},
        ]);
        let machina = open(config(json!({ "channels": channels })), &SimConnector::default()).await;
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let config = ServerConfig::default();
        let serving = serve(listener, router(machina.clone(), &config), &config, std::future::pending());
        tasks.spawn("serve", async move { serving.await.unwrap() });
        Self { url, machina, sink, _closed: closed, tasks }
    }

    /// Asks for `path`, with a body if there is one; the status and the answer.
    async fn ask(&self, path: &str, body: Option<Value>) -> (u16, String) {
        let (http, url) = (reqwest::Client::new(), format!("{}{path}", self.url));
        let request = match body {
            Some(body) => http.post(url).json(&body),
            None => http.get(url),
        };
        let answer = request.send().await.unwrap();
        let (status, text) = (answer.status().as_u16(), answer.text().await.unwrap());
        assert!(!text.contains(SECRET), "{text}");
        (status, text)
    }

    async fn close(self) {
        self.tasks.cancel();
        self.machina.close().await;
    }
}

#[tokio::test]
async fn the_alerts_and_the_channels_are_shown_without_secrets() {
    let served = Served::new().await;
    let (status, text) = served.ask("/api/v1/alerts", None).await;
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(status, 200);
    let channel = |name: &str, kind: &str, level: &str| json!({"name": name, "kind": kind, "minimum_level": level, "delivered": 0, "failed": 0, "held": 0});
    let channels = [channel("good", "webhook", "warning"), channel("bad", "slack", "critical")];
    assert_eq!(body, json!({"firing": [], "omitted": 0, "recent": [], "held": false, "channels": channels}));
    assert_eq!(served.ask("/api/v1/alerts?x=1", None).await.0, 400);
    let (_, metrics) = served.ask("/metrics", None).await;
    for line in [
        r#"machina_alerts_firing{level="critical"} 0"#,
        r#"machina_alert_messages_total{channel="good",outcome="delivered"} 0"#,
        r#"machina_alerts_held_total{channel="bad"} 0"#,
    ] {
        assert!(metrics.lines().any(|there| there == line), "no `{line}` in {metrics}");
    }
    served.close().await;
}

#[tokio::test]
async fn a_test_says_what_came_of_it() {
    let served = Served::new().await;
    let (status, text) = served.ask("/api/v1/alerts/test", Some(json!({}))).await;
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, &body["results"][0]["delivered"]), (200, &json!(true)), "{body}");
    assert_eq!(body["results"][1]["error"]["code"], "unreachable", "{body}");
    assert_eq!(served.sink.received().len(), 1);
    let (status, text) = served.ask("/api/v1/alerts/test", Some(json!({"channel": "bad"}))).await;
    let body: Value = serde_json::from_str(&text).unwrap();
    assert_eq!((status, body["results"].as_array().unwrap().len()), (200, 1));
    for (wrong, field) in [(json!({"channel": "other"}), "channel"), (json!({"chanel": "good"}), "chanel")] {
        let (status, text) = served.ask("/api/v1/alerts/test", Some(wrong)).await;
        let body: Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, &body["errors"][0]["pointer"]), (422, &json!(format!("#/{field}"))), "{body}");
    }
    assert_eq!(served.sink.received().len(), 0);
    served.close().await;
}

#[tokio::test]
async fn the_client_asks_the_same() {
    let served = Served::new().await;
    let client = Client::new(&served.url).unwrap();
    let tests = client.test_alerts(None).await.unwrap();
    assert_eq!(tests.iter().map(|test| test.delivered).collect::<Vec<_>>(), [true, false]);
    assert_eq!(client.test_alerts(Some("good")).await.unwrap()[0].channel, "good");
    let unknown = client.test_alerts(Some("x")).await.unwrap_err();
    assert_eq!((unknown.kind(), unknown.context().problems[0].field.as_str()), (ErrorKind::Invalid, "channel"));
    let report = client.alerts().await.unwrap();
    assert_eq!(report, served.machina.system().alerts());
    served.close().await;
}
