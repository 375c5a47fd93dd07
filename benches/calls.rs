//! A tool call through `machina serve` against the same upstream asked directly:
//! latency on one connection, throughput on many, and the processor time that
//! Machina spends. With nginx on the PATH, a plain reverse proxy is measured the
//! same way.

mod nginx;

use std::net::SocketAddr;
use std::time::Duration;

use machina_benches::load::{Connection, Prepared, latencies, per_second};
use machina_benches::upstream::{Kind, Upstream, serve_if_asked};
use machina_benches::{middle, quantiles, show};
use machina_tests::MachinaProcess;
use nginx::Nginx;
use serde_json::{Value, json};

const ROUNDS: usize = 9;
const CALLS: usize = 3_000;
const LOAD: Duration = Duration::from_millis(700);

/// A way to reach the upstream.
struct Way {
    name: &'static str,
    request: Prepared,
    process: Option<machina_tests::Process>,
    times: Vec<Duration>,
    rates: [Vec<f64>; 2],
    processor: Vec<f64>,
}

fn main() {
    serve_if_asked();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("starts");
    runtime.block_on(run("a server built with the official SDK", Kind::Sdk));
    runtime.block_on(run("a server that does as little as possible", Kind::Bare));
}

async fn run(what: &str, kind: Kind) {
    let upstream = Upstream::start(kind, 0);
    let nginx = Nginx::start(upstream.address);
    let machina = machina(&upstream).await;
    let address: SocketAddr = machina.url().trim_start_matches("http://").parse().expect("an address");
    let process = Some(machina.process());
    let mut ways = vec![
        Way::new("upstream, directly", mcp(upstream.address, "echo", &text()), None),
        Way::new("through machina, /mcp", mcp(address, "up__echo", &text()), process),
        Way::new("through machina, REST", rest(address), process),
    ];
    if let Some(nginx) = &nginx {
        ways.push(Way::new("through nginx", mcp(nginx.address, "echo", &text()), None));
    }
    for way in &ways {
        let mut connection = Connection::open(way.request.address).await;
        let answer = String::from_utf8_lossy(connection.exchange(&way.request).await).into_owned();
        assert!(answer.contains(&"x".repeat(100)), "{}: {answer}", way.name);
    }
    for _ in 0..ROUNDS {
        for way in &mut ways {
            way.measure().await;
        }
    }
    report(what, ways);
}

impl Way {
    fn new(name: &'static str, request: Prepared, process: Option<machina_tests::Process>) -> Self {
        Self { name, request, process, times: Vec::new(), rates: [Vec::new(), Vec::new()], processor: Vec::new() }
    }

    async fn measure(&mut self) {
        let spent = || self.process.and_then(machina_tests::Process::processor_time);
        let before = spent();
        self.times.extend(latencies(&self.request, CALLS).await);
        if let (Some(before), Some(after)) = (before, spent()) {
            self.processor.push((after - before).as_secs_f64() * 1e6 / (CALLS + CALLS / 10) as f64);
        }
        for (rates, connections) in self.rates.iter_mut().zip([16, 64]) {
            rates.push(per_second(&self.request, connections, LOAD).await);
        }
    }
}

fn report(what: &str, ways: Vec<Way>) {
    show(&format!("\na tool call of 100 bytes to {what}: one connection, then 16 and 64 at a time"));
    show(&format!(
        "{:<26} {:>9} {:>6} {:>9} {:>9} {:>10} {:>6} {:>10} {:>6}",
        "", "p50", "ratio", "p99", "cpu/call", "16: per s", "ratio", "64: per s", "ratio"
    ));
    let mut base = None;
    for Way { name, mut times, mut rates, mut processor, .. } in ways {
        let (p50, p99) = quantiles(&mut times);
        let rates = rates.each_mut().map(|rates| middle(rates));
        let (base_p50, base_rates) = *base.get_or_insert((p50, rates));
        let cpu = if processor.is_empty() { String::new() } else { format!("{:.0} µs", middle(&mut processor)) };
        let micros = |time: Duration| format!("{:.1} µs", time.as_secs_f64() * 1e6);
        show(&format!(
            "{name:<26} {:>9} {:>6.2} {:>9} {cpu:>9} {:>10.0} {:>6.2} {:>10.0} {:>6.2}",
            micros(p50),
            p50.as_secs_f64() / base_p50.as_secs_f64(),
            micros(p99),
            rates[0],
            rates[0] / base_rates[0],
            rates[1],
            rates[1] / base_rates[1],
        ));
    }
}

/// `machina serve` in flat mode, which has found the tool of the upstream.
async fn machina(upstream: &Upstream) -> MachinaProcess {
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    let config = home.path().join("machina.toml");
    std::fs::write(&config, "[mcp]\nmode = \"flat\"\n[egress]\nallow = [\"127.0.0.0/8\"]\n")
        .expect("the configuration can be written");
    let machina = MachinaProcess::serve(&["--config", &config.to_string_lossy()]).await;
    let service = json!({"name": "up", "instances": [{"http": {"url": upstream.url()}}]});
    let answer = machina.post("/api/v1/services", &service).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let patience = Duration::from_secs(10);
    machina_tests::wait_until(patience, "the upstream's tools are known", async || {
        let tools = machina.get("/api/v1/services/up/tools").await.body;
        if tools["items"].as_array().is_some_and(|tools| !tools.is_empty()) { Ok(()) } else { Err(tools.to_string()) }
    })
    .await;
    machina
}

fn text() -> Value {
    json!({"text": "x".repeat(100)})
}

/// A call in the stateless era.
fn mcp(address: SocketAddr, tool: &str, arguments: &Value) -> Prepared {
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": tool,
        "arguments": arguments, "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {}}}});
    let headers = [
        ("content-type", "application/json"),
        ("accept", "application/json, text/event-stream"),
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", tool),
    ];
    Prepared::new(address, "POST", "/mcp", &headers, &body.to_string())
}

fn rest(address: SocketAddr) -> Prepared {
    let body = json!({"tool": "echo", "arguments": text()});
    let path = "/api/v1/services/up/call";
    Prepared::new(address, "POST", path, &[("content-type", "application/json")], &body.to_string())
}
