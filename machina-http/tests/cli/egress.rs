//! Where a served Machina goes for others, what it takes along, and what it tells
//! of what it met there.

use std::time::Duration;

use reqwest::Client;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::upstream::Upstream;
use crate::world::{Served, World, text};

const CANARY: &str = "canary-4711";
const PATIENCE: Duration = Duration::from_secs(20);

/// What a caller may have about itself that is for Machina alone.
const OF_CALLERS: [(&str, &str); 8] = [
    ("authorization", "Bearer canary-4711"),
    ("proxy-authorization", "Basic canary-4711"),
    ("cookie", "session=canary-4711"),
    ("x-api-key", "canary-4711"),
    ("x-forwarded-for", "canary-4711"),
    ("forwarded", "for=canary-4711"),
    ("x-cron-secret", "canary-4711"),
    ("x-anything", "canary-4711"),
];

struct Asking<'a> {
    http: Client,
    served: &'a Served,
}

impl<'a> Asking<'a> {
    fn of(served: &'a Served) -> Self {
        Self { http: Client::builder().no_proxy().build().unwrap(), served }
    }

    async fn send(&self, method: &str, path: &str, headers: &[(&str, &str)], body: Option<Value>) -> (u16, String) {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let mut request = self.http.request(method, format!("{}{path}", self.served.url));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        serde_json::from_str(&self.send("GET", path, &[], None).await.1).unwrap_or_default()
    }

    /// Waits until the service is in this state.
    async fn until(&self, service: &str, state: &str) -> Value {
        let begun = Instant::now();
        loop {
            let health = self.get(&format!("/api/v1/services/{service}/health")).await;
            if health["instances"][0]["health"]["state"] == state || health["instances"][0]["state"] == state {
                return health;
            }
            assert!(begun.elapsed() < PATIENCE, "not {state}: {health}");
            sleep(Duration::from_millis(50)).await;
        }
    }
}

/// A configuration with the one service `up` at `url`, which has a credential of its own.
fn configuration(mode: &str, url: &str) -> String {
    format!(
        "[mcp]\nmode = \"{mode}\"\n[[services]]\nname = \"up\"\n[[services.instances]]\n\
         http = {{ url = \"{url}\", headers = {{ Authorization = \"Bearer of-the-service\" }} }}\n"
    )
}

#[tokio::test]
async fn what_callers_say_of_themselves_goes_to_no_service() {
    let upstream = Upstream::mcp().await;
    for mode in ["meta", "flat"] {
        let world = World::new();
        let config = world.write("machina.toml", &configuration(mode, &upstream.url));
        let served = Served::start(&world, &["--config", text(&config)]).await;
        let asking = Asking::of(&served);
        asking.until("up", "healthy").await;
        let call = json!({"tool": "echo", "arguments": {}});
        let before = upstream.heard().len();
        for (path, call) in [("/api/v1/services/up/call", call), ("/api/services/up/call", json!({"tool": "echo"}))] {
            let (status, answer) = asking.send("POST", path, &OF_CALLERS, Some(call)).await;
            assert_eq!(status, 200, "{path}: {answer}");
        }
        let mut call = match mode {
            "meta" => json!({"name": "call_tool", "arguments": {"service": "up", "tool": "echo", "arguments": {}}}),
            _ => json!({"name": "up__echo", "arguments": {}}),
        };
        let name = call["name"].as_str().unwrap().to_owned();
        let meta = "io.modelcontextprotocol";
        call["_meta"] =
            json!({format!("{meta}/protocolVersion"): "2026-07-28", format!("{meta}/clientCapabilities"): {}});
        let request = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": call});
        let mcp = [
            ("accept", "application/json, text/event-stream"),
            ("mcp-protocol-version", "2026-07-28"),
            ("mcp-method", "tools/call"),
            ("mcp-name", &name),
        ];
        let (status, answer) = asking.send("POST", "/mcp", &[&mcp[..], &OF_CALLERS].concat(), Some(request)).await;
        assert!(status == 200 && answer.contains("heard"), "{mode} {status}: {answer}");
        asking.send("POST", "/api/v1/services/up/check", &OF_CALLERS, None).await;
        assert!(upstream.heard().len() >= before + 3, "{mode}: the calls arrived");
        served.signal("TERM").await;
        assert_eq!(served.ended().await, 0);
    }
    for headers in upstream.heard() {
        assert_eq!(headers.get("authorization").unwrap(), "Bearer of-the-service");
        assert!(!format!("{headers:?}").contains(CANARY), "{headers:?}");
        assert!(headers.get("cookie").is_none() && headers.get("x-api-key").is_none(), "{headers:?}");
    }
}

#[tokio::test]
async fn a_service_on_this_machine_is_declared_inside_or_allowed() {
    let upstream = Upstream::mcp().await;
    let inside = World::new();
    let config = inside.write("machina.toml", &configuration("meta", &upstream.url));
    let served = Served::start(&inside, &["--config", text(&config)]).await;
    let asking = Asking::of(&served);
    asking.until("up", "healthy").await;
    let register = json!({"name": "more", "instances": [{"http": {"url": "https://a.example/"}}, {"http": {"url": upstream.url}}]});
    let (status, refused) = asking.send("POST", "/api/v1/services", &[], Some(register.clone())).await;
    let refused: Value = serde_json::from_str(&refused).unwrap();
    assert_eq!((status, &refused["code"]), (403, &json!("forbidden")), "{refused}");
    assert_eq!(refused["errors"][0]["pointer"], "#/instances/1/http/url", "{refused}");
    assert!(refused["detail"].as_str().unwrap().contains("egress.allow = ["), "{refused}");
    let ran = inside
        .run(&[
            "import",
            &inside.hosts("h.json", json!({"h": {"type": "http", "url": upstream.url}})),
            "--url",
            &served.url,
        ])
        .await;
    ran.ended(2).complains(&["`h` was not taken", "instances[0].http.url", "egress.allow"]);
    served.signal("TERM").await;
    assert_eq!(served.ended().await, 0);

    let allowed = World::reaching_loopback();
    let served = Served::start(&allowed, &[]).await;
    let asking = Asking::of(&served);
    let register = json!({"name": "more", "instances": [{"http": {"url": upstream.url}}]});
    let (status, answer) = asking.send("POST", "/api/v1/services", &[], Some(register)).await;
    let answer: Value = serde_json::from_str(&answer).unwrap();
    assert_eq!((status, &answer["instances"][0]["from_outside"]), (201, &json!(true)), "{answer}");
    asking.until("more", "healthy").await;
    served.signal("TERM").await;
    assert_eq!(served.ended().await, 0);
}

#[tokio::test]
async fn a_wrong_network_is_a_problem_of_the_configuration() {
    let world = World::new();
    let config = world.write("machina.toml", "[egress]\nallow = [\"10.0.0.1/8\"]\n");
    let mut command = world.command(&["config", "check", text(&config)]);
    let output = command.env_remove("MACHINA_EGRESS__ALLOW").output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned() + &String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("egress.allow") && said.contains("bits after its prefix"), "{said}");
}

#[tokio::test]
async fn the_proxies_of_the_environment_are_not_asked() {
    let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = format!("http://{}", proxy.local_addr().unwrap());
    let upstream = Upstream::mcp().await;
    let world = World::new();
    let config = world.write("machina.toml", &configuration("meta", &upstream.url));
    let proxies = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let served = Served::start_with(&world, &["--config", text(&config)], |command| {
        command.envs(proxies.map(|name| (name, &address)));
    })
    .await;
    let asking = Asking::of(&served);
    asking.until("up", "healthy").await;
    // A listening stream goes through the full client.
    let listens = |headers: &reqwest::header::HeaderMap| headers["accept"] == "text/event-stream";
    while !upstream.heard().iter().any(listens) {
        sleep(Duration::from_millis(10)).await;
    }
    let asked = tokio::time::timeout(Duration::from_millis(300), proxy.accept()).await;
    assert!(asked.is_err(), "the proxy was asked");
    served.signal("TERM").await;
    assert_eq!(served.ended().await, 0);
}

#[tokio::test]
async fn whoever_registers_an_address_cannot_read_what_is_there() {
    let page = format!("<html><title>{CANARY}</title></html>");
    for (status, kind) in [(200, "text/html"), (404, "text/html"), (500, "application/json")] {
        let upstream = Upstream::pages(status, kind, page.clone()).await;
        let world = World::reaching_loopback();
        let served = Served::start(&world, &[]).await;
        let asking = Asking::of(&served);
        let register = json!({"name": "page", "instances": [{"http": {"url": upstream.url}}],
            "health_policy": {"startup_grace": "1s", "fast_interval": "100ms"}});
        let (registered, answer) = asking.send("POST", "/api/v1/services", &[], Some(register)).await;
        assert_eq!(registered, 201, "{answer}");
        let health = asking.until("page", "unhealthy").await;
        assert!(!health.to_string().contains("\"response_time_ms\":0"), "{health}");
        let call = json!({"tool": "echo", "arguments": {}});
        let asked = [
            asking.send("POST", "/api/v1/services/page/check", &[], None).await.1,
            asking.send("POST", "/api/v1/services/page/call", &[], Some(call)).await.1,
            asking.send("GET", "/api/v1/services/page", &[], None).await.1,
            asking.send("GET", "/api/v1/services/page/health", &[], None).await.1,
            asking.send("GET", "/api/v1/services/page/history", &[], None).await.1,
            asking.send("GET", "/metrics", &[], None).await.1,
            served.log(),
        ];
        assert!(upstream.heard().len() > 1, "somebody looked");
        for answer in asked {
            assert!(!answer.contains(CANARY), "{status} {kind}: {answer}");
        }
        served.signal("TERM").await;
        assert_eq!(served.ended().await, 0);
    }
}
