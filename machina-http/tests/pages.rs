//! Pages that are sent again, and what may never be stale about them.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use machina_core::testing::Behaviour;
use serde_json::json;
use support::{Answer, Server};

fn names(answer: &Answer) -> Vec<&str> {
    answer.body["items"].as_array().unwrap().iter().map(|item| item["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn what_was_changed_is_on_the_very_next_page() {
    let (server, [instance]) = Server::with_clock(["one"]).await;
    for number in 0..20 {
        let before = server.get("/api/v1/services?limit=100").await;
        assert_eq!(server.get("/api/v1/services?limit=100").await.text, before.text);
        server.register(json!({"name": format!("new-{number}"), "admin_state": "disabled"})).await;
        let after = server.get("/api/v1/services?limit=100").await;
        assert!(names(&after).contains(&&*format!("new-{number}")) && after.header("etag") != before.header("etag"));
    }
    server.sim.set(&instance, Behaviour::Refuse);
    server.machina.check("clock").await.unwrap();
    let status = server.get("/api/v1/services?limit=1").await.body["items"][0]["status"].clone();
    assert_eq!(status, json!(server.machina.get("clock").unwrap().status()));
}

#[tokio::test]
async fn each_address_has_its_own_page_with_its_own_way_on() {
    let (server, _) = Server::with_clock(["one"]).await;
    server.register(json!({"name": "zebra", "admin_state": "disabled"})).await;
    for _ in 0..2 {
        let first = server.get("/api/v1/services?limit=1").await;
        assert_eq!(names(&first), ["clock"]);
        assert!(first.header("link").contains("cursor="), "{}", first.header("link"));
        assert_eq!(names(&server.get("/api/v1/services?limit=1&status=disabled").await), ["zebra"]);
        let known = [("if-none-match", first.header("etag"))];
        let again = server.send("GET", "/api/v1/services?limit=1", &known, None).await;
        assert_eq!((again.status, again.text.as_str()), (304, ""));
        let all = server.send("GET", "/api/v1/services", &known, None).await;
        assert_eq!((all.status, names(&all)), (200, vec!["clock", "zebra"]));
    }
}
