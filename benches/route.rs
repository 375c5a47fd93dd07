//! Picking an instance, and what a call costs beside the instance's own work.

use std::sync::Arc;
use std::time::Duration;

use machina_benches::{compare, heading};
use machina_core::testing::SimConnector;
use machina_core::testing::registry_suite::{call, service, settle};
use machina_core::{Balancer, CallKey, CallOptions, Candidate, Machina, PeakEwma, RoundRobin, Status};
use serde_json::json;

fn candidates(count: usize) -> Vec<Candidate> {
    let one =
        |index: usize| Candidate { latency: 0.03 + index as f64 * 1e-4, in_flight: 1, ..Candidate::new(index, 1) };
    (0..count).map(one).collect()
}

fn main() {
    heading("pick one of n candidates", "round robin over 3");
    let three = candidates(3);
    let mut ordinal = 0;
    let key = move || {
        ordinal += 1;
        CallKey { ordinal, random: ordinal.wrapping_mul(0x9e37_79b9_7f4a_7c15) }
    };
    for count in [3, 16, 64] {
        let many = candidates(count);
        let (mut first, mut second) = (key, key);
        let name = format!("peak_ewma over {count}");
        compare(&name, || RoundRobin.pick(first(), &three), || PeakEwma.pick(second(), &many));
    }
    calls();
}

fn calls() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("starts");
    let sim = SimConnector::default();
    let machina = runtime.block_on(async {
        let machina = Machina::builder().connector(Arc::new(sim.clone())).open().await.expect("opens");
        let instances = ["one", "two", "three"].map(|name| sim.instance(name));
        let [a, b, c] = &instances;
        machina.register(service("a", &[a, b, c])).await.expect("registers");
        settle(&machina, "a", Status::Healthy).await;
        instances.iter().for_each(|instance| sim.set_latency(instance, Duration::ZERO));
        machina
    });
    let request = call("a", "echo", json!({"text": "x".repeat(100)}));
    let options = CallOptions::default();
    heading("a call to one of three instances that answer at once", "yielding to the runtime once");
    compare(
        "Machina::call",
        || runtime.block_on(tokio::task::yield_now()),
        || runtime.block_on(machina.call(&request, &options)).expect("answers"),
    );
    heading("explain a call among three instances", "Machina::get once");
    compare(
        "Machina::explain",
        || machina.get("a"),
        || runtime.block_on(machina.explain("a", Some("echo"))).expect("explains"),
    );
    runtime.block_on(machina.close());
}
