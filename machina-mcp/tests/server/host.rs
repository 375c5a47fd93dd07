//! Hosts in front of the server: rmcp's client, which no one here wrote, and a
//! bare one that sees every byte.

use std::sync::{Arc, Mutex};

use rmcp::model::{CallToolRequestParams, ProgressNotificationParam, ProtocolVersion};
use rmcp::service::{ClientLifecycleMode, NotificationContext, RunningService};
use rmcp::{ClientHandler, RoleClient};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, DuplexStream, Lines, ReadHalf, WriteHalf};
use tokio::time::timeout;

use crate::upstream::PATIENCE;

pub(crate) fn legacy() -> ClientLifecycleMode {
    ClientLifecycleMode::Initialize
}

pub(crate) fn modern() -> ClientLifecycleMode {
    ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
}

/// A host that notes the progress and the changes it hears of.
#[derive(Debug, Clone, Default)]
pub(crate) struct Host {
    pub(crate) progress: Arc<Mutex<Vec<ProgressNotificationParam>>>,
    pub(crate) changes: Arc<Mutex<Vec<&'static str>>>,
}

impl Host {
    /// Waits until a change of this list was heard of, and forgets it.
    pub(crate) async fn until_told(&self, list: &str) {
        let told = || {
            let mut changes = self.changes.lock().unwrap();
            changes.iter().position(|changed| *changed == list).map(|index| changes.remove(index))
        };
        let telling = async {
            while told().is_none() {
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, telling).await.unwrap_or_else(|_| panic!("no change of {list} was told"));
    }
}

impl ClientHandler for Host {
    async fn on_progress(&self, progress: ProgressNotificationParam, _: NotificationContext<RoleClient>) {
        self.progress.lock().unwrap().push(progress);
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.changes.lock().unwrap().push("tools");
    }

    async fn on_resource_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.changes.lock().unwrap().push("resources");
    }
}

pub(crate) type Client = RunningService<RoleClient, Host>;

pub(crate) fn params(tool: &str, arguments: &Value) -> CallToolRequestParams {
    let mut params = CallToolRequestParams::new(tool.to_owned());
    params.arguments = arguments.as_object().cloned();
    params
}

/// The result of one of the five tools, as JSON.
pub(crate) async fn call(client: &Client, tool: &str, arguments: Value) -> Value {
    let result = timeout(PATIENCE, client.call_tool(params(tool, &arguments))).await.unwrap();
    serde_json::to_value(result.unwrap()).unwrap()
}

/// The structured result of one of the five tools.
pub(crate) async fn structured(client: &Client, tool: &str, arguments: Value) -> Value {
    let mut result = call(client, tool, arguments).await;
    assert_eq!(result.get("isError").unwrap_or(&Value::Null), &Value::Null, "{result}");
    let structured = result["structuredContent"].take();
    let text = result["content"][0]["text"].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap(), structured, "text and structure say the same");
    structured
}

/// What a request of the stateless era says of itself.
pub(crate) fn meta() -> Value {
    json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    })
}

/// A host on a pipe that sends and reads lines.
pub(crate) struct Bare {
    pub(crate) writer: WriteHalf<DuplexStream>,
    lines: Lines<BufReader<ReadHalf<DuplexStream>>>,
    /// The methods of the notifications that came before the answer to a request.
    pub(crate) heard: Vec<String>,
}

impl Bare {
    pub(crate) fn new(stream: DuplexStream) -> Self {
        let (reader, writer) = tokio::io::split(stream);
        Self { writer, lines: BufReader::new(reader).lines(), heard: Vec::new() }
    }

    pub(crate) async fn send(&mut self, line: &str) {
        self.writer.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// The next message; `None` when the server has ended.
    pub(crate) async fn next(&mut self) -> Option<Value> {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("the server answers").unwrap()?;
        Some(serde_json::from_str(&line).unwrap_or_else(|_| panic!("not JSON: {line}")))
    }

    pub(crate) async fn request(&mut self, id: Value, method: &str, params: Value) -> Value {
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}).to_string()).await;
        loop {
            let answer = self.next().await.unwrap();
            if let Some(method) = answer["method"].as_str() {
                self.heard.push(method.to_owned());
                continue;
            }
            assert_eq!(answer["id"], id, "{answer}");
            return answer;
        }
    }

    pub(crate) async fn initialize(&mut self) {
        let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bare"}});
        let answer = self.request(json!("hello"), "initialize", params).await;
        assert_eq!(answer["result"]["protocolVersion"], "2025-11-25");
        self.send(r#"{"jsonrpc":"2.0","method":"notifications/initialized"}"#).await;
    }
}
