//! An open session with a simulated instance.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::behaviour::{Behaviour, Sim};
use super::onlooker::{Contact, Deed, Ending};
use super::{SimConnector, pause};
use crate::clock;
use crate::connect::{CallContext, Notice, Progress, Session};
use crate::error::{Error, Phase, Result};
use crate::model::{Definitions, Tool, ToolResult};

/// How long an instance takes to fail that fails at once.
const FAILS_AFTER: Duration = Duration::from_millis(1);

#[derive(Debug)]
pub(super) struct SimSession {
    sims: SimConnector,
    location: Arc<str>,
    opened: Life,
    listed: tokio::sync::Mutex<watch::Receiver<u64>>,
    closed: CancellationToken,
}

/// One life of an instance: how often its sessions were ended before, and how
/// often it went down or came up by itself; and what ends it.
#[derive(Debug)]
struct Life {
    number: (u64, u128),
    end: CancellationToken,
}

impl Life {
    fn of(sim: &Sim) -> Self {
        Self { number: sim.life(), end: sim.end.clone() }
    }
}

impl Drop for SimSession {
    fn drop(&mut self) {
        self.with(|sim| sim.open -= 1);
    }
}

/// Tells the onlooker how a contact ends, also when its future is dropped.
pub(super) struct Watched<'a> {
    sims: &'a SimConnector,
    location: &'a str,
    contact: Contact,
    began: Instant,
    open: bool,
}

impl<'a> Watched<'a> {
    pub(super) fn new(sims: &'a SimConnector, location: &'a str, contact: Contact) -> Self {
        sims.tell(location, Deed::Began(contact));
        Self { sims, location, contact, began: Instant::now(), open: true }
    }

    pub(super) fn ended<T>(mut self, outcome: Result<T>) -> Result<T> {
        self.end(outcome.as_ref().err().map_or(Ending::Answered, Ending::Failed));
        outcome
    }

    fn end(&mut self, ending: Ending<'_>) {
        self.open = false;
        let (contact, began) = (self.contact, self.began);
        self.sims.tell(self.location, Deed::Ended { contact, began, ending });
    }
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        if self.open {
            self.end(Ending::CutOff);
        }
    }
}

impl SimSession {
    pub(super) fn open(sims: &SimConnector, location: &Arc<str>) -> Self {
        let (sims, location) = (sims.clone(), Arc::clone(location));
        let (listed, opened) = sims.at(&location, |sim| {
            sim.connections += 1;
            sim.open += 1;
            (sim.listed.subscribe(), Life::of(sim))
        });
        let (listed, closed) = (tokio::sync::Mutex::new(listed), CancellationToken::new());
        Self { sims, location, opened, listed, closed }
    }

    fn with<T>(&self, f: impl FnOnce(&mut Sim) -> T) -> T {
        self.sims.at(&self.location, f)
    }

    /// Waits until this life of the instance is over, or the session is closed.
    async fn over(&self, life: &Life) {
        while self.with(|sim| sim.life()) == life.number {
            let beat = self.with(|sim| sim.next_beat());
            let beats = async {
                match beat {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = life.end.cancelled() => return,
                () = self.closed.cancelled() => return,
                () = beats => {}
            }
        }
    }

    /// Whether the instance ended it.
    fn has_ended(&self) -> bool {
        self.with(|sim| sim.held && sim.life() != self.opened.number)
    }

    /// `answer`, unless the session ends before, or the request is lost.
    async fn answer<T>(&self, answer: impl Future<Output = Result<T>> + Send) -> Result<T> {
        if self.is_closed() {
            return Err(Error::unreachable("the connection is gone").at(Phase::NotSent));
        }
        if let Some(refusal) = self.with(|sim| sim.refusal()) {
            return Err(refusal);
        }
        let life = self.with(|sim| Life::of(sim));
        tokio::select! {
            biased;
            () = self.over(&life) => Err(match self.closed.is_cancelled() {
                true => Error::unavailable("the session was closed"),
                false => Error::lost("connection reset"),
            }.at(Phase::MaybeExecuted)),
            answer = answer => answer,
        }
    }

    /// Answers after its latency, if it answers at all.
    async fn answers(&self) -> Result<()> {
        let (behaviour, status, latency, loss) =
            self.with(|sim| (sim.behaviour(), sim.status(), sim.latency, sim.loss));
        if matches!(behaviour, Behaviour::Wedged | Behaviour::BlackHole) || self.sims.random.chance(loss) {
            return std::future::pending().await;
        }
        pause(latency).await;
        status.map_or(Ok(()), Err)
    }

    /// What comes of `execution`, unless its caller has enough of waiting.
    async fn within(
        &self,
        execution: impl Future<Output = Result<ToolResult>> + Send,
        context: &CallContext,
    ) -> Result<ToolResult> {
        let given_up = tokio::select! {
            biased;
            outcome = self.answer(execution) => return outcome,
            () = context.cancelled.cancelled() => "the caller cancelled the call",
            () = tokio::time::sleep_until(context.deadline) => "no answer before the deadline",
            // It reports progress when it begins, and then no more.
            () = tokio::time::sleep(context.idle_timeout.unwrap_or(Duration::MAX)) => "no sign of progress",
        };
        self.with(|sim| sim.cancellations += 1);
        Err(Error::timeout(given_up).at(Phase::MaybeExecuted))
    }

    async fn execute(&self, tool: &str, arguments: &Map<String, Value>, context: &CallContext) -> Result<ToolResult> {
        let (behaviour, latency, workers) = self.with(|sim| (sim.behaviour(), sim.latency, sim.workers.clone()));
        match behaviour {
            Behaviour::Busy => {
                let busy = Error::overloaded("too many requests").at(Phase::Refused);
                return Err(busy.retry_after(Duration::from_secs(1)));
            }
            Behaviour::Reject => return Err(Error::rejected("invalid params").at(Phase::Answered)),
            Behaviour::Wedged | Behaviour::BlackHole => std::future::pending().await,
            _ => {}
        }
        if let Some(error) = self.with(|sim| sim.status()) {
            return Err(error);
        }
        let _working = match &workers {
            Some(workers) => workers.acquire().await.ok(),
            None => None,
        };
        self.mishap(tool, arguments).await?;
        self.executed(tool, arguments);
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
                let text = json!({"from": &*self.location, "arguments": arguments}).to_string();
                Ok(result(json!({"content": [{"type": "text", "text": text}], "x-unknown": 1})))
            }
        }
    }

    /// Loses the call, or fails it at once, if chance will have it so: half of
    /// the time after it was executed.
    async fn mishap(&self, tool: &str, arguments: &Map<String, Value>) -> Result<()> {
        let (loss, failing) = self.with(|sim| (sim.loss, sim.failing));
        let random = &self.sims.random;
        let (lost, fails) = (random.chance(loss), random.chance(failing));
        if (lost || fails) && random.chance(0.5) {
            self.executed(tool, arguments);
        }
        if lost {
            std::future::pending::<()>().await;
        }
        if fails {
            pause(FAILS_AFTER).await;
            return Err(Error::lost("connection reset").at(Phase::MaybeExecuted));
        }
        Ok(())
    }

    fn executed(&self, tool: &str, arguments: &Map<String, Value>) {
        self.with(|sim| sim.executions += 1);
        self.sims.tell(&self.location, Deed::Executed { tool, arguments });
    }

    fn watched(&self, contact: Contact) -> Watched<'_> {
        Watched::new(&self.sims, &self.location, contact)
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
        let watched = self.watched(Contact::List);
        let (behaviour, tools, prompts) = self.with(|sim| (sim.behaviour(), sim.tools.clone(), sim.prompts.clone()));
        if matches!(behaviour, Behaviour::Wedged | Behaviour::BlackHole) {
            std::future::pending::<()>().await;
        }
        let tools: Result<Vec<_>> = tools.into_iter().map(|tool| Tool::parse(tool).map(Arc::new)).collect();
        watched.ended(tools.map(|tools| Definitions {
            protocol_version: self.protocol_version().to_owned(),
            server_info: json!({"name": "sim", "version": "1"}),
            instructions: None,
            capabilities: json!({"tools": {}}),
            tools,
            rejected: Vec::new(),
            prompts,
            resources: Vec::new(),
            resource_templates: Vec::new(),
            listed_at: clock::now(),
        }))
    }

    async fn call(&self, tool: &str, arguments: &Map<String, Value>, context: &CallContext) -> Result<ToolResult> {
        let watched = self.watched(Contact::Call);
        context.carried.send(tool.len());
        let answer = self.within(self.execute(tool, arguments, context), context).await;
        context.carried.receive(answer.as_ref().map_or(0, |answer| answer.0.len()));
        watched.ended(answer)
    }

    /// Answers with the method and the parameters.
    async fn request(&self, method: &str, params: Value, context: &CallContext) -> Result<Value> {
        let watched = self.watched(Contact::Call);
        let nothing = Map::new();
        watched.ended(self.within(self.execute(method, &nothing, context), context).await)?;
        Ok(json!({"method": method, "params": params, "meta": context.meta}))
    }

    async fn probe(&self, timeout: Duration) -> Result<()> {
        let watched = self.watched(Contact::Probe);
        let answered = tokio::time::timeout(timeout, self.answer(self.answers())).await;
        watched.ended(answered.unwrap_or_else(|_| Err(Error::timeout("no answer").at(Phase::MaybeExecuted))))
    }

    async fn notice(&self) -> Notice {
        let mut listed = self.listed.lock().await;
        let over = async {
            self.over(&self.opened).await;
            if !self.with(|sim| sim.held) {
                self.closed.cancelled().await;
            }
        };
        tokio::select! {
            biased;
            () = over => {
                let exited = self.with(|sim| sim.exited) && !self.closed.is_cancelled();
                Notice::Closed(Error::lost("connection reset").with(|context| context.hard = exited))
            }
            _ = listed.changed() => Notice::DefinitionsChanged,
        }
    }

    fn is_closed(&self) -> bool {
        self.closed.is_cancelled() || self.has_ended()
    }

    fn stderr_tail(&self) -> String {
        String::new()
    }

    async fn close(&self) {
        self.closed.cancel();
    }
}
