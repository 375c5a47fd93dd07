//! The upstreams of the benchmarks: stateless MCP servers that answer at once, in
//! a process of their own so that their work is not taken for Machina's. One is
//! built with the official SDK, as real servers are; one does as little as it can.

use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use axum::serve::ListenerExt as _;
use http::header::CONTENT_TYPE;
use rmcp::ServerHandler;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, CallToolResult, ContentBlock, ErrorData, ListToolsResult,
    PaginatedRequestParams, ServerCapabilities, ServerConfig, Tool,
};
use rmcp::service::{RequestContext, RoleServer};
use rmcp::transport::streamable_http_server::session::local::LocalSessionManager;
use rmcp::transport::streamable_http_server::{StreamableHttpServerConfig, StreamableHttpService};
use serde_json::{Value, json};

/// The argument that makes a benchmark an upstream.
const ROLE: &str = "upstream";

/// What an upstream is built with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `rmcp`, the official SDK.
    Sdk,
    /// As little as possible.
    Bare,
}

impl Kind {
    fn word(self) -> &'static str {
        match self {
            Self::Sdk => "sdk",
            Self::Bare => "bare",
        }
    }
}

/// A running upstream; killed when dropped.
#[derive(Debug)]
pub struct Upstream {
    child: Child,
    /// Where it listens.
    pub address: SocketAddr,
}

impl Upstream {
    /// Starts this program again as an upstream with `tools` tools beside `echo`.
    ///
    /// # Panics
    /// If it does not start.
    #[must_use]
    pub fn start(kind: Kind, tools: usize) -> Self {
        let mut command = Command::new(std::env::current_exe().expect("a program knows where it is"));
        command.args([ROLE, kind.word(), &tools.to_string()]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the upstream starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("the upstream says where it listens");
        Self { child, address: line.trim().parse().expect("an address") }
    }

    /// Its address for MCP.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}/mcp", self.address)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves, and never returns, if this process was started to be an upstream.
///
/// # Panics
/// If it cannot listen.
pub fn serve_if_asked() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() != Some(ROLE) {
        return;
    }
    let kind = if arguments.next().as_deref() == Some("sdk") { Kind::Sdk } else { Kind::Bare };
    let tools = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(0);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("starts");
    runtime.block_on(serve(kind, tools));
}

#[allow(clippy::print_stdout, reason = "the parent reads the address here")]
async fn serve(kind: Kind, tools: usize) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    println!("{}", listener.local_addr().expect("has an address"));
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let list = list(tools);
    let router = match kind {
        Kind::Sdk => Router::new().route_service("/mcp", sdk(&list)),
        Kind::Bare => Router::new().route("/mcp", post(answer)).with_state(Arc::new(list)),
    };
    axum::serve(listener, router).await.expect("serves");
}

fn sdk(list: &Value) -> StreamableHttpService<Echo, LocalSessionManager> {
    let tools = Arc::new(serde_json::from_value(list["tools"].clone()).expect("definitions"));
    let config = StreamableHttpServerConfig::default().with_legacy_session_mode(false).with_json_response(true);
    StreamableHttpService::new(move || Ok(Echo { tools: Arc::clone(&tools) }), Arc::default(), config)
}

/// A server of the official SDK.
#[derive(Debug, Clone)]
struct Echo {
    tools: Arc<Vec<Tool>>,
}

impl ServerHandler for Echo {
    fn get_info(&self) -> ServerConfig {
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        Ok(ListToolsResult::with_all_items(Vec::clone(&self.tools)))
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        _: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let text = request.arguments.and_then(|arguments| arguments.get("text")?.as_str().map(str::to_owned));
        Ok(CallToolResult::success(vec![ContentBlock::text(text.unwrap_or_default())]).into())
    }
}

async fn answer(State(list): State<Arc<Value>>, body: Bytes) -> ([(http::HeaderName, &'static str); 1], String) {
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    let result = match request["method"].as_str().unwrap_or_default() {
        "server/discover" => json!({"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}},
            "serverInfo": {"name": "upstream", "version": "1"}}),
        "tools/list" => Value::clone(&list),
        "tools/call" => {
            let text = request["params"]["arguments"]["text"].as_str().unwrap_or_default();
            json!({"resultType": "complete", "content": [{"type": "text", "text": text}]})
        }
        _ => json!({"resultType": "complete"}),
    };
    let answer = json!({"jsonrpc": "2.0", "id": request["id"], "result": result});
    ([(CONTENT_TYPE, "application/json")], answer.to_string())
}

/// What `tools/list` answers: `echo`, and as many of the size that real tools have.
fn list(tools: usize) -> Value {
    let schema = |properties: Value| json!({"type": "object", "properties": properties});
    let echo = json!({"name": "echo", "description": "Says it again", "annotations": {"readOnlyHint": true},
        "inputSchema": schema(json!({"text": {"type": "string"}}))});
    let more = (1..=tools).map(|index| {
        let properties: serde_json::Map<String, Value> = (0..6)
            .map(|field| {
                let about = format!("What the field number {field} of the record is to be set to, in words");
                (format!("field_{field}"), json!({"type": "string", "description": about}))
            })
            .collect();
        json!({"name": format!("write_record_{index}"), "title": format!("Write record {index}"),
            "description": "Writes one record of the table and returns it as it stands afterwards. ".repeat(4),
            "inputSchema": schema(Value::Object(properties))})
    });
    let all: Vec<Value> = std::iter::once(echo).chain(more).collect();
    json!({"resultType": "complete", "tools": all, "ttlMs": 300_000, "cacheScope": "public"})
}
