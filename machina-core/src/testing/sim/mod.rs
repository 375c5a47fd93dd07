//! Instances that exist only in memory and fail on demand: for tests under
//! paused time, where real processes and sockets cannot take part.

mod behaviour;
mod onlooker;
mod session;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use uuid::Uuid;

pub use behaviour::Behaviour;
use behaviour::Sim;
pub use onlooker::{Contact, Deed, Ending, Onlooker};
use session::{SimSession, Watched};

use crate::connect::{Connector, Session, Target};
use crate::error::{Error, Phase, Result};
use crate::model::{Endpoint, HealthEndpoint, HttpEndpoint, Instance, InstanceId, StdioEndpoint};
use crate::random::Random;

/// Connects to simulated instances: those with `http` and `stdio` endpoints.
/// Clones share the same instances.
#[derive(Debug, Clone, Default)]
pub struct SimConnector {
    instances: Arc<Mutex<HashMap<Arc<str>, Sim>>>,
    random: Arc<Random>,
    /// Whether the identities of instances are drawn from `random`.
    seeded: bool,
    onlooker: Arc<OnceLock<Arc<dyn Onlooker>>>,
    /// What the health endpoints answer that there are.
    statuses: Arc<Mutex<HashMap<String, u16>>>,
}

/// A read-only tool named `echo` that answers with its arguments.
#[must_use]
pub fn echo_tool() -> Value {
    json!({"name": "echo", "description": "Repeats the text it is given.", "x-unknown": {"b": 1, "a": 2},
        "inputSchema": {"type": "object", "properties": {"text": {"type": "string"}}},
        "annotations": {"readOnlyHint": true}})
}

/// A tool named `add` that must not be repeated.
#[must_use]
pub fn add_tool() -> Value {
    json!({"name": "add", "description": "Adds an amount to an account.",
        "inputSchema": {"type": "object", "properties": {"amount": {"type": "number"}}}})
}

impl SimConnector {
    /// A connector whose instances have the same identities, and the same luck,
    /// in every run of one seed.
    #[must_use]
    pub fn seeded(seed: u64) -> Self {
        Self { random: Arc::new(Random::seeded(seed)), seeded: true, ..Self::default() }
    }

    /// Has `onlooker` told what happens at the instances; the first one stays.
    pub fn watch(&self, onlooker: Arc<dyn Onlooker>) {
        // A second one is not told anything.
        let _ = self.onlooker.set(onlooker);
    }

    /// Makes an instance with the tools `echo` and `add` that answers at once,
    /// and returns how to reach it.
    pub fn instance(&self, name: &str) -> Instance {
        self.made(Instance::new(HttpEndpoint::new(format!("http://{name}.sim/mcp"))), false)
    }

    /// The same as a child process, which is stopped when idle.
    pub fn process(&self, name: &str) -> Instance {
        self.made(Instance::new(StdioEndpoint::new(name, Vec::<String>::new())), true)
    }

    fn made(&self, mut instance: Instance, stdio: bool) -> Instance {
        if self.seeded {
            let bits = u128::from(self.random.any()) << 64 | u128::from(self.random.any());
            instance.id = InstanceId::from(Uuid::from_u128(bits));
        }
        let sim = Sim::new(stdio, vec![echo_tool(), add_tool()]);
        self.instances().insert(instance.endpoint.location().into(), sim);
        instance
    }

    /// Changes how an instance behaves; one that refuses loses its sessions.
    pub fn set(&self, instance: &Instance, behaviour: Behaviour) {
        self.with(instance, |sim| sim.set(behaviour));
    }

    /// Ends the process of an instance; the next session starts another.
    pub fn exit(&self, instance: &Instance) {
        self.with(instance, |sim| sim.end_sessions(sim.stdio));
    }

    /// Changes how long an instance takes to answer.
    pub fn set_latency(&self, instance: &Instance, latency: Duration) {
        self.with(instance, |sim| sim.latency = latency);
    }

    /// Changes which share of connections, probes and calls is never answered.
    pub fn set_loss(&self, instance: &Instance, share: f64) {
        self.with(instance, |sim| sim.loss = share);
    }

    /// Changes which share of the calls fails at once, while probes pass.
    pub fn set_failing(&self, instance: &Instance, share: f64) {
        self.with(instance, |sim| sim.failing = share);
    }

    /// Changes how many calls an instance works on at a time; more wait for
    /// their turn as long as their callers do.
    pub fn set_workers(&self, instance: &Instance, workers: usize) {
        self.with(instance, |sim| sim.workers = Some(Arc::new(Semaphore::new(workers))));
    }

    /// Changes whether both sides hold a connection, whose end is noticed;
    /// without, each request is one of its own.
    pub fn set_held(&self, instance: &Instance, held: bool) {
        self.with(instance, |sim| sim.held = held);
    }

    /// Makes the health endpoint that is declared like this, with the HTTP status
    /// that it answers from now on; 0 is none, ever. There is nothing at any other.
    pub fn set_status(&self, endpoint: &str, status: u16) {
        self.statuses.lock().unwrap_or_else(PoisonError::into_inner).insert(endpoint.to_owned(), status);
    }

    /// Changes the tools of an instance, and notifies its sessions.
    pub fn set_tools(&self, instance: &Instance, tools: Vec<Value>) {
        self.with(instance, |sim| {
            sim.tools = tools;
            sim.listed.send_modify(|listed| *listed += 1);
        });
    }

    /// Publishes other prompts, and says so.
    pub fn set_prompts(&self, instance: &Instance, prompts: Vec<Value>) {
        self.with(instance, |sim| {
            sim.prompts = prompts;
            sim.listed.send_modify(|listed| *listed += 1);
        });
    }

    /// How many calls an instance has executed.
    #[must_use]
    pub fn executions(&self, instance: &Instance) -> u64 {
        self.with(instance, |sim| sim.executions)
    }

    /// How many calls were cancelled while an instance worked on them.
    #[must_use]
    pub fn cancellations(&self, instance: &Instance) -> u64 {
        self.with(instance, |sim| sim.cancellations)
    }

    /// How many sessions were ever opened.
    #[must_use]
    pub fn connections(&self, instance: &Instance) -> u64 {
        self.with(instance, |sim| sim.connections)
    }

    /// How many sessions are open.
    #[must_use]
    pub fn open_sessions(&self, instance: &Instance) -> u64 {
        self.with(instance, |sim| sim.open)
    }

    fn instances(&self) -> MutexGuard<'_, HashMap<Arc<str>, Sim>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, instance: &Instance, f: impl FnOnce(&mut Sim) -> T) -> T {
        self.at(&instance.endpoint.location(), f)
    }

    fn at<T>(&self, location: &str, f: impl FnOnce(&mut Sim) -> T) -> T {
        f(self.instances().get_mut(location).expect("the instance was made by this connector"))
    }

    fn tell(&self, location: &str, deed: Deed<'_>) {
        if let Some(onlooker) = self.onlooker.get() {
            onlooker.saw(location, deed);
        }
    }

    /// Opens a session with the instance at `location`, as far as it lets itself.
    async fn reach(&self, location: &Arc<str>, patience: Duration) -> Result<Arc<dyn Session>> {
        let (behaviour, latency, loss, refusal, status) =
            self.at(location, |sim| (sim.behaviour(), sim.latency, sim.loss, sim.refusal(), sim.status()));
        let unanswered = matches!(behaviour, Behaviour::Wedged | Behaviour::BlackHole) || latency > patience;
        if unanswered || self.random.chance(loss) {
            tokio::time::sleep(patience).await;
            return Err(Error::unreachable(format!("no connection within {patience:?}")).at(Phase::NotSent));
        }
        if behaviour == Behaviour::Refuse {
            return Err(Error::unreachable("connection refused").at(Phase::NotSent));
        }
        if let Some(error) = refusal.or(status) {
            return Err(error);
        }
        let life = self.at(location, |sim| sim.life());
        pause(latency).await;
        if self.at(location, |sim| sim.life()) != life {
            return Err(Error::unreachable("the connection is gone").at(Phase::NotSent));
        }
        Ok(Arc::new(SimSession::open(self, location)))
    }
}

#[async_trait]
impl Connector for SimConnector {
    fn handles(&self, endpoint: &Endpoint) -> bool {
        matches!(endpoint, Endpoint::Http(_) | Endpoint::Stdio(_))
    }

    async fn connect(&self, target: &Target) -> Result<Arc<dyn Session>> {
        let location: Arc<str> = target.instance.endpoint.location().into();
        if !self.instances().contains_key(&location) {
            return Err(Error::unreachable("the name does not resolve").at(Phase::NotSent));
        }
        let watched = Watched::new(self, &location, Contact::Connect);
        watched.ended(self.reach(&location, target.timeout).await)
    }

    async fn check(&self, _: &Target, endpoint: &HealthEndpoint, expected: &[u16]) -> Result<()> {
        let status = self.statuses.lock().unwrap_or_else(PoisonError::into_inner).get(endpoint.as_str()).copied();
        match status {
            None => Err(Error::unreachable("nothing is there").at(Phase::NotSent)),
            Some(0) => std::future::pending().await,
            Some(200..=299) if expected.is_empty() => Ok(()),
            Some(status) if expected.contains(&status) => Ok(()),
            Some(status) => {
                let error = Error::rejected(format!("answered with HTTP status {status}")).at(Phase::Answered);
                Err(error.with(|context| context.upstream_status = Some(status)))
            }
        }
    }
}

/// Sleeps, or does not: even the shortest sleep lasts until the timer's next
/// millisecond.
async fn pause(latency: Duration) {
    if !latency.is_zero() {
        tokio::time::sleep(latency).await;
    }
}
