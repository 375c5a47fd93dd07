//! 10,000 services of two instances with 100,000 tools, on each store: how fast
//! they are registered in bulk, how soon `machina serve` answers on a store that
//! holds them and how much memory it has resident, how long `find` and a commit
//! take; and what one service, instance and tool come to in memory.
//!
//! `cargo bench -p machina-benches --bench scale [-- SERVICES [DEFINITIONS]]`, where
//! DEFINITIONS is a file with the definition of a tool in each line, which are weighed
//! as well.

mod backing;
mod counting;
#[allow(dead_code, reason = "it serves other benchmarks, too")]
mod served;

use std::sync::Arc;
use std::time::Duration;

use backing::Backing;
use machina_benches::{quantiles, show};
use machina_core::{
    Backend, Batch, Change, Definitions, HttpEndpoint, Instance, LexicalIndex, Machina, MemoryStore, Mutation, Query,
    ServiceName, ServiceSpec, Tool, ToolIndex,
};
use machina_tests::Process;
use serde_json::{Value, json};
use served::Served;
use tokio::time::{Instant, sleep};

const SERVICES: usize = 10_000;
const INSTANCES: usize = 2;
/// Of each service; its instances publish the same ones.
const TOOLS: usize = 10;
const BATCH: usize = 1000;
const FINDS: usize = 10_000;
const SEARCHES: usize = 500;
const COMMITS: usize = 200;
const STARTS: usize = 3;
/// How long a server is left alone before its memory is looked at.
const IDLE: Duration = Duration::from_secs(10);
const MIB: f64 = 1024.0 * 1024.0;
/// How long a start may take, and how much memory a server may have.
const READY_SQLITE: f64 = 3.0;
const READY_POSTGRES: f64 = 10.0;
const RESIDENT: f64 = 1024.0;
/// Lets services be on this machine; the addresses of these refuse connections.
const CONFIGURATION: &str = "[egress]\nallow = [\"127.0.0.0/8\"]\n";

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| !argument.starts_with('-'));
    let services = arguments.next().and_then(|count| count.parse().ok()).unwrap_or(SERVICES);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().expect("starts");
    show(&format!(
        "\n{services} services of {INSTANCES} instances, {} tools of {} bytes each",
        services * TOOLS,
        tool(0, 0).definition().to_string().len()
    ));
    runtime.block_on(async {
        weights(services, arguments.next().as_deref()).await;
        in_memory(services).await;
        for backing in backing::all() {
            show(&format!("\n{}", backing.name));
            fill(&backing, services).await;
            starts(&backing, services).await;
            embedded(&backing, services).await;
        }
    });
}

fn spec(number: usize) -> ServiceSpec {
    let tags = [format!("team-{}", number % 100), format!("group-{}", number % 7)];
    let build_type = ["fastmcp", "fastapi", "external", "conversion", "docker"][number % 5];
    let record = json!({"name": format!("service-{number:05}"), "tags": tags, "build_type": build_type,
        "required": number.is_multiple_of(3), "description": "Answers questions about one of many things."});
    let mut spec = ServiceSpec::from_value(record).expect("valid");
    let url = |instance| format!("http://127.0.0.1:1/{number}/{instance}/mcp");
    spec.instances = (0..INSTANCES).map(|instance| Instance::new(HttpEndpoint::new(url(instance)))).collect();
    spec
}

/// A tool of the size that real ones have: 1.3 kB in the middle.
fn tool(service: usize, number: usize) -> Tool {
    let property = |name: &str| {
        let text = format!("The {name} of what is to be found, as the owner of the project wrote it down at first.");
        (name.to_owned(), json!({"type": "string", "title": name, "description": text, "maxLength": 200}))
    };
    let names = ["owner", "repository", "branch", "query", "order", "cursor"];
    let properties: serde_json::Map<String, Value> = names.iter().map(|name| property(name)).collect();
    let schema = json!({"type": "object", "properties": properties, "required": ["owner", "query"],
        "additionalProperties": false});
    let description = format!("Finds the messages of project {service} by owner and date, newest first, in pages.");
    let definition = json!({"name": format!("find_messages_{service}_{number}"), "title": "Find messages",
        "description": description, "inputSchema": schema, "annotations": {"readOnlyHint": true}});
    Tool::parse(definition).expect("valid")
}

fn definitions(service: usize) -> Arc<Definitions> {
    Arc::new(Definitions {
        protocol_version: "2025-11-25".to_owned(),
        server_info: json!({"name": "bench", "version": "1.0.0"}),
        instructions: None,
        capabilities: json!({"tools": {"listChanged": true}}),
        tools: (0..TOOLS).map(|number| Arc::new(tool(service, number))).collect(),
        rejected: Vec::new(),
        prompts: Vec::new(),
        resources: Vec::new(),
        resource_templates: Vec::new(),
        listed_at: machina_core::now(),
    })
}

/// What one of each comes to in memory: bytes that are held, without what an
/// allocator adds to them. A store that keeps its records elsewhere has no copies.
async fn weights(services: usize, file: Option<&str>) {
    show("\nheld in memory by one, in bytes");
    let [one, two] = [weight_of_instances(services, 1).await, weight_of_instances(services, 2).await];
    line("an instance", &format!("{:.0}", two - one));
    line("a service, without its instances", &format!("{:.0}", one - (two - one)));
    let before = counting::bytes();
    let made: Vec<Arc<Tool>> =
        (0..services * TOOLS).map(|number| Arc::new(tool(number / TOOLS, number % TOOLS))).collect();
    weigh("a made tool", before, &made);
    let Some(file) = file else { return };
    let text = std::fs::read_to_string(file).expect("the definitions can be read");
    let before = counting::bytes();
    let read = text.lines().map(|line| Tool::parse(serde_json::from_str(line).expect("a line is JSON")));
    weigh("a real tool", before, &read.map(|tool| Arc::new(tool.expect("valid"))).collect::<Vec<_>>());
}

/// Prints what each of the tools takes by itself, and in the index of words.
fn weigh(what: &str, before: usize, tools: &[Arc<Tool>]) {
    let each = |from: usize| (counting::bytes() - from) as f64 / tools.len() as f64;
    let text: usize = tools.iter().map(|tool| tool.definition().to_string().len()).sum();
    line(&format!("{what} (its definition as text: {})", text / tools.len()), &format!("{:.0}", each(before)));
    let (index, before) = (LexicalIndex::default(), counting::bytes());
    for (number, tools) in tools.chunks(TOOLS).enumerate() {
        index.put(&ServiceName::new(&format!("service-{number}")).expect("valid"), &[], tools);
    }
    line("  the same in the index of words", &format!("{:.0}", each(before)));
}

async fn weight_of_instances(services: usize, instances: usize) -> f64 {
    let before = counting::bytes();
    let machina = open(Backend::of(MemoryStore::default())).await;
    for first in (0..services).step_by(BATCH) {
        let batch = (first..services.min(first + BATCH)).map(|number| {
            let mut spec = spec(number);
            spec.instances.truncate(instances);
            Mutation::Register(spec)
        });
        machina.apply(batch.collect()).await.expect("registers");
    }
    let weight = (counting::bytes() - before) as f64 / services as f64;
    machina.close().await;
    weight
}

async fn open(backend: Backend) -> Machina {
    Machina::builder().backend(backend).without_monitor().open().await.expect("opens")
}

/// Registers everything in bulk, and prints how fast.
async fn register(machina: &Machina, services: usize) {
    let began = Instant::now();
    for first in (0..services).step_by(BATCH) {
        let batch = (first..services.min(first + BATCH)).map(|number| Mutation::Register(spec(number)));
        machina.apply(batch.collect()).await.expect("registers");
    }
    let rate = services as f64 / began.elapsed().as_secs_f64();
    line("registered in bulk, services a second", &format!("{rate:.0}"));
}

/// Writes down what each instance publishes, and prints how fast.
async fn publish(backend: &Backend) {
    let image = backend.store.load().await.expect("loads");
    let began = Instant::now();
    let mut tools = 0;
    for services in image.services.chunks(BATCH / 10) {
        let mut batch = Batch::default();
        for service in services {
            let number = service.name().as_str()["service-".len()..].parse().expect("its name has its number");
            let definitions = definitions(number);
            for instance in &service.spec.instances {
                let (service, instance, definitions) = (service.id, instance.id, Arc::clone(&definitions));
                batch.changes.push(Change::PutDefinitions { service, instance, definitions });
                tools += TOOLS;
            }
        }
        backend.store.commit(&batch).await.expect("commits");
    }
    let rate = tools as f64 / began.elapsed().as_secs_f64();
    line("definitions written, tools a second", &format!("{rate:.0}"));
}

async fn fill(backing: &Backing, services: usize) {
    let machina = open(machina_store::open(&backing.url).await.expect("opens")).await;
    register(&machina, services).await;
    machina.close().await;
    let backend = machina_store::open(&backing.url).await.expect("opens");
    publish(&backend).await;
    backend.store.close().await.expect("closes");
    line("on the disk", &format!("{:.0} MiB", backing.bytes() as f64 / MIB));
}

/// How soon a server answers, and how much memory it has.
async fn starts(backing: &Backing, services: usize) {
    let empty = tempfile::tempdir().expect("a temporary directory can be made");
    let least = Served::start(empty.path(), CONFIGURATION).await;
    sleep(IDLE).await;
    let unloaded = least.process.resident_bytes().expect("the server runs");
    least.stop();
    let (mut slowest, mut resident) = (0.0_f64, 0);
    for start in 0..STARTS {
        let machina = Served::start_on(&backing.url, backing.home(), CONFIGURATION).await;
        slowest = slowest.max(machina.started_in.as_secs_f64());
        if start + 1 == STARTS {
            sleep(IDLE).await;
            resident = machina.process.resident_bytes().expect("the server runs");
        }
        machina.stop();
    }
    let target = if backing.name == "SQLite" { READY_SQLITE } else { READY_POSTGRES };
    judged(&format!("from spawn to the first answer, slowest of {STARTS}"), slowest, target, "s");
    judged(&format!("resident {IDLE:?} after the start"), resident as f64 / MIB, RESIDENT, "MiB");
    let each = resident.saturating_sub(unloaded) as f64 / (services * TOOLS) as f64;
    line("  of that for each tool, services and instances included", &format!("{each:.0} bytes"));
}

async fn in_memory(services: usize) {
    show("\nmemory");
    let before = Process::own().resident_bytes().expect("this process runs");
    let weight = counting::bytes();
    let backend = Backend::of(MemoryStore::default());
    let machina = open(backend.clone()).await;
    register(&machina, services).await;
    machina.close().await;
    publish(&backend).await;
    let began = Instant::now();
    let machina = open(backend).await;
    line("opened", &format!("{:.2} s", began.elapsed().as_secs_f64()));
    let after = Process::own().resident_bytes().expect("this process runs");
    line("resident more than before", &format!("{:.0} MiB", after.saturating_sub(before) as f64 / MIB));
    let each = (counting::bytes() - weight) as f64 / (services * TOOLS) as f64;
    line("  held for each tool, services and instances included", &format!("{each:.0} bytes"));
    measure(&machina, services).await;
    machina.close().await;
}

async fn embedded(backing: &Backing, services: usize) {
    let began = Instant::now();
    let machina = open(machina_store::open(&backing.url).await.expect("opens")).await;
    line("opened in this process", &format!("{:.2} s", began.elapsed().as_secs_f64()));
    measure(&machina, services).await;
    machina.close().await;
}

async fn measure(machina: &Machina, services: usize) {
    let queries: Vec<Query> = (0..100)
        .map(|number| {
            let (team, group) = (format!("team-{number}"), format!("group-{}", number % 7));
            let pairs: &[(&str, &str)] = match number % 4 {
                0 => &[("tag", &team)],
                1 => &[("tag", &group), ("required", "true")],
                2 => &[("text", "questions"), ("status", "unknown")],
                _ => &[("build_type", "docker"), ("tags", &group)],
            };
            Query::from_pairs(pairs.iter().copied()).expect("valid")
        })
        .collect();
    let mut finds: Vec<Duration> = (0..FINDS)
        .map(|number| {
            let began = Instant::now();
            std::hint::black_box(machina.find(&queries[number % queries.len()]).expect("a page"));
            began.elapsed()
        })
        .collect();
    both("find, a page of 50", &mut finds);
    // The words of a task, of which every tool has most; those of one tool; one that every tool has.
    for (what, ask) in [
        (
            "find_tools, in a sentence",
            &(|number| format!("find the newest messages of project {number}")) as &dyn Fn(usize) -> String,
        ),
        ("find_tools, by a name", &|number| format!("find_messages_{number}_3")),
        ("find_tools, by a word of all", &|_| "messages".to_owned()),
    ] {
        let mut searches = Vec::new();
        for number in 0..SEARCHES {
            let text = ask(number * 7919 % services);
            let began = Instant::now();
            let found = machina.find_tools(&text, 10).await.expect("a list");
            searches.push(began.elapsed());
            assert_eq!(found.len(), 10, "{text}");
        }
        both(what, &mut searches);
    }
    let mut commits = Vec::new();
    for number in 0..COMMITS {
        let name = format!("service-{:05}", number * 7919 % services);
        let mut changed = machina.get(&name).expect("exists").service().spec.clone();
        changed.title = Some(format!("title {number}"));
        let began = Instant::now();
        machina.apply(vec![Mutation::Put(changed)]).await.expect("updates");
        commits.push(began.elapsed());
    }
    both("commit of one changed service", &mut commits);
}

fn both(what: &str, times: &mut [Duration]) {
    let (half, most) = quantiles(times);
    line(&format!("{what}, p50 and p99"), &format!("{half:.1?}   {most:.1?}"));
}

fn judged(what: &str, figure: f64, target: f64, unit: &str) {
    let missed = if figure > target { "   MISSED" } else { "" };
    line(what, &format!("{figure:.2} {unit}   target {target} {unit}{missed}"));
}

fn line(what: &str, figure: &str) {
    show(&format!("  {what:<58} {figure}"));
}
