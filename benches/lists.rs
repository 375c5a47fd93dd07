//! Lists through `machina serve`: `tools/list` against the upstream's own, and a
//! page of services against a bare handler that returns the same bytes.

mod bare;
mod served;

use std::net::SocketAddr;
use std::time::Duration;

use bare::Bare;
use machina_benches::load::{Connection, Prepared, latencies, per_second};
use machina_benches::upstream::{Kind, Upstream, serve_if_asked};
use machina_benches::{middle, quantiles, show};
use serde_json::{Value, json};
use served::{PATIENCE, Served, body, list_tools};

const ROUNDS: usize = 9;
const LOAD: Duration = Duration::from_millis(700);
const CONNECTIONS: usize = 16;
const SERVICES: usize = 100;
/// No probe comes between two lists that are compared.
const SELDOM: &str = "[health]\ninterval = \"1h\"\n[mcp]\nmode = \"flat\"\n[egress]\nallow = [\"127.0.0.0/8\"]\n";

fn main() {
    serve_if_asked();
    bare::serve_if_asked();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("starts");
    runtime.block_on(async {
        show(&format!("\ntools/list of a service, flat mode, one connection, {ROUNDS} rounds in turn: p50"));
        show(&format!("{:<44} {:>9} {:>10} {:>10} {:>6}", "", "bytes", "upstream", "machina", "ratio"));
        for tools in [51, 1_000] {
            tool_lists("official SDK", Kind::Sdk, tools).await;
            tool_lists("as little as possible", Kind::Bare, tools).await;
        }
        services().await;
    });
}

async fn tool_lists(what: &str, kind: Kind, tools: usize) {
    let upstream = Upstream::start(kind, tools - 1);
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    let machina = Served::start(home.path(), SELDOM).await;
    machina.ask(&machina.bulk(&[service("up", upstream.address)])).await;
    machina.knows(tools).await;
    let ways = [upstream.address, machina.address].map(|address| list_tools(address, &Value::Null));
    let mut bytes = 0;
    for way in &ways {
        let mut connection = Connection::open(way.address).await;
        let answer = body(connection.exchange(way).await);
        let page: Value = serde_json::from_slice(answer).expect("an answer is JSON");
        let found = page["result"]["tools"].as_array().map(Vec::len);
        assert_eq!((found, &page["result"]["nextCursor"]), (Some(tools), &Value::Null), "{what}, {}", way.address);
        bytes = answer.len();
    }
    let count = 40_000 / tools;
    let mut times = [Vec::new(), Vec::new()];
    for _ in 0..ROUNDS {
        for (way, times) in ways.iter().zip(&mut times) {
            times.extend(latencies(way, count).await);
        }
    }
    let [direct, through] = times.each_mut().map(|times| quantiles(times).0.as_secs_f64() * 1e6);
    let ratio = through / direct;
    let name = format!("{tools} tools; upstream: {what}");
    show(&format!("{name:<44} {bytes:>9} {direct:>7.0} µs {through:>7.0} µs {ratio:>6.2}"));
    machina.stop();
}

async fn services() {
    let upstream = Upstream::start(Kind::Bare, 0);
    let home = tempfile::tempdir().expect("a temporary directory can be made");
    let machina = Served::start(home.path(), SELDOM).await;
    let all: Vec<Value> =
        (0..SERVICES).map(|number| service(&format!("service-{number:03}"), upstream.address)).collect();
    machina.ask(&machina.bulk(&all)).await;
    machina.knows(SERVICES).await;
    let path = format!("/api/v1/services?limit={SERVICES}");
    let question = machina.get(&path, &[]);
    let (tag, bytes) = settled(&machina, &question).await;
    let bare = Bare::start(home.path(), &tag, &bytes);
    show(&format!(
        "\nGET {path}: {} bytes, {CONNECTIONS} connections, {ROUNDS} rounds in turn: answers a second, p50 on one",
        bytes.len()
    ));
    show(&format!(
        "{:<28} {:>10} {:>10} {:>6} {:>10} {:>10} {:>6}",
        "", "bare", "machina", "ratio", "bare", "machina", "ratio"
    ));
    against(&bare, "200", &question, &path, &[]).await;
    let known = [("if-none-match", &*tag)];
    against(&bare, "304", &machina.get(&path, &known), &path, &known).await;
    machina.stop();
}

/// A page that does not change any more, and its `ETag`.
async fn settled(machina: &Served, question: &Prepared) -> (String, Vec<u8>) {
    let mut connection = Connection::open(machina.address).await;
    let mut last = Vec::new();
    machina_tests::wait_until(PATIENCE, "the page stays as it is", async || {
        tokio::time::sleep(Duration::from_millis(500)).await;
        let answer = connection.exchange(question).await;
        let same = last == body(answer);
        last = body(answer).to_vec();
        let head = String::from_utf8_lossy(&answer[..answer.len() - last.len()]).into_owned();
        let tag = head.lines().find_map(|line| line.strip_prefix("etag: ")).expect("a page has an ETag");
        if same { Ok((tag.to_owned(), last.clone())) } else { Err("it changes".to_owned()) }
    })
    .await
}

async fn against(bare: &Bare, status: &str, question: &Prepared, path: &str, headers: &[(&str, &str)]) {
    let ways = [Prepared::new(bare.address, "GET", path, headers, ""), question.clone()];
    let expected = format!("HTTP/1.1 {status}");
    let (mut rates, mut times) = ([Vec::new(), Vec::new()], [Vec::new(), Vec::new()]);
    for _ in 0..ROUNDS {
        for (index, way) in ways.iter().enumerate() {
            rates[index].push(per_second(way, CONNECTIONS, LOAD).await);
            times[index].extend(latencies(way, 500).await);
            let mut connection = Connection::open(way.address).await;
            let answer = connection.exchange(way).await;
            assert!(answer.starts_with(expected.as_bytes()), "{}", String::from_utf8_lossy(answer));
        }
    }
    let [least, ours] = rates.each_mut().map(|rates| middle(rates));
    let [quickest, p50] = times.each_mut().map(|times| quantiles(times).0.as_secs_f64() * 1e6);
    show(&format!(
        "{status:<28} {least:>10.0} {ours:>10.0} {:>6.2} {quickest:>7.0} µs {p50:>7.0} µs {:>6.2}",
        ours / least,
        p50 / quickest
    ));
}

fn service(name: &str, upstream: SocketAddr) -> Value {
    // Nothing is probed while it is measured: a page that changes has another `ETag`.
    json!({"name": name, "title": "One of many", "tags": ["team-a", "group-1"], "build_type": "external",
        "health_policy": {"interval": "1h"},
        "description": "Answers questions about one of many things.",
        "instances": [{"http": {"url": format!("http://{upstream}/mcp")}}]})
}
