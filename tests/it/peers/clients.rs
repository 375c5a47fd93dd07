//! The official clients, in each mode that they have, over HTTP and over stdio.

use machina_tests::{Peers, closing_line, machina_binary};
use serde_json::Value;

use super::Setup;

/// Each mode, and the revision that is then spoken.
const MODES: [(&str, &str); 3] = [("legacy", "2025-11-25"), ("auto", "2026-07-28"), ("2026-07-28", "2026-07-28")];

/// Runs a client against `target`, whose tools are those of the fixture.
async fn check(peers: &Peers, language: &str, transport: &str, target: &[&str]) {
    for (mode, revision) in MODES {
        let ran = peers.client(language, &[&[mode], target].concat()).await;
        assert!(ran.good, "{language}, {mode}, {transport}:\n{}{}", ran.stdout, ran.stderr);
        let seen = ran.json();
        assert_eq!(seen["protocol"], revision, "{language}, {mode}, {transport}: {seen}");
        let count = |key: &str| seen[key].as_u64().unwrap_or_default();
        assert!(count("tools") >= 28 && count("prompts") >= 5 && count("resources") >= 3, "{seen}");
        // The error names what is not there.
        let unknown = seen["unknown_tool"].as_str().unwrap_or_default();
        assert!(unknown.contains("no_such_tool"), "{language}, {mode}, {transport}: {seen}");
        closing_line(&format!(
            "{}, {transport}, mode {mode}: speaks {revision}, {} tools, {} prompts, {} resources listed, {} calls",
            seen["client"].as_str().unwrap_or_default(),
            count("tools"),
            count("prompts"),
            count("resources"),
            count("calls"),
        ));
    }
}

async fn over_http(language: &str) {
    let peers = Peers::installed();
    let setup = Setup::new("both");
    let machina = setup.serve().await;
    check(&peers, language, "Streamable HTTP", &[&format!("{}/mcp", machina.url())]).await;
    let health = machina.get("/api/v1/services/fixture").await.body;
    assert_eq!(health["health"]["state"], Value::from("healthy"), "{health}");
}

async fn over_stdio(language: &str) {
    let peers = Peers::installed();
    let setup = Setup::new("both");
    let (machina, args) = (machina_binary(), setup.args());
    let mut target = vec![machina.to_str().unwrap(), "mcp", "--store", "memory:"];
    target.extend(args.iter().map(String::as_str));
    check(&peers, language, "stdio", &target).await;
}

#[tokio::test]
async fn the_python_client_lists_and_calls_over_http() {
    over_http("python").await;
}

#[tokio::test]
async fn the_python_client_lists_and_calls_over_stdio() {
    over_stdio("python").await;
}

#[tokio::test]
async fn the_typescript_client_lists_and_calls_over_http() {
    over_http("typescript").await;
}

#[tokio::test]
async fn the_typescript_client_lists_and_calls_over_stdio() {
    over_stdio("typescript").await;
}
