//! `machina mcp`: a host starts it and speaks to it on its standard streams.

use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

use crate::world::{World, signal_to};

#[tokio::test]
async fn a_host_may_stop_it_with_a_signal() {
    let world = World::new();
    let hosts = world.hosts("hosts.json", json!({"small": world.server(&[])}));
    let args = ["mcp", "--store", "sqlite:here.db", "--import", &hosts, "--listen", "127.0.0.1:0"];
    let mut child = world.command(&args).stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    stdin.write_all(b"{\"jsonrpc\": \"2.0\", \"id\": 1, \"method\": \"ping\"}\n").await.unwrap();
    lines.next_line().await.unwrap().expect("there is an answer");
    signal_to(child.id().unwrap(), "TERM").await;
    let output = child.wait_with_output().await.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("listening on http://127.0.0.1:"), "{stderr}");
    world.is_soon_empty().await;
}

#[tokio::test]
async fn a_host_reaches_every_tool_and_reads_nothing_but_protocol() {
    let world = World::new();
    let servers = json!({"small": world.server(&[]), "broken": world.server(&["--broken"]), "bad": {"command": 7}});
    let hosts = world.hosts("hosts.json", servers);
    let mut command = world.command(&["mcp", "--store", "sqlite:here.db", "--import", &hosts]);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut ask = async |id: u32, method: &str, params: Value| {
        let request = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
        stdin.write_all(format!("{request}\n").as_bytes()).await.unwrap();
        let line = lines.next_line().await.unwrap().expect("there is an answer");
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(answer["id"], id, "{answer}");
        answer["result"].clone()
    };
    let client = json!({"name": "test", "version": "1"});
    let greeting = json!({"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": client});
    assert_eq!(ask(1, "initialize", greeting).await["protocolVersion"], "2025-06-18");
    let tools = ask(2, "tools/list", json!({})).await;
    assert!(tools["tools"].as_array().unwrap().iter().any(|tool| tool["name"] == "call_tool"), "{tools}");
    let call = json!({"service": "small", "tool": "add", "arguments": {"a": 1, "b": 2}});
    let answer = ask(3, "tools/call", json!({"name": "call_tool", "arguments": call})).await;
    assert_eq!(answer["content"][0]["text"], "3", "{answer}");
    drop(stdin);
    let left = lines.next_line().await.unwrap();
    assert_eq!(left, None);
    let output = child.wait_with_output().await.unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{stderr}");
    assert!(stderr.contains("mcpServers.bad.command"), "{stderr}");
    assert_eq!(world.processes(), [""; 0]);
}
