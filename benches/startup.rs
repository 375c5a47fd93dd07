//! How soon `machina serve` answers on a store of 10,000 services, how fast
//! services are registered in bulk, and how much memory it has resident.

mod fleet;
mod served;

use std::time::Duration;

use fleet::{CALLED, Fleet};
use futures_util::future::join_all;
use machina_benches::load::{Connection, Prepared};
use machina_benches::{middle, show};
use serde_json::{Value, json};
use served::{Served, mcp};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

const STARTS: usize = 9;
const SERVICES: usize = 10_000;
const BATCH: usize = 2_500;
const BULKS: usize = 9;
const IN_BULK: usize = 1_000;
const CALLS: usize = 100_000;
const CONNECTIONS: usize = 16;
/// How long nothing is asked before memory is looked at.
const IDLE: Duration = Duration::from_secs(10);
const MIB: f64 = 1024.0 * 1024.0;
/// Lets the services be on this machine that are registered over REST.
const LOOPBACK: &str = "[egress]\nallow = [\"127.0.0.0/8\"]\n";

fn main() {
    fleet::serve_if_asked();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("starts");
    runtime.block_on(async {
        starts().await;
        bulks().await;
        memory().await;
    });
}

fn home() -> TempDir {
    tempfile::tempdir().expect("a temporary directory can be made")
}

/// A service whose one instance refuses connections.
fn service(number: usize) -> Value {
    json!({"name": format!("service-{number:05}"), "tags": [format!("team-{}", number % 100)],
        "build_type": "external", "description": "Answers questions about one of many things.",
        "instances": [{"http": {"url": format!("http://127.0.0.1:1/{number}/mcp")}}]})
}

async fn starts() {
    show(&format!(
        "\nfrom spawn to the first 200 of GET /api/v1/services?limit=1: SQLite store of {SERVICES} enabled services, \
         filled over REST, default settings; {STARTS} starts. Each has one instance, whose port refuses connections"
    ));
    let home = home();
    let machina = Served::start(home.path(), LOOPBACK).await;
    show(&format!("{:<44} {:>7.0} ms", "an empty store, once", millis(machina.started_in)));
    let services: Vec<Value> = (0..SERVICES).map(service).collect();
    for batch in services.chunks(BATCH) {
        machina.ask(&machina.bulk(batch)).await;
    }
    sleep(IDLE).await;
    machina.stop();
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let machina = Served::start(home.path(), LOOPBACK).await;
        times.push(millis(machina.started_in));
        machina.stop();
    }
    let median = middle(&mut times);
    show(&format!("{:<44} {median:>7.0} ms   slowest {:.0} ms", "after a stop by SIGTERM, median", times[STARTS - 1]));
}

async fn bulks() {
    show(&format!(
        "\nPOST /api/v1/services:bulk of {IN_BULK} services into a new SQLite store, {BULKS} times, until the answer has come"
    ));
    let mut times = Vec::new();
    for _ in 0..BULKS {
        let home = home();
        let machina = Served::start(home.path(), LOOPBACK).await;
        let services: Vec<Value> = (0..IN_BULK).map(service).collect();
        let request = machina.bulk(&services);
        let began = Instant::now();
        machina.ask(&request).await;
        times.push(millis(began.elapsed()));
    }
    let median = middle(&mut times);
    show(&format!("{:<44} {median:>7.0} ms   slowest {:.0} ms", "median", times[BULKS - 1]));
}

async fn memory() {
    let fleet = Fleet::start();
    let home = home();
    let machina = Served::start(home.path(), &format!("[mcp]\nmode = \"flat\"\n{LOOPBACK}")).await;
    show(&format!(
        "\nresident memory of machina serve (VmRSS), SQLite store, flat mode, HTTP upstreams: {}; each after {IDLE:?} \
         without a request",
        fleet.described()
    ));
    sleep(IDLE).await;
    line("nothing registered", &machina);
    machina.ask(&machina.bulk(&fleet.services())).await;
    let known = machina.knows(fleet.tools()).await;
    sleep(IDLE).await;
    line(&format!("{known} tools known and listed once"), &machina);
    let request = call(&machina);
    let took = calls(&request).await;
    let after = format!("… after {CALLS} calls by {CONNECTIONS} connections");
    line(&format!("{after}, at once"), &machina);
    sleep(IDLE).await;
    line(&after, &machina);
    show(&format!("  ({:.0} calls a second)", CALLS as f64 / took.as_secs_f64()));
}

fn call(machina: &Served) -> Prepared {
    let tool = format!("{CALLED}__echo");
    let params = json!({"name": tool, "arguments": {"text": "x".repeat(100)}});
    mcp(machina.address, "tools/call", params, &[("mcp-name", &tool)])
}

/// Makes all calls, and returns how long that took.
async fn calls(request: &Prepared) -> Duration {
    let began = Instant::now();
    let asking = (0..CONNECTIONS).map(|_| async {
        let mut connection = Connection::open(request.address).await;
        for _ in 0..CALLS / CONNECTIONS {
            let answer = connection.exchange(request).await;
            let text = || String::from_utf8_lossy(answer).into_owned();
            assert!(
                answer.starts_with(b"HTTP/1.1 200") && answer.ends_with(b"}") && text().contains("xxx"),
                "{}",
                text()
            );
        }
    });
    join_all(asking).await;
    began.elapsed()
}

fn line(what: &str, machina: &Served) {
    let bytes = machina.process.resident_bytes().expect("the server runs");
    let children = machina.process.descendants().len();
    assert_eq!(children, 0, "no child runs");
    show(&format!("{what:<60} {:>6.1} MiB", bytes as f64 / MIB));
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
