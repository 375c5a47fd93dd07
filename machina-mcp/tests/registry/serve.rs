//! The read side, as hosts ask it.

use machina_core::{AdminState, Machina};
use machina_mcp::registry::RegistryConfig;
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};

use crate::support::{OFFICIAL, Served, machina, put, registry, remote};

const SECRET: &str = "hunter2";

async fn get(served: &Served, path: &str) -> (u16, Value) {
    let response = Client::new().get(format!("{}{path}", served.url)).send().await.unwrap();
    assert_eq!(response.headers()["access-control-allow-origin"], "*", "{path}");
    assert_eq!(response.headers()["content-type"], "application/json", "{path}");
    let status = response.status().as_u16();
    let text = response.text().await.unwrap();
    assert!(!text.contains(SECRET), "{text}");
    (status, serde_json::from_str(&text).unwrap())
}

async fn list(served: &Served, query: &str) -> Value {
    let (status, list) = get(served, &format!("/v0.1/servers?{query}")).await;
    assert_eq!(status, 200, "{query}: {list}");
    assert_eq!(list["metadata"]["count"], list["servers"].as_array().unwrap().len());
    list
}

fn names(list: &Value) -> Vec<&str> {
    list["servers"].as_array().unwrap().iter().map(|entry| entry["server"]["name"].as_str().unwrap()).collect()
}

fn official(entry: &Value) -> &Value {
    &entry["_meta"][OFFICIAL]
}

async fn filled(count: usize) -> (Machina, Served) {
    let machina = machina().await;
    for number in 0..count {
        put(&machina, remote(&format!("s{number:02}"), "x")).await;
    }
    let served = registry(&machina, RegistryConfig::default()).await;
    (machina, served)
}

#[tokio::test]
async fn an_entry_has_the_form_of_the_specification() {
    let machina = machina().await;
    let stdio = json!({"command": "npx", "args": ["-y", "a@1.0.0", "--api-key", SECRET], "env": {"TOKEN": SECRET}});
    let http = json!({"url": "https://a.example/mcp", "headers": {"Authorization": format!("Bearer {SECRET}")}});
    put(&machina, json!({"name": "time", "title": "Time", "instances": [{"stdio": stdio}, {"http": http}]})).await;
    let served = registry(&machina, RegistryConfig::default()).await;
    let list = list(&served, "").await;
    let entry = &list["servers"][0];
    assert_eq!(entry["server"]["name"], "local.machina/time");
    assert_eq!(list["metadata"], json!({"count": 1}));
    let service = machina.get("time").unwrap();
    let wanted = json!({
        "status": "active", "publishedAt": service.service().created_at,
        "updatedAt": service.service().updated_at, "isLatest": true,
    });
    assert_eq!(official(entry), &wanted);
    let health = &entry["_meta"]["dev.machina/health"];
    assert_eq!(
        (&health["status"], &health["tool_count"], &health["last_check"]),
        (&json!("unknown"), &json!(0), &json!(null))
    );
    assert!(health["since"].is_string() && health.get("protocol_version").is_some(), "{health}");
    let asked = json!({"name": "TOKEN", "isRequired": true, "isSecret": true});
    assert_eq!(entry["server"]["packages"][0]["environmentVariables"][0], asked);
    for path in [
        "/v0.1/servers/local.machina%2Ftime/versions/latest",
        "/v0/servers/local.machina/time/versions/0.0.0",
        "/v0/servers/local%2Emachina%2ftime/versions/latest?x=1",
    ] {
        assert_eq!(get(&served, path).await, (200, entry.clone()), "{path}");
    }
    let versions = get(&served, "/v0.1/servers/local.machina%2Ftime/versions").await.1;
    assert_eq!(versions, json!({"servers": [entry], "metadata": {"count": 1}}));
}

#[tokio::test]
async fn pages_are_complete_whatever_changes_meanwhile() {
    let (machina, served) = filled(25).await;
    assert_eq!(list(&served, "").await["servers"].as_array().unwrap().len(), 25);
    let first = list(&served, "limit=10&search=S").await;
    assert_eq!(names(&first).len(), 10);
    // VS Code sends the cursor as it is, and not what it searched for.
    let cursor = first["metadata"]["nextCursor"].as_str().unwrap().to_owned();
    put(&machina, remote("s00", "changed")).await;
    put(&machina, remote("other", "x")).await;
    let second = list(&served, &format!("cursor={cursor}")).await;
    let cursor = second["metadata"]["nextCursor"].as_str().unwrap();
    let third = list(&served, &format!("cursor={cursor}&limit=100")).await;
    assert_eq!(third["metadata"].get("nextCursor"), None);
    let mut seen: Vec<_> = [&first, &second, &third].into_iter().flat_map(|page| names(page)).collect();
    assert_eq!(seen.len(), 26, "the one that changed is seen again: {seen:?}");
    assert!(!seen.contains(&"local.machina/other"), "it was not searched for");
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 25);
}

#[tokio::test]
async fn filters_of_the_list() {
    let machina = machina().await;
    let mut other = remote("io.github.X/Weather", "w");
    other["version"] = json!("2.0.0");
    put(&machina, remote("time", "t")).await;
    put(&machina, other).await;
    let served = registry(&machina, RegistryConfig::default()).await;
    for (query, wanted) in [
        ("search=WEATH", vec!["io.github.X/Weather"]),
        ("search=local.machina", vec!["local.machina/time"]),
        ("search=%2F", vec!["io.github.X/Weather", "local.machina/time"]),
        ("search=none", vec![]),
        ("version=2.0.0", vec!["io.github.X/Weather"]),
        ("version=latest&search=time", vec!["local.machina/time"]),
        ("version=9", vec![]),
        ("updated_since=2100-01-01T00:00:00Z", vec![]),
        ("updated_since=2000-01-01T00:00:00%2B02:00", vec!["io.github.X/Weather", "local.machina/time"]),
    ] {
        let listed = list(&served, query).await;
        let mut found = names(&listed);
        // Both may have been put in the same millisecond.
        found.sort_unstable();
        assert_eq!(found, wanted, "{query}");
    }
}

#[tokio::test]
async fn what_an_operator_says_is_the_status() {
    let (machina, served) = filled(5).await;
    let states = [AdminState::Draining, AdminState::Disabled, AdminState::Maintenance, AdminState::Quarantined];
    for (number, state) in states.into_iter().enumerate() {
        machina.set_admin_state(&format!("s{number:02}"), None, state).await.unwrap();
    }
    let list_of = async |query: &str| {
        let list = list(&served, query).await;
        let mut found: Vec<_> = list["servers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|entry| format!("{} {}", entry["server"]["name"], official(entry)["status"]).replace('"', ""))
            .collect();
        found.sort();
        found.into_iter().map(|found| found.trim_start_matches("local.machina/").to_owned()).collect::<Vec<_>>()
    };
    let visible = ["s00 deprecated", "s01 deprecated", "s02 active", "s04 active"];
    assert_eq!(list_of("").await, visible);
    assert_eq!(list_of("include_deleted=true").await[3], "s03 deleted");
    assert_eq!(get(&served, "/v0/servers/local.machina%2Fs03/versions/latest").await.0, 404);
    let (status, entry) = get(&served, "/v0/servers/local.machina%2Fs03/versions/latest?include_deleted=true").await;
    assert_eq!((status, &official(&entry)["statusMessage"]), (200, &json!("is not trusted by its operator")));
}

#[tokio::test]
async fn what_is_gone_is_told_to_those_who_ask_for_changes() {
    let (machina, served) = filled(3).await;
    let before = machina_core::now();
    machina.deregister("s00").await.unwrap();
    machina.deregister("s01").await.unwrap();
    put(&machina, remote("s01", "again")).await;
    assert_eq!(names(&list(&served, "").await).len(), 2);
    let changes = list(&served, &format!("updated_since={before}")).await;
    let gone: Vec<_> =
        changes["servers"].as_array().unwrap().iter().filter(|e| official(e)["status"] == "deleted").collect();
    assert_eq!(gone.len(), 1, "a name that is taken again is not gone: {changes}");
    assert_eq!(gone[0]["server"]["name"], "local.machina/s00");
    assert_eq!(gone[0]["server"]["version"], "1.0.0");
    assert!(official(gone[0])["statusChangedAt"].is_string());
    assert_eq!(names(&list(&served, "include_deleted=true").await).len(), 3);
    let path = "/v0.1/servers/local.machina%2Fs00/versions";
    assert_eq!(get(&served, path).await.0, 404);
    let (status, versions) = get(&served, &format!("{path}?include_deleted=true")).await;
    assert_eq!((status, &versions["servers"][0]), (200, gone[0]));
}

#[tokio::test]
async fn everyone_sees_what_they_may_see() {
    let machina = machina().await;
    for (name, tenant) in [("a", json!("acme")), ("b", json!("other")), ("c", json!(null))] {
        let mut record = remote(name, "x");
        record["tenant"] = tenant;
        put(&machina, record).await;
    }
    machina.deregister("b").await.unwrap();
    let served = registry(&machina, RegistryConfig::default()).await;
    let ask = async |tenant: &str, path: &str| {
        let request = Client::new().get(format!("{}/v0.1/{path}", served.url)).header("x-tenant", tenant);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json::<Value>().await.unwrap())
    };
    let (_, list) = ask("acme", "servers?include_deleted=true").await;
    assert_eq!(names(&list), ["local.machina/a"]);
    assert_eq!(ask("other", "servers/local.machina%2Fa/versions/latest").await.0, 404);
    let (status, refusal) = ask("nobody", "servers").await;
    assert_eq!((status, &refusal["error"]), (401, &json!("say who you are")));
}

#[tokio::test]
async fn a_wrong_request_is_answered_in_both_forms() {
    let (_machina, served) = filled(1).await;
    for (path, status, part) in [
        ("/v0.1/servers?limit=0", 400, "limit must be"),
        ("/v0.1/servers?cursor=YWJj", 400, "cursor is not"),
        ("/v0/servers?updated_since=now", 400, "updated_since must be"),
        ("/v0.1/servers/local.machina%2Fs00/versions/latest?include_deleted=yes", 400, "include_deleted must be"),
        ("/v0.1/servers/local.machina%2Fnone/versions", 404, "Server not found"),
        ("/v0.1/servers/none/versions/latest", 404, "Server not found"),
        ("/v0.1/servers/local.machina%2Fs00/versions/9.9.9", 404, "is 1.0.0"),
        ("/v0.1/nothing", 404, "no such path"),
    ] {
        let (answered, body) = get(&served, path).await;
        assert_eq!((answered, &body["status"]), (status, &json!(status)), "{path}");
        assert!(body["error"].as_str().unwrap().contains(part) && body["error"] == body["detail"], "{path}: {body}");
    }
    for path in ["ping", "health", "version"] {
        assert_eq!(get(&served, &format!("/v0/{path}")).await.0, 200);
    }
}

#[tokio::test]
async fn pages_of_the_web_may_read_and_nobody_may_write() {
    let (machina, served) = filled(1).await;
    let ask = async |url: &str, method: Method, origin: Option<&str>| -> Response {
        let mut request = Client::new().request(method, format!("{url}/v0.1/servers"));
        if let Some(origin) = origin {
            request = request.header("origin", origin).header("access-control-request-method", "GET");
        }
        request.send().await.unwrap()
    };
    let preflight = ask(&served.url, Method::OPTIONS, Some("https://x.example")).await;
    assert_eq!(preflight.status(), 204);
    assert_eq!(preflight.headers()["access-control-allow-origin"], "*");
    assert!(preflight.headers()["access-control-allow-methods"].to_str().unwrap().contains("GET"));
    assert!(preflight.headers()["access-control-allow-headers"].to_str().unwrap().contains('*'));
    let head = ask(&served.url, Method::HEAD, None).await;
    assert_eq!((head.status().as_u16(), head.text().await.unwrap().len()), (200, 0));
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
        let refused = ask(&served.url, method, None).await;
        assert_eq!(
            (refused.status().as_u16(), &refused.headers()["allow"]),
            (405, &"GET, HEAD, OPTIONS".parse().unwrap())
        );
        assert_eq!(refused.headers()["access-control-allow-origin"], "*");
    }
    let config = RegistryConfig { allowed_origins: vec!["https://a.example".to_owned()], ..RegistryConfig::default() };
    let strict = registry(&machina, config).await;
    let allowed = ask(&strict.url, Method::GET, Some("https://a.example")).await;
    assert_eq!(allowed.headers()["access-control-allow-origin"], "https://a.example");
    assert_eq!(allowed.headers()["vary"], "origin");
    for method in [Method::GET, Method::OPTIONS] {
        let foreign = ask(&strict.url, method, Some("https://b.example")).await;
        assert!(foreign.headers().get("access-control-allow-origin").is_none());
    }
}

#[tokio::test]
async fn a_page_of_another_site_is_not_told_what_this_machine_starts() {
    let machina = machina().await;
    put(&machina, json!({"name": "own", "instances": [{"stdio": {"command": "/opt/own/bin/serve"}}]})).await;
    let served = registry(&machina, RegistryConfig::default()).await;
    for path in ["/v0.1/servers", "/v0/servers/local.machina%2Fown/versions/latest"] {
        let asked = |origin: Option<&'static str>| {
            let request = Client::new().get(format!("{}{path}", served.url));
            let request = origin.into_iter().fold(request, |request, origin| request.header("origin", origin));
            async move { request.send().await.unwrap().text().await.unwrap() }
        };
        for origin in ["https://evil.example", "null", "http://localhost.evil.example"] {
            assert!(!asked(Some(origin)).await.contains("/opt/own"), "{path} {origin}");
        }
        for origin in [None, Some("http://localhost:3000"), Some("http://127.0.0.1:8000")] {
            assert!(asked(origin).await.contains("/opt/own"), "{path} {origin:?}");
        }
    }
}
