//! `machina serve` as a process of its own, as the benchmarks need it: on a store
//! that outlives it, with a configuration, and with the time that its start took.

use std::fs::File;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use machina_benches::load::{Connection, Prepared};
use machina_tests::{Process, machina_binary, wait_until};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

/// How long anything may take before the benchmark gives up.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// How often a server that is starting is asked.
const LOOK: Duration = Duration::from_millis(1);

/// A running server; killed when dropped.
pub(crate) struct Served {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) process: Process,
    /// From the moment before it was spawned to its first answer that was a 200.
    pub(crate) started_in: Duration,
}

impl Served {
    /// Starts it with a SQLite store in `home` and this configuration, in TOML.
    pub(crate) async fn start(home: &Path, configuration: &str) -> Self {
        let store = format!("sqlite:{}", home.join("machina.db").display());
        Self::start_on(&store, home, configuration).await
    }

    /// Starts it with the store at this address.
    pub(crate) async fn start_on(store: &str, home: &Path, configuration: &str) -> Self {
        let address = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port is free");
        let (file, log) = (home.join("machina.toml"), home.join("log"));
        std::fs::write(&file, configuration).expect("the configuration can be written");
        let output = File::create(&log).expect("the log can be written");
        let mut command = Command::new(machina_binary());
        command.args(["serve", "--listen", &address.to_string(), "--store", store]).arg("--config").arg(&file);
        command.current_dir(home).env("HOME", home).stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        let began = Instant::now();
        let child = command.spawn().expect("machina starts");
        let process = Process::of(child.id()).expect("a process that was just started is there");
        let mut served = Self { child, address, process, started_in: Duration::ZERO };
        let question = served.get("/api/v1/services?limit=1", &[]);
        while !served.answers(&question).await {
            let ended = served.child.try_wait().expect("a child can be asked");
            let text = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(ended.is_none() && began.elapsed() < PATIENCE, "machina serve: {ended:?}\n{}", text());
            sleep(LOOK).await;
        }
        served.started_in = began.elapsed();
        served
    }

    async fn answers(&self, question: &Prepared) -> bool {
        // Asked first whether anybody listens: a connection of the load client insists.
        if tokio::net::TcpStream::connect(self.address).await.is_err() {
            return false;
        }
        Connection::open(self.address).await.exchange(question).await.starts_with(b"HTTP/1.1 200")
    }

    /// Stops it as a service manager would, and waits until it has ended.
    pub(crate) fn stop(mut self) {
        self.process.signal(Signal::TERM);
        let status = self.child.wait().expect("a child can be waited for");
        assert!(status.success(), "machina serve ended with {status}");
    }

    /// A question to the REST interface.
    pub(crate) fn get(&self, path: &str, headers: &[(&str, &str)]) -> Prepared {
        Prepared::new(self.address, "GET", path, headers, "")
    }

    /// Registers services in one batch.
    pub(crate) fn bulk(&self, services: &[Value]) -> Prepared {
        let mutations: Vec<Value> = services.iter().map(|service| json!({"register": service})).collect();
        let body = json!({ "mutations": mutations }).to_string();
        Prepared::new(self.address, "POST", "/api/v1/services:bulk", &[("content-type", "application/json")], &body)
    }

    /// Asks once; the answer must be a 200.
    pub(crate) async fn ask(&self, question: &Prepared) -> Value {
        let mut connection = Connection::open(self.address).await;
        let answer = connection.exchange(question).await;
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(answer));
        serde_json::from_slice(body(answer)).expect("an answer is JSON")
    }

    /// Waits until a host of flat mode sees at least so many tools, on all pages.
    pub(crate) async fn knows(&self, tools: usize) -> usize {
        wait_until(PATIENCE, "the tools are known", async || {
            let (mut found, mut cursor) = (0, Value::Null);
            loop {
                let page = self.ask(&list_tools(self.address, &cursor)).await;
                found += page["result"]["tools"].as_array().map_or(0, Vec::len);
                cursor = page["result"]["nextCursor"].clone();
                if cursor.is_null() {
                    return if found >= tools { Ok(found) } else { Err(format!("{found} of {tools}")) };
                }
            }
        })
        .await
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What follows the head of an answer.
pub(crate) fn body(answer: &[u8]) -> &[u8] {
    let head = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("an answer has a head");
    &answer[head + 4..]
}

/// `tools/list` in the stateless era.
pub(crate) fn list_tools(address: SocketAddr, cursor: &Value) -> Prepared {
    let params = if cursor.is_null() { json!({}) } else { json!({ "cursor": cursor }) };
    mcp(address, "tools/list", params, &[])
}

/// A request of a method in the stateless era.
pub(crate) fn mcp(address: SocketAddr, method: &str, mut params: Value, headers: &[(&str, &str)]) -> Prepared {
    params["_meta"] = json!({"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
    let mut all = vec![
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", method),
    ];
    all.extend(headers);
    Prepared::new(address, "POST", "/mcp", &all, &body.to_string())
}
