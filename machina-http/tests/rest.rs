//! Each resource of the API, asked over a real socket.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use machina_core::Status;
use machina_core::testing::Behaviour;
use machina_core::testing::registry_suite::settle;
use serde_json::{Value, json};
use support::Server;

/// The identity that the registry gave to the first instance of `clock`.
fn first_id(server: &Server) -> Value {
    json!(server.machina.get("clock").unwrap().service().spec.instances[0].id)
}

#[tokio::test]
async fn a_service_is_created_read_replaced_and_removed() {
    let server = Server::start().await;
    let instance = server.sim.instance("one");
    let record = json!({"name": "io.github.user/clock", "env": {"TOKEN": "hunter2"}, "instances": [instance]});
    let created = server.post("/api/v1/services", record).await;
    assert_eq!(created.status, 201, "{}", created.text);
    assert_eq!(created.header("location"), "/api/v1/services/io.github.user%2Fclock");
    assert!(created.header("etag").starts_with("\"1."), "{}", created.header("etag"));
    assert_eq!(created.header("x-machina-revision"), "1");
    assert!(!created.text.contains("hunter2"), "a secret was shown");
    settle(&server.machina, "io.github.user/clock", Status::Healthy).await;

    let path = created.header("location").to_owned();
    let read = server.get(&path).await;
    assert_eq!(read.status, 200);
    assert_eq!(read.body["name"], "io.github.user/clock");
    assert_eq!(read.body["status"], "healthy");
    assert_eq!(read.body["health"]["state"], "healthy");
    assert_eq!(read.body["tool_count"], 2);
    assert_eq!(read.header("cache-control"), "private, no-cache");
    let by_id = server.get(&format!("/api/v1/services/{}", read.body["id"].as_str().unwrap())).await;
    assert_eq!(by_id.body["name"], read.body["name"]);

    let etag = read.header("etag").to_owned();
    let again = server.send("PUT", &path, &[("if-match", &etag)], Some(&read.text)).await;
    assert_eq!(again.status, 200, "{}", again.text);
    assert_eq!(again.body["revision"], read.body["revision"], "nothing changed");

    let mut changed = read.body.clone();
    changed["title"] = "Clock".into();
    changed["name"] = "clock".into();
    let changed = server.send("PUT", &path, &[("if-match", &etag)], Some(&changed.to_string())).await;
    assert_eq!((changed.status, &changed.body["title"]), (200, &json!("Clock")), "{}", changed.text);
    assert_ne!(changed.header("etag"), etag);
    assert_eq!(changed.body["id"], read.body["id"]);
    assert_eq!(changed.body["instances"][0]["id"], read.body["instances"][0]["id"]);
    let view = server.machina.get("clock").unwrap();
    assert_eq!(view.service().spec.env["TOKEN"].expose(), "hunter2", "a masked secret keeps its value");
    server.get(&path).await.assert_problem("the old name", 404, "not_found");

    let etag = changed.header("etag").to_owned();
    let gone = server.send("DELETE", "/api/v1/services/clock", &[("if-match", &etag)], None).await;
    assert_eq!((gone.status, gone.text.as_str()), (204, ""));
    assert!(!gone.header("x-machina-revision").is_empty());
    assert!(server.machina.view().is_empty());
}

#[tokio::test]
async fn services_are_listed_by_filters_and_in_pages() {
    let server = Server::start().await;
    for number in 0..5 {
        server.register(json!({"name": format!("s{number}"), "tags": ["all", format!("t{number}")]})).await;
    }
    let one = server.get("/api/v1/services?tag=t3").await;
    assert_eq!(one.body["items"][0]["name"], "s3");
    assert_eq!((&one.body["next_cursor"], &one.body["revision"]), (&Value::Null, &json!(5)));

    let mut names = Vec::new();
    let mut path = "/api/v1/services?tags=all&order=-name&limit=2".to_owned();
    loop {
        let page = server.get(&path).await;
        assert_eq!(page.status, 200, "{}", page.text);
        let items = page.body["items"].as_array().unwrap();
        names.extend(items.iter().map(|item| item["name"].as_str().unwrap().to_owned()));
        let link = page.header("link").to_owned();
        let Some(next) = link.strip_prefix('<').and_then(|link| link.strip_suffix(">; rel=\"next\"")) else { break };
        assert!(next.contains(page.body["next_cursor"].as_str().unwrap()));
        path = next.to_owned();
    }
    assert_eq!(names, ["s4", "s3", "s2", "s1", "s0"]);
}

#[tokio::test]
async fn several_changes_are_made_at_once_or_not_at_all() {
    let server = Server::start().await;
    server.register(json!({"name": "a"})).await;
    let all = json!({"mutations": [{"put": {"name": "a", "title": "A"}}, {"register": {"name": "b"}},
        {"set_admin_state": {"name": "b", "admin_state": "maintenance"}}]});
    let made = server.post("/api/v1/services:bulk", all).await;
    assert_eq!(made.status, 200, "{}", made.text);
    assert_eq!((&made.body["revision"], made.header("x-machina-revision")), (&json!(2), "2"));
    assert_eq!(made.body["services"][2]["status"], "maintenance");
    let half = json!({"mutations": [{"deregister": {"name": "a"}}, {"register": {"name": "b"}}]});
    let refused = server.post("/api/v1/services:bulk", half).await;
    refused.assert_problem("half", 409, "conflict");
    assert_eq!(refused.body["service"], "b");
    assert_eq!(server.get("/api/v1/services/a").await.status, 200);
}

#[tokio::test]
async fn tools_are_listed_read_and_found() {
    let (server, _) = Server::with_clock(["one"]).await;
    for path in ["/api/v1/services/clock/tools", "/api/v1/tools?service=clock", "/api/v1/tools"] {
        let page = server.get(path).await;
        let names: Vec<_> = page.body["items"].as_array().unwrap().iter().map(|tool| tool["name"].clone()).collect();
        assert_eq!(names, ["echo", "add"], "{path}");
    }
    let id = server.machina.get("clock").unwrap().service().id;
    let by_id = server.get(&format!("/api/v1/services/{id}/tools?limit=1")).await;
    assert_eq!(by_id.body["items"].as_array().unwrap().len(), 1);
    let cursor = by_id.body["next_cursor"].as_str().unwrap();
    let rest = server.get(&format!("/api/v1/services/clock/tools?cursor={cursor}")).await;
    assert_eq!(rest.body["items"][0]["name"], "add");
    let tool = server.get("/api/v1/services/clock/tools/echo").await;
    assert_eq!(tool.body["inputSchema"]["properties"]["text"]["type"], "string");
    assert!(tool.text.contains(r#""x-unknown":{"b":1,"a":2}"#), "word for word: {}", tool.text);
    let found = server.post("/api/v1/tools:find", json!({"text": "account amount"})).await;
    assert_eq!((&found.body["items"][0]["name"], &found.body["items"][0]["service"]), (&json!("add"), &json!("clock")));
    assert!(found.body["items"][0]["score"].as_f64().unwrap() > 0.0);
}

#[tokio::test]
async fn a_tool_is_called_in_both_ways() {
    let (server, [instance]) = Server::with_clock(["one"]).await;
    let body = json!({"tool": "echo", "arguments": {"text": "hi"}, "timeout_ms": 5000});
    let general = server.post("/api/v1/services/clock/call", body).await;
    let direct = server.post("/api/v1/services/clock/tools/echo/call", json!({"arguments": {"text": "hi"}})).await;
    for answer in [general, direct] {
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert!(answer.body["content"][0]["text"].as_str().unwrap().contains("hi"));
        assert_eq!(answer.body["x-unknown"], 1, "word for word");
        let how = &answer.body["_meta"]["dev.machina/call"];
        assert_eq!((&how["instance"], &how["attempts"]), (&first_id(&server), &json!(1)));
        assert!(how["duration_ms"].as_f64().unwrap() > 0.0);
    }
    let failed = server.post("/api/v1/services/clock/tools/add/call", json!({"arguments": {"fail": true}})).await;
    assert_eq!((failed.status, &failed.body["isError"]), (200, &json!(true)), "a tool that fails has answered");
    assert_eq!(server.sim.executions(&instance), 3);
}

#[tokio::test]
async fn a_failed_call_says_what_is_known_of_it() {
    let cases = [
        (Behaviour::LoseAnswers, 502, "lost", "unknown", ""),
        (Behaviour::Busy, 429, "overloaded", "not_executed", "1"),
        (Behaviour::Reject, 502, "rejected", "executed", ""),
        (Behaviour::Refuse, 502, "unreachable", "not_executed", "3"),
        (Behaviour::Wedged, 504, "timeout", "unknown", ""),
    ];
    for (behaviour, status, code, outcome, retry_after) in cases {
        let (server, [instance]) = Server::with_clock(["one"]).await;
        server.sim.set(&instance, behaviour);
        let answer = server.post("/api/v1/services/clock/call", json!({"tool": "add", "timeout_ms": 200})).await;
        answer.assert_problem(code, status, code);
        assert_eq!(answer.body["outcome"], outcome, "{}", answer.text);
        assert_eq!(answer.body["instance_id"], first_id(&server));
        assert_eq!((&answer.body["service"], &answer.body["tool"]), (&json!("clock"), &json!("add")));
        assert_eq!(answer.header("retry-after"), retry_after);
    }
}

#[tokio::test]
async fn where_no_instance_is_left_it_is_said_when_to_come_back() {
    let server = Server::start().await;
    server.register(json!({"name": "empty"})).await;
    let answer = server.post("/api/v1/services/empty/call", json!({"tool": "echo"})).await;
    answer.assert_problem("no instance", 503, "unavailable");
    assert_eq!(answer.header("retry-after"), "3");
    assert_eq!(answer.body["retry_after_ms"], 3000);
}

#[tokio::test]
async fn an_idempotency_key_lets_a_call_be_repeated() {
    let (server, instances) = Server::with_clock(["one", "two"]).await;
    instances.iter().for_each(|instance| server.sim.set(instance, Behaviour::LoseAnswers));
    let path = "/api/v1/services/clock/tools/add/call";
    let once = server.send("POST", path, &[], Some("{}")).await;
    assert_eq!(once.body["attempts"], 1, "{}", once.text);
    let with_key = server.send("POST", path, &[("idempotency-key", "k1")], Some("{}")).await;
    assert_eq!(with_key.body["attempts"], 3, "{}", with_key.text);
    let in_body = server.post(path, json!({"idempotency_key": "k2"})).await;
    assert_eq!(in_body.body["attempts"], 3, "{}", in_body.text);
}

#[tokio::test]
async fn health_and_the_way_of_a_call_are_told() {
    let (server, _) = Server::with_clock(["one"]).await;
    let health = server.get("/api/v1/services/clock/health").await;
    assert_eq!((&health.body["service"], &health.body["status"]), (&json!("clock"), &json!("healthy")));
    assert_eq!(health.body["instances"][0]["id"], first_id(&server));
    let explained = server.get("/api/v1/services/clock/explain?tool=echo").await;
    assert_eq!(explained.body["candidates"][0]["picked"], true, "{}", explained.text);
    assert_eq!((&explained.body["tool"], &explained.body["repeatable"]), (&json!("echo"), &json!(false)));
    assert_eq!(server.get("/api/v1/services/clock/explain").await.status, 200);
}

#[tokio::test]
async fn the_history_of_a_service_is_read() {
    let (server, _) = Server::with_clock(["one"]).await;
    for _ in 0..3 {
        server.post("/api/v1/services/clock/call", json!({"tool": "echo"})).await;
    }
    server.post("/api/v1/services/clock/call", json!({"tool": "nothing"})).await;
    let history = async |parameters: &str, wanted: usize| {
        let path = format!("/api/v1/services/clock/history{parameters}");
        for _ in 0..500 {
            let page = server.get(&path).await;
            assert_eq!(page.status, 200, "{}", page.text);
            if page.body["items"].as_array().unwrap().len() == wanted {
                return page.body;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("{path} never had {wanted} entries: {}", server.get(&path).await.text)
    };
    let transitions = history("", 2).await;
    assert_eq!(
        (&transitions["items"][0]["kind"], &transitions["items"][0]["to"]),
        (&json!("transition"), &json!("healthy"))
    );
    let calls = history("?kind=call", 3).await;
    assert_eq!((&calls["items"][0]["tool"], &calls["items"][0]["principal"]), (&json!("echo"), &json!("local")));
    let first = history("?kind=call&limit=2", 2).await;
    let rest = history(&format!("?kind=call&cursor={}", first["next_cursor"].as_str().unwrap()), 1).await;
    assert_eq!(rest["next_cursor"], Value::Null);
    assert_eq!(history("?kind=audit", 1).await["items"][0]["action"], "register");
    let id = first_id(&server);
    let id = id.as_str().unwrap();
    assert_eq!(history(&format!("?kind=call&instance={id}"), 3).await["items"][0]["success"], true);
    history("?kind=sample&since=2100-01-01T00:00:00Z", 0).await;
}

#[tokio::test]
async fn the_registry_is_told_in_numbers() {
    let (server, _) = Server::with_clock(["one"]).await;
    server.register(json!({"name": "off", "enabled": false})).await;
    let mut status = server.get("/api/v1/status").await;
    let moment = ["name", "status", "started_at", "uptime_s", "as_of", "store", "not_healthy"];
    assert!(moment.into_iter().all(|field| status.body.as_object_mut().unwrap().shift_remove(field).is_some()));
    let expected = json!({"version": env!("CARGO_PKG_VERSION"), "revision": status.body["revision"], "services": 2,
        "statuses": {"healthy": 1, "degraded": 0, "unhealthy": 0, "unknown": 0, "disabled": 1, "maintenance": 0},
        "instances": 1, "tools": 2, "dropped_journal_entries": 0, "self_preservation": false});
    assert_eq!(status.body, expected);
}

#[tokio::test]
async fn the_entry_page_speaks_to_people_and_to_programs() {
    let server = Server::start().await;
    let program = server.get("/").await;
    assert!(program.body["entries"].as_object().unwrap().contains_key("GET /api/v1/services"));
    let person = server.send("GET", "/", &[("accept", "text/html,*/*;q=0.8")], None).await;
    assert!(person.header("content-type").starts_with("text/html"));
    assert!(person.text.contains("<a href=\"/api/v1/services\">"));
    let head = server.send("HEAD", "/api/v1/services", &[], None).await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
}
