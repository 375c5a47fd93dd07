//! A scripted HTTP server: says exactly what a test wants said, byte by byte.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use crate::ports;

/// A request as it arrived.
#[derive(Debug, Clone)]
pub(crate) struct Received {
    pub(crate) verb: String,
    pub(crate) path: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Value,
}

impl Received {
    pub(crate) fn method(&self) -> &str {
        self.body["method"].as_str().unwrap_or_default()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(String::as_str)
    }
}

/// What is sent back, piece by piece.
pub(crate) enum Piece {
    Bytes(Vec<u8>),
    Pause(Duration),
    /// The connection is closed here.
    Hangup,
}

pub(crate) fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Vec<Piece> {
    let headers: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    vec![Piece::Bytes(
        format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).into_bytes(),
    )]
}

pub(crate) fn json(body: &Value) -> Vec<Piece> {
    reply(200, &[("content-type", "application/json")], &body.to_string())
}

/// The head of a stream of events; the connection ends with it.
pub(crate) fn stream_head() -> Piece {
    Piece::Bytes(b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\n".to_vec())
}

pub(crate) fn event(data: &Value) -> Piece {
    Piece::Bytes(format!("event: message\ndata: {data}\n\n").into_bytes())
}

pub(crate) fn result(request: &Received, result: Value) -> Value {
    serde_json::json!({"jsonrpc": "2.0", "id": request.body["id"], "result": result})
}

type Script = Arc<dyn Fn(&Received) -> Vec<Piece> + Send + Sync>;

pub(crate) struct Server {
    pub(crate) url: String,
    address: SocketAddr,
    received: Arc<Mutex<Vec<Received>>>,
    _running: JoinSet<()>,
}

impl Server {
    pub(crate) async fn start(script: impl Fn(&Received) -> Vec<Piece> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let url = format!("http://{address}/mcp");
        let received = Arc::new(Mutex::new(Vec::new()));
        let (log, script): (_, Script) = (received.clone(), Arc::new(script));
        let mut running = JoinSet::new();
        running.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                let (log, script) = (log.clone(), script.clone());
                connections.spawn(async move { _ = serve(stream, &log, &script).await });
            }
        });
        Self { url, address, received, _running: running }
    }

    /// Everything that arrived so far.
    pub(crate) fn received(&self) -> Vec<Received> {
        self.received.lock().unwrap().clone()
    }

    /// Those requests that called the JSON-RPC method `method`.
    pub(crate) fn calls(&self, method: &str) -> Vec<Received> {
        self.received().into_iter().filter(|request| request.method() == method).collect()
    }

    /// Waits until `count` requests have called `method`.
    pub(crate) async fn until_calls(&self, method: &str, count: usize) {
        let called = async {
            while self.calls(method).len() < count {
                sleep(Duration::from_millis(10)).await;
            }
        };
        let called = timeout(Duration::from_secs(5), called).await;
        assert!(called.is_ok(), "{} of {count} calls of {method} have come", self.calls(method).len());
    }

    /// Ends; its port stays closed for as long as the socket lives.
    pub(crate) async fn end(self) -> TcpSocket {
        let address = self.address;
        drop(self);
        ports::hold(address).await
    }
}

async fn serve(stream: TcpStream, log: &Mutex<Vec<Received>>, script: &Script) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut first = String::new();
        if stream.read_line(&mut first).await? == 0 {
            return Ok(());
        }
        let mut headers = BTreeMap::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line).await?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            headers.insert(name.to_ascii_lowercase(), value.to_owned());
        }
        let length = headers.get("content-length").map_or(0, |length| length.parse().unwrap());
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await?;
        let body = serde_json::from_slice(&body).unwrap_or_default();
        let mut words = first.split(' ').map(str::to_owned);
        let (verb, path) = words.next().zip(words.next()).unwrap();
        let request = Received { verb, path, headers, body };
        log.lock().unwrap().push(request.clone());
        for piece in script(&request) {
            match piece {
                Piece::Bytes(bytes) => stream.write_all(&bytes).await?,
                Piece::Pause(pause) => sleep(pause).await,
                Piece::Hangup => return Ok(()),
            }
        }
    }
}
