//! What Python may ask, in JSON, and which method of the facade answers it. One
//! question, one method: nothing is decided here.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use machina_core::json::strict_from_slice;
use machina_core::{
    CallOptions, CallReport, Config, EntryKind, Error, GroupSpec, InstanceId, JournalPage, JournalQuery, ProgressSink,
    Query, Registry, Result, Revision, Router, Scoped, ServiceName, Tasks, Timestamp, ToolCall, ToolName, ToolQuery,
};
use machina_http::assemble::{AssembleOptions, process_variables};
use machina_http::{Client, mutations_from};
use machina_mcp::client::{ClientConfig, Environment};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio::sync::oneshot;

/// What is asked of: a registry in this process, or one elsewhere.
#[derive(Clone)]
pub(crate) struct Asked {
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) router: Arc<dyn Router>,
    pub(crate) here: Option<Scoped>,
    pub(crate) there: Option<Client>,
}

/// A question, written `{"get": {"service": "time"}}`.
#[derive(Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Question {
    Get { service: String },
    Find(Box<Query>),
    Tools(ToolQuery),
    Tool { service: String, tool: String },
    FindTools { text: String, limit: usize },
    Health { service: String },
    Explain { service: String, tool: Option<String> },
    Overview {},
    Groups {},
    Group { name: String },
    PutGroup { group: Value, expected: Option<Revision>, create_only: bool },
    RemoveGroup { name: String, expected: Option<Revision> },
    Apply { mutations: Value },
    Heartbeat { service: String, instance: Option<InstanceId> },
    Check { service: String },
    Journal(JournalPart),
}

/// Which entries of the journal to read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct JournalPart {
    kind: EntryKind,
    service: Option<ServiceName>,
    instance: Option<InstanceId>,
    since: Option<Timestamp>,
    cursor: Option<String>,
    limit: u32,
}

/// A call, with its circumstances.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Call {
    service: ServiceName,
    tool: ToolName,
    #[serde(default)]
    arguments: Map<String, Value>,
    timeout_ms: Option<u64>,
    idempotency_key: Option<String>,
    affinity_key: Option<String>,
    #[serde(default)]
    meta: Map<String, Value>,
}

/// How a Machina is opened.
#[derive(Debug)]
pub(crate) struct Opening {
    core: Config,
    client: ClientConfig,
    environment: Option<BTreeMap<String, String>>,
    monitor: bool,
}

/// Reads what Python wrote.
///
/// # Errors
/// [`Invalid`](machina_core::ErrorKind::Invalid), naming the field.
pub(crate) fn read<T: DeserializeOwned>(json: &[u8]) -> Result<T> {
    typed(strict_from_slice(json).map_err(|error| Error::invalid(format!("is no JSON: {error}")))?)
}

fn typed<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        Error::invalid_field(if path == "." { "value" } else { &path }, error.into_inner().to_string())
    })
}

/// An answer in JSON.
pub(crate) fn written<T: Serialize>(answer: &T) -> Result<Vec<u8>> {
    serde_json::to_vec(answer).map_err(|error| Error::internal("an answer is no JSON").caused_by(error))
}

impl Question {
    /// Reads a question. The fields of what is wrong are those of the question itself.
    pub(crate) fn read(json: &[u8]) -> Result<Self> {
        read(json).map_err(|error| {
            let problems = error.context().problems.iter().cloned().map(|mut problem| {
                problem.field =
                    problem.field.split_once('.').map_or(problem.field.clone(), |(_, rest)| rest.to_owned());
                problem
            });
            let problems: Vec<_> = problems.collect();
            if problems.is_empty() { error } else { Error::invalid_fields(problems) }
        })
    }

    /// Whether a registry in this process answers it out of its memory.
    pub(crate) fn only_reads(&self) -> bool {
        !matches!(
            self,
            Self::PutGroup { .. }
                | Self::RemoveGroup { .. }
                | Self::Apply { .. }
                | Self::Check { .. }
                | Self::Journal { .. }
        )
    }
}

impl Asked {
    /// The answer to `question`, in JSON.
    pub(crate) async fn answer(self, question: Question) -> Result<Vec<u8>> {
        let registry = &self.registry;
        match question {
            Question::Get { service } => written(&registry.get(&service).await?),
            Question::Find(query) => written(&registry.find(&query).await?),
            Question::Tools(query) => written(&registry.tools(&query).await?),
            Question::Tool { service, tool } => written(&registry.tool(&service, &tool).await?),
            Question::FindTools { text, limit } => written(&registry.find_tools(&text, limit).await?),
            Question::Health { service } => written(&registry.health(&service).await?),
            Question::Explain { service, tool } => written(&self.router.explain(&service, tool.as_deref()).await?),
            Question::Overview {} => match (&self.here, &self.there) {
                (Some(here), _) => written(&here.overview()),
                (None, Some(there)) => written(&there.overview().await?),
                (None, None) => Err(only_here("be counted")),
            },
            Question::Groups {} => written(&registry.groups().await?),
            Question::Group { name } => written(&registry.group(&name).await?),
            Question::PutGroup { group, expected, create_only } => {
                written(&registry.put_group(GroupSpec::from_value(group)?, expected, create_only).await?)
            }
            Question::RemoveGroup { name, expected } => written(&registry.remove_group(&name, expected).await?),
            Question::Apply { mutations } => {
                written(&registry.apply(mutations_from(json!({ "mutations": mutations }))?).await?)
            }
            Question::Heartbeat { service, instance } => match (&self.here, &self.there) {
                (Some(here), _) => written(&here.heartbeat(&service, instance)?),
                (None, Some(there)) => written(&there.heartbeat(&service, instance).await?),
                (None, None) => Err(only_here("be told of heartbeats")),
            },
            Question::Check { service } => {
                written(&self.here.ok_or_else(|| only_here("be told to probe"))?.check(&service).await?)
            }
            Question::Journal(part) => {
                let here = self.here.ok_or_else(|| only_here("show its journal"))?;
                let JournalPage { entries, next } = here.journal(&part.query()?).await?;
                written(&json!({"items": entries, "next_cursor": next.map(|next| next.to_string())}))
            }
        }
    }
}

fn only_here(what: &str) -> Error {
    Error::unsupported(format!("a Machina that runs elsewhere cannot {what} through a binding"))
}

impl JournalPart {
    fn query(self) -> Result<JournalQuery> {
        let before = self.cursor.map(|cursor| cursor.parse()).transpose();
        let before = before.map_err(|_| Error::invalid_field("cursor", "must be `next_cursor` of a page as it is"))?;
        let Self { kind, service, instance, since, limit, .. } = self;
        Ok(JournalQuery { kind, service, instance, since, before, limit })
    }
}

impl Call {
    /// Carries the call. If nobody awaits it any more it is cancelled: a task then
    /// sees to it that the instance is told and the journal written.
    pub(crate) async fn carry(
        self,
        router: Arc<dyn Router>,
        tasks: Tasks,
        progress: Option<ProgressSink>,
    ) -> Result<Vec<u8>> {
        let Self { service, tool, arguments, timeout_ms, idempotency_key, affinity_key, meta } = self;
        let call = ToolCall { service, tool, arguments };
        let timeout = timeout_ms.map(Duration::from_millis);
        let options = CallOptions { timeout, idempotency_key, affinity_key, progress, meta, ..CallOptions::default() };
        let _cancelled_on_drop = options.cancelled.clone().drop_guard();
        let (answer, answered) = oneshot::channel();
        let carried = async move { drop(answer.send(router.call(&call, &options).await)) };
        tasks.attached("call", carried).await;
        let report = answered.await.unwrap_or_else(|_| Err(crate::failure::closed()))?;
        written(&CallReport::annotated(report))
    }
}

impl Opening {
    /// Reads `{"config": {…}, "environment": {…}, "monitor": true}`. In the
    /// configuration, `stdio` and `http` are the connectors' and the rest the core's.
    pub(crate) fn parse(options: &[u8]) -> Result<Self> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Options {
            #[serde(default)]
            config: Map<String, Value>,
            environment: Option<BTreeMap<String, String>>,
            monitor: bool,
        }
        let Options { mut config, environment, monitor } = read(options)?;
        let parts = ["stdio", "http"].map(|part| Some((part.to_owned(), config.shift_remove(part)?)));
        let client = typed(Value::Object(parts.into_iter().flatten().collect()))?;
        Ok(Self { core: typed(Value::Object(config))?, client, environment, monitor })
    }

    pub(crate) fn into_options(self) -> AssembleOptions {
        let Self { core, client, environment, monitor } = self;
        let environment = Environment::new(environment.unwrap_or_else(process_variables));
        AssembleOptions { config: core, client, environment, redis: None, watch: monitor }
    }
}
