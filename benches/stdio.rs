//! A call of a tool of a child process: through Machina in this process, against
//! the client of the official SDK alone. Both ask the same program in the
//! stateless era, each a process of its own.

use std::io::{BufRead as _, Write as _};
use std::process::Stdio;
use std::time::Duration;

use machina_benches::{quantiles, show};
use machina_core::{CallOptions, Config, Instance, Machina, Mutation, ServiceSpec, StdioEndpoint};
use machina_tests::{call, open, settled};
use rmcp::RoleClient;
use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt as _, RunningService};
use serde_json::{Value, json};
use tokio::process::{Child, Command};
use tokio::time::Instant;

/// The argument that makes this program the server.
const ROLE: &str = "stdio-server";
const ROUNDS: usize = 15;
const CALLS: usize = 1_000;

fn main() {
    if std::env::args().nth(1).as_deref() == Some(ROLE) {
        serve();
        return;
    }
    show(&format!("\na tool call of 100 bytes to a child process, {ROUNDS} rounds of {CALLS} in turn"));
    show(&format!("{:<26} {:>11} {:>11} {:>11} {:>11} {:>6}", "", "rmcp: p50", "p99", "machina: p50", "p99", "ratio"));
    let one = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("starts");
    one.block_on(measure("runtime of one thread"));
    let two = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("starts");
    two.block_on(measure("runtime of two threads"));
}

async fn measure(runtime: &str) {
    let (machina, (client, _child)) = (machina().await, bare().await);
    let (mut direct, mut through) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        if round == 1 {
            // The first round warmed both up.
            direct.clear();
            through.clear();
        }
        for _ in 0..CALLS {
            let request = CallToolRequestParams::new("echo").with_arguments(arguments());
            let (answer, time) = timed(client.call_tool(request)).await;
            assert_eq!(answer.expect("the child answers").content.len(), 1);
            direct.push(time);
        }
        for _ in 0..CALLS {
            let request = call("up", "echo", Value::Object(arguments()));
            let options = CallOptions::default();
            let (answer, time) = timed(machina.call(&request, &options)).await;
            assert!(!answer.expect("the child answers").result.is_error());
            through.push(time);
        }
    }
    let ((base, base_worst), (time, worst)) = (quantiles(&mut direct), quantiles(&mut through));
    let micros = |time: Duration| format!("{:.1} µs", time.as_secs_f64() * 1e6);
    show(&format!(
        "{runtime:<26} {:>11} {:>11} {:>11} {:>11} {:>6.2}",
        micros(base),
        micros(base_worst),
        micros(time),
        micros(worst),
        time.as_secs_f64() / base.as_secs_f64()
    ));
    let _ = client.cancel().await;
    machina.close().await;
}

async fn timed<T>(asked: impl Future<Output = T>) -> (T, Duration) {
    let started = Instant::now();
    let answer = asked.await;
    (answer, started.elapsed())
}

async fn machina() -> Machina {
    let machina = open(Config::default()).await;
    let program = std::env::current_exe().expect("a program knows where it is");
    let endpoint = StdioEndpoint::new(program.to_string_lossy(), [ROLE]);
    let spec = ServiceSpec::new("up").expect("a name").instance(Instance::new(endpoint));
    machina.apply(vec![Mutation::Register(spec)]).await.expect("registers");
    settled(&machina, Duration::from_secs(10)).await;
    machina
}

async fn bare() -> (RunningService<RoleClient, ()>, Child) {
    let program = std::env::current_exe().expect("a program knows where it is");
    let mut command = Command::new(program);
    command.arg(ROLE).stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().expect("the server starts");
    let streams = (child.stdout.take().expect("a pipe"), child.stdin.take().expect("a pipe"));
    let mode = ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] };
    (().serve_with_lifecycle(streams, mode).await.expect("the server is of the stateless era"), child)
}

fn arguments() -> serde_json::Map<String, Value> {
    [("text".to_owned(), "x".repeat(100).into())].into_iter().collect()
}

/// The server: a line in, a line out, in both eras.
fn serve() {
    let (mut input, mut output) = (std::io::stdin().lock(), std::io::stdout().lock());
    let mut line = String::new();
    while input.read_line(&mut line).is_ok_and(|count| count > 0) {
        let request: Value = serde_json::from_str(&line).unwrap_or_default();
        line.clear();
        if request["id"].is_null() {
            continue;
        }
        let answer = json!({"jsonrpc": "2.0", "id": request["id"], "result": result(&request)});
        if writeln!(output, "{answer}").and_then(|()| output.flush()).is_err() {
            return;
        }
    }
}

fn result(request: &Value) -> Value {
    let server = json!({"name": "echo", "version": "1"});
    let tool = json!({"name": "echo", "description": "Says it again", "annotations": {"readOnlyHint": true},
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}}});
    match request["method"].as_str().unwrap_or_default() {
        "server/discover" => json!({"resultType": "complete", "supportedVersions": ["2026-07-28"],
            "capabilities": {"tools": {}}, "ttlMs": 300_000, "cacheScope": "public",
            "_meta": {"io.modelcontextprotocol/serverInfo": server}}),
        "initialize" => json!({"protocolVersion": request["params"]["protocolVersion"],
            "capabilities": {"tools": {}}, "serverInfo": server}),
        "tools/list" => json!({"resultType": "complete", "tools": [tool], "ttlMs": 300_000, "cacheScope": "public"}),
        "tools/call" => json!({"resultType": "complete",
            "content": [{"type": "text", "text": request["params"]["arguments"]["text"]}]}),
        _ => json!({}),
    }
}
