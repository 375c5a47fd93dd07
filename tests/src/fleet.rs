//! The fleet: real, published MCP servers, registered all at once. What comes
//! of it is a report; whether that is good enough is for its reader to say.
//!
//! `python3 tests/fleet/install.py` installs them and writes the list that is
//! read here.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use futures_util::future::join_all;
use machina_core::{CallOptions, Config, HealthState, Instance, Machina, Mutation, ServiceSpec, StdioEndpoint, Tasks};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};

use crate::flat::{self, FlatReport, Harmless};
use crate::{Process, call, open, workspace_root};

/// Where the list says that the page lies which `fetch` is to get.
const PAGE_IN_LIST: &str = "http://127.0.0.1:8999/";
/// Servers that offer some tools only to clients that can sample or can ask a
/// person, and how many. The list counts them; Machina can neither, does not
/// claim to, and so is not offered them.
const FOR_OTHER_CLIENTS: [(&str, usize); 1] = [("everything", 2)];
/// How long a harmless call may take.
const CALL_MAX: Duration = Duration::from_secs(60);
/// How long processes have to go after the registry was closed.
const GOING: Duration = Duration::from_secs(5);
/// How often is looked whether all have settled.
const LOOK: Duration = Duration::from_millis(50);

/// One installed server, as `fleet.resolved.json` has it.
#[derive(Debug, Clone, Deserialize)]
pub struct Server {
    /// Its name in the registry.
    pub name: String,
    command: String,
    args: Vec<String>,
    env: BTreeMap<String, String>,
    /// How many tools it offers to a client that can do everything.
    expected_tools: usize,
    call: Option<HarmlessCall>,
    /// Whether it is light enough to run every time.
    pub ci: bool,
}

#[derive(Debug, Clone, Deserialize)]
struct HarmlessCall {
    tool: String,
    arguments: Value,
}

/// What came of one server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ServerReport {
    /// Its name.
    pub name: String,
    /// Its health when all had settled, or the time was over.
    pub state: HealthState,
    /// Why, if it is not healthy.
    pub reason: String,
    /// The revision of MCP that is spoken with it.
    pub protocol_version: Option<String>,
    /// How many tools were found.
    pub tools: usize,
    /// How many it is known to offer to a client like Machina.
    pub expected_tools: usize,
    /// Tools that were found and not accepted.
    pub rejected: Vec<String>,
    /// What came of the harmless call; `None` if it has none.
    pub call: Option<Result<String, String>>,
    /// Seconds from the registration until it was decided.
    pub settled_after: Option<f64>,
}

impl ServerReport {
    /// Whether it is healthy, has the tools it should have, and answered.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let answered = !matches!(self.call, Some(Err(_)));
        self.state == HealthState::Healthy && self.tools == self.expected_tools && answered
    }
}

/// What came of the whole fleet.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FleetReport {
    /// Each server, by name.
    pub servers: Vec<ServerReport>,
    /// Seconds until all had settled; `None` if some had not in time.
    pub settled_after: Option<f64>,
    /// What a client of flat mode saw, with each way to name tools.
    pub flat: Vec<FlatReport>,
    /// Memory of this process before anything was registered, in bytes.
    pub resident_before: u64,
    /// … and with all of them registered and called.
    pub resident_after: u64,
    /// Processes under this one while all ran.
    pub children: usize,
    /// Those of them that were alive after the registry was closed.
    pub children_left: usize,
    /// Seconds that closing took.
    pub closed_after: f64,
}

/// Where the installer writes the list, unless told otherwise.
#[must_use]
pub fn default_list() -> PathBuf {
    workspace_root().join("target/fleet/fleet.resolved.json")
}

/// Reads the list of installed servers.
///
/// # Errors
/// When it is not there or not readable; says which command makes it.
pub fn installed(list: &Path) -> Result<Vec<Server>, String> {
    let text = fs::read_to_string(list).map_err(|error| {
        format!("{}: {error}; install the servers first: python3 tests/fleet/install.py", list.display())
    })?;
    serde_json::from_str(&text).map_err(|error| format!("{}: {error}", list.display()))
}

/// Registers `servers` with a new registry, waits until it is decided of each
/// whether it is healthy, calls each, and closes the registry. Memory and
/// children are those of the whole process, so nothing else may run in it.
///
/// # Panics
/// If the servers cannot be registered at all.
pub async fn run(servers: &[Server], patience: Duration, on_settled: impl Fn(&str, HealthState)) -> FleetReport {
    let own = Process::own();
    let tasks = Tasks::new();
    let page = serve_page(&tasks).await;
    let resident_before = own.resident_bytes().unwrap_or_default();
    let machina = open(Config::default()).await;
    let started = Instant::now();
    let specs = servers.iter().map(|server| Mutation::Register(server.spec())).collect();
    machina.apply(specs).await.expect("the fleet can be registered");
    let settled = wait(&machina, started, patience, on_settled).await;
    let all_settled = settled.len() == servers.len();
    let reports =
        join_all(servers.iter().map(|server| server.report(&machina, &page, settled.get(&server.name)))).await;
    let resident_after = own.resident_bytes().unwrap_or_default();
    let children = own.descendants();
    let harmless: Vec<Harmless> = servers.iter().filter_map(|server| server.harmless(&page)).collect();
    let flat = flat::look(&machina, &harmless).await;
    let closing = Instant::now();
    machina.close().await;
    let closed_after = closing.elapsed().as_secs_f64();
    tasks.close(Duration::from_secs(1)).await;
    let children_left = left(&children).await;
    FleetReport {
        servers: reports,
        settled_after: settled.values().copied().reduce(f64::max).filter(|_| all_settled),
        flat,
        resident_before,
        resident_after,
        children: children.len(),
        children_left,
        closed_after,
    }
}

/// How many are alive, once those had the time to go that were told to.
async fn left(children: &[Process]) -> usize {
    let alive = || children.iter().filter(|child| child.is_alive()).count();
    let started = Instant::now();
    while alive() > 0 && started.elapsed() < GOING {
        sleep(LOOK).await;
    }
    alive()
}

/// Seconds until each service was decided, for those that were in time.
async fn wait(
    machina: &Machina,
    started: Instant,
    patience: Duration,
    on_settled: impl Fn(&str, HealthState),
) -> BTreeMap<String, f64> {
    let mut settled = BTreeMap::new();
    while started.elapsed() < patience {
        let view = machina.view();
        for service in view.services() {
            let name = service.service().name().to_string();
            let decided = service.instances().all(|(_, seen)| match seen.health.state {
                HealthState::Healthy => seen.definitions.is_some(),
                state => !state.is_undecided(),
            });
            if decided && !settled.contains_key(&name) {
                let state = service.instances().map(|(_, seen)| seen.health.state).next().unwrap_or_default();
                on_settled(&name, state);
                settled.insert(name, started.elapsed().as_secs_f64());
            }
        }
        if settled.len() == view.len() {
            break;
        }
        sleep(LOOK).await;
    }
    settled
}

/// Serves a small text for the one server whose harmless call fetches one;
/// returns the address that it lies under.
async fn serve_page(tasks: &Tasks) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = format!("http://{}/", listener.local_addr().expect("a listener has an address"));
    let router = Router::new().route("/a.txt", get(|| async { "a text\n" }));
    tasks.spawn("serve a page", async move {
        let _ = axum::serve(listener, router).await;
    });
    address
}

impl FleetReport {
    /// Whether every server is good, flat mode shows exactly their tools, and no
    /// process is left.
    #[must_use]
    pub fn is_good(&self) -> bool {
        let expected: usize = self.servers.iter().map(|server| server.expected_tools).sum();
        let as_published = |flat: &FlatReport| {
            flat.wrong.is_empty() && flat.tools == expected && flat.distinct == expected && flat.resolved == expected
        };
        let all_good = self.servers.iter().all(ServerReport::is_good) && self.children_left == 0;
        all_good && !self.flat.is_empty() && self.flat.iter().all(as_published)
    }
}

impl Server {
    fn spec(&self) -> ServiceSpec {
        let mut endpoint = StdioEndpoint::new(&self.command, &self.args);
        for (name, value) in &self.env {
            endpoint = endpoint.env(name, value);
        }
        let spec = ServiceSpec::new(&self.name).expect("the list names services");
        spec.instance(Instance::new(endpoint))
    }

    fn offered_tools(&self) -> usize {
        let withheld = FOR_OTHER_CLIENTS.iter().find(|(name, _)| *name == self.name).map_or(0, |(_, count)| *count);
        self.expected_tools.saturating_sub(withheld)
    }

    /// Its harmless call, with the page where it really lies.
    fn harmless(&self, page: &str) -> Option<Harmless> {
        let call = self.call.as_ref()?;
        let arguments = call.arguments.to_string().replace(PAGE_IN_LIST, page);
        let arguments = serde_json::from_str(&arguments).expect("an address in JSON does not break it");
        Some(Harmless { original: (self.name.clone(), call.tool.clone()), arguments })
    }

    async fn report(&self, machina: &Machina, page: &str, settled_after: Option<&f64>) -> ServerReport {
        let call = match self.harmless(page) {
            Some(harmless) => Some(self.call(machina, harmless).await),
            None => None,
        };
        let service = machina.get(&self.name);
        let seen = service.as_ref().and_then(|service| service.instances().next());
        let definitions = seen.and_then(|(_, seen)| seen.definitions.clone());
        let rejected = definitions.iter().flat_map(|all| &all.rejected);
        ServerReport {
            name: self.name.clone(),
            state: seen.map(|(_, seen)| seen.health.state).unwrap_or_default(),
            reason: seen.map(|(_, seen)| seen.health.reason.message.clone()).unwrap_or_default(),
            protocol_version: definitions.as_ref().map(|all| all.protocol_version.clone()),
            tools: definitions.as_ref().map(|all| all.tools.len()).unwrap_or_default(),
            expected_tools: self.offered_tools(),
            rejected: rejected.map(|tool| format!("{:?}: {}", tool.name, tool.reason)).collect(),
            call,
            settled_after: settled_after.copied(),
        }
    }

    async fn call(&self, machina: &Machina, harmless: Harmless) -> Result<String, String> {
        let options = CallOptions { timeout: Some(CALL_MAX), ..CallOptions::default() };
        let answer = machina.call(&call(&self.name, &harmless.original.1, harmless.arguments), &options).await;
        let result = answer.map_err(|error| error.to_string())?.result;
        if result.is_error() { Err(result.text()) } else { Ok(result.text()) }
    }
}
