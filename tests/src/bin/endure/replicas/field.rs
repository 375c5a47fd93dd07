//! MCP servers that remember who looked at them, and when. Each replica of Machina
//! says who it is in a header that is filled in from its environment.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use machina_core::Tasks;
use serde_json::{Value, json};
use tokio::time::Instant;

/// The header that says which replica asks.
pub(super) const WHO: &str = "x-replica";

/// How long no more than two replicas may look at one server.
const TOGETHER: Duration = Duration::from_secs(5);

/// The servers.
#[derive(Debug, Clone)]
pub(super) struct Field {
    port: u16,
    state: Arc<Mutex<Looked>>,
    _tasks: Tasks,
}

#[derive(Debug, Default)]
struct Looked {
    /// When, and which replica.
    probes: HashMap<usize, Vec<(Instant, u8)>>,
    down: HashMap<usize, bool>,
    changed: HashMap<usize, Instant>,
}

impl Field {
    pub(super) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
        let port = listener.local_addr().expect("a listener has an address").port();
        let (state, tasks) = (Arc::<Mutex<Looked>>::default(), Tasks::new());
        let router = axum::Router::new().route("/{server}/mcp", post(answer)).with_state(Arc::clone(&state));
        tasks.spawn("field", async move { drop(axum::serve(listener, router).await) });
        Self { port, state, _tasks: tasks }
    }

    fn looked(&self) -> MutexGuard<'_, Looked> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn url(&self, server: usize) -> String {
        format!("http://127.0.0.1:{}/{server}/mcp", self.port)
    }

    pub(super) fn set_down(&self, server: usize, down: bool) {
        let mut looked = self.looked();
        looked.down.insert(server, down);
        looked.changed.insert(server, Instant::now());
    }

    pub(super) fn is_down(&self, server: usize) -> bool {
        self.looked().down.get(&server).copied().unwrap_or(false)
    }

    /// For how long the server has been as it is.
    pub(super) fn steady_for(&self, server: usize) -> Duration {
        self.looked().changed.get(&server).map_or(Duration::MAX, Instant::elapsed)
    }

    /// The most replicas that looked at one server at the same time since then.
    pub(super) fn most_probers(&self, since: Instant) -> usize {
        let looked = self.looked();
        let most = |probes: &Vec<(Instant, u8)>| {
            let probes: Vec<_> = probes.iter().filter(|(at, _)| *at >= since).collect();
            let together = |from: Instant| {
                let at_once = probes.iter().filter(|(at, _)| *at >= from && *at < from + TOGETHER);
                at_once.map(|(_, who)| *who).collect::<BTreeSet<u8>>().len()
            };
            probes.iter().map(|(at, _)| together(*at)).max().unwrap_or(0)
        };
        looked.probes.values().map(most).max().unwrap_or(0)
    }

    /// The longest time since then for which nobody looked at one of `servers`.
    pub(super) fn longest_gap(&self, since: Instant, servers: usize) -> Duration {
        let looked = self.looked();
        let gap = |server: usize| {
            let probes = looked.probes.get(&server).into_iter().flatten();
            let times: Vec<Instant> = [since]
                .into_iter()
                .chain(probes.map(|(at, _)| *at).filter(|at| *at > since))
                .chain([Instant::now()])
                .collect();
            times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
        };
        (0..servers).map(gap).max().unwrap_or_default()
    }

    /// How often the servers were asked something.
    pub(super) fn contacts(&self) -> usize {
        self.looked().probes.values().map(Vec::len).sum()
    }
}

async fn answer(
    State(state): State<Arc<Mutex<Looked>>>,
    Path(server): Path<usize>,
    headers: HeaderMap,
    Json(message): Json<Value>,
) -> Response {
    let method = message["method"].as_str().unwrap_or_default();
    let down = {
        let mut looked = state.lock().unwrap_or_else(PoisonError::into_inner);
        let who = headers.get(WHO).and_then(|who| who.to_str().ok()).and_then(|who| who.bytes().next());
        if method != "tools/call" {
            looked.probes.entry(server).or_default().push((Instant::now(), who.unwrap_or(b'?')));
        }
        looked.down.get(&server).copied().unwrap_or(false)
    };
    if down {
        return StatusCode::INTERNAL_SERVER_ERROR.into_response();
    }
    let Some(id) = message.get("id") else { return StatusCode::ACCEPTED.into_response() };
    let result = match method {
        "initialize" => json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
            "serverInfo": {"name": "field", "version": "1"}}),
        "ping" => json!({}),
        "tools/list" => json!({"tools": [{"name": "look", "inputSchema": {"type": "object"},
            "annotations": {"readOnlyHint": true}}]}),
        "tools/call" => json!({"content": [{"type": "text", "text": "seen"}]}),
        _ => {
            let error = json!({"code": -32601, "message": "Method not found"});
            return Json(json!({"jsonrpc": "2.0", "id": id, "error": error})).into_response();
        }
    };
    Json(json!({"jsonrpc": "2.0", "id": id, "result": result})).into_response()
}
