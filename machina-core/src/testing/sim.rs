//! Instances that exist only in memory and fail on demand: for tests under
//! paused time, where real processes and sockets cannot take part.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::connect::{CallContext, Connector, Notice, Progress, Session, Target};
use crate::error::{Error, Phase, Result};
use crate::model::{Definitions, Endpoint, HttpEndpoint, Instance, StdioEndpoint, Tool, ToolResult};

/// How a simulated instance behaves from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behaviour {
    /// Answers everything after its latency.
    Up,
    /// Refuses connections; its open sessions are gone.
    Refuse,
    /// Accepts connections and answers nothing.
    Wedged,
    /// Executes calls, then loses the connection before it answers.
    LoseAnswers,
    /// Answers 401 to everything.
    Unauthorised,
    /// Answers 429 to calls.
    Busy,
    /// Answers calls with a protocol error.
    Reject,
    /// Reports progress of a call, then loses the connection.
    LoseAfterProgress,
    /// Executes calls, and answers with a request for input instead of a result.
    AsksForInput,
}

#[derive(Debug)]
struct Sim {
    behaviour: Behaviour,
    latency: Duration,
    tools: Vec<Value>,
    prompts: Vec<Value>,
    executions: u64,
    cancellations: u64,
    connections: u64,
    open: u64,
    /// Changes whenever open sessions end.
    generation: watch::Sender<u64>,
    /// Changes whenever the tools or prompts do.
    listed: watch::Sender<u64>,
}

/// Connects to simulated instances: those with `http` and `stdio` endpoints.
/// Clones share the same instances.
#[derive(Debug, Clone, Default)]
pub struct SimConnector {
    instances: Arc<Mutex<HashMap<String, Sim>>>,
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
    /// Makes an instance with the tools `echo` and `add` that answers at once,
    /// and returns how to reach it.
    pub fn instance(&self, name: &str) -> Instance {
        self.made(Instance::new(HttpEndpoint::new(format!("http://{name}.sim/mcp"))))
    }

    /// The same as a child process, which is stopped when idle.
    pub fn process(&self, name: &str) -> Instance {
        self.made(Instance::new(StdioEndpoint::new(name, Vec::<String>::new())))
    }

    fn made(&self, instance: Instance) -> Instance {
        let sim = Sim {
            behaviour: Behaviour::Up,
            latency: Duration::from_millis(1),
            tools: vec![echo_tool(), add_tool()],
            prompts: Vec::new(),
            executions: 0,
            cancellations: 0,
            connections: 0,
            open: 0,
            generation: watch::Sender::new(0),
            listed: watch::Sender::new(0),
        };
        self.instances().insert(instance.endpoint.location(), sim);
        instance
    }

    /// Changes how an instance behaves; one that refuses loses its sessions.
    pub fn set(&self, instance: &Instance, behaviour: Behaviour) {
        self.with(instance, |sim| {
            sim.behaviour = behaviour;
            if behaviour == Behaviour::Refuse {
                sim.generation.send_modify(|generation| *generation += 1);
            }
        });
    }

    /// Changes how long an instance takes to answer.
    pub fn set_latency(&self, instance: &Instance, latency: Duration) {
        self.with(instance, |sim| sim.latency = latency);
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

    fn instances(&self) -> MutexGuard<'_, HashMap<String, Sim>> {
        self.instances.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with<T>(&self, instance: &Instance, f: impl FnOnce(&mut Sim) -> T) -> T {
        let mut instances = self.instances();
        let sim = instances.get_mut(&instance.endpoint.location());
        f(sim.expect("the instance was made by this connector"))
    }
}

#[async_trait]
impl Connector for SimConnector {
    fn handles(&self, endpoint: &Endpoint) -> bool {
        matches!(endpoint, Endpoint::Http(_) | Endpoint::Stdio(_))
    }

    async fn connect(&self, target: &Target) -> Result<Arc<dyn Session>> {
        let instance = target.instance.clone();
        let known = self.instances().contains_key(&instance.endpoint.location());
        if !known {
            return Err(Error::unreachable("the name does not resolve").at(Phase::NotSent));
        }
        let (behaviour, latency) = self.with(&instance, |sim| (sim.behaviour, sim.latency));
        match behaviour {
            Behaviour::Refuse => return Err(Error::unreachable("connection refused").at(Phase::NotSent)),
            Behaviour::Wedged => std::future::pending().await,
            Behaviour::Unauthorised => return Err(unauthorised()),
            _ => pause(latency).await,
        }
        let (generation, listed) = self.with(&instance, |sim| (sim.generation.subscribe(), sim.listed.subscribe()));
        self.with(&instance, |sim| {
            sim.connections += 1;
            sim.open += 1;
        });
        let opened = *generation.borrow();
        let listed = tokio::sync::Mutex::new(listed);
        let closed = CancellationToken::new();
        Ok(Arc::new(SimSession { sims: self.clone(), instance, generation, opened, listed, closed }))
    }
}

#[derive(Debug)]
struct SimSession {
    sims: SimConnector,
    instance: Instance,
    generation: watch::Receiver<u64>,
    opened: u64,
    listed: tokio::sync::Mutex<watch::Receiver<u64>>,
    closed: CancellationToken,
}

impl Drop for SimSession {
    fn drop(&mut self) {
        self.sims.with(&self.instance, |sim| sim.open -= 1);
    }
}

fn unauthorised() -> Error {
    Error::rejected("wants credentials").at(Phase::Refused).with(|context| context.upstream_status = Some(401))
}

impl SimSession {
    async fn lost(&self) {
        let mut generation = self.generation.clone();
        tokio::select! {
            _ = generation.wait_for(|generation| *generation != self.opened) => {}
            () = self.closed.cancelled() => {}
        }
    }

    async fn answer<T>(&self, answer: impl Future<Output = Result<T>> + Send) -> Result<T> {
        if self.is_closed() {
            return Err(Error::unreachable("the connection is gone").at(Phase::NotSent));
        }
        tokio::select! {
            () = self.lost() => Err(Error::lost("connection reset").at(Phase::MaybeExecuted)),
            answer = answer => answer,
        }
    }

    /// What comes of `execution`, unless its caller has enough of waiting.
    async fn within(
        &self,
        execution: impl Future<Output = Result<ToolResult>> + Send,
        context: &CallContext,
    ) -> Result<ToolResult> {
        let given_up = tokio::select! {
            outcome = self.answer(execution) => return outcome,
            () = context.cancelled.cancelled() => "the caller cancelled the call",
            () = tokio::time::sleep_until(context.deadline) => "no answer before the deadline",
        };
        self.sims.with(&self.instance, |sim| sim.cancellations += 1);
        Err(Error::timeout(given_up).at(Phase::MaybeExecuted))
    }

    async fn execute(&self, tool: &str, arguments: &Map<String, Value>, context: &CallContext) -> Result<ToolResult> {
        let (behaviour, latency) = self.sims.with(&self.instance, |sim| (sim.behaviour, sim.latency));
        match behaviour {
            Behaviour::Busy => {
                let busy = Error::overloaded("too many requests").at(Phase::Refused);
                return Err(busy.retry_after(Duration::from_secs(1)));
            }
            Behaviour::Reject => return Err(Error::rejected("invalid params").at(Phase::Answered)),
            Behaviour::Unauthorised => return Err(unauthorised()),
            Behaviour::Wedged => std::future::pending().await,
            Behaviour::Up
            | Behaviour::Refuse
            | Behaviour::LoseAnswers
            | Behaviour::LoseAfterProgress
            | Behaviour::AsksForInput => {}
        }
        self.sims.with(&self.instance, |sim| sim.executions += 1);
        if let Some(progress) = &context.progress {
            progress(Progress { progress: 0.5, total: Some(1.0), message: None });
        }
        pause(latency).await;
        match behaviour {
            Behaviour::LoseAnswers | Behaviour::LoseAfterProgress => {
                Err(Error::lost("connection reset").at(Phase::MaybeExecuted))
            }
            Behaviour::AsksForInput => Ok(result(json!({"resultType": "input_required", "inputRequests": {}}))),
            _ if tool == "add" && arguments.contains_key("fail") => {
                Ok(result(json!({"content": [{"type": "text", "text": "no such account"}], "isError": true})))
            }
            _ => {
                let text = json!({"from": self.instance.endpoint.location(), "arguments": arguments}).to_string();
                Ok(result(json!({"content": [{"type": "text", "text": text}], "x-unknown": 1})))
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

fn result(value: Value) -> ToolResult {
    match value {
        Value::Object(object) => ToolResult(object),
        _ => ToolResult(Map::new()),
    }
}

#[async_trait]
impl Session for SimSession {
    fn protocol_version(&self) -> &str {
        "2025-11-25"
    }

    async fn definitions(&self) -> Result<Definitions> {
        let published = |sim: &mut Sim| (sim.behaviour, sim.tools.clone(), sim.prompts.clone());
        let (behaviour, tools, prompts) = self.sims.with(&self.instance, published);
        if behaviour == Behaviour::Wedged {
            std::future::pending::<()>().await;
        }
        let tools: Result<Vec<_>> = tools.into_iter().map(|tool| Tool::parse(tool).map(Arc::new)).collect();
        Ok(Definitions {
            protocol_version: self.protocol_version().to_owned(),
            server_info: json!({"name": "sim", "version": "1"}),
            instructions: None,
            capabilities: json!({"tools": {}}),
            tools: tools?,
            rejected: Vec::new(),
            prompts,
            resources: Vec::new(),
            resource_templates: Vec::new(),
            listed_at: clock::now(),
        })
    }

    async fn call(&self, tool: &str, arguments: &Map<String, Value>, context: &CallContext) -> Result<ToolResult> {
        self.within(self.execute(tool, arguments, context), context).await
    }

    /// Answers with the method and the parameters.
    async fn request(&self, method: &str, params: Value, context: &CallContext) -> Result<Value> {
        let nothing = Map::new();
        self.within(self.execute(method, &nothing, context), context).await?;
        Ok(json!({"method": method, "params": params, "meta": context.meta}))
    }

    async fn probe(&self, timeout: Duration) -> Result<()> {
        let (behaviour, latency) = self.sims.with(&self.instance, |sim| (sim.behaviour, sim.latency));
        match behaviour {
            Behaviour::Wedged => {
                tokio::time::sleep(timeout).await;
                Err(Error::timeout("no answer").at(Phase::MaybeExecuted))
            }
            Behaviour::Unauthorised => Err(unauthorised()),
            _ => {
                let pong = async {
                    pause(latency).await;
                    Ok(())
                };
                self.answer(pong).await
            }
        }
    }

    async fn notice(&self) -> Notice {
        let mut listed = self.listed.lock().await;
        tokio::select! {
            () = self.lost() => Notice::Closed(Error::lost("connection reset")),
            _ = listed.changed() => Notice::DefinitionsChanged,
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.is_cancelled() || *self.generation.borrow() != self.opened
    }

    fn stderr_tail(&self) -> String {
        String::new()
    }

    async fn close(&self) {
        self.closed.cancel();
    }
}
