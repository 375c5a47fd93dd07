//! Machina as an MCP server of a host: an independent client, rmcp's, in front
//! of the real binary, with the fixture behind it.

use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use machina_tests::{JournalEvent, JournalFile, MachinaProcess, Process, machina_binary, wait_until, wait_until_gone};
use rmcp::model::{
    CallToolRequest, CallToolRequestParams, ClientRequest, ProgressNotificationParam, ProtocolVersion, ServerResult,
};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt, NotificationContext, PeerRequestOptions, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{ClientHandler, RoleClient};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::serve::{healthy, write_servers};

const SOON: Duration = Duration::from_secs(30);

/// A host that counts the progress it is told of.
#[derive(Clone, Default)]
struct Host {
    progress: Arc<AtomicUsize>,
}

impl ClientHandler for Host {
    async fn on_progress(&self, _: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.progress.fetch_add(1, Ordering::AcqRel);
    }
}

type Client = RunningService<RoleClient, Host>;

fn modes() -> [(&'static str, ClientLifecycleMode); 2] {
    let modern = ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] };
    [("2025-11-25", ClientLifecycleMode::Initialize), ("2026-07-28", modern)]
}

/// A journal, and a host's configuration file with one fixture that writes it.
fn one_fixture(directory: &TempDir) -> (JournalFile, String) {
    let journal = JournalFile::new(directory.path().join("journal"));
    let args = ["stdio", "--journal", journal.path().to_str().unwrap(), "--spawn-grandchild"];
    let import = write_servers(directory.path(), &[("fixture", &args)]);
    (journal, import)
}

fn call_of(tool: &str, arguments: &Value) -> CallToolRequestParams {
    let mut call = CallToolRequestParams::new("call_tool");
    call.arguments = json!({"service": "fixture", "tool": tool, "arguments": arguments}).as_object().cloned();
    call
}

async fn call(client: &Client, tool: &str, arguments: Value) -> Value {
    serde_json::to_value(client.call_tool(call_of(tool, &arguments)).await.unwrap()).unwrap()
}

/// What every host may expect, whichever way it is connected.
async fn check(client: &Client, version: &str, journal: &JournalFile) {
    assert_eq!(client.peer_info().unwrap().protocol_version.as_str(), version);
    let tools = client.list_all_tools().await.unwrap();
    let names: Vec<_> = tools.iter().map(|tool| tool.name.as_ref()).collect();
    for name in ["list_services", "list_tools", "find_tool", "describe_tool", "call_tool"] {
        assert!(names.contains(&name), "{version}: {names:?}");
    }
    wait_until(SOON, "the fixture's tools are found", async || {
        let mut find = CallToolRequestParams::new("find_tool");
        find.arguments = json!({"query": "add two numbers"}).as_object().cloned();
        let found = serde_json::to_value(client.call_tool(find).await.unwrap()).unwrap();
        let best = &found["structuredContent"]["tools"][0];
        if best["service"] == "fixture" && best["tool"] == "add" { Ok(()) } else { Err(found.to_string()) }
    })
    .await;
    let sum = call(client, "add", json!({"a": 2, "b": 3})).await;
    assert_eq!(sum["content"][0]["text"], "5", "{version}: {sum}");
    let structured = call(client, "structured", json!({})).await;
    assert_eq!(structured["structuredContent"], json!({"zeta": 1, "alpha": ["a", "b"]}), "{version}");
    let failed = call(client, "fail", json!({})).await;
    assert_eq!(
        (&failed["isError"], &failed["content"][0]["text"]),
        (&json!(true), &json!("failed as asked")),
        "{version}"
    );

    let before = client.service().progress.load(Ordering::Acquire);
    call(client, "sleep", json!({"ms": 2000})).await;
    let told = client.service().progress.load(Ordering::Acquire) - before;
    assert!(told >= 3, "{version}: progress was told {told} times");

    let id = format!("cancelled by a host of {version}");
    let request = CallToolRequest::new(call_of("sleep", &json!({"ms": 60_000, "id": id})));
    let options = PeerRequestOptions::no_options();
    let handle = client.send_cancellable_request(ClientRequest::CallToolRequest(request), options).await.unwrap();
    wait_until(SOON, "the tool runs", async || {
        if journal.executions("sleep").unwrap().contains_key(&id) { Ok(()) } else { Err("it does not".into()) }
    })
    .await;
    handle.cancel(None).await.unwrap();
    wait_until(SOON, "the call is cancelled at the fixture", async || {
        let entries = journal.read().unwrap();
        let cancelled = |entry: &machina_tests::JournalEntry| {
            entry.event == JournalEvent::Cancelled && entry.id.as_deref() == Some(&id)
        };
        if entries.iter().any(cancelled) { Ok(()) } else { Err("it is not".into()) }
    })
    .await;
}

#[tokio::test]
async fn a_host_speaks_to_it_over_http_in_both_eras() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, import) = one_fixture(&directory);
    let machina = MachinaProcess::serve(&["--import", &import]).await;
    healthy(&machina, "fixture").await;
    for (version, mode) in modes() {
        let transport = StreamableHttpClientTransport::from_uri(format!("{}/mcp", machina.url()));
        let client = timeout(SOON, Host::default().serve_with_lifecycle(transport, mode)).await.unwrap().unwrap();
        check(&client, version, &journal).await;
        client.cancel().await.unwrap();
    }
}

/// `machina mcp`, as a host starts it.
fn start(directory: &TempDir, import: &str) -> Child {
    let store = format!("sqlite:{}", directory.path().join("machina.db").display());
    let mut command = Command::new(machina_binary());
    command.args(["mcp", "--store", &store, "--import", import]).env("HOME", directory.path());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).kill_on_drop(true).spawn().unwrap()
}

#[tokio::test]
async fn a_host_starts_it_and_leaves_nothing_behind() {
    let directory = tempfile::tempdir().unwrap();
    let (journal, import) = one_fixture(&directory);
    for (version, mode) in modes() {
        let mut child = start(&directory, &import);
        let process = Process::of(child.id().unwrap()).unwrap();
        let transport = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
        let client = timeout(SOON, Host::default().serve_with_lifecycle(transport, mode)).await.unwrap().unwrap();
        check(&client, version, &journal).await;
        let family = process.descendants();
        assert!(family.len() >= 2, "{version}: the fixture and its child: {family:?}");
        client.cancel().await.unwrap();
        let status = timeout(Duration::from_secs(15), child.wait()).await.unwrap().unwrap();
        assert!(status.success(), "{version}: the host closed stdin: {status}");
        wait_until_gone(Duration::from_secs(10), &family).await;
    }
}

#[tokio::test]
async fn the_fixture_speaks_to_an_independent_client_over_http() {
    for (version, mode) in modes() {
        let fixture = machina_tests::Fixture::http(&[]).await;
        let transport = StreamableHttpClientTransport::from_uri(fixture.url().to_owned());
        let client = timeout(SOON, Host::default().serve_with_lifecycle(transport, mode)).await.unwrap().unwrap();
        assert_eq!(client.list_all_tools().await.unwrap().len(), 13, "{version}");
        let mut echo = CallToolRequestParams::new("echo");
        echo.arguments = json!({"text": "hi", "region": "eu"}).as_object().cloned();
        let ServerResult::CallToolResult(result) =
            client.send_request(ClientRequest::CallToolRequest(CallToolRequest::new(echo))).await.unwrap()
        else {
            panic!("{version}: no result of a tool")
        };
        assert_eq!(serde_json::to_value(result).unwrap()["content"][0]["text"], "hi", "{version}");
        client.cancel().await.unwrap();
    }
}
