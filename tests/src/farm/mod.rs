//! The farm as tests use it: one process that hosts any number of MCP servers,
//! each at an address of its own in 127.0.0.0/8, and does to each what it is told.

mod orders;

use std::collections::{BTreeMap, HashMap};
use std::process::Stdio;
use std::time::Duration;

use machina_core::{HttpEndpoint, StdioEndpoint};
use reqwest::Client;
use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;

pub use orders::{Behaviour, Class, Cut, End, Order, Side, Sizes};

use crate::{Process, farm_binary};

/// How long the farm may take to say where it is, and to carry out an order.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many hosts of the last byte are used, and the first of them.
const HOSTS: usize = 250;

/// What the farm prints as its first line.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Whereabouts {
    /// The address of its control interface.
    pub control: String,
    /// The second byte of the address of each instance.
    pub network: u8,
    /// The port of each instance.
    pub port: u16,
    /// How many instances there are.
    pub instances: usize,
}

impl Whereabouts {
    /// The address of an instance, without its port.
    #[must_use]
    pub fn host(&self, instance: usize) -> [u8; 4] {
        let byte = |value: usize| u8::try_from(value).unwrap_or(u8::MAX);
        [127, self.network, byte(instance / HOSTS), byte(instance % HOSTS + 1)]
    }

    /// The address of the MCP server of an instance.
    #[must_use]
    pub fn url(&self, instance: usize) -> String {
        let [a, b, c, d] = self.host(instance);
        format!("http://{a}.{b}.{c}.{d}:{}/mcp", self.port)
    }
}

/// How often a call was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Executed {
    /// What may be done with such a call.
    pub class: Class,
    /// How often it ran, over all instances.
    pub times: u32,
}

/// How many calls an instance had taken and not answered, by class.
pub type InFlight = BTreeMap<Class, u32>;

/// A running farm, which ends when this is dropped, however that comes about.
#[derive(Debug)]
pub struct Farm {
    child: Child,
    process: Process,
    whereabouts: Whereabouts,
    client: Client,
}

impl Farm {
    /// Starts a farm of `instances` with further `args`.
    ///
    /// # Panics
    /// If it does not start.
    pub async fn start(instances: usize, args: &[&str]) -> Self {
        let mut command = Command::new(farm_binary());
        command.args(["http", "--instances", &instances.to_string()]).args(args);
        // It ends with its stdin, so that not even `kill -9` leaves it behind.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0).kill_on_drop(true);
        let mut child = command.spawn().expect("the farm can be started");
        let process = child.id().and_then(Process::of).expect("a process that was just started is there");
        let mut stdout = BufReader::new(child.stdout.take().expect("stdout is a pipe"));
        let mut line = String::new();
        let read = timeout(PATIENCE, stdout.read_line(&mut line)).await.expect("the farm says in time where it is");
        read.expect("stdout of the farm can be read");
        let whereabouts = serde_json::from_str(&line).unwrap_or_else(|error| panic!("the farm said {line:?}: {error}"));
        let client = Client::builder().no_proxy().timeout(PATIENCE).build().expect("a client can be made");
        Self { child, process, whereabouts, client }
    }

    /// An endpoint by which Machina starts an instance as a child, with `args`.
    #[must_use]
    pub fn stdio_spec(args: &[&str]) -> StdioEndpoint {
        let all = std::iter::once("stdio").chain(args.iter().copied());
        StdioEndpoint::new(farm_binary().to_string_lossy(), all)
    }

    /// Where an instance is.
    #[must_use]
    pub fn endpoint(&self, instance: usize) -> HttpEndpoint {
        HttpEndpoint::new(self.whereabouts.url(instance))
    }

    /// The same as text.
    #[must_use]
    pub fn url(&self, instance: usize) -> String {
        self.whereabouts.url(instance)
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> Process {
        self.process
    }

    /// Changes what instances do; returns when they do it, with what each had in
    /// flight at that moment.
    ///
    /// # Panics
    /// If the farm refuses.
    pub async fn order(&self, orders: &[Order]) -> Vec<InFlight> {
        let request = self.client.post(format!("{}/orders", self.whereabouts.control)).json(orders);
        answered(request).await
    }

    /// How often each call was executed, by its argument `id`.
    ///
    /// # Panics
    /// If the farm does not answer.
    pub async fn executions(&self) -> HashMap<String, Executed> {
        answered(self.client.get(format!("{}/executions", self.whereabouts.control))).await
    }

    /// The sizes of the calls that were to be measured, by their argument `id`.
    ///
    /// # Panics
    /// If the farm does not answer.
    pub async fn sizes(&self) -> HashMap<String, Sizes> {
        answered(self.client.get(format!("{}/sizes", self.whereabouts.control))).await
    }
}

async fn answered<T: for<'de> Deserialize<'de>>(request: reqwest::RequestBuilder) -> T {
    let response = request.send().await.expect("the farm answers");
    let (status, text) = (response.status(), response.text().await.expect("the farm answers in full"));
    assert!(status.is_success(), "the farm answered {status}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("the farm answered {text:?}: {error}"))
}

impl Drop for Farm {
    fn drop(&mut self) {
        // Once it was waited for, its number may belong to someone else.
        if self.child.id().is_some() {
            self.process.signal_group(Signal::KILL);
        }
    }
}
