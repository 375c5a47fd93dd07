//! Flat mode with a whole fleet behind it, seen by an MCP client: does it list
//! every tool, under a name that hosts allow, and does each name lead back to
//! its tool?
//!
//! Most tools of real servers do something to the world, so most names are not
//! called there. They are called on a second Machina, behind which fixtures
//! mirror the definitions of all servers and answer with who was asked. Both
//! must list the same names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use futures_util::{StreamExt, stream};
use machina_core::{
    Config, Instance, Machina, Mutation, Principal, Role, ServiceSpec, ServiceView, StdioEndpoint, Tasks,
};
use machina_mcp::server::{HttpServerConfig, ToolMode, ToolPrefix, streamable_http};
use rmcp::RoleClient;
use rmcp::model::{CallToolRequestParams, ProtocolVersion, Tool};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::{fixture_binary, open, settled};

/// The ways to name tools.
const PREFIXES: [ToolPrefix; 3] = [ToolPrefix::Always, ToolPrefix::OnCollision, ToolPrefix::None];
/// The longest name that hosts allow.
const NAME_MAX: usize = 64;
/// How long the mirrors have to settle.
const PATIENCE: Duration = Duration::from_secs(120);
/// How many mirrors are asked at a time.
const AT_A_TIME: usize = 8;

/// A tool by the names of its own server.
type Original = (String, String);

/// What a client saw with one way to name tools.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FlatReport {
    /// The way, as the configuration has it.
    pub prefix: ToolPrefix,
    /// How many tools were listed.
    pub tools: usize,
    /// How many there are, as the servers published them.
    pub published: usize,
    /// How many names are none of another tool.
    pub distinct: usize,
    /// How many have a suffix, because their own name would not do.
    pub suffixed: usize,
    /// How long the longest name is.
    pub longest: usize,
    /// How many names led back to a tool, each to another one.
    pub resolved: usize,
    /// How many harmless calls of real servers were answered.
    pub answered: usize,
    /// Everything that is not as it should be.
    pub wrong: Vec<String>,
}

/// A harmless call of a real server, by the names of that server.
pub(crate) struct Harmless {
    pub(crate) original: Original,
    pub(crate) arguments: Value,
}

/// Looks at `machina` with each way to name tools, and calls `harmless` by
/// their names there.
///
/// # Panics
/// If the mirrors cannot be started, or nothing can be listed at all.
pub(crate) async fn look(machina: &Machina, harmless: &[Harmless]) -> Vec<FlatReport> {
    let published = published(machina);
    let mirrors = Mirrors::of(&published).await;
    let mut reports = Vec::new();
    for prefix in PREFIXES {
        let (real, mirrored) =
            (Endpoint::serve(machina, prefix).await, Endpoint::serve(&mirrors.machina, prefix).await);
        let mut look = Look::new(prefix, &published, real.tools().await);
        look.check_names();
        look.check_definitions(&mirrored).await;
        look.call(&real, harmless).await;
        reports.push(look.report);
        real.close().await;
        mirrored.close().await;
    }
    mirrors.machina.close().await;
    reports
}

/// Every tool that `machina` knows, with its definition.
fn published(machina: &Machina) -> BTreeMap<Original, Value> {
    machina.view().services().flat_map(tools_of).collect()
}

fn tools_of(service: &Arc<ServiceView>) -> Vec<(Original, Value)> {
    let name = service.service().name().to_string();
    let tools = service.tools().iter().map(|offered| &offered.tool);
    tools.map(|tool| ((name.clone(), tool.name().as_str().to_owned()), tool.definition().clone())).collect()
}

/// A Machina with a fixture for each service, which has its tools.
struct Mirrors {
    machina: Machina,
    _definitions: TempDir,
}

impl Mirrors {
    async fn of(published: &BTreeMap<Original, Value>) -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let mut by_service: BTreeMap<&str, Vec<&Value>> = BTreeMap::new();
        for ((service, _), definition) in published {
            by_service.entry(service).or_default().push(definition);
        }
        let mutations = by_service.iter().map(|(service, definitions)| {
            let file = directory.path().join(format!("{service}.json"));
            std::fs::write(&file, json!(definitions).to_string()).expect("a temporary file can be written");
            let file = file.to_string_lossy().into_owned();
            let args = ["stdio", "--name", service, "--mirror", &file];
            let endpoint = StdioEndpoint::new(fixture_binary().to_string_lossy(), args);
            let spec = ServiceSpec::new(service).expect("it is the name of a service");
            Mutation::Register(spec.instance(Instance::new(endpoint)))
        });
        let mut config = Config::default();
        // The mirrors are called without arguments, which most of the tools do not take.
        config.routing.validate_arguments = false;
        let machina = open(config).await;
        machina.apply(mutations.collect()).await.expect("the mirrors can be registered");
        settled(&machina, PATIENCE).await;
        Self { machina, _definitions: directory }
    }
}

/// Flat mode at an address of its own, and a client of it.
struct Endpoint {
    client: RunningService<RoleClient, ()>,
    tasks: Tasks,
}

impl Endpoint {
    async fn serve(machina: &Machina, prefix: ToolPrefix) -> Self {
        let machina = machina.clone();
        let config = HttpServerConfig { mode: ToolMode::Flat, prefix, ..HttpServerConfig::default() };
        let admit = move |_: &axum::http::request::Parts| Ok(machina.scoped(Principal::new("fleet", Role::Developer)));
        let router = Router::new().route_service("/mcp", streamable_http(admit, config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let url = format!("http://{}/mcp", listener.local_addr().expect("a listener has an address"));
        let tasks = Tasks::new();
        tasks.spawn("serve flat mode", async move {
            let _ = axum::serve(listener, router).await;
        });
        let mode = ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] };
        let transport = StreamableHttpClientTransport::from_uri(url);
        let client = ().serve_with_lifecycle(transport, mode).await.expect("a client can connect");
        Self { client, tasks }
    }

    async fn tools(&self) -> Vec<Tool> {
        self.client.list_all_tools().await.expect("the tools can be listed")
    }

    /// The text that a tool answers with, or what went wrong.
    async fn call(&self, name: &str, arguments: &Value) -> Result<String, String> {
        let mut call = CallToolRequestParams::new(name.to_owned());
        call.arguments = arguments.as_object().cloned();
        let result = self.client.call_tool(call).await.map_err(|error| error.to_string())?;
        let result = serde_json::to_value(result).map_err(|error| error.to_string())?;
        let text = result["content"][0]["text"].as_str().unwrap_or_default().to_owned();
        if result["isError"] == true { Err(text) } else { Ok(text) }
    }

    async fn close(self) {
        let _ = self.client.cancel().await;
        self.tasks.close(Duration::from_secs(1)).await;
    }
}

/// One look at the list.
struct Look<'a> {
    report: FlatReport,
    published: &'a BTreeMap<Original, Value>,
    listed: Vec<Tool>,
    /// By name, as the mirrors said.
    originals: BTreeMap<String, Original>,
}

impl<'a> Look<'a> {
    fn new(prefix: ToolPrefix, published: &'a BTreeMap<Original, Value>, listed: Vec<Tool>) -> Self {
        let report = FlatReport {
            prefix,
            tools: listed.len(),
            published: published.len(),
            distinct: 0,
            suffixed: 0,
            longest: 0,
            resolved: 0,
            answered: 0,
            wrong: Vec::new(),
        };
        Self { report, published, listed, originals: BTreeMap::new() }
    }

    fn check_names(&mut self) {
        let names: BTreeSet<&str> = self.listed.iter().map(|tool| tool.name.as_ref()).collect();
        self.report.distinct = names.len();
        self.report.longest = names.iter().map(|name| name.len()).max().unwrap_or_default();
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let refused = names.iter().filter(|name| !(1..=NAME_MAX).contains(&name.len()) || !name.chars().all(allowed));
        self.report.wrong.extend(refused.map(|name| format!("hosts refuse the name {name:?}")));
        if self.listed.len() != self.published.len() || names.len() != self.listed.len() {
            let (listed, published) = (self.listed.len(), self.published.len());
            self.report.wrong.push(format!("{listed} tools listed, {} names, {published} tools", names.len()));
        }
    }

    /// Asks the mirrors which tool each name is, and compares its definition.
    async fn check_definitions(&mut self, mirrored: &Endpoint) {
        let names = |tools: &[Tool]| tools.iter().map(|tool| tool.name.to_string()).collect::<BTreeSet<_>>();
        let (here, there) = (names(&self.listed), names(&mirrored.tools().await));
        let differing = here.symmetric_difference(&there).map(|name| format!("{name} is listed by one of two only"));
        self.report.wrong.extend(differing);
        let ask = async |name: String| (mirrored.call(&name, &json!({})).await, name);
        let answers: Vec<_> = stream::iter(here).map(ask).buffer_unordered(AT_A_TIME).collect().await;
        for (answer, name) in answers {
            let said =
                answer.and_then(|said| serde_json::from_str::<Original>(&said).map_err(|error| error.to_string()));
            match said {
                Ok(original) => drop(self.originals.insert(name, original)),
                Err(error) => self.report.wrong.push(format!("{name} leads to no tool: {error}")),
            }
        }
        let reached: BTreeSet<&Original> = self.originals.values().collect();
        self.report.resolved = reached.len();
        let missed = self.published.keys().filter(|original| !reached.contains(original));
        self.report.wrong.extend(missed.map(|(service, tool)| format!("no name leads to {tool} of {service}")));
        for tool in &self.listed {
            let Some(original) = self.originals.get(tool.name.as_ref()) else { continue };
            let (service, own_name) = original;
            let plain = [own_name.clone(), format!("{service}__{own_name}")];
            self.report.suffixed += usize::from(!plain.contains(&tool.name.to_string()));
            let mut wanted = self.published.get(original).cloned().unwrap_or_default();
            wanted["name"] = json!(tool.name);
            if serde_json::from_value::<Tool>(wanted).ok().as_ref() != Some(tool) {
                self.report.wrong.push(format!("{} is not as {service} published {own_name}", tool.name));
            }
        }
    }

    async fn call(&mut self, real: &Endpoint, harmless: &[Harmless]) {
        for Harmless { original, arguments } in harmless {
            let found = self.originals.iter().find(|(_, of)| *of == original).map(|(name, _)| name.as_str());
            let answer = match found {
                Some(name) => real.call(name, arguments).await,
                None => Err("no name leads to it".to_owned()),
            };
            match answer {
                Ok(_) => self.report.answered += 1,
                Err(why) => self.report.wrong.push(format!("{} of {}: {why}", original.1, original.0)),
            }
        }
    }
}
