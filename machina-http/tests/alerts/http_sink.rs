//! An HTTP server that keeps what it is sent, and answers as it is told.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, StatusCode, Uri};
use machina_core::Tasks;
use serde_json::Value;
use tokio::net::TcpListener;

/// One request.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Received {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

#[derive(Debug, Clone)]
pub(crate) struct HttpSink {
    pub(crate) address: SocketAddr,
    pub(crate) tasks: Tasks,
    received: Arc<Mutex<Vec<Received>>>,
    status: Arc<Mutex<StatusCode>>,
    delay: Duration,
}

impl HttpSink {
    pub(crate) async fn new() -> Self {
        Self::slow(Duration::ZERO).await
    }

    /// One that takes so long to answer.
    pub(crate) async fn slow(delay: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, tasks) = (listener.local_addr().unwrap(), Tasks::new());
        let sink = Self { address, tasks, received: Arc::default(), status: Arc::default(), delay };
        let router = Router::new().fallback(take).with_state(sink.clone());
        let serving = async move { axum::serve(listener, router).await.unwrap() };
        sink.tasks.spawn("http sink", serving);
        sink
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    pub(crate) fn answer(&self, status: u16) {
        *self.status.lock().unwrap() = StatusCode::from_u16(status).unwrap();
    }

    /// What it was sent since the last time.
    pub(crate) fn received(&self) -> Vec<Received> {
        std::mem::take(&mut *self.received.lock().unwrap())
    }

    /// Waits until it was sent something that `wanted` accepts.
    pub(crate) async fn wait_for(&self, wanted: impl Fn(&Received) -> bool) -> Received {
        for _ in 0..1000 {
            let found = self.received.lock().unwrap().iter().find(|received| wanted(received)).cloned();
            if let Some(found) = found {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("was not sent: {:?}", self.received());
    }
}

async fn take(State(sink): State<HttpSink>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    sink.received.lock().unwrap().push(Received { path: uri.path().to_owned(), headers, body });
    tokio::time::sleep(sink.delay).await;
    let status = *sink.status.lock().unwrap();
    (status, [("location", "/elsewhere"), ("retry-after", "1")]).into_response()
}
