//! Flat mode, in front of rmcp's client and of a bare one: a fleet as large as a
//! real one, names that collide, upstreams that are dead, and lists that change.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use machina_core::testing::{Behaviour, SimConnector};
use machina_core::{AdminState, Instance, Machina, Principal, Role, Scoped, ServiceSpec, Tasks};
use machina_mcp::server::{Exposure, HttpServerConfig, ToolMode, ToolPrefix, serve_io, streamable_http};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt};
use rmcp::transport::StreamableHttpClientTransport;
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::net::TcpListener;
use tokio::time::timeout;

use crate::host::{Bare, Client, Host, call, legacy, meta, modern};
use crate::upstream::{PATIENCE, Registered, echoed};

const SERVICES: usize = 46;
const TOOLS: usize = 23;

fn flat(prefix: ToolPrefix) -> Exposure {
    Exposure { mode: ToolMode::Flat, prefix, ..Exposure::default() }
}

fn pipe(tasks: &Tasks, scoped: Scoped, exposure: Exposure) -> DuplexStream {
    let (near, far) = tokio::io::duplex(64 * 1024);
    tasks.spawn("serve", async move {
        let (reader, writer) = tokio::io::split(far);
        serve_io(scoped, exposure, reader, writer).await.unwrap();
    });
    near
}

async fn over_pipe(tasks: &Tasks, scoped: Scoped, exposure: Exposure, mode: ClientLifecycleMode) -> Client {
    let stream = pipe(tasks, scoped, exposure);
    timeout(PATIENCE, Host::default().serve_with_lifecycle(stream, mode)).await.unwrap().unwrap()
}

async fn over_http(tasks: &Tasks, scoped: Scoped, exposure: Exposure, mode: ClientLifecycleMode) -> Client {
    let Exposure { mode: tools, prefix, aliases } = exposure;
    let config = HttpServerConfig { mode: tools, prefix, aliases, ..HttpServerConfig::default() };
    let endpoint = streamable_http(move |_| Ok(scoped.clone()), config);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let transport = StreamableHttpClientTransport::from_uri(format!("http://{}/mcp", listener.local_addr().unwrap()));
    let router = axum::Router::new().nest_service("/mcp", endpoint);
    tasks.spawn("serve", async move { axum::serve(listener, router).await.unwrap() });
    timeout(PATIENCE, Host::default().serve_with_lifecycle(transport, mode)).await.unwrap().unwrap()
}

/// A tool with a field that MCP does not know, before and after its name.
fn tool(name: &str) -> Value {
    json!({"x-first": {"z": 1, "a": 2}, "name": name, "description": format!("Does {name}."),
        "inputSchema": {"type": "object", "properties": {"b": {}, "a": {}}}, "x-last": true})
}

struct Fleet {
    machina: Machina,
    sims: SimConnector,
    instances: HashMap<String, Instance>,
    tasks: Tasks,
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

impl Fleet {
    async fn open(services: &[(String, Vec<String>)]) -> Self {
        let sims = SimConnector::default();
        let machina = Machina::builder().connector(std::sync::Arc::new(sims.clone())).open().await.unwrap();
        let mut fleet = Self { machina, sims, instances: HashMap::new(), tasks: Tasks::new() };
        for (index, (name, tools)) in services.iter().enumerate() {
            let instance = fleet.sims.instance(&format!("sim-{index}"));
            fleet.sims.set_tools(&instance, tools.iter().map(|name| tool(name)).collect());
            let spec = ServiceSpec::parse(&json!({"name": name, "tenant": tenant(name)}).to_string()).unwrap();
            fleet.machina.register(spec.instance(instance.clone())).await.unwrap();
            fleet.instances.insert(name.clone(), instance);
        }
        fleet
            .until(|machina| {
                services.iter().all(|(name, tools)| machina.get(name).unwrap().tools().len() == tools.len())
            })
            .await;
        fleet
    }

    async fn small() -> Self {
        let services = [("disk", ["fetch", "erase"].as_slice()), ("web", &["fetch", "post"])];
        let named = services.map(|(name, tools)| (name.to_owned(), tools.iter().map(ToString::to_string).collect()));
        Self::open(&named).await
    }

    async fn until(&self, reached: impl Fn(&Machina) -> bool) {
        let waiting = async {
            while !reached(&self.machina) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, waiting).await.expect("the registry comes to it");
    }

    fn scoped(&self) -> Scoped {
        self.machina.scoped(Principal::new("mcp", Role::Developer))
    }

    fn bare(&self) -> Bare {
        Bare::new(pipe(&self.tasks, self.scoped(), flat(ToolPrefix::Always)))
    }
}

fn tenant(service: &str) -> Option<&'static str> {
    (service == "web").then_some("acme")
}

/// The shape of a real fleet: more tools than a page has, many of one name, names
/// that are too long or have characters that hosts refuse.
fn large() -> Vec<(String, Vec<String>)> {
    let service = |index| match index % 3 {
        0 => format!("io.github.someone/mcp-server-with-quite-a-long-name-{index}"),
        1 => format!("service-{index}"),
        _ => format!("a__service_{index}"),
    };
    let tool = |index| match index % 3 {
        0 => format!("search/{index}"),
        1 => format!("list_{index}"),
        _ => format!("{}_{index}", "tool_with_a_very_long_name".repeat(4)),
    };
    (0..SERVICES).map(|index| (service(index), (0..TOOLS).map(tool).collect())).collect()
}

fn names(result: &Value) -> Vec<String> {
    result["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn a_fleet_is_listed_and_called_over_both_transports_in_both_eras() {
    let fleet = Fleet::open(&large()).await;
    let exposure = flat(ToolPrefix::Always);
    let mut seen = Vec::new();
    for mode in [legacy(), modern()] {
        for client in [
            over_pipe(&fleet.tasks, fleet.scoped(), exposure, mode.clone()).await,
            over_http(&fleet.tasks, fleet.scoped(), exposure, mode.clone()).await,
        ] {
            let listed = timeout(PATIENCE, client.list_all_tools()).await.unwrap().unwrap();
            let names: Vec<String> = listed.iter().map(|tool| tool.name.to_string()).collect();
            assert_eq!(names.iter().collect::<HashSet<_>>().len(), SERVICES * TOOLS);
            let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
            assert!(names.iter().all(|name| name.len() <= 64 && name.chars().all(allowed)));
            let views = fleet.machina.view();
            let services = views.services().flat_map(|view| std::iter::repeat_n(view.service().name(), TOOLS));
            for (name, service) in names.iter().zip(services).step_by(37) {
                let result = call(&client, name, json!({"a": 7})).await;
                let said: Value = serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap();
                assert_eq!(said["from"], fleet.instances[service.as_str()].endpoint.location(), "{name}: {result}");
                assert_eq!(said["arguments"], json!({"a": 7}));
            }
            seen.push(names);
        }
    }
    assert!(seen.iter().all(|names| *names == seen[0]), "every host sees the same names");
}

#[tokio::test]
async fn a_definition_is_word_for_word_the_upstreams_but_for_its_name() {
    let fleet = Fleet::open(&large()).await;
    let mut bare = fleet.bare();
    bare.initialize().await;
    let first = bare.request(json!(1), "tools/list", json!({})).await["result"].take();
    assert_eq!(names(&first).len(), 1000);
    let rest = bare.request(json!(2), "tools/list", json!({"cursor": first["nextCursor"]})).await["result"].take();
    assert_eq!((names(&rest).len(), rest.get("nextCursor")), (SERVICES * TOOLS - 1000, None));
    let listed = first["tools"].as_array().unwrap().iter().chain(rest["tools"].as_array().unwrap());
    let views = fleet.machina.view();
    let offered = views.services().flat_map(|view| view.tools());
    for (listed, offered) in listed.zip(offered) {
        let name = offered.tool.name().as_str();
        let mut want = tool(name);
        want["name"] = listed["name"].clone();
        assert_eq!(listed.to_string(), want.to_string(), "{name}: the order of keys included");
    }
    assert!(first.get("_meta").is_none(), "nothing is stale: {}", first["_meta"]);
}

#[tokio::test]
async fn a_page_goes_on_where_the_last_one_ended_although_its_last_service_is_gone() {
    let fleet = Fleet::open(&large()).await;
    let mut bare = fleet.bare();
    bare.initialize().await;
    let first = bare.request(json!(1), "tools/list", json!({})).await["result"].take();
    let at = 1000 / TOOLS;
    let last = fleet.machina.view().services().nth(at).unwrap().service().name().to_string();
    fleet.machina.deregister(&last).await.unwrap();
    let rest = bare.request(json!(2), "tools/list", json!({"cursor": first["nextCursor"]})).await;
    assert_eq!(names(&rest["result"]).len(), (SERVICES - at - 1) * TOOLS);
}

#[tokio::test]
async fn a_name_is_prefixed_as_the_operator_wants_and_leads_to_its_own_service() {
    let fleet = Fleet::small().await;
    for (prefix, want) in [
        (ToolPrefix::Always, ["disk__fetch", "disk__erase", "web__fetch", "web__post"]),
        (ToolPrefix::OnCollision, ["disk__fetch", "erase", "web__fetch", "post"]),
        (ToolPrefix::None, ["fetch_", "erase", "fetch_", "post"]),
    ] {
        let client = over_pipe(&fleet.tasks, fleet.scoped(), flat(prefix), legacy()).await;
        let listed = client.list_all_tools().await.unwrap();
        for (index, (listed, want)) in listed.iter().zip(want).enumerate() {
            assert!(listed.name == want || want.ends_with('_') && listed.name.starts_with(want), "{}", listed.name);
            let result = call(&client, &listed.name, json!({})).await;
            let from = fleet.instances[["disk", "web"][index / 2]].endpoint.location();
            assert!(result["content"][0]["text"].as_str().unwrap().contains(&from), "{result}");
        }
    }
}

#[tokio::test]
async fn a_dead_upstream_keeps_its_tools_delays_nothing_and_is_named_as_stale() {
    let fleet = Fleet::small().await;
    let disk = &fleet.instances["disk"];
    fleet.sims.set(disk, Behaviour::Refuse);
    let dead = |machina: &Machina| machina.get("disk").unwrap().status().as_str() == "unhealthy";
    while !dead(&fleet.machina) {
        fleet.machina.check("disk").await.unwrap();
    }
    let mut bare = fleet.bare();
    for params in [json!({"_meta": meta()}), json!({"_meta": meta(), "cursor": null})] {
        let answer = timeout(Duration::from_secs(5), bare.request(json!(1), "tools/list", params)).await;
        let result = answer.expect("a list waits for nobody")["result"].take();
        assert_eq!(names(&result).len(), 4);
        let stale = &result["_meta"]["dev.machina/stale"];
        assert_eq!((stale.as_array().unwrap().len(), &stale[0]["service"]), (1, &json!("disk")), "{stale}");
        assert!(stale[0]["status"] == "unhealthy" && stale[0]["since"].is_string(), "{stale}");
        assert_eq!((&result["ttlMs"], &result["cacheScope"]), (&json!(0), &json!("private")));
    }
}

#[tokio::test]
async fn a_host_of_the_older_era_is_told_when_its_tools_have_changed_and_only_then() {
    let fleet = Fleet::small().await;
    let mut bare = fleet.bare();
    let params = json!({"protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": {"name": "bare"}});
    let hello = bare.request(json!(0), "initialize", params).await;
    assert_eq!(hello["result"]["capabilities"]["tools"], json!({"listChanged": true}));
    let listed = |answer: &Value| names(&answer["result"]).len();
    assert_eq!(listed(&bare.request(json!(1), "tools/list", json!({})).await), 4);
    let told = async |bare: &mut Bare| {
        while bare.next().await.unwrap()["method"] != "notifications/tools/list_changed" {}
    };

    fleet.sims.set_tools(&fleet.instances["web"], vec![tool("fetch"), tool("post"), tool("put")]);
    told(&mut bare).await;
    assert_eq!(listed(&bare.request(json!(2), "tools/list", json!({})).await), 5);

    // Neither health nor a new description of a service changes the list.
    fleet.machina.check("disk").await.unwrap();
    let spec = json!({"name": "disk", "description": "new"}).to_string();
    let spec = ServiceSpec::parse(&spec).unwrap().instance(fleet.instances["disk"].clone());
    fleet.machina.update("disk", spec, None).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(bare.request(json!(3), "ping", json!({})).await["result"], json!({}));
    assert!(!bare.heard.iter().any(|method| method == "notifications/tools/list_changed"), "{:?}", bare.heard);

    fleet.machina.set_admin_state("web", None, AdminState::Disabled).await.unwrap();
    told(&mut bare).await;
    assert_eq!(listed(&bare.request(json!(4), "tools/list", json!({})).await), 2);
    fleet.machina.deregister("disk").await.unwrap();
    told(&mut bare).await;
    assert_eq!(listed(&bare.request(json!(5), "tools/list", json!({})).await), 0);
}

#[tokio::test]
async fn a_host_sees_only_the_tools_of_its_tenant() {
    let fleet = Fleet::small().await;
    let acme = fleet.machina.scoped(Principal::new("acme", Role::Developer).of_tenant("acme"));
    let client = over_pipe(&fleet.tasks, acme, flat(ToolPrefix::Always), legacy()).await;
    let listed: Vec<String> = client.list_all_tools().await.unwrap().iter().map(|tool| tool.name.to_string()).collect();
    assert_eq!(listed, ["web__fetch", "web__post"]);
    assert_eq!(client.peer_info().unwrap().capabilities.tools.as_ref().unwrap().list_changed, None);
    let mut bare = Bare::new(pipe(
        &fleet.tasks,
        fleet.machina.scoped(Principal::new("other", Role::Developer).of_tenant("other")),
        flat(ToolPrefix::Always),
    ));
    let params = json!({"name": "web__fetch", "_meta": meta()});
    assert_eq!(bare.request(json!(1), "tools/call", params).await["error"]["code"], -32602);
}

#[tokio::test]
async fn results_pass_through_and_failures_leave_structured_content_to_the_tool() {
    let registered = Registered::open().await;
    let tasks = Tasks::new();
    let mut bare = Bare::new(pipe(&tasks, registered.scoped(), flat(ToolPrefix::Always)));
    let request = |name: &str| json!({"name": name, "arguments": {"text": "hi"}, "_meta": meta()});
    let echo = bare.request(json!(1), "tools/call", request("fixture__echo")).await["result"].take();
    assert_eq!((&echo["content"], &echo["x-more"]), (&echoed("hi")["content"], &echoed("hi")["x-more"]));
    let fail = bare.request(json!(2), "tools/call", request("fixture__fail")).await["result"].take();
    assert_eq!((&fail["isError"], &fail["content"][0]["text"]), (&json!(true), &json!("no luck")));
    for (id, name, code) in
        [(3, "fixture__reject", "rejected"), (4, "fixture__break_off", "lost"), (5, "fixture__ask", "rejected")]
    {
        let result = bare.request(json!(id), "tools/call", request(name)).await["result"].take();
        assert_eq!((&result["isError"], result.get("structuredContent")), (&json!(true), None), "{result}");
        assert_eq!(result["_meta"]["dev.machina/error"]["code"], code, "{result}");
    }
    for (id, params) in [
        (6, request("find_tool")),
        (7, request("echo")),
        (8, json!({"name": "fixture__echo", "arguments": 1, "_meta": meta()})),
    ] {
        assert_eq!(bare.request(json!(id), "tools/call", params).await["error"]["code"], -32602);
    }
    for (id, cursor) in [(9, json!("%")), (10, json!(7)), (11, json!("eA"))] {
        let params = json!({"cursor": cursor, "_meta": meta()});
        assert_eq!(bare.request(json!(id), "tools/list", params).await["error"]["code"], -32602);
    }
    let mut viewer = Bare::new(pipe(&tasks, registered.viewer(), flat(ToolPrefix::Always)));
    let refused = viewer.request(json!(1), "tools/call", request("fixture__echo")).await["result"].take();
    assert_eq!(refused["_meta"]["dev.machina/error"]["code"], "forbidden");
    tasks.cancel();
}
