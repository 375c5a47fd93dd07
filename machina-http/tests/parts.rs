//! A service is changed in part: by patches, by its instances, by maintenance;
//! checked at once; and not sent to those who have it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use machina_core::testing::Behaviour;
use machina_core::testing::registry_suite::settle;
use machina_core::{HealthState, InstanceId, Status};
use serde_json::{Value, json};
use support::{Answer, Server};

const CLOCK: &str = "/api/v1/services/clock";

async fn with_clock() -> Server {
    let server = Server::start().await;
    let record = json!({"name": "clock", "title": "Clock", "env": {"TOKEN": "hunter2"}, "admin_state": "disabled",
        "instances": [server.sim.instance("one")]});
    server.register(record).await;
    server
}

async fn patch(server: &Server, path: &str, headers: &[(&str, &str)], body: Value) -> Answer {
    let mut all = vec![("content-type", "application/merge-patch+json")];
    all.extend(headers);
    server.send("PATCH", path, &all, Some(&body.to_string())).await
}

#[tokio::test]
async fn a_service_is_patched() {
    let server = with_clock().await;
    let read = server.get(CLOCK).await;
    let etag = read.header("etag");
    let patched = patch(&server, CLOCK, &[("if-match", etag)], json!({"title": null, "labels": {"a": "b"}})).await;
    assert_eq!(patched.status, 200, "{}", patched.text);
    assert_eq!((&patched.body["title"], &patched.body["labels"]), (&Value::Null, &json!({"a": "b"})));
    assert_eq!((&patched.body["id"], patched.body["revision"].as_u64()), (&read.body["id"], Some(2)));
    assert_eq!(server.machina.get("clock").unwrap().service().spec.env["TOKEN"].expose(), "hunter2");

    let stale = patch(&server, CLOCK, &[("if-match", etag)], json!({"title": "x"})).await;
    stale.assert_problem("stale", 412, "conflict");
    let wrong = patch(&server, CLOCK, &[], json!({"health_policy": {"interval": 7}})).await;
    wrong.assert_problem("a wrong type", 422, "invalid");
    assert_eq!(wrong.field(), "#/health_policy/interval");
    patch(&server, CLOCK, &[], json!("x")).await.assert_problem("no object", 422, "invalid");
    patch(&server, "/api/v1/services/none", &[], json!({})).await.assert_problem("nothing", 404, "not_found");
    let text = server.send("PATCH", CLOCK, &[("content-type", "text/plain")], Some("{}")).await;
    text.assert_problem("text", 415, "invalid");
    let plain = server.send("PATCH", CLOCK, &[], Some(r#"{"title": "plain JSON"}"#)).await;
    assert_eq!((plain.status, &plain.body["title"]), (200, &json!("plain JSON")));
    let command = patch(&server, CLOCK, &[], json!({"instances": [{"stdio": {"command": "sh"}}]})).await;
    command.assert_problem("a command", 403, "forbidden");
}

#[tokio::test]
async fn instances_are_listed_added_changed_and_removed() {
    let server = with_clock().await;
    let path = format!("{CLOCK}/instances");
    let record = json!({"http": {"url": "http://two.example/mcp", "headers": {"X-Key": "s3cret"}}, "zone": "b"});
    let added = server.post(&path, record).await;
    assert_eq!((added.status, &added.body["zone"]), (201, &json!("b")), "{}", added.text);
    assert!(!added.text.contains("s3cret"), "{}", added.text);
    let place = added.header("location").to_owned();
    assert_eq!(place, format!("{path}/{}", added.body["id"].as_str().unwrap()));
    let listed = server.get(&path).await;
    assert_eq!(listed.body["items"].as_array().unwrap().len(), 2);
    assert_eq!(server.get(&place).await.body, listed.body["items"][1]);

    let etag = added.header("etag").to_owned();
    let patched = patch(&server, &place, &[("if-match", &etag)], json!({"weight": 5, "zone": null})).await;
    assert_eq!((patched.status, &patched.body["weight"]), (200, &json!(5)), "{}", patched.text);
    assert_eq!((&patched.body["id"], &patched.body["zone"]), (&added.body["id"], &Value::Null));
    patch(&server, &place, &[("if-match", &etag)], json!({})).await.assert_problem("stale", 412, "conflict");
    let wrong = patch(&server, &place, &[], json!({"weight": 0})).await;
    wrong.assert_problem("a wrong weight", 422, "invalid");
    assert_eq!(wrong.field(), "#/weight");
    let moved = patch(&server, &place, &[], json!({"http": {"url": "http://evil.example/"}})).await;
    moved.assert_problem("secrets elsewhere", 403, "forbidden");

    let stale = server.send("DELETE", &place, &[("if-match", &etag)], None).await;
    stale.assert_problem("stale", 412, "conflict");
    let gone = server.send("DELETE", &place, &[("if-match", patched.header("etag"))], None).await;
    assert_eq!((gone.status, gone.header("x-machina-revision")), (204, "4"));
    for gone in [place, format!("{path}/{}", InstanceId::generate()), format!("{path}/x")] {
        server.get(&gone).await.assert_problem(&gone, 404, "not_found");
        server.send("DELETE", &gone, &[], None).await.assert_problem(&gone, 404, "not_found");
        patch(&server, &gone, &[], json!({})).await.assert_problem(&gone, 404, "not_found");
    }
    let with_id = server.post(&path, json!({"id": added.body["id"], "http": {"url": "http://a.example/"}})).await;
    with_id.assert_problem("an id", 422, "invalid");
    assert_eq!(with_id.field(), "#/id");
    server.post(&path, json!({"stdio": {"command": "sh"}})).await.assert_problem("a command", 403, "forbidden");
    server.post("/api/v1/services/none/instances", json!({})).await.assert_problem("nothing", 404, "not_found");
}

#[tokio::test]
async fn a_service_is_taken_out_for_maintenance_and_back() {
    let server = with_clock().await;
    let path = format!("{CLOCK}/maintenance");
    let off = server.send("DELETE", &path, &[], None).await;
    assert_eq!((off.status, &off.body["admin_state"]), (200, &json!("disabled")), "it was not in maintenance");
    let out = server.send("POST", &path, &[], None).await;
    assert_eq!((out.status, &out.body["status"]), (200, &json!("maintenance")), "{}", out.text);
    let back = server.send("DELETE", &path, &[], None).await;
    assert_eq!((back.status, &back.body["admin_state"]), (200, &json!("enabled")), "{}", back.text);
    let said = server.post(&path, json!({"reason": "disk"})).await;
    assert_eq!(said.body["admin_reason"], "disk", "{}", said.text);
    server.send("POST", "/api/v1/services/none/maintenance", &[], None).await.assert_problem("none", 404, "not_found");
}

#[tokio::test]
async fn a_check_is_made_at_once() {
    let server = Server::start().await;
    let instance = server.sim.instance("one");
    server.register(json!({"name": "clock", "instances": [instance]})).await;
    settle(&server.machina, "clock", Status::Healthy).await;
    server.sim.set(&instance, Behaviour::Refuse);
    let path = format!("{CLOCK}/checks");
    let checked = server.post(&path, json!({})).await;
    assert_eq!(checked.status, 200, "{}", checked.text);
    assert_ne!(checked.body["instances"][0]["health"]["state"], "healthy", "{}", checked.text);
    server.sim.set(&instance, Behaviour::Up);
    for _ in 0..5 {
        server.send("POST", &path, &[], None).await;
    }
    let view = server.machina.get("clock").unwrap();
    assert_eq!(view.instances().next().unwrap().1.health.state, HealthState::Healthy);
    server.post("/api/v1/services/none/checks", json!({})).await.assert_problem("nothing", 404, "not_found");
}

#[tokio::test]
async fn who_has_it_already_is_not_sent_it_again() {
    let server = with_clock().await;
    let instances = format!("{CLOCK}/instances");
    let one = format!("{instances}/{}", server.machina.get("clock").unwrap().service().spec.instances[0].id);
    for path in [CLOCK, "/api/v1/services", &instances, &one] {
        let first = server.get(path).await;
        let etag = first.header("etag").to_owned();
        for held in [etag.clone(), format!("W/{etag}"), format!("\"x\", {etag}"), "*".to_owned()] {
            let again = server.send("GET", path, &[("if-none-match", &held)], None).await;
            assert_eq!((again.status, again.text.as_str()), (304, ""), "{path} {held}");
            assert_eq!((again.header("etag"), again.header("x-machina-revision")), (etag.as_str(), "1"));
        }
        let other = server.send("GET", path, &[("if-none-match", "\"1\"")], None).await;
        assert_eq!((other.status, other.body), (200, first.body), "{path}");
    }
    let instance = server.sim.instance("two");
    server.register(json!({"name": "probed", "instances": [instance]})).await;
    settle(&server.machina, "probed", Status::Healthy).await;
    let probed = "/api/v1/services/probed";
    let before = server.get(probed).await;
    let etag = before.header("etag").to_owned();
    server.sim.set(&instance, Behaviour::Refuse);
    server.send("POST", &format!("{probed}/checks"), &[], None).await;
    let checked = server.send("GET", probed, &[("if-none-match", &etag)], None).await;
    assert_eq!(checked.status, 200, "health changed, and the revision of the service did not");
    assert_eq!(checked.body["revision"], before.body["revision"]);
    let matched = patch(&server, probed, &[("if-match", &etag)], json!({"title": "x"})).await;
    assert_eq!(matched.status, 200, "{}", matched.text);
}
