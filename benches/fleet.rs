//! Many MCP servers in one process, told apart by path, which publish the tools
//! of real ones where a file has their definitions, and else as many of the same
//! size. They answer every call with its `text`.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufRead as _, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::post;
use axum::serve::ListenerExt as _;
use axum::{Json, Router};
use http::StatusCode;
use serde_json::{Map, Value, json};

/// The argument that makes a benchmark a fleet.
const ROLE: &str = "fleet";
/// Names the file of definitions: JSON lines, each with its `server`.
const FILE: &str = "MACHINA_BENCH_TOOLS";
/// How many there are when there is no file: as many as the fleet of the tests has.
const SERVICES: usize = 46;
const TOOLS: usize = 1_032;
/// The service with the tool that is called.
pub(crate) const CALLED: &str = "echo";

type Published = BTreeMap<String, Vec<Value>>;

/// A running fleet; killed when dropped.
pub(crate) struct Fleet {
    child: Child,
    address: SocketAddr,
    published: Published,
}

impl Fleet {
    pub(crate) fn start() -> Self {
        let mut command = Command::new(std::env::current_exe().expect("a program knows where it is"));
        command.arg(ROLE).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().expect("the fleet starts");
        let mut line = String::new();
        let stdout = child.stdout.take().expect("stdout is a pipe");
        BufReader::new(stdout).read_line(&mut line).expect("it says where it listens");
        Self { child, address: line.trim().parse().expect("an address"), published: published() }
    }

    /// All of its services, as they are registered.
    pub(crate) fn services(&self) -> Vec<Value> {
        let url = |name: &String| format!("http://{}/{name}/mcp", self.address);
        self.published.keys().map(|name| json!({"name": name, "instances": [{"http": {"url": url(name)}}]})).collect()
    }

    /// How many tools its services publish.
    pub(crate) fn tools(&self) -> usize {
        self.published.values().map(Vec::len).sum()
    }

    /// Where the tools are from and how large they are, for a heading.
    pub(crate) fn described(&self) -> String {
        let bytes: usize = self.published.values().flatten().map(|tool| tool.to_string().len()).sum();
        let source = if std::env::var_os(FILE).is_some() { "real" } else { "generated" };
        format!("{} {source} tools of {} services, {} KiB", self.tools(), self.published.len(), bytes / 1024)
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Serves, and never returns, if this process was started for that.
pub(crate) fn serve_if_asked() {
    if std::env::args().nth(1).as_deref() == Some(ROLE) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("starts");
        runtime.block_on(serve());
    }
}

#[allow(clippy::print_stdout, reason = "the parent reads the address here")]
async fn serve() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
    println!("{}", listener.local_addr().expect("has an address"));
    let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
    let lists: HashMap<String, Value> = published()
        .into_iter()
        .map(|(name, tools)| {
            let list = json!({"resultType": "complete", "tools": tools, "ttlMs": 300_000, "cacheScope": "public"});
            (name, list)
        })
        .collect();
    let router = Router::new().route("/{service}/mcp", post(answer)).with_state(Arc::new(lists));
    axum::serve(listener, router).await.expect("serves");
}

async fn answer(
    State(lists): State<Arc<HashMap<String, Value>>>,
    Path(service): Path<String>,
    body: Bytes,
) -> Result<Json<Value>, StatusCode> {
    let list = lists.get(&service).ok_or(StatusCode::NOT_FOUND)?;
    let request: Value = serde_json::from_slice(&body).map_err(|_| StatusCode::BAD_REQUEST)?;
    let result = match request["method"].as_str().unwrap_or_default() {
        "server/discover" => json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}}, "_meta": {"io.modelcontextprotocol/serverInfo": {"name": service, "version": "1"}}}),
        "tools/list" => list.clone(),
        "tools/call" => {
            let text = request["params"]["arguments"]["text"].as_str().unwrap_or_default();
            json!({"resultType": "complete", "content": [{"type": "text", "text": text}]})
        }
        _ => json!({"resultType": "complete"}),
    };
    Ok(Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result})))
}

fn published() -> Published {
    let mut published = match std::env::var_os(FILE) {
        Some(file) => read(&std::fs::read_to_string(file).expect("the file of definitions can be read")),
        None => generated(),
    };
    let echo = json!({"name": "echo", "description": "Says it again", "annotations": {"readOnlyHint": true},
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}});
    published.insert(CALLED.to_owned(), vec![echo]);
    published
}

/// The definitions of a file. A schema without `type` is none by the protocol,
/// though real servers publish some: it is made one, so that every tool counts.
fn read(lines: &str) -> Published {
    let mut published = Published::new();
    for line in lines.lines() {
        let mut tool: Map<String, Value> = serde_json::from_str(line).expect("each line is a definition");
        let server = tool.remove("server").and_then(|name| name.as_str().map(str::to_owned)).expect("a server's name");
        for about_package in ["package", "version"] {
            tool.remove(about_package);
        }
        tool.retain(|_, value| !value.is_null());
        if let Some(Value::Object(schema)) = tool.get_mut("inputSchema") {
            schema.entry("type").or_insert("object".into());
        }
        published.entry(server).or_default().push(Value::Object(tool));
    }
    published
}

fn generated() -> Published {
    let mut published = Published::new();
    for number in 0..TOOLS {
        let fields: Map<String, Value> = (0..9)
            .map(|field| {
                let about = format!("What the field number {field} of record {number} is to be set to, in words");
                (format!("field_{field}"), json!({"type": "string", "description": about}))
            })
            .collect();
        let tool = json!({"name": format!("write_record_{number}"), "title": format!("Write record {number}"),
            "description": format!("Writes record {number} and returns it as it stands afterwards. ").repeat(4),
            "inputSchema": {"type": "object", "properties": fields}});
        published.entry(format!("server-{}", number % SERVICES)).or_default().push(tool);
    }
    published
}
