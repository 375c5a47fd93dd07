//! Reading and changing a registry of 10,000 services.

mod counting;

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use machina_benches::{compare, heading, show};
use machina_core::{
    Config, HttpEndpoint, Instance, Machina, Mutation, Observation, ProbeOutcome, ProbePlan, Prober, Query,
    ServiceSpec, Target,
};
use serde_json::json;

const SERVICES: usize = 10_000;

/// Prints how many allocations one of `count` calls makes. Nothing else may run.
fn allocations<T>(name: &str, count: u32, mut each: impl FnMut() -> T) -> f64 {
    let before = counting::allocations();
    (0..count).for_each(|_| drop(std::hint::black_box(each())));
    let made = (counting::allocations() - before) as f64 / f64::from(count);
    show(&format!("{name:<58} {made:>11.2} allocations each, in {count}"));
    made
}

/// Says in turn that an instance is well and that it is down.
#[derive(Debug, Default)]
struct Fickle(AtomicBool);

#[async_trait]
impl Prober for Fickle {
    async fn probe(&self, _: &Target, _: &ProbePlan) -> Observation {
        match self.0.fetch_xor(true, Ordering::Relaxed) {
            true => Observation::pass(Duration::from_millis(1)),
            false => Observation::new(ProbeOutcome::Fail { hard: true }, "down"),
        }
    }
}

fn spec(number: usize) -> ServiceSpec {
    let tags = json!([format!("team-{}", number % 100), format!("group-{}", number % 7)]);
    let build_type = ["fastmcp", "fastapi", "external", "conversion", "docker"][number % 5];
    let record = json!({"name": format!("service-{number:05}"), "tags": tags, "build_type": build_type,
        "required": number.is_multiple_of(3), "description": "Answers questions about one of many things."});
    let mut spec = ServiceSpec::from_value(record).expect("valid");
    spec.instances = (0..2).map(|n| Instance::new(HttpEndpoint::new(format!("http://{number}-{n}.sim/mcp")))).collect();
    spec
}

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_time().build().expect("starts");
    let machina = runtime.block_on(async {
        let builder = Machina::builder().config(Config::default()).prober(Arc::new(Fickle::default()));
        let machina = builder.without_monitor().open().await.expect("opens");
        let mutations = (0..SERVICES).map(|number| Mutation::Register(spec(number))).collect();
        machina.apply(mutations).await.expect("registers");
        machina
    });
    reads(&machina);
    writes(&runtime, &machina);
    runtime.block_on(machina.close());
}

fn reads(machina: &Machina) {
    let view = machina.view();
    let names: Vec<String> = view.services().map(|view| view.service().name().to_string()).collect();
    let plain: HashMap<String, Arc<str>> = names.iter().map(|name| (name.clone(), name.as_str().into())).collect();
    let bare = ArcSwap::from_pointee(plain);
    let mut turn = 0;
    let mut next = move || {
        turn = (turn + 7919) % SERVICES;
        turn
    };
    let (mut first, mut second) = (next, next);
    heading("get by name, 10,000 services", "a bare ArcSwap<HashMap<String, Arc<_>>>");
    compare("Machina::get", || bare.load().get(&names[first()]).cloned(), || machina.get(&names[second()]));
    let made = allocations("Machina::get", 100_000, || machina.get(&names[second()]));
    assert_eq!(made, 0.0, "looking up a service allocates nothing");
    let filters: [(&str, &[(&str, &str)]); 4] = [
        ("find, first 50 of all", &[]),
        ("find, tag and required, 50 of 476", &[("tag", "group-3"), ("required", "true")]),
        ("find, two tags, all 14", &[("tag", "team-7"), ("tags", "group-3")]),
        ("find, text and status, 50 of 10,000", &[("text", "questions"), ("status", "unknown")]),
    ];
    heading("find a page", "Machina::get once");
    for (name, pairs) in filters {
        let query = Query::from_pairs(pairs.iter().copied()).expect("valid");
        let found = machina.find(&query).expect("a page").items.len();
        assert_eq!(found, if name.ends_with("14") { 14 } else { 50 }, "{name}");
        compare(name, || machina.get(&names[next()]), || machina.find(&query).expect("a page"));
        allocations(name, 1_000, || machina.find(&query).expect("a page"));
    }
}

fn writes(runtime: &tokio::runtime::Runtime, machina: &Machina) {
    let copied: HashMap<String, Arc<str>> =
        (0..SERVICES).map(|number| (format!("service-{number:05}"), Arc::from("x"))).collect();
    heading("change one of 10,000 services, in memory", "copying a HashMap of 10,000 entries");
    let mut title = 0;
    compare(
        "one commit: update a service, new view, event",
        || copied.clone(),
        || {
            title += 1;
            let mut changed = machina.get("service-05000").expect("exists").service().spec.clone();
            changed.title = Some(format!("title {title}"));
            runtime.block_on(machina.apply(vec![Mutation::Put(changed)])).expect("updates")
        },
    );
    compare(
        "two health changes: probes recorded, new view, event",
        || copied.clone(),
        || runtime.block_on(machina.check("service-05000")).expect("checks"),
    );
}
