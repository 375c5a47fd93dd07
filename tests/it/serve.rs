//! The binary as a person runs it: `machina serve`, and Ctrl-C.

use std::path::Path;
use std::process::ExitStatus;
use std::time::Duration;

use machina_tests::{JournalFile, MachinaProcess, Process, fixture_binary, wait_until, wait_until_gone};
use rustix::process::Signal;
use serde_json::{Value, json};

const SOON: Duration = Duration::from_secs(30);
const STUBBORN: [&str; 4] = ["stdio", "--ignore-stdin-close", "--ignore-sigterm", "--spawn-grandchild"];

/// A host's configuration file with these servers.
pub(crate) fn write_servers(directory: &Path, servers: &[(&str, &[&str])]) -> String {
    let entry = |args: &[&str]| json!({"command": fixture_binary(), "args": args});
    let servers: serde_json::Map<String, Value> =
        servers.iter().map(|(name, args)| ((*name).to_owned(), entry(args))).collect();
    let path = directory.join("mcp.json");
    std::fs::write(&path, json!({"mcpServers": servers}).to_string()).unwrap();
    path.to_str().unwrap().to_owned()
}

pub(crate) async fn healthy(machina: &MachinaProcess, name: &str) {
    wait_until(SOON, &format!("{name} is healthy"), async || {
        let answer = machina.get(&format!("/api/v1/services/{name}")).await;
        if answer.body["health"]["state"] == "healthy" { Ok(()) } else { Err(format!("{answer:?}")) }
    })
    .await;
}

/// `machina serve` with a polite child, a stubborn one, and one that never gets
/// ready; and all processes under it.
async fn family() -> (MachinaProcess, Vec<Process>) {
    let directory = tempfile::tempdir().unwrap();
    let servers: [(&str, &[&str]); 3] = [
        ("polite", &["stdio", "--spawn-grandchild"]),
        ("stubborn", &STUBBORN),
        ("slow", &["stdio", "--start-delay-ms", "600000"]),
    ];
    let import = write_servers(directory.path(), &servers);
    let machina = MachinaProcess::serve(&["--import", &import]).await;
    for name in ["polite", "stubborn"] {
        healthy(&machina, name).await;
    }
    let family = wait_until(SOON, "all are started, and their shepherd", async || {
        let family = machina.process().descendants();
        if family.len() >= 6 { Ok(family) } else { Err(format!("{family:?}")) }
    });
    let family = family.await;
    (machina, family)
}

/// Sends signals, half a second apart, and returns how the process ended.
async fn stopped_by(mut machina: MachinaProcess, family: &[Process], signals: &[Signal]) -> ExitStatus {
    for (index, signal) in signals.iter().enumerate() {
        if index > 0 {
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        machina.signal(*signal);
    }
    let patience = if signals.len() > 1 { Duration::from_secs(4) } else { Duration::from_secs(15) };
    let status = machina.ended(patience).await;
    wait_until_gone(Duration::from_secs(10), family).await;
    status
}

#[tokio::test]
async fn ctrl_c_leaves_nothing_behind() {
    let (machina, family) = family().await;
    let status = stopped_by(machina, &family, &[Signal::INT]).await;
    assert_eq!(status.code(), Some(0), "{status}");
}

#[tokio::test]
async fn a_second_ctrl_c_ends_it_at_once_and_leaves_nothing_behind() {
    let (machina, family) = family().await;
    stopped_by(machina, &family, &[Signal::INT, Signal::INT]).await;
}

#[tokio::test]
async fn a_service_manager_stops_it_without_a_trace() {
    let (machina, family) = family().await;
    let status = stopped_by(machina, &family, &[Signal::TERM]).await;
    assert_eq!(status.code(), Some(0), "{status}");
}

#[tokio::test]
async fn a_call_over_rest_reaches_the_server_and_errors_say_what_happened() {
    let directory = tempfile::tempdir().unwrap();
    let journal = JournalFile::new(directory.path().join("journal"));
    let args = ["stdio", "--journal", journal.path().to_str().unwrap()];
    let import = write_servers(directory.path(), &[("fixture", &args)]);
    let machina = MachinaProcess::serve(&["--import", &import]).await;
    healthy(&machina, "fixture").await;
    let call = async |tool: &str, arguments: Value| {
        machina.post("/api/v1/services/fixture/call", &json!({"tool": tool, "arguments": arguments})).await
    };
    let answer = call("add", json!({"a": 2, "b": 3})).await;
    assert_eq!((answer.status, &answer.body["content"][0]["text"]), (200, &json!("5")), "{answer:?}");
    assert_eq!(answer.body["_meta"]["dev.machina/call"]["attempts"], 1, "{answer:?}");
    let answer = call("fail", json!({})).await;
    assert_eq!((answer.status, &answer.body["isError"]), (200, &json!(true)), "{answer:?}");
    let answer = call("exit", json!({"code": 1, "id": "x"})).await;
    assert_eq!(
        (answer.status, &answer.body["code"], &answer.body["outcome"]),
        (502, &json!("lost"), &json!("unknown")),
        "{answer:?}"
    );
    assert_eq!(journal.executions("exit").unwrap()["x"], 1);
    let answer = call("no_such_tool", json!({})).await;
    assert_eq!((answer.status, &answer.body["code"]), (404, &json!("not_found")), "{answer:?}");
}

#[tokio::test]
async fn what_was_declared_survives_kill_9() {
    let directory = tempfile::tempdir().unwrap();
    let import = write_servers(directory.path(), &[("kept", &["stdio"])]);
    let machina = MachinaProcess::serve(&["--import", &import]).await;
    healthy(&machina, "kept").await;
    let before = machina.get("/api/v1/services/kept").await.body;
    let machina = machina.kill_and_restart(&[]).await;
    healthy(&machina, "kept").await;
    let after = machina.get("/api/v1/services/kept").await.body;
    for field in ["id", "name", "created_at", "revision", "updated_by"] {
        assert!(!before[field].is_null(), "{field}: {before}");
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!(after["instances"][0]["id"], before["instances"][0]["id"]);
}
