//! The methods of a scenario, each on the facade of a registry.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use machina_core::{
    AdminState, CallContext, CallOptions, Error, EventStream, GroupSpec, Machina, Mutation, NativeTool, Next, Pinning,
    Query, Registry, Result, Revision, Router, ServiceName, ServiceSpec, Tasks, ToolCall, ToolName, ToolQuery,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

use super::PATIENCE;
use super::pattern::fits;

/// What a scenario is carried out on.
pub(super) trait Subject: Registry + Router {}

impl<T: Registry + Router> Subject for T {}

/// A method with its arguments.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(super) enum Method {
    Register { service: Value },
    Update { name: String, service: Value, revision: Option<Revision> },
    Put { service: Value },
    Deregister { name: String },
    SetAdminState { name: String, admin_state: AdminState, reason: Option<String> },
    PinTools { name: String, pinning: Option<Pinning> },
    PutGroup { group: Value, revision: Option<Revision>, create_only: Option<bool> },
    Group { name: String },
    Groups {},
    RemoveGroup { name: String, revision: Option<Revision> },
    Get { name: String },
    Find(Query),
    Tools(ToolQuery),
    FindTools { text: String, limit: Option<usize> },
    Call(Call),
    Explain { service: String, tool: Option<String> },
    Health { name: String },
    Watch { r#as: String, since: Option<Revision> },
    Event { of: String, fits: Value },
    Native { service: String, tools: Vec<String> },
    NativeRemove { service: String, tool: String },
    Wait { of: String },
    Close {},
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Call {
    service: ServiceName,
    tool: ToolName,
    #[serde(default)]
    arguments: Map<String, Value>,
    timeout_ms: Option<u64>,
    idempotency_key: Option<String>,
}

/// A registry in the middle of a scenario.
pub(super) struct Stage {
    subject: Arc<dyn Subject>,
    /// The registry itself, where it is in this process.
    here: Option<Machina>,
    streams: HashMap<String, EventStream>,
    background: HashMap<String, oneshot::Receiver<Result<Value>>>,
    tasks: Tasks,
}

impl Stage {
    pub(super) fn new(subject: Arc<dyn Subject>, here: Option<Machina>) -> Self {
        Self { subject, here, streams: HashMap::new(), background: HashMap::new(), tasks: Tasks::new() }
    }

    /// Starts a method and does not wait for it.
    pub(super) fn start(&mut self, name: String, method: Method) {
        let (done, outcome) = oneshot::channel();
        let subject = Arc::clone(&self.subject);
        self.tasks.spawn("background step", async move { drop(done.send(ask(&*subject, method).await)) });
        self.background.insert(name, outcome);
    }

    pub(super) async fn carry_out(&mut self, method: Method) -> Result<Value> {
        match method {
            Method::Watch { r#as, since } => {
                let stream = self.subject.watch(since).await?;
                self.streams.insert(r#as, stream);
                Ok(Value::Null)
            }
            Method::Event { of, fits: pattern } => {
                let stream = self.streams.get_mut(&of).unwrap_or_else(|| panic!("there is no stream `{of}`"));
                let found = tokio::time::timeout(PATIENCE, next_that_fits(stream, &pattern)).await;
                Ok(found.unwrap_or_else(|_| panic!("no event fits {pattern}")))
            }
            Method::Native { service, tools } => {
                let native = self.here().native(&service)?;
                tools.iter().try_for_each(|tool| native.put(function(tool)))?;
                native.register().await.map(|_| Value::Null)
            }
            Method::NativeRemove { service, tool } => Ok(self.here().native(&service)?.remove(&tool).into()),
            Method::Wait { of } => {
                let outcome = self.background.remove(&of).unwrap_or_else(|| panic!("`{of}` is not in the background"));
                outcome.await.expect("a step in the background ends")
            }
            Method::Close {} => {
                if let Some(machina) = &self.here {
                    machina.close().await;
                }
                Ok(Value::Null)
            }
            other => ask(&*self.subject, other).await,
        }
    }

    fn here(&self) -> &Machina {
        self.here.as_ref().expect("functions are only in the process of the registry: `only` says so")
    }
}

async fn next_that_fits(stream: &mut EventStream, pattern: &Value) -> Value {
    loop {
        match stream.next().await {
            Next::Event(event) => {
                let event = serde_json::to_value(&*event).expect("an event is JSON");
                if fits(pattern, &event).is_ok() {
                    return event;
                }
            }
            Next::Resync => panic!("the stream has a gap"),
        }
    }
}

async fn ask(subject: &dyn Subject, method: Method) -> Result<Value> {
    let name = |name: &str| ServiceName::new(name);
    match method {
        Method::Register { service } => put(subject, Mutation::Register(ServiceSpec::from_value(service)?)).await,
        Method::Update { name: old, service, revision: expected } => {
            let update = Mutation::Update { name: name(&old)?, spec: ServiceSpec::from_value(service)?, expected };
            put(subject, update).await
        }
        Method::Put { service } => put(subject, Mutation::Put(ServiceSpec::from_value(service)?)).await,
        Method::SetAdminState { name: of, admin_state, reason } => {
            let mutation = Mutation::SetAdminState { name: name(&of)?, instance: None, admin_state, reason };
            put(subject, mutation).await
        }
        Method::PinTools { name: of, pinning } => put(subject, Mutation::PinTools { name: name(&of)?, pinning }).await,
        Method::PutGroup { group, revision, create_only } => {
            let spec = GroupSpec::from_value(group)?;
            shown(&subject.put_group(spec, revision, create_only.unwrap_or_default()).await?)
        }
        Method::Group { name } => shown(&subject.group(&name).await?),
        Method::Groups {} => shown(&subject.groups().await?),
        Method::RemoveGroup { name, revision } => shown(&subject.remove_group(&name, revision).await?),
        Method::Deregister { name: gone } => {
            shown(&subject.apply(vec![Mutation::Deregister { name: name(&gone)?, expected: None }]).await?)
        }
        Method::Get { name } => shown(&subject.get(&name).await?),
        Method::Find(query) => shown(&subject.find(&query).await?),
        Method::Tools(query) => shown(&subject.tools(&query).await?),
        Method::FindTools { text, limit } => shown(&subject.find_tools(&text, limit.unwrap_or(5)).await?),
        Method::Call(Call { service, tool, arguments, timeout_ms, idempotency_key }) => {
            let timeout = timeout_ms.map(Duration::from_millis);
            let options = CallOptions { timeout, idempotency_key, ..CallOptions::default() };
            shown(&subject.call(&ToolCall { service, tool, arguments }, &options).await?.annotated())
        }
        Method::Explain { service, tool } => shown(&subject.explain(&service, tool.as_deref()).await?),
        Method::Health { name } => shown(&subject.health(&name).await?),
        _ => Err(Error::internal("only what the registry itself answers can be in the background")),
    }
}

async fn put(subject: &dyn Subject, mutation: Mutation) -> Result<Value> {
    shown(&subject.apply(vec![mutation]).await?.services[0])
}

fn shown(answer: &impl Serialize) -> Result<Value> {
    serde_json::to_value(answer).map_err(|error| Error::internal("an answer is no JSON").caused_by(error))
}

/// The functions that every runner has.
fn function(name: &str) -> NativeTool {
    let schema = |properties: Value, required: &[&str]| json!({"type": "object", "properties": properties, "required": required, "additionalProperties": false});
    type Arguments = Map<String, Value>;
    match name {
        "double" => {
            let schema = schema(json!({"n": {"type": "integer"}}), &["n"]);
            NativeTool::new(name, schema, |arguments: Arguments, _: CallContext| async move {
                Ok::<_, String>(json!({"doubled": arguments["n"].as_i64().map(|n| 2 * n)}))
            })
            .description("Doubles a number.")
        }
        "greet" => {
            let schema = schema(json!({"name": {"type": "string"}}), &["name"]);
            NativeTool::new(name, schema, |arguments: Arguments, _: CallContext| async move {
                Ok::<_, String>(format!("Hello, {}!", arguments["name"].as_str().unwrap_or_default()))
            })
            .description("Greets someone.")
        }
        "refuse" => NativeTool::new(name, schema(json!({}), &[]), |_: Arguments, _: CallContext| async {
            Err::<(), _>("this is refused")
        })
        .description("Always fails."),
        "never" => NativeTool::new(name, schema(json!({}), &[]), |_: Arguments, _: CallContext| async {
            std::future::pending::<Result<(), String>>().await
        })
        .description("Never answers."),
        other => panic!("no runner has a function `{other}`"),
    }
}
