//! What the requests of the documents do, beyond the shape of their answers.

use machina_core::testing::Behaviour;
use machina_core::{Sensitive, Status};
use serde_json::{Value, json};

use crate::support::{Answer, Server};
use crate::{SECRET, settle, world};

fn names(answer: &Answer) -> Vec<&str> {
    answer.body.as_array().unwrap().iter().map(|record| record["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn lists_are_filtered_by_path_and_by_parameter() {
    let server = world().await;
    assert_eq!(names(&server.get("/api/services").await), ["context7-mcp", "math", "off"]);
    assert_eq!(names(&server.get("/api/services/by-type/fastmcp").await), ["context7-mcp"]);
    assert_eq!(names(&server.get("/api/build/priority/high").await), ["context7-mcp"]);
    assert_eq!(names(&server.get("/api/build/required").await), ["context7-mcp"]);
    assert_eq!(names(&server.get("/api/services?enabled=false").await), ["off"]);
    let document = server.get("/api/health/status.json?name=math").await;
    assert_eq!((document.body["services"].as_array().unwrap().len(), &document.body["total"]), (1, &json!(3)));

    server.get("/api/services/by-type/rust").await.assert_problem("a build type", 400, "invalid");
    server.get("/api/build/priority/urgent").await.assert_problem("a level", 400, "invalid");
    for parameter in ["limit=1", "cursor=x", "colour=blue"] {
        let refused = server.get(&format!("/api/services?{parameter}")).await;
        refused.assert_problem(parameter, 400, "invalid");
        assert_eq!(refused.field(), parameter.split('=').next().unwrap());
    }
    server.get("/api/build/required?required=false").await.assert_problem("a parameter", 400, "invalid");
}

#[tokio::test]
async fn a_list_without_pages_is_whole() {
    let server = Server::start().await;
    let specs: Vec<Value> = (0..401).map(|number| json!({"register": {"name": format!("s{number:03}")}})).collect();
    assert_eq!(server.post("/api/v1/services:bulk", json!({"mutations": specs})).await.status, 200);
    assert_eq!(server.get("/api/services").await.body.as_array().unwrap().len(), 401);
    assert_eq!(server.get("/api/registry/servers").await.body["total"], 401);
    let again = server.get("/api/services").await;
    let etag = again.header("etag");
    assert_eq!(server.send("GET", "/api/services", &[("if-none-match", etag)], None).await.status, 304);
}

#[tokio::test]
async fn a_configuration_is_changed_in_part_and_what_it_replaces_it_replaces_whole() {
    let server = world().await;
    let path = "/api/services/context7-mcp/config";
    let put = async |body: Value| server.send("PUT", path, &[], Some(&body.to_string())).await;
    let first = put(json!({"environment_vars": {"TOKEN": "hunter2", "MODE": "a"},
        "scaling_config": {"min": 1, "cpu": {"target": 80}}}))
    .await;
    assert_eq!(first.status, 200, "{}", first.text);
    assert!(!first.text.contains("hunter2"), "a secret was shown");
    assert_eq!((&first.body["required"], &first.body["build_priority"]), (&json!(true), &json!("HIGH")), "as before");
    assert_eq!(first.body["updated_by"], "local");

    let read = server.get(path).await;
    assert_eq!(put(read.body.clone()).await.body, read.body, "what was read, sent back, changes nothing");
    let env = |server: &Server| server.machina.get("context7-mcp").unwrap().service().spec.env.clone();
    assert_eq!(env(&server)["TOKEN"], Sensitive::secret("hunter2"));

    let second = put(json!({"build_priority": "LOW", "environment_vars": {"MODE": "b"},
        "scaling_config": {"cpu": {"window": "1m"}}}))
    .await;
    assert_eq!(second.body["scaling_config"], json!({"cpu": {"window": "1m"}}));
    assert_eq!((env(&server).len(), &second.body["build_priority"]), (1, &json!("LOW")));
    let disabled = put(json!({"enabled": false})).await;
    assert_eq!(disabled.body["enabled"], false);
    assert_eq!(put(json!({"required": false})).await.body["enabled"], false, "what is left out stays");
}

#[tokio::test]
async fn a_wrong_configuration_is_refused_with_the_name_of_the_field() {
    let server = world().await;
    let path = "/api/services/math/config";
    let cases = [
        (json!({"colour": 1}), "#/colour"),
        (json!({"service_name": "other"}), "#/service_name"),
        (json!({"build_priority": "URGENT"}), "#/build_priority"),
        (json!({"environment_vars": {"A": 1}}), "#/environment_vars/A"),
    ];
    for (body, field) in cases {
        let refused = server.send("PUT", path, &[], Some(&body.to_string())).await;
        refused.assert_problem(field, 422, "invalid");
        let named = refused.field() == field || (field == "#/colour" && refused.text.contains("`colour`"));
        assert!(named, "{field}: {}", refused.text);
    }
    let stale = server.send("PUT", path, &[("if-match", "\"999\"")], Some("{}")).await;
    stale.assert_problem("an older revision", 412, "conflict");
    let missing = server.send("PUT", "/api/services/nobody/config", &[], Some("{}")).await;
    missing.assert_problem("no service", 404, "not_found");
    server.get("/api/services/nobody/config").await.assert_problem("no service", 404, "not_found");
    server.post("/api/services/nobody/toggle", json!({})).await.assert_problem("no service", 404, "not_found");
    server.post("/api/services/math/toggle", json!({"x": 1})).await.assert_problem("a body", 422, "invalid");
    server.post("/api/build/deploy/nobody", json!({})).await.assert_problem("no service", 404, "not_found");
}

#[tokio::test]
async fn health_has_the_three_words_of_the_documents() {
    let server = world().await;
    let summary = server.get("/api/health").await;
    assert_eq!(summary.body, json!({"status": "healthy", "total": 3, "healthy": 2, "unhealthy": 0, "unknown": 1}));
    let health = server.get("/api/health/math").await;
    assert_eq!((&health.body["status"], &health.body["error_message"]), (&json!("healthy"), &Value::Null));
    assert_eq!(server.get("/api/services/off/health").await.body["status"], "unknown");
    server.get("/api/health/nobody").await.assert_problem("no service", 404, "not_found");
    let missing = server.get("/api/services/nobody/health").await;
    missing.assert_problem("no service", 404, "not_found");
    assert_eq!(missing.body["detail"], "Service nobody not found");
}

#[tokio::test]
async fn a_record_shows_no_secret_and_keeps_what_the_documents_name() {
    let server = Server::start().await;
    server
        .register(json!({"name": "api", "metadata": {"health_endpoint": "/health"}, "instances": [{"http": {
            "url": "http://api.example/mcp", "headers": {"authorization": "Bearer hunter2"}}}]}))
        .await;
    server
        .register(json!({"name": "cli", "instances": [{"stdio": {"command": "x", "args": ["--token", "abc"]}}]}))
        .await;
    server.register(json!({"name": "nowhere"})).await;
    let list = server.get("/api/services").await;
    assert!(!list.text.contains("hunter2") && !list.text.contains("abc"), "{}", list.text);
    let (api, cli, nowhere) = (&list.body[0], &list.body[1], &list.body[2]);
    assert_eq!((&api["api_key"], &api["health_endpoint"]), (&json!(Sensitive::MASK), &json!("/health")));
    assert_eq!((&api["protocol"], &api["base_url"]), (&json!("http"), &json!("http://api.example/mcp")));
    assert_eq!((&cli["protocol"], &cli["base_url"], &cli["api_key"]), (&json!("stdio"), &Value::Null, &Value::Null));
    assert_eq!((&nowhere["location"], &nowhere["protocol"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn a_call_takes_args_and_names_what_it_does_not_take() {
    let server = world().await;
    let path = "/api/services/math/call";
    let called = server.post(path, json!({"tool": "calculator", "args": {"a": 1}})).await;
    assert!(called.body["content"][0]["text"].as_str().unwrap().contains("\"a\":1"), "{}", called.text);
    assert_eq!(called.body["_meta"]["dev.machina/call"]["attempts"], 1);
    let refused = server.post(path, json!({"tool": "calculator", "arguments": {}})).await;
    refused.assert_problem("arguments", 422, "invalid");
    assert!(refused.text.contains("`arguments`"), "{}", refused.text);
    server.post(path, json!({"tool": "nothing"})).await.assert_problem("no tool", 404, "not_found");
    let math = server.machina.get("math").unwrap().service().spec.instances[0].clone();
    server.sim.set(&math, Behaviour::Refuse);
    let lost = server.post(path, json!({"tool": "calculator"})).await;
    lost.assert_problem("nobody answers", 502, "unreachable");
}

#[tokio::test]
async fn a_call_with_a_key_is_made_once() {
    let server = world().await;
    let math = server.machina.get("math").unwrap().service().spec.instances[0].clone();
    let calls = [
        ("/api/services/math/call", json!({"tool": "calculator", "args": {}})),
        ("/mcp/call_tool", json!({"tool_name": "calculator"})),
    ];
    for (path, body) in calls {
        let (before, body) = (server.sim.executions(&math), body.to_string());
        let send = async || server.send("POST", path, &[("idempotency-key", path)], Some(&body)).await;
        let (first, second) = (send().await, send().await);
        assert_eq!((first.status, &first.body), (200, &second.body), "{}", first.text);
        assert_eq!(second.header("idempotency-replayed"), "true");
        assert_eq!(server.sim.executions(&math), before + 1, "{path}");
    }
}

#[tokio::test]
async fn tools_have_one_name_each() {
    let server = world().await;
    let twin = server.sim.instance("twin");
    server
        .sim
        .set_tools(&twin, vec![json!({"name": "calculator", "description": "adds numbers too", "inputSchema": {}})]);
    server.register(json!({"name": "twin", "tags": ["numeric"], "instances": [twin]})).await;
    settle(&server.machina, "twin", Status::Healthy).await;
    let listed = server.post("/mcp/list_tools", json!({"tags": ["numeric"]})).await;
    assert_eq!(names(&listed), ["math__calculator", "math_operations", "twin__calculator"]);
    let found = server.post("/mcp/find_tool", json!({"query": "calculator adds numbers", "threshold": 0})).await;
    assert!(names(&found).contains(&"twin__calculator"), "{}", found.text);
    assert_eq!(found.body[0]["similarity"], 1.0);
    assert!(found.body.as_array().unwrap().iter().all(|tool| tool["similarity"].as_f64().unwrap() <= 1.0));

    for name in names(&listed) {
        let called = server.post("/mcp/call_tool", json!({"tool_name": name, "arguments": {}})).await;
        assert_eq!((called.status, &called.body["success"]), (200, &json!(true)), "{name}: {}", called.text);
    }
    let both = server.post("/mcp/call_tool", json!({"tool_name": "calculator"})).await;
    both.assert_problem("two services have it", 422, "invalid");
    assert!(both.text.contains("`math__calculator` or `twin__calculator`"), "{}", both.text);
    // Each `__` is a place where the service could end: too many are not looked at.
    let long = server.post("/mcp/call_tool", json!({"tool_name": "_".repeat(200_000)})).await;
    long.assert_problem("a name as long as a book", 422, "invalid");
    assert_eq!((long.field(), long.text.len() < 1000), ("#/tool_name", true), "{}", long.text);
    let none = server.post("/mcp/call_tool", json!({"tool_name": "twin__nothing"})).await;
    none.assert_problem("no tool", 404, "not_found");
}

#[tokio::test]
async fn a_tool_that_fails_has_answered() {
    let server = Server::start().await;
    let bank = server.sim.instance("bank");
    server.register(json!({"name": "bank", "instances": [bank]})).await;
    settle(&server.machina, "bank", Status::Healthy).await;
    let called = server.post("/mcp/call_tool", json!({"tool_name": "add", "arguments": {"fail": true}})).await;
    assert_eq!((called.status, &called.body["success"]), (200, &json!(false)), "{}", called.text);
    assert_eq!(called.body["error"], "no such account");
    assert!(called.body["duration_ms"].is_u64(), "{}", called.text);
    server.sim.set(&bank, Behaviour::Reject);
    let rejected = server.post("/mcp/call_tool", json!({"tool_name": "add"})).await;
    rejected.assert_problem("the instance says no", 502, "rejected");
}

#[tokio::test]
async fn a_search_names_its_wrong_fields() {
    let server = world().await;
    let cases = [
        (json!({"query": " "}), "#/query"),
        (json!({"query": "x", "limit": 0}), "#/limit"),
        (json!({"query": "x", "threshold": 1.5}), "#/threshold"),
    ];
    for (body, field) in cases {
        let refused = server.post("/mcp/find_tool", body).await;
        refused.assert_problem(field, 422, "invalid");
        assert_eq!(refused.field(), field);
    }
    assert_eq!(server.post("/mcp/find_tool", json!({"query": "zebra"})).await.body, json!([]));
    server.post("/mcp/list_tools", json!({"colour": 1})).await.assert_problem("a field", 422, "invalid");
}

#[tokio::test]
async fn a_server_is_registered_with_everything_that_is_said_about_it() {
    let server = Server::start().await;
    let live = server.sim.instance("live");
    let body = json!({"name": "live", "display_name": "Live", "server_type": "official", "endpoint_url": "http://live.sim/mcp",
        "metadata": {"author": "someone", "repository_url": "https://git.example/live",
            "documentation_url": "https://docs.example/live", "tags": ["a", "b"]},
        "tools": [{"name": "echo", "description": "d", "input_schema": {"type": "object"}, "category": "text"}]});
    let made = server.post("/api/registry/register", body).await;
    assert_eq!(made.status, 201, "{}", made.text);
    settle(&server.machina, "live", Status::Healthy).await;
    let path = format!("/api/registry/servers/{}", made.body["id"].as_str().unwrap());
    let detail = server.get(&path).await;
    let metadata = &detail.body["metadata"];
    assert_eq!((&metadata["author"], &metadata["tags"]), (&json!("someone"), &json!(["a", "b"])));
    assert_eq!(metadata["documentationUrl"], "https://docs.example/live");
    let tools = detail.body["tools"].as_array().unwrap();
    assert_eq!(tools.len(), 2, "what it publishes counts, not what was said: {}", detail.text);
    assert_eq!((&tools[0]["name"], &tools[0]["category"]), (&json!("echo"), &json!("text")));

    server.sim.set(&live, Behaviour::Refuse);
    let listed = server.get("/api/registry/servers?status=active&type=official").await;
    assert_eq!(listed.body["servers"][0]["tools_count"], 2);
    assert_eq!(server.get("/api/registry/servers?type=mock").await.body["total"], 0);
    assert_eq!(server.get("/api/registry/servers?search=IV").await.body["total"], 1);
    server.post("/api/services/live/toggle", json!({})).await;
    assert_eq!(server.get(&path).await.body["status"], "inactive");
}

#[tokio::test]
async fn a_wrong_registration_is_refused_in_the_form_of_the_document() {
    let server = Server::start().await;
    let good = json!({"name": "a", "display_name": "A", "server_type": "mock", "endpoint_url": "http://a.example/",
        "tools": [{"name": "t", "description": "d", "input_schema": {}}]});
    let cases = [
        ("/name", json!("Not A Name"), json!(["name"])),
        ("/display_name", json!(""), json!(["display_name"])),
        ("/endpoint_url", json!("ftp://a"), json!(["endpoint_url"])),
        ("/tools/0/name", json!(""), json!(["tools", 0, "name"])),
        ("/tools/0/input_schema", json!(1), json!(["tools", 0, "input_schema"])),
    ];
    for (place, value, path) in cases {
        let mut body = good.clone();
        *body.pointer_mut(place).unwrap() = value;
        let refused = server.post("/api/registry/register", body).await;
        assert_eq!((refused.status, &refused.body["code"]), (400, &json!("VALIDATION_ERROR")), "{}", refused.text);
        assert_eq!(refused.body["details"][0]["path"], path, "{}", refused.text);
    }
    let mut unknown = good.clone();
    unknown["metadata"] = json!({"stars": 5});
    let refused = server.post("/api/registry/register", unknown).await;
    assert!(refused.status == 400 && refused.text.contains("`stars`"), "{}", refused.text);
    for parameter in ["status=fine", "type=private", "colour=blue"] {
        let refused = server.get(&format!("/api/registry/servers?{parameter}")).await;
        assert_eq!((refused.status, &refused.body["code"]), (400, &json!("VALIDATION_ERROR")), "{}", refused.text);
    }
    assert_eq!(server.get("/api/registry/servers").await.body["total"], 0, "nothing was registered");
}

#[tokio::test]
async fn the_job_checks_everything_for_those_who_know_the_secret() {
    let server = world().await;
    let run = async |server: &Server, secret: &str| {
        server.send("POST", "/api/jobs/health-check", &[("x-cron-secret", secret)], None).await
    };
    let math = server.machina.get("math").unwrap().service().spec.instances[0].clone();
    server.sim.set(&math, Behaviour::Refuse);
    let done = run(&server, SECRET).await;
    assert_eq!((done.status, done.body), (200, json!({"success": true})));
    assert_ne!(server.get("/api/health/math").await.body["error_message"], Value::Null, "it was checked just now");
    for wrong in ["", "correct horse battery stapl", "correct horse battery staple2", "x"] {
        let refused = run(&server, wrong).await;
        assert_eq!((refused.status, refused.body), (401, json!({"error": "Unauthorized"})), "{wrong}");
    }
    let talkative = [("x-cron-secret", SECRET)];
    let refused = server.send("POST", "/api/jobs/health-check", &talkative, Some("[1]")).await;
    assert_eq!((refused.status, &refused.body["code"]), (400, &json!("VALIDATION_ERROR")), "{}", refused.text);
    let refused = server.send("POST", "/api/jobs/health-check?x=1", &[], Some("[1]")).await;
    assert_eq!((refused.status, refused.body), (401, json!({"error": "Unauthorized"})), "the secret counts first");
    let without = Server::start().await;
    for guess in ["", "undefined", SECRET] {
        assert_eq!(run(&without, guess).await.status, 401, "no secret is set, and so nobody knows it");
    }
}
