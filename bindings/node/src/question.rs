//! What JavaScript may ask, in JSON, and which method of the facade answers it. One
//! question, one method: nothing is decided here.

use std::sync::Arc;
use std::time::Duration;

use machina_core::json::strict_from_slice;
use machina_core::{
    CallOptions, CallReport, EntryKind, Error, GroupSpec, InstanceId, JournalPage, JournalQuery, ProgressSink, Query,
    Registry, Result, Revision, Router, Scoped, ServiceName, Timestamp, ToolCall, ToolName, ToolQuery,
};
use machina_http::{Client, mutations_from};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::failure::only_here;

/// What is asked: a registry in this process, or one elsewhere.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) registry: Arc<dyn Registry>,
    pub(crate) router: Arc<dyn Router>,
    pub(crate) here: Option<Scoped>,
    pub(crate) there: Option<Client>,
}

/// A question, written `{"health": {"service": "time"}}`.
#[derive(Debug, Deserialize)]
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
#[derive(Debug, Deserialize)]
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
#[derive(Debug, Deserialize)]
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

/// Reads what JavaScript wrote.
///
/// # Errors
/// [`Invalid`](machina_core::ErrorKind::Invalid), naming the field.
pub(crate) fn read<T: DeserializeOwned>(json: &str) -> Result<T> {
    typed(strict_from_slice(json.as_bytes()).map_err(|error| Error::invalid(format!("is no JSON: {error}")))?)
}

/// The same of a value.
///
/// # Errors
/// As [`read`].
pub(crate) fn typed<T: DeserializeOwned>(value: Value) -> Result<T> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        Error::invalid_field(if path == "." { "value" } else { &path }, error.into_inner().to_string())
    })
}

pub(crate) fn written<T: Serialize>(answer: &T) -> Result<String> {
    serde_json::to_string(answer).map_err(|error| Error::internal("an answer is no JSON").caused_by(error))
}

impl Asked {
    /// What a registry in this process, or a part of it, is asked.
    pub(crate) fn of_scoped(scoped: Scoped) -> Self {
        let whole = Arc::new(scoped.clone());
        Self { registry: whole.clone(), router: whole, here: Some(scoped), there: None }
    }

    /// What one elsewhere is asked.
    pub(crate) fn of_client(client: &Client) -> Self {
        let whole = Arc::new(client.clone());
        Self { registry: whole.clone(), router: whole, here: None, there: Some(client.clone()) }
    }

    /// The answer to `question`, in JSON.
    ///
    /// # Errors
    /// What the facade says.
    pub(crate) async fn answer(self, question: Question) -> Result<String> {
        let registry = &self.registry;
        match question {
            Question::Get { service } => written(&registry.get(&service).await?),
            Question::Find(query) => written(&registry.find(&query).await?),
            Question::Tools(query) => written(&registry.tools(&query).await?),
            Question::Tool { service, tool } => written(&registry.tool(&service, &tool).await?),
            Question::FindTools { text, limit } => written(&registry.find_tools(&text, limit).await?),
            Question::Health { service } => written(&registry.health(&service).await?),
            Question::Explain { service, tool } => written(&self.router.explain(&service, tool.as_deref()).await?),
            Question::Groups {} => written(&registry.groups().await?),
            Question::Group { name } => written(&registry.group(&name).await?),
            Question::PutGroup { group, expected, create_only } => {
                written(&registry.put_group(GroupSpec::from_value(group)?, expected, create_only).await?)
            }
            Question::RemoveGroup { name, expected } => written(&registry.remove_group(&name, expected).await?),
            Question::Apply { mutations } => {
                written(&registry.apply(mutations_from(json!({ "mutations": mutations }))?).await?)
            }
            Question::Overview {} => match (&self.here, &self.there) {
                (Some(here), _) => written(&here.overview()),
                (None, Some(there)) => written(&there.overview().await?),
                (None, None) => Err(only_here("be counted")),
            },
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

impl JournalPart {
    fn query(self) -> Result<JournalQuery> {
        let before = self.cursor.map(|cursor| cursor.parse()).transpose();
        let before = before.map_err(|_| Error::invalid_field("cursor", "must be `next_cursor` of a page as it is"))?;
        let Self { kind, service, instance, since, limit, .. } = self;
        Ok(JournalQuery { kind, service, instance, since, before, limit })
    }
}

impl Call {
    /// Carries the call, until `cancelled` fires.
    ///
    /// # Errors
    /// What the router says.
    pub(crate) async fn carry(
        self,
        router: Arc<dyn Router>,
        cancelled: CancellationToken,
        progress: Option<ProgressSink>,
    ) -> Result<String> {
        let Self { service, tool, arguments, timeout_ms, idempotency_key, affinity_key, meta } = self;
        let call = ToolCall { service, tool, arguments };
        let timeout = timeout_ms.map(Duration::from_millis);
        let options =
            CallOptions { timeout, idempotency_key, affinity_key, cancelled, progress, meta, ..CallOptions::default() };
        written(&CallReport::annotated(router.call(&call, &options).await?))
    }
}
