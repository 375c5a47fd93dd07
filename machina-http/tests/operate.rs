//! What is done with a running service: heartbeats, maintenance with a reason,
//! health over time; where it can be reached, how a host is connected to it, and
//! the status of everything.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use machina_core::testing::registry_suite::settle;
use machina_core::testing::{Behaviour, SimConnector};
use machina_core::{
    Admission, Backend, Config, Error, ErrorKind, Machina, MemoryStore, Query, Rate, Scratch, ScratchStanding, Status,
    Timestamp,
};
use machina_http::{ConnectAnswer, ConnectRequest, Extensions, ServerConfig, Snippet};
use serde_json::{Value, json};
use support::Server;

/// The identity of the instance at this place.
async fn instance_id(server: &Server, service: &str, index: usize) -> String {
    let service = server.get(&format!("/api/v1/services/{service}")).await;
    service.body["instances"][index]["id"].as_str().unwrap().to_owned()
}

fn leased(server: &Server, name: &str) -> Value {
    let mut instance = serde_json::to_value(server.sim.instance(name)).unwrap();
    instance["lease_ttl"] = json!("30s");
    instance
}

/// Has an instance that was healthy refuse, and waits until that is known.
async fn break_down(server: &Server, instance: &machina_core::Instance, service: &str) {
    settle(&server.machina, service, Status::Healthy).await;
    server.sim.set(instance, Behaviour::Refuse);
    for _ in 0..20 {
        let checked = server.post(&format!("/api/v1/services/{service}/checks"), json!({})).await;
        if checked.body["status"] == "unhealthy" {
            return;
        }
    }
    panic!("{service} did not break down");
}

#[tokio::test]
async fn a_heartbeat_renews_the_lease() {
    let server = Server::start().await;
    let instances = [leased(&server, "one"), leased(&server, "two")];
    server.register(json!({"name": "one", "instances": [instances[0]]})).await;
    server.register(json!({"name": "two", "instances": instances})).await;
    server.register(json!({"name": "declared", "instances": [server.sim.instance("three")]})).await;
    for method in ["POST", "PUT"] {
        for body in [None, Some("{}")] {
            let answer = server.send(method, "/api/v1/services/one/heartbeat", &[], body).await;
            assert_eq!(answer.status, 200, "{}", answer.text);
            assert_eq!((&answer.body["service"], &answer.body["lease"]["ttl_ms"]), (&json!("one"), &json!(30_000)));
        }
    }
    let second = instance_id(&server, "two", 1).await;
    let path = format!("/api/v1/services/two/instances/{second}/heartbeat");
    assert_eq!(server.post(&path, json!({})).await.body["instance"], json!(second));
    let unsaid = server.post("/api/v1/services/two/heartbeat", json!({})).await;
    unsaid.assert_problem("which one?", 400, "invalid");
    let declared = server.post("/api/v1/services/declared/heartbeat", json!({})).await;
    assert_eq!((declared.status, &declared.body["lease"]), (200, &Value::Null));

    let client = server.client();
    let told = client.heartbeat("two", Some(second.parse().unwrap())).await.unwrap();
    assert_eq!((told.instance.unwrap().to_string(), told.lease.unwrap().ttl_ms), (second, 30_000));
    assert!(client.heartbeat("one", None).await.unwrap().lease.is_some());
}

#[tokio::test]
async fn a_heartbeat_of_the_unknown_says_register() {
    let server = Server::start().await;
    server.register(json!({"name": "known", "instances": [leased(&server, "one")]})).await;
    let paths = [
        "/services/absent/heartbeat".to_owned(),
        "/services/absent/instances/01a1fba8-3c62-7346-a768-2dacc476253b/heartbeat".to_owned(),
        "/services/known/instances/01a1fba8-3c62-7346-a768-2dacc476253b/heartbeat".to_owned(),
        "/services/known/instances/first/heartbeat".to_owned(),
    ];
    for path in paths {
        let answer = server.post(&format!("/api/v1{path}"), json!({})).await;
        answer.assert_problem(&path, 404, "service-not-registered");
    }
    let error = server.client().heartbeat("absent", None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound);
    let body = server.post("/api/v1/services/known/heartbeat", json!({"status": "fine"})).await;
    body.assert_problem("a body", 422, "invalid");
    server.get("/api/v1/services/known/heartbeat").await.assert_problem("a method", 405, "invalid");
}

#[tokio::test]
async fn maintenance_has_a_reason() {
    let server = Server::start().await;
    server.register(json!({"name": "a", "instances": [server.sim.instance("one"), server.sim.instance("two")]})).await;
    let path = "/api/v1/services/a/maintenance";
    let begun = server.post(path, json!({"reason": "new disks"})).await;
    assert_eq!((&begun.body["admin_state"], &begun.body["admin_reason"]), (&json!("maintenance"), &json!("new disks")));
    let health = server.get("/api/v1/services/a/health").await;
    assert_eq!(health.body["admin_reason"], "new disks");
    let ended = server.send("DELETE", path, &[], None).await;
    assert_eq!((&ended.body["admin_state"], &ended.body["admin_reason"]), (&json!("enabled"), &Value::Null));
    assert_eq!(server.send("POST", path, &[], None).await.body["admin_state"], "maintenance", "no body will do");

    let one = instance_id(&server, "a", 0).await;
    let path = format!("/api/v1/services/a/instances/{one}/maintenance");
    let begun = server.post(&path, json!({"reason": "a fan"})).await;
    assert_eq!((&begun.body["id"], &begun.body["admin_state"]), (&json!(one), &json!("maintenance")));
    assert_eq!(begun.body["admin_reason"], "a fan");
    let ended = server.send("DELETE", &path, &[], None).await;
    assert_eq!(ended.body["admin_state"], "enabled");
    let patch = json!({"admin_state": "disabled"}).to_string();
    let place = path.strip_suffix("/maintenance").unwrap();
    assert_eq!(server.send("PATCH", place, &[], Some(&patch)).await.body["admin_state"], "disabled");
    let kept = server.send("DELETE", &path, &[], None).await;
    assert_eq!(kept.body["admin_state"], "disabled", "it is out for another reason");
}

#[tokio::test]
async fn wrong_reasons_are_refused() {
    let server = Server::start().await;
    server.register(json!({"name": "a", "instances": [server.sim.instance("one")]})).await;
    let one = instance_id(&server, "a", 0).await;
    for path in ["/api/v1/services/a/maintenance", &format!("/api/v1/services/a/instances/{one}/maintenance")] {
        let long = server.post(path, json!({"reason": "x".repeat(501)})).await;
        long.assert_problem(path, 422, "invalid");
        assert_eq!(long.field(), "#/reason", "{}", long.text);
        assert!(long.body["detail"].as_str().unwrap().starts_with("reason: "), "{}", long.text);
        for (body, status) in [("{\"why\": \"x\"}", 422), ("{\"reason\": 7}", 422), ("{", 400), ("[]", 422)] {
            server.send("POST", path, &[], Some(body)).await.assert_problem(body, status, "invalid");
        }
        let text = server.send("POST", path, &[("content-type", "text/plain")], Some("why")).await;
        text.assert_problem("text", 415, "invalid");
    }
    assert_eq!(server.get("/api/v1/services/a").await.body["admin_state"], "enabled");
}

#[tokio::test]
async fn health_is_told_over_time() {
    let server = Server::start().await;
    server.register(json!({"name": "a", "instances": [server.sim.instance("one")]})).await;
    settle(&server.machina, "a", Status::Healthy).await;
    let plain = server.get("/api/v1/services/a/health").await;
    assert_eq!(plain.body.get("history"), None);
    for (query, slots, slot_ms) in
        [("slots=90", 90, 86_400_000_u64), ("slots=24&slot=1h", 24, 3_600_000), ("slot=PT30M", 90, 1_800_000)]
    {
        let answer = server.get(&format!("/api/v1/services/a/health?{query}")).await;
        let history = &answer.body["history"];
        assert_eq!(answer.body["status"], "healthy");
        assert_eq!(
            (history["slots"].as_array().unwrap().len(), &history["slot_ms"]),
            (slots, &json!(slot_ms)),
            "{query}"
        );
        assert!(history["slots"][slots - 1]["worst"].is_string(), "{}", answer.text);
    }
    for (query, field) in [
        ("slots=0", "slots"),
        ("slots=367", "slots"),
        ("slots=x", "slots"),
        ("slot=x", "slot"),
        ("slot=1s", "slot"),
        ("days=1", "days"),
    ] {
        let answer = server.get(&format!("/api/v1/services/a/health?{query}")).await;
        answer.assert_problem(query, 400, "invalid");
        assert_eq!(answer.field(), field, "{}", answer.text);
    }
    let read = server.client().health_slots("a", 12, Duration::from_secs(3600)).await.unwrap();
    assert_eq!((read.slots.len(), read.slot_ms), (12, 3_600_000));
    assert_eq!(
        server.client().health_slots("b", 1, Duration::from_secs(60)).await.unwrap_err().kind(),
        ErrorKind::NotFound
    );
}

#[tokio::test]
async fn only_what_can_be_reached_is_discovered() {
    let server = Server::start().await;
    let mut instances = Vec::new();
    for (name, region) in [("up", "eu"), ("down", "eu"), ("far", "us")] {
        let mut instance = server.sim.instance(name);
        if name == "down" {
            server.sim.set(&instance, Behaviour::Refuse);
        }
        instance.region = Some(region.to_owned());
        instances.push(instance);
    }
    server
        .register(
            json!({"name": "mixed", "tags": ["x"], "tenant": "acme", "capabilities": ["sums"], "instances": instances}),
        )
        .await;
    let dead = server.sim.instance("dead");
    server.register(json!({"name": "dead", "tags": ["x"], "instances": [dead]})).await;
    server.register(json!({"name": "empty", "tags": ["x"]})).await;
    break_down(&server, &dead, "dead").await;
    settle(&server.machina, "mixed", Status::Degraded).await;
    let places = |answer: &support::Answer| -> Vec<String> {
        let instances =
            answer.body["items"].as_array().unwrap().iter().flat_map(|item| item["instances"].as_array().unwrap());
        instances.map(|instance| instance["region"].as_str().unwrap().to_owned()).collect()
    };
    for (query, expected) in [
        ("", 2),
        ("?tags=x", 2),
        ("?region=eu", 1),
        ("?region=asia", 0),
        ("?company=acme&capabilities=sums", 2),
        ("?company=other", 0),
        ("?tool=add", 2),
        ("?tool=absent", 0),
        ("?text=mixed&status=degraded", 2),
        ("?status=healthy", 0),
    ] {
        let answer = server.get(&format!("/api/v1/discover{query}")).await;
        assert_eq!((answer.status, places(&answer).len()), (200, expected), "{query}: {}", answer.text);
    }
    let answer = server.get("/api/v1/discover").await;
    let found = &answer.body["items"][0];
    assert_eq!((&found["service"], &found["tenant"]), (&json!("mixed"), &json!("acme")));
    let place = &found["instances"][0];
    assert_eq!(
        (&place["kind"], &place["standing"], &place["health"]),
        (&json!("http"), &json!("up"), &json!("healthy"))
    );
    assert!(place["location"].is_string() && place["reason"].is_string(), "{place}");
    let not_modified = server.send("GET", "/api/v1/discover", &[("if-none-match", "\"nonsense\"")], None).await;
    assert_eq!(not_modified.status, 200);
    let wrong = server.get("/api/v1/discover?colour=blue").await;
    assert_eq!((wrong.status, wrong.field()), (400, "colour"));

    let mut secret = server.sim.instance("secret");
    let machina_core::Endpoint::Http(http) = &mut secret.endpoint else { panic!("simulated instances are HTTP") };
    http.headers.insert("X-Key".into(), machina_core::Sensitive::secret("hunter2"));
    let spec = machina_core::ServiceSpec::new("secret").unwrap().instance(secret);
    server.machina.register(spec).await.unwrap();
    settle(&server.machina, "secret", Status::Healthy).await;
    let page = server.client().discover(&Query::from_pairs([("name", "secret")]).unwrap()).await.unwrap();
    assert_eq!(page.items[0].instances.len(), 1);
    assert!(!serde_json::to_string(&page.items).unwrap().contains("hunter2"));
}

#[tokio::test]
async fn a_host_is_told_how_to_connect() {
    fn answer(request: &ConnectRequest) -> Result<ConnectAnswer, Error> {
        if request.client != "cursor" {
            return Err(Error::invalid_field("client", "must be cursor"));
        }
        let snippet = |config: Value| Snippet { file: "mcp.json".to_owned(), config, notes: Vec::new() };
        let direct =
            request.direct.as_ref().map(|spec| snippet(json!({"name": spec.name, "count": spec.instances.len()})));
        Ok(ConnectAnswer { command: None, snippet: snippet(json!({"name": request.name})), direct })
    }
    let extensions = Extensions::new().connect(answer);
    let server = Server::with(ServerConfig::default(), Config::default(), extensions).await;
    let secret = json!({"http": {"url": "https://a.example/mcp", "headers": {"X-Key": "hunter2"}}});
    server.register(json!({"name": "open", "instances": [secret, {"http": {"url": "https://b.example/mcp"}}]})).await;
    server.register(json!({"name": "closed", "instances": [secret]})).await;
    for group in [
        json!({"name": "g", "members": [{"service": "closed"}]}),
        json!({"name": "h", "members": [{"service": "open", "tools": ["a*"]}]}),
    ] {
        assert_eq!(server.post("/api/v1/groups", group).await.status, 201);
    }
    let url = |path: &str| json!(format!("{}{path}", server.url));
    let all = server.get("/api/v1/connect?client=cursor").await;
    assert_eq!(
        (&all.body["url"], &all.body["scope"], &all.body["config"]["name"]),
        (&url("/mcp"), &json!("machina"), &json!("machina"))
    );
    let open = server.get("/api/v1/services/open/connect?client=cursor").await;
    assert_eq!(
        (&open.body["url"], &open.body["direct"]["config"]),
        (&url("/mcp"), &json!({"name": "open", "count": 1}))
    );
    let closed = server.get("/api/v1/services/closed/connect?client=cursor").await;
    assert_eq!((&closed.body["url"], &closed.body["group"]), (&url("/mcp/g"), &json!("g")));
    assert_eq!((&closed.body["config"]["name"], &closed.body["direct"]), (&json!("machina-g"), &Value::Null));
    let group = server.get("/api/v1/groups/h/connect?client=cursor").await;
    assert_eq!((&group.body["url"], &group.body["scope"]), (&url("/mcp/h"), &json!("group")));
    let named = server.send("GET", "/api/v1/connect?client=cursor", &[("host", "localhost:1234")], None).await;
    assert_eq!(named.body["url"], "http://localhost:1234/mcp");
    for query in ["", "?client=notepad"] {
        let wrong = server.get(&format!("/api/v1/connect{query}")).await;
        wrong.assert_problem(query, 400, "invalid");
        assert_eq!(wrong.field(), "client");
    }
    for path in ["services/absent", "groups/absent"] {
        let absent = server.get(&format!("/api/v1/{path}/connect?client=cursor")).await;
        absent.assert_problem(path, 404, "not_found");
    }
    let plain = Server::start().await;
    plain.get("/api/v1/connect?client=cursor").await.assert_problem("no hook", 501, "unsupported");
}

#[tokio::test]
async fn the_status_says_how_everything_is() {
    let server = Server::with(ServerConfig::default(), Config::default(), Router::new()).await;
    let (good, bad) = (server.sim.instance("good"), server.sim.instance("bad"));
    server.register(json!({"name": "good", "instances": [good]})).await;
    settle(&server.machina, "good", Status::Healthy).await;
    let status = server.get("/api/v1/status").await;
    assert_eq!((&status.body["status"], &status.body["not_healthy"]), (&json!("healthy"), &json!([])));
    server.register(json!({"name": "bad", "instances": [bad]})).await;
    server.register(json!({"name": "off", "enabled": false})).await;
    break_down(&server, &bad, "bad").await;
    let status = server.get("/api/v1/status").await;
    assert_eq!((&status.body["name"], &status.body["version"]), (&json!("machina"), &json!(env!("CARGO_PKG_VERSION"))));
    assert_eq!((&status.body["status"], &status.body["services"]), (&json!("unhealthy"), &json!(3)));
    assert_eq!((&status.body["statuses"]["healthy"], &status.body["statuses"]["disabled"]), (&json!(1), &json!(1)));
    let store = &status.body["store"];
    assert_eq!((&store["ready"], &store["stale"]), (&json!(true), &json!(false)));
    assert!(store["revision"].is_u64() && store["as_of"].is_string() && store["lag_ms"].is_u64(), "{store}");
    assert!(status.body["uptime_s"].as_u64().unwrap() < 600);
    let time = |field: &str| status.body[field].as_str().unwrap().parse::<Timestamp>().unwrap();
    let (started, as_of) = (time("started_at"), time("as_of"));
    assert!(started <= as_of, "{started} {as_of}");
    let [bad] = status.body["not_healthy"].as_array().unwrap().as_slice() else { panic!("one: {}", status.text) };
    assert_eq!(
        (&bad["service"], &bad["status"], &bad["state"]),
        (&json!("bad"), &json!("unhealthy"), &json!("unhealthy"))
    );
    assert!(bad["reason"]["code"].is_string() && bad["since"].is_string(), "{bad}");
    server.client().check_version().await.unwrap();
    assert_eq!(server.client().overview().await.unwrap().services, 3);
}

/// What replicas would share, there or away.
#[derive(Debug, Default)]
struct Shared {
    away: AtomicBool,
}

#[async_trait::async_trait]
impl Scratch for Shared {
    async fn take(&self, _: &str, _: Rate) -> Option<Admission> {
        None
    }
    async fn get(&self, _: &str) -> Option<Arc<[u8]>> {
        None
    }
    async fn put(&self, _: &str, _: &[u8], _: Duration) {}
    fn standing(&self) -> Option<ScratchStanding> {
        Some(ScratchStanding { connected: !self.away.load(Ordering::SeqCst), since: Timestamp::UNIX_EPOCH })
    }
}

#[tokio::test]
async fn the_state_of_redis_is_told_and_makes_no_server_unready() {
    let (shared, sim) = (Arc::new(Shared::default()), SimConnector::default());
    let backend = Backend { scratch: Some(shared.clone()), ..Backend::of(MemoryStore::new()) };
    let machina = Machina::builder().backend(backend).connector(Arc::new(sim.clone())).open().await.unwrap();
    let server = Server::of(machina, sim, ServerConfig::default(), Router::new()).await;
    for (away, word) in [(false, "ok"), (true, "away")] {
        shared.away.store(away, Ordering::SeqCst);
        let ready = server.get("/readyz?verbose").await;
        assert_eq!((ready.status, &ready.body["status"]), (200, &json!("ready")));
        assert_eq!(ready.body["checks"]["redis"], json!({"status": word, "since": "1970-01-01T00:00:00Z"}));
        let status = server.get("/api/v1/status").await;
        assert_eq!(
            status.body["store"]["redis"],
            json!({"connected": !away, "since": "1970-01-01T00:00:00Z"}),
            "{}",
            status.text
        );
        assert_eq!(status.body["store"]["ready"], json!(true));
    }
    let alone = Server::start().await;
    assert_eq!(alone.get("/readyz?verbose").await.body["checks"]["redis"], Value::Null);
    assert_eq!(alone.get("/api/v1/status").await.body["store"].get("redis"), None);
}
