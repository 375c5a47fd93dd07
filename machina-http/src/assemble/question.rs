//! What may be asked in JSON, and which method of the facade answers it. One
//! question, one method: nothing is decided here.

use std::time::Duration;

use machina_core::{
    CallOptions, CallReport, EntryKind, Error, GroupSpec, InstanceId, JournalPage, JournalQuery, ProgressSink, Query,
    Result, Revision, Router, ServiceName, Timestamp, ToolCall, ToolName, ToolQuery,
};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use super::embedded::{Embedded, Whom, only_here};
use super::json::{read, written};
use crate::mutations_from;

/// A question, written `{"health": {"service": "time"}}`.
#[derive(Debug)]
pub struct Question(Kind);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
enum Kind {
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
struct JournalPart {
    kind: EntryKind,
    service: Option<ServiceName>,
    instance: Option<InstanceId>,
    since: Option<Timestamp>,
    cursor: Option<String>,
    limit: u32,
}

impl Question {
    /// Reads a question.
    ///
    /// # Errors
    /// [`Invalid`](machina_core::ErrorKind::Invalid), naming the field as it is called
    /// within the question.
    pub fn read(json: &[u8]) -> Result<Self> {
        read(json).map(Self).map_err(|error| {
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
    pub(super) fn only_reads(&self) -> bool {
        use Kind::{Apply, Check, Journal, PutGroup, RemoveGroup};
        !matches!(self.0, PutGroup { .. } | RemoveGroup { .. } | Apply { .. } | Check { .. } | Journal { .. })
    }

    pub(super) async fn answer(self, asked: &Embedded) -> Result<String> {
        let (registry, router) = (&asked.registry, &asked.router);
        match self.0 {
            Kind::Get { service } => written(&registry.get(&service).await?),
            Kind::Find(query) => written(&registry.find(&query).await?),
            Kind::Tools(query) => written(&registry.tools(&query).await?),
            Kind::Tool { service, tool } => written(&registry.tool(&service, &tool).await?),
            Kind::FindTools { text, limit } => written(&registry.find_tools(&text, limit).await?),
            Kind::Health { service } => written(&registry.health(&service).await?),
            Kind::Explain { service, tool } => written(&router.explain(&service, tool.as_deref()).await?),
            Kind::Groups {} => written(&registry.groups().await?),
            Kind::Group { name } => written(&registry.group(&name).await?),
            Kind::PutGroup { group, expected, create_only } => {
                written(&registry.put_group(GroupSpec::from_value(group)?, expected, create_only).await?)
            }
            Kind::RemoveGroup { name, expected } => written(&registry.remove_group(&name, expected).await?),
            Kind::Apply { mutations } => {
                written(&registry.apply(mutations_from(json!({ "mutations": mutations }))?).await?)
            }
            Kind::Overview {} => match &asked.whom {
                Whom::Here(here) => written(&here.overview()),
                Whom::There(there) => written(&there.overview().await?),
            },
            Kind::Heartbeat { service, instance } => match &asked.whom {
                Whom::Here(here) => written(&here.heartbeat(&service, instance)?),
                Whom::There(there) => written(&there.heartbeat(&service, instance).await?),
            },
            Kind::Check { service } => match &asked.whom {
                Whom::Here(here) => written(&here.check(&service).await?),
                Whom::There(_) => Err(only_here("be told to probe")),
            },
            Kind::Journal(part) => match &asked.whom {
                Whom::Here(here) => {
                    let JournalPage { entries, next } = here.journal(&part.query()?).await?;
                    written(&json!({"items": entries, "next_cursor": next.map(|next| next.to_string())}))
                }
                Whom::There(_) => Err(only_here("show its journal")),
            },
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

/// A call, with its circumstances: `{"service", "tool", "arguments", "timeout_ms",
/// "idempotency_key", "affinity_key", "meta"}`, of which the first two must be there.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
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

impl Call {
    /// Reads a call.
    ///
    /// # Errors
    /// [`Invalid`](machina_core::ErrorKind::Invalid), naming the field.
    pub fn read(json: &[u8]) -> Result<Self> {
        read(json)
    }

    pub(super) async fn carry(
        self,
        router: &dyn Router,
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
