//! The inspector's command line, which people reach for first.

use machina_tests::{Peers, closing_line, machina_binary};
use serde_json::{Value, json};

use super::Setup;

#[tokio::test]
async fn the_inspector_lists_and_calls_in_every_era() {
    let peers = Peers::installed();
    let setup = Setup::new("both");
    let machina = setup.serve().await;
    let url = format!("{}/mcp", machina.url());
    for era in ["legacy", "modern", "auto"] {
        let at = ["--server-url", &url, "--protocol-era", era, "--format", "json", "--quiet"];
        let ask = async |args: &[&str]| peers.inspector(&[&at, args].concat()).await.json();
        let listed = ask(&["--method", "tools/list"]).await;
        let tools = listed["result"]["tools"].as_array().unwrap();
        assert!(tools.iter().any(|tool| tool["name"] == "test_custom_header"), "{era}: {listed}");
        let called =
            ask(&["--method", "tools/call", "--tool-name", "test_custom_header", "--tool-arg", "region=eu"]).await;
        assert_eq!(called["result"]["content"][0]["text"], "Region: eu", "{era}: {called}");
        let prompts = ask(&["--method", "prompts/list"]).await;
        let resources = ask(&["--method", "resources/list"]).await;
        let count = |answer: &Value, key: &str| answer["result"][key].as_array().unwrap().len();
        let (prompts, resources) = (count(&prompts, "prompts"), count(&resources, "resources"));
        assert!(prompts >= 5 && resources >= 3, "{era}: {prompts} prompts, {resources} resources");
        closing_line(&format!(
            "inspector {}, era {era}: {} tools, {prompts} prompts, {resources} resources listed, 1 tool called",
            peers.version("@modelcontextprotocol/inspector"),
            tools.len(),
        ));
    }
}

/// A configuration file by which the inspector starts Machina, each on a store of its own.
fn host(setup: &Setup, number: usize) -> String {
    let store = format!("sqlite://{}", setup.path(&format!("machina-{number}.db")));
    let args = [&["mcp".to_owned()], &setup.args()[..], &["--store".to_owned(), store]].concat();
    let servers = json!({"machina": {"command": machina_binary(), "args": args}});
    let host = setup.path(&format!("host-{number}.json"));
    std::fs::write(&host, json!({"mcpServers": servers}).to_string()).unwrap();
    host
}

#[tokio::test]
async fn the_inspector_starts_machina_itself_and_finds_the_tools_at_once() {
    let peers = Peers::installed();
    let setup = Setup::new("both");
    let ask = async |host: &str, args: &[&str]| {
        let at = ["--config", host, "--server", "machina", "--format", "json", "--quiet"];
        peers.inspector(&[&at, args].concat()).await.json()
    };
    let tools = |listed: &Value| listed["result"]["tools"].as_array().unwrap().clone();
    let is_complete = |listed: &Value| tools(listed).iter().any(|tool| tool["name"] == "test_custom_header");
    let (mut at, mut listed) = (String::new(), Value::Null);
    // The first list waits for the tools, but not for a machine that has other things to do.
    for number in 0..3 {
        at = host(&setup, number);
        listed = ask(&at, &["--method", "tools/list"]).await;
        if is_complete(&listed) {
            break;
        }
    }
    assert!(is_complete(&listed), "{listed}");
    let call = ["--method", "tools/call", "--tool-name", "test_custom_header", "--tool-arg", "region=eu"];
    let called = ask(&at, &call).await;
    assert_eq!(called["result"]["content"][0]["text"], "Region: eu", "{called}");
    closing_line(&format!(
        "inspector {}, over stdio: {} tools listed, 1 tool called",
        peers.version("@modelcontextprotocol/inspector"),
        tools(&listed).len(),
    ));
}
