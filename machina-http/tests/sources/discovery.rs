//! Services that register themselves, find others and say how they are.

use machina_core::testing::Behaviour;
use machina_core::{AdminState, Status};
use serde_json::{Value, json};

use crate::settle;
use crate::support::{Answer, Server};

const REGISTER: &str = "/api/v1/services/register";

fn registration() -> Value {
    json!({"companyName": "acme", "domain": "mcp.acme.example", "instanceId": "acme-1-a",
        "serviceInfo": {"version": "1", "region": "eu", "endpoints": {"primary": "http://acme.sim/mcp"}}})
}

/// A server on which `acme` has registered itself, and answers.
async fn registered() -> (Server, Answer) {
    let server = Server::start().await;
    server.sim.instance("acme");
    let made = server.post(REGISTER, registration()).await;
    assert_eq!(made.status, 201, "{}", made.text);
    settle(&server.machina, "mcp.acme.example", Status::Healthy).await;
    (server, made)
}

fn path(made: &Answer, rest: &str) -> String {
    format!("{}{rest}", made.header("location"))
}

#[tokio::test]
async fn who_registers_has_a_lease_unless_it_says_how_to_be_checked() {
    let (server, made) = registered().await;
    assert_eq!(made.header("location"), format!("/api/v1/services/{}", made.body["serviceId"].as_str().unwrap()));
    let ttl = |server: &Server| server.machina.get("mcp.acme.example").unwrap().service().spec.instances[0].lease_ttl;
    assert_eq!(ttl(&server).unwrap().as_secs(), 90);
    let beat = server.send("POST", &path(&made, "/heartbeat"), &[], None).await;
    assert_eq!((beat.status, &beat.body["lease"]["ttl_ms"]), (200, &json!(90_000)), "{}", beat.text);

    let mut checked = registration();
    checked["healthCheckConfig"] = json!({"interval": "1m", "failureThreshold": 5});
    let again = server.post(REGISTER, checked).await;
    assert_eq!((again.status, &again.body["serviceId"]), (200, &made.body["serviceId"]), "{}", again.text);
    assert_eq!(ttl(&server), None);
    let view = server.machina.get("mcp.acme.example").unwrap();
    let policy = &view.service().spec.health_policy;
    assert_eq!((policy.interval.unwrap().as_secs(), policy.failure_threshold), (60, Some(5)));
    let beat = server.send("POST", &path(&made, "/heartbeat"), &[], None).await;
    assert_eq!((beat.status, &beat.body["lease"]), (200, &Value::Null), "{}", beat.text);
}

#[tokio::test]
async fn registering_again_changes_what_was_said_and_nothing_that_an_operator_says() {
    let (server, made) = registered().await;
    let instance = || server.machina.get("mcp.acme.example").unwrap().service().spec.instances[0].clone();
    let first = instance();
    let operator = json!({"title": "Acme", "admin_state": "maintenance", "config": {"own": 1}});
    let patched = server.send("PATCH", made.header("location"), &[], Some(&operator.to_string())).await;
    assert_eq!(patched.status, 200, "{}", patched.text);

    let mut next = registration();
    next["instanceId"] = json!("acme-2-b");
    next["serviceInfo"]["version"] = json!("2");
    next["tags"] = json!(["new"]);
    let again = server.post(REGISTER, next.clone()).await;
    assert_eq!((again.status, &again.body["instanceId"]), (200, &json!("acme-2-b")), "{}", again.text);
    assert_eq!((&again.body["serviceInfo"]["version"], &again.body["tags"]), (&json!("2"), &json!(["new"])));
    assert_eq!(again.body["status"], "maintenance");
    assert_eq!(instance().id, first.id, "it runs where it ran");
    let spec = server.machina.get("mcp.acme.example").unwrap().service().spec.clone();
    assert_eq!((spec.title.as_deref(), spec.admin_state), (Some("Acme"), AdminState::Maintenance));
    assert_eq!(spec.config["own"], 1);

    server.sim.instance("moved");
    next["serviceInfo"]["endpoints"]["primary"] = json!("http://moved.sim/mcp");
    assert_eq!(server.post(REGISTER, next).await.status, 200);
    assert_ne!(instance().id, first.id, "elsewhere, it is another instance");
}

#[tokio::test]
async fn what_an_operator_declared_is_not_taken_over() {
    let server = Server::start().await;
    server.register(json!({"name": "mcp.acme.example", "title": "declared"})).await;
    let refused = server.post(REGISTER, registration()).await;
    refused.assert_problem("declared", 409, "conflict");
    assert_eq!(server.get("/api/v1/services/mcp.acme.example").await.body["title"], "declared");
}

#[tokio::test]
async fn wrong_fields_have_the_names_of_the_document() {
    let server = Server::start().await;
    let cases = [
        ("/domain", json!("Not A Domain"), "#/domain"),
        ("/instanceId", json!(""), "#/instanceId"),
        ("/companyName", json!(""), "#/companyName"),
        ("/serviceInfo/version", json!("x".repeat(51)), "#/serviceInfo/version"),
        ("/serviceInfo/endpoints/primary", json!("ftp://x"), "#/serviceInfo/endpoints/primary"),
        ("/serviceInfo/region", json!(1), "#/serviceInfo/region"),
    ];
    for (place, value, field) in cases {
        let mut body = registration();
        body["serviceInfo"]["environment"] = json!("production");
        *body.pointer_mut(place).unwrap() = value;
        let refused = server.post(REGISTER, body).await;
        refused.assert_problem(place, 422, "invalid");
        assert_eq!(refused.field(), field, "{}", refused.text);
    }
    for (config, field) in [
        (json!({"interval": "soon"}), "#/healthCheckConfig/interval"),
        (json!({"interval": "1ms"}), "#/healthCheckConfig/interval"),
        (json!({"failureThreshold": 0}), "#/healthCheckConfig/failureThreshold"),
    ] {
        let mut body = registration();
        body["healthCheckConfig"] = config;
        let refused = server.post(REGISTER, body).await;
        refused.assert_problem(field, 422, "invalid");
        assert_eq!(refused.field(), field, "{}", refused.text);
    }
    let mut unknown = registration();
    unknown["serviceInfo"]["colour"] = json!("blue");
    let refused = server.post(REGISTER, unknown).await;
    assert!(refused.status == 422 && refused.text.contains("`colour`"), "{}", refused.text);
    assert!(server.machina.view().is_empty());
}

#[tokio::test]
async fn services_are_discovered_by_what_they_are() {
    let (server, made) = registered().await;
    server
        .register(json!({"name": "other", "tenant": "bolt", "capabilities": ["search", "index"], "tags": ["x"]}))
        .await;
    let found = async |query: &str| {
        let answer = server.get(&format!("/api/v1/services/discover?{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let services = answer.body["services"].as_array().unwrap().clone();
        assert_eq!(answer.body["total"], services.len());
        services.iter().map(|record| record["domain"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(found("").await, ["mcp.acme.example", "other"]);
    assert_eq!(found("company=acme&region=eu").await, ["mcp.acme.example"]);
    assert_eq!(found("capabilities=search,index&tags=x").await, ["other"]);
    assert_eq!(found("capabilities=search&capabilities=nothing").await, [""; 0]);
    assert_eq!(found("status=active").await.len(), 2);
    server.post(&path(&made, "/maintenance"), json!({})).await;
    assert_eq!(found("status=maintenance,inactive").await, ["mcp.acme.example"]);
    for wrong in ["status=fine", "colour=blue", "limit=1"] {
        let refused = server.get(&format!("/api/v1/services/discover?{wrong}")).await;
        refused.assert_problem(wrong, 400, "invalid");
        assert_eq!(refused.field(), wrong.split('=').next().unwrap());
    }
}

#[tokio::test]
async fn a_service_is_believed_when_it_says_that_it_fails_and_not_that_all_is_well() {
    let (server, made) = registered().await;
    let report = async |body: Value| server.send("PUT", &path(&made, "/health"), &[], Some(&body.to_string())).await;
    let failing = report(json!({"status": "unhealthy", "message": "the disk is full"})).await;
    assert_eq!((failing.status, &failing.body["health"]), (200, &json!("suspect")), "{}", failing.text);
    let seen = server.get("/api/health/mcp.acme.example").await;
    assert!(seen.body["error_message"].is_null() || seen.text.contains("the disk is full"), "{}", seen.text);

    let acme = server.machina.get("mcp.acme.example").unwrap().service().spec.instances[0].clone();
    server.sim.set(&acme, Behaviour::Refuse);
    for _ in 0..10 {
        server.send("POST", &path(&made, "/checks"), &[], None).await;
    }
    settle(&server.machina, "mcp.acme.example", Status::Unhealthy).await;
    for _ in 0..10 {
        assert_eq!(report(json!({"status": "active"})).await.status, 200);
    }
    assert_eq!(server.machina.get("mcp.acme.example").unwrap().status(), Status::Unhealthy);
    let found = server.get("/api/v1/services/discover?status=unhealthy").await;
    assert_eq!(found.body["total"], 1);
    assert!(found.body["services"][0]["healthStatus"]["lastFailure"].is_string(), "{}", found.text);

    for (body, field) in [
        (json!({"status": "maintenance"}), "#/status"),
        (json!({"status": "inactive"}), "#/status"),
        (json!({"status": "fine"}), "#/status"),
        (json!({"status": "unhealthy", "message": "x".repeat(501)}), "#/message"),
    ] {
        let refused = report(body).await;
        refused.assert_problem(field, 422, "invalid");
        assert_eq!(refused.field(), field);
    }
    let missing = server.send("PUT", "/api/v1/services/nobody/health", &[], Some("{\"status\": \"active\"}")).await;
    missing.assert_problem("no service", 404, "service-not-registered");
}
