//! The fixture server is worth something only if it speaks MCP as others do: an
//! independent client, rmcp's, talks to it here. What HTTP demands beyond that
//! is checked by hand.

use std::process::Stdio;
use std::time::Duration;

use machina_tests::{Fixture, JournalFile, Process, fixture_binary, wait_until, wait_until_gone};
use rmcp::model::{CallToolRequestParams, ProtocolVersion, ReadResourceRequestParams, SubscriptionFilter};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt, RunningService};
use rmcp::{RoleClient, ServiceError};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

fn modern() -> ClientLifecycleMode {
    ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
}

fn auto() -> ClientLifecycleMode {
    ClientLifecycleMode::Auto {
        preferred_versions: vec![ProtocolVersion::V_2026_07_28],
        legacy_version: Some(ProtocolVersion::LATEST_WITH_INITIALIZE),
    }
}

/// A fixture over stdio, and rmcp's client in front of it.
async fn connect(args: &[&str], mode: ClientLifecycleMode) -> (RunningService<RoleClient, ()>, Child) {
    let mut command = Command::new(fixture_binary());
    command.arg("stdio").args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let transport = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
    (().serve_with_lifecycle(transport, mode).await.unwrap(), child)
}

fn call(tool: &str, arguments: Value) -> CallToolRequestParams {
    let mut call = CallToolRequestParams::new(tool.to_owned());
    call.arguments = arguments.as_object().cloned();
    call
}

/// The text that a tool answers with.
async fn text(client: &RunningService<RoleClient, ()>, tool: &str, arguments: Value) -> String {
    let result = client.call_tool(call(tool, arguments)).await.unwrap();
    serde_json::to_value(result).unwrap()["content"][0]["text"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn an_independent_client_gets_along_in_every_era() {
    for (era, mode, version) in [
        ("legacy", ClientLifecycleMode::Initialize, "2025-11-25"),
        ("modern", modern(), "2026-07-28"),
        ("both", auto(), "2026-07-28"),
        ("legacy", auto(), "2025-11-25"),
    ] {
        let (client, mut child) = connect(&["--era", era, "--pages", "3", "--name", "f"], mode).await;
        assert_eq!(client.peer_info().unwrap().protocol_version.as_str(), version);
        assert_eq!(client.list_all_tools().await.unwrap().len(), 13, "{era}");
        assert_eq!(client.list_all_prompts().await.unwrap().len(), 2);
        assert_eq!(client.list_all_resources().await.unwrap().len(), 2);
        assert_eq!(client.list_all_resource_templates().await.unwrap().len(), 1);
        let resource = client.read_resource(ReadResourceRequestParams::new("fixture://number/7")).await.unwrap();
        assert_eq!(serde_json::to_value(resource).unwrap()["contents"][0]["text"], "7");

        assert_eq!(text(&client, "add", json!({"a": 2, "b": 3.5})).await, "5.5");
        assert_eq!(text(&client, "increment", json!({})).await, "1");
        assert_eq!(text(&client, "increment", json!({})).await, "2");
        assert_eq!(text(&client, "large", json!({"bytes": 100_000})).await.len(), 100_000);
        let who: Value = serde_json::from_str(&text(&client, "whoami", json!({})).await).unwrap();
        assert_eq!((&who["protocol_version"], &who["name"]), (&json!(version), &json!("f")));
        assert_eq!(who["pid"], child.id().unwrap());

        let failed = client.call_tool(call("fail", json!({}))).await.unwrap();
        assert_eq!(failed.is_error, Some(true));
        let error = client.call_tool(call("protocol_error", json!({"code": -32055}))).await.unwrap_err();
        assert!(matches!(&error, ServiceError::McpError(e) if e.code.0 == -32055), "{error}");
        let structured = client.call_tool(call("structured", json!({}))).await.unwrap();
        assert_eq!(structured.structured_content.unwrap()["zeta"], 1);

        client.cancel().await.unwrap();
        let status = timeout(Duration::from_secs(5), child.wait()).await.unwrap().unwrap();
        assert!(status.success(), "the fixture ends when its stdin ends: {status}");
    }
}

#[tokio::test]
async fn the_wrong_era_is_refused() {
    let (client, _child) = connect(&["--era", "both"], ClientLifecycleMode::Initialize).await;
    let asked: Value = serde_json::from_str(&text(&client, "ask_client", json!({})).await).unwrap();
    assert_eq!(asked["log"]["error"]["code"], -32601, "{asked}");
    for (era, mode) in [("modern", ClientLifecycleMode::Initialize), ("legacy", modern())] {
        let mut command = Command::new(fixture_binary());
        command.args(["stdio", "--era", era]).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let transport = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
        assert!(().serve_with_lifecycle(transport, mode).await.is_err(), "{era}");
    }
}

#[tokio::test]
async fn a_change_of_tools_is_announced_to_who_listens() {
    let (client, _child) = connect(&["--era", "modern"], modern()).await;
    let mut filter = SubscriptionFilter::new();
    filter.tools_list_changed = Some(true);
    let mut subscription = client.listen(filter).await.unwrap();
    assert_eq!(subscription.acknowledged().tools_list_changed, Some(true));
    text(&client, "change_tools", json!({})).await;
    let notification = timeout(Duration::from_secs(5), subscription.next()).await.unwrap().unwrap();
    assert!(format!("{notification:?}").contains("ToolListChanged"), "{notification:?}");
    assert_eq!(client.list_all_tools().await.unwrap().len(), 14);
}

#[tokio::test]
async fn the_journal_is_written_before_the_process_dies() {
    let directory = tempfile::tempdir().unwrap();
    let journal = JournalFile::new(directory.path().join("journal"));
    let (client, mut child) = connect(&["--journal", journal.path().to_str().unwrap()], modern()).await;
    client.call_tool(call("exit", json!({"code": 7, "id": "last"}))).await.unwrap_err();
    assert_eq!(child.wait().await.unwrap().code(), Some(7));
    assert_eq!(journal.executions("exit").unwrap()["last"], 1);
}

#[tokio::test]
async fn faults_at_the_process_happen() {
    let mut command = Command::new(fixture_binary());
    command.args(["stdio", "--ignore-stdin-close", "--ignore-sigterm", "--spawn-grandchild", "--garbage-lines", "4"]);
    command.args(["--stderr-lines", "2"]);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let process = Process::of(child.id().unwrap()).unwrap();
    // Written once it is ready to be told to end.
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut lines = String::new();
    for _ in 0..4 {
        timeout(Duration::from_secs(20), stdout.read_line(&mut lines)).await.unwrap().unwrap();
    }
    let family = wait_until(Duration::from_secs(5), "there is a grandchild", async || {
        let family = process.descendants();
        if family.is_empty() { Err("there is none".into()) } else { Ok(family) }
    })
    .await;
    process.signal(rustix::process::Signal::TERM);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(process.is_alive(), "it goes on without stdin and at SIGTERM");
    process.signal_group(rustix::process::Signal::KILL);
    let output = child.wait_with_output().await.unwrap();
    wait_until_gone(Duration::from_secs(5), &family).await;
    stdout.read_to_string(&mut lines).await.unwrap();
    assert_eq!(lines.lines().count(), 4);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains(&format!("grandchild {}\n", family[0].pid)) && stderr.contains("stderr line 1"),
        "{stderr}"
    );
}

/// One POST to an HTTP fixture: status, session, and the last message of the answer.
async fn post(url: &str, headers: &[(&str, &str)], message: &Value) -> (u16, Option<String>, Value) {
    let mut request = reqwest::Client::new().post(url).json(message);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let session = response.headers().get("mcp-session-id").map(|id| id.to_str().unwrap().to_owned());
    let text = response.text().await.unwrap();
    let last =
        text.lines().rev().find_map(|line| serde_json::from_str(line.strip_prefix("data: ").unwrap_or(line)).ok());
    (status, session, last.unwrap_or_default())
}

fn message(method: &str, params: &Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params})
}

#[tokio::test]
async fn http_with_sessions() {
    let fixture = Fixture::http(&["--era", "legacy", "--forget-sessions-after", "2", "--garbage-lines", "2"]).await;
    let url = fixture.url();
    let list = message("tools/list", &json!({}));
    assert_eq!(post(url, &[], &list).await.0, 400, "a request without a session");
    assert_eq!(post(url, &[("mcp-session-id", "other")], &list).await.0, 404);
    let hello = message("initialize", &json!({"protocolVersion": "2025-06-18", "capabilities": {}}));
    let (status, session, answer) = post(url, &[], &hello).await;
    assert_eq!((status, &answer["result"]["protocolVersion"]), (200, &json!("2025-06-18")));
    let session = session.unwrap();
    let headers = [("mcp-session-id", session.as_str())];
    assert_eq!(post(url, &headers, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"})).await.0, 202);
    let add = message("tools/call", &json!({"name": "add", "arguments": {"a": 1, "b": 2}}));
    assert_eq!(post(url, &headers, &add).await.2["result"]["content"][0]["text"], "3");
    assert_eq!(post(url, &headers, &list).await.0, 404, "the session is forgotten");
}

#[tokio::test]
async fn http_without_sessions_checks_its_headers() {
    let fixture = Fixture::http(&["--era", "modern"]).await;
    let meta = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
                      "io.modelcontextprotocol/clientCapabilities": {}});
    let echo =
        message("tools/call", &json!({"name": "echo", "arguments": {"text": "hi", "region": "eu"}, "_meta": meta}));
    let right = [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "echo"),
        ("mcp-param-region", "eu"),
    ];
    let (status, session, answer) = post(fixture.url(), &right, &echo).await;
    assert_eq!((status, session, &answer["result"]["content"][0]["text"]), (200, None, &json!("hi")));
    for missing in 0..right.len() {
        let mut headers = right.to_vec();
        headers.remove(missing);
        let (status, _, answer) = post(fixture.url(), &headers, &echo).await;
        assert_eq!((status, &answer["error"]["code"]), (400, &json!(-32020)), "without {}", right[missing].0);
    }
    let old = message(
        "server/discover",
        &json!({"_meta": {"io.modelcontextprotocol/protocolVersion": "2099-01-01",
                      "io.modelcontextprotocol/clientCapabilities": {}}}),
    );
    let (status, _, answer) = post(fixture.url(), &[], &old).await;
    assert_eq!((status, &answer["error"]["code"]), (400, &json!(-32022)));
    assert_eq!(answer["error"]["data"]["supported"], json!(["2026-07-28"]));
    assert_eq!(
        post(fixture.url(), &[], &message("initialize", &json!({"protocolVersion": "2025-11-25"}))).await.2["error"]["code"],
        -32601
    );
}

#[tokio::test]
async fn http_faults_happen_and_are_mended() {
    let journal = tempfile::NamedTempFile::new().unwrap();
    let path = journal.path().to_str().unwrap();
    let fixture =
        Fixture::http(&["--status", "429", "--retry-after", "3", "--require-token", "t", "--journal", path]).await;
    let url = fixture.url();
    let hello = message("initialize", &json!({"protocolVersion": "2025-11-25", "capabilities": {}}));
    let token = ("authorization", "Bearer t");
    assert_eq!(post(url, &[], &hello).await.0, 401);
    let response = reqwest::Client::new().post(url).bearer_auth("t").json(&hello).send().await.unwrap();
    assert_eq!((response.status().as_u16(), response.headers()["retry-after"].to_str().unwrap()), (429, "3"));
    fixture.set_faults(json!({"silent": true})).await;
    assert!(timeout(Duration::from_millis(300), post(url, &[token], &hello)).await.is_err(), "it is silent");
    fixture.set_faults(json!({})).await;
    let (status, session, _) = post(url, &[token], &hello).await;
    assert_eq!(status, 200);
    let session = session.unwrap();
    let abort = message("tools/call", &json!({"name": "abort_connection", "arguments": {"id": "a"}}));
    let broken =
        reqwest::Client::new().post(url).bearer_auth("t").header("mcp-session-id", session).json(&abort).send();
    broken.await.unwrap().text().await.unwrap_err();
    assert_eq!(JournalFile::new(journal.path()).executions("abort_connection").unwrap()["a"], 1);
}
