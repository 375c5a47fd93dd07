//! A server over HTTP that keeps what it is sent: an MCP server of the older era,
//! or one that answers everything alike.

use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::http::{HeaderMap, Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use machina_core::Tasks;
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A server, and the headers of every request that it got.
pub(crate) struct Upstream {
    pub(crate) url: String,
    heard: Arc<Mutex<Vec<HeaderMap>>>,
    tasks: Tasks,
}

impl Upstream {
    /// An MCP server with the tool `echo`.
    pub(crate) async fn mcp() -> Self {
        Self::start(|method, body| match *method {
            Method::POST => answer(body),
            Method::DELETE => StatusCode::NO_CONTENT.into_response(),
            _ => StatusCode::METHOD_NOT_ALLOWED.into_response(),
        })
        .await
    }

    /// A server of pages, all of which are alike.
    pub(crate) async fn pages(status: u16, kind: &'static str, page: String) -> Self {
        Self::start(move |_, _| {
            (StatusCode::from_u16(status).unwrap(), [("content-type", kind)], page.clone()).into_response()
        })
        .await
    }

    async fn start(answer: impl Fn(&Method, &[u8]) -> Response + Clone + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let (heard, tasks) = (Arc::<Mutex<Vec<_>>>::default(), Tasks::new());
        let log = Arc::clone(&heard);
        let respond = move |method: Method, headers: HeaderMap, body: Bytes| {
            log.lock().unwrap().push(headers);
            std::future::ready(answer(&method, &body))
        };
        let serving = axum::serve(listener, Router::new().fallback(any(respond)));
        drop(tasks.spawn("upstream", async move { serving.await.unwrap() }));
        Self { url, heard, tasks }
    }

    pub(crate) fn heard(&self) -> Vec<HeaderMap> {
        self.heard.lock().unwrap().clone()
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

fn answer(body: &[u8]) -> Response {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let result = match request["method"].as_str().unwrap_or_default() {
        "initialize" => json!({"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
            "serverInfo": {"name": "upstream", "version": "1"}}),
        "ping" => json!({}),
        "tools/list" => json!({"tools": [{"name": "echo", "inputSchema": {"type": "object"}}]}),
        "tools/call" => json!({"content": [{"type": "text", "text": "heard"}]}),
        _ if request["id"].is_null() => return StatusCode::ACCEPTED.into_response(),
        _ => {
            let error = json!({"code": -32601, "message": "Method not found"});
            return axum::Json(json!({"jsonrpc": "2.0", "id": request["id"], "error": error})).into_response();
        }
    };
    axum::Json(json!({"jsonrpc": "2.0", "id": request["id"], "result": result})).into_response()
}
