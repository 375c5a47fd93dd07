//! `/groups` over HTTP.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use machina_core::{EventKind, Next, Registry as _};
use serde_json::json;
use support::Server;

#[tokio::test]
async fn a_group_is_made_read_replaced_and_removed() {
    let server = Server::start().await;
    server.register(json!({"name": "docs"})).await;
    let made =
        server.post("/api/v1/groups", json!({"name": "g", "members": [{"service": "docs"}, {"service": "x"}]})).await;
    assert_eq!((made.status, made.header("location")), (201, "/api/v1/groups/g"), "{}", made.text);
    assert_eq!((&made.body["missing"], &made.body["tool_count"]), (&json!(["x"]), &json!(0)));
    assert_eq!((&made.body["mode"], &made.body["prefix"]), (&json!("flat"), &json!("always")));
    assert_eq!(made.header("x-machina-revision"), made.body["revision"].to_string());

    let read = server.get("/api/v1/groups/g").await;
    assert_eq!((read.body, read.headers["etag"].clone()), (made.body.clone(), made.headers["etag"].clone()));
    let same = [("if-none-match", made.header("etag"))];
    assert_eq!(server.send("GET", "/api/v1/groups/g", &same, None).await.status, 304);
    let page = server.get("/api/v1/groups").await;
    assert_eq!((&page.body["items"], &page.body["next_cursor"]), (&json!([made.body]), &json!(null)));

    let mut record = made.body.clone();
    record["title"] = json!("G");
    let at = [("if-match", made.header("etag"))];
    let put = server.send("PUT", "/api/v1/groups/g", &at, Some(&record.to_string())).await;
    assert_eq!((put.status, &put.body["title"]), (200, &json!("G")), "{}", put.text);
    let stale = server.send("PUT", "/api/v1/groups/g", &at, Some(r#"{"members": []}"#)).await;
    stale.assert_problem("stale", 412, "conflict");
    let stale = server.send("DELETE", "/api/v1/groups/g", &at, None).await;
    stale.assert_problem("stale", 412, "conflict");
    let gone = server.send("DELETE", "/api/v1/groups/g", &[("if-match", put.header("etag"))], None).await;
    assert_eq!((gone.status, gone.text.as_str(), gone.header("x-machina-revision")), (204, "", "4"));
    server.get("/api/v1/groups/g").await.assert_problem("gone", 404, "not_found");
    let made = server.send("PUT", "/api/v1/groups/h", &[], Some("{}")).await;
    assert_eq!((made.status, made.header("location")), (201, "/api/v1/groups/h"), "{}", made.text);
}

#[tokio::test]
async fn a_wrong_record_names_the_field() {
    let server = Server::start().await;
    server.post("/api/v1/groups", json!({"name": "g"})).await;
    server.post("/api/v1/groups", json!({"name": "g"})).await.assert_problem("taken", 409, "conflict");
    for (record, field) in [
        (json!({"name": "A/b"}), "#/name"),
        (json!({"name": "h", "colour": 1}), "#/colour"),
        (json!({"name": "h", "members": [{"service": "a", "tools": []}]}), "#/members/0/tools"),
        (json!({"name": "h", "members": [{"service": "a"}, {"service": "a"}]}), "#/members/1/service"),
    ] {
        let answer = server.post("/api/v1/groups", record).await;
        answer.assert_problem(field, 422, "invalid");
        assert_eq!(answer.field(), field);
    }
    let other = server.send("PUT", "/api/v1/groups/g", &[], Some(r#"{"name": "h"}"#)).await;
    other.assert_problem("another name", 422, "invalid");
    assert_eq!(other.field(), "#/name");
    for any in ["\"1\"", "*"] {
        let missing = server.send("PUT", "/api/v1/groups/h", &[("if-match", any)], Some("{}")).await;
        missing.assert_problem("nothing to replace", 404, "not_found");
    }
    let there = server.send("PUT", "/api/v1/groups/g", &[("if-match", "*")], Some("{}")).await;
    assert_eq!(there.status, 200, "{}", there.text);
    server.send("DELETE", "/api/v1/groups/h", &[], None).await.assert_problem("nothing", 404, "not_found");
}

#[tokio::test]
async fn a_client_is_told_of_groups() {
    let server = Server::start().await;
    let mut events = server.client().watch(None).await.unwrap();
    server.post("/api/v1/groups", json!({"name": "g"})).await;
    server.send("DELETE", "/api/v1/groups/g", &[], None).await;
    let mut told = Vec::new();
    while told.len() < 2 {
        let next = tokio::time::timeout(std::time::Duration::from_secs(10), events.next()).await.unwrap();
        if let Next::Event(event) = next {
            assert_eq!(event.service, None);
            told.push(event.kind.clone());
        }
    }
    let group = machina_core::GroupName::new("g").unwrap();
    assert_eq!(told, [EventKind::GroupChanged { group: group.clone() }, EventKind::GroupRemoved { group }]);
}
