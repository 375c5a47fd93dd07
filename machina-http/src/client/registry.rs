//! The traits of the core, each method one request.

use std::time::Duration;

use async_trait::async_trait;
use machina_core::{
    Applied, CallOptions, CallReport, Error, EventStream, Explanation, GroupReport, GroupSpec, Mutation, Page, Phase,
    Query, Registry, Result, Revision, Router, ServiceHealth, ServiceReport, ToolCall, ToolPage, ToolQuery, ToolReport,
    ToolResult,
};
use serde::Deserialize;
use serde_json::json;

use super::Client;
use crate::mutations::Mutations;

/// The longest that any server lets a call take.
const CALL_TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// How much longer than the call its answer may take.
const CALL_SLACK: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Found {
    items: Vec<ToolReport>,
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Registry for Client {
    async fn apply(&self, mutations: Vec<Mutation>) -> Result<Applied> {
        self.post(&["services:bulk"], &Mutations::of(mutations)?, None).await
    }

    async fn get(&self, name: &str) -> Result<ServiceReport> {
        self.read(&["services", name], &[]).await
    }

    async fn find(&self, query: &Query) -> Result<Page<ServiceReport>> {
        self.read(&["services"], &query.to_pairs()).await
    }

    async fn tools(&self, query: &ToolQuery) -> Result<ToolPage> {
        let limit = query.limit.map(|limit| limit.to_string());
        let pairs = [("service", query.service.clone()), ("cursor", query.cursor.clone()), ("limit", limit)];
        let pairs: Vec<_> = pairs.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
        self.read(&["tools"], &pairs).await
    }

    async fn tool(&self, service: &str, tool: &str) -> Result<ToolReport> {
        self.read(&["services", service, "tools", tool], &[]).await
    }

    async fn find_tools(&self, text: &str, limit: usize) -> Result<Vec<ToolReport>> {
        let found: Found = self.post(&["tools:find"], &json!({"text": text, "limit": limit}), None).await?;
        Ok(found.items)
    }

    async fn health(&self, name: &str) -> Result<ServiceHealth> {
        self.read(&["services", name, "health"], &[]).await
    }

    /// The stream outlives its connection: it is opened again from where it stood,
    /// and tells the reader to resync if that is not possible.
    async fn watch(&self, since: Option<Revision>) -> Result<EventStream> {
        self.events(since).await
    }

    async fn groups(&self) -> Result<Vec<GroupReport>> {
        Ok(self.read::<Page<GroupReport>>(&["groups"], &[]).await?.items)
    }

    async fn group(&self, name: &str) -> Result<GroupReport> {
        self.read(&["groups", name], &[]).await
    }

    async fn put_group(&self, spec: GroupSpec, expected: Option<Revision>, create_only: bool) -> Result<GroupReport> {
        if create_only {
            return self.post(&["groups"], &spec, None).await;
        }
        self.put(&["groups", spec.name.as_str()], &spec, expected).await
    }

    async fn remove_group(&self, name: &str, expected: Option<Revision>) -> Result<Revision> {
        self.delete(&["groups", name], expected).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Router for Client {
    async fn explain(&self, service: &str, tool: Option<&str>) -> Result<Explanation> {
        let pairs: Vec<_> = tool.map(|tool| ("tool", tool.to_owned())).into_iter().collect();
        self.read(&["services", service, "explain"], &pairs).await
    }

    /// Progress is not told, because the answer is one message, and `_meta` is not passed on.
    async fn call(&self, call: &ToolCall, options: &CallOptions) -> Result<CallReport> {
        let mut body = json!({"tool": call.tool, "arguments": call.arguments});
        if let Some(timeout) = options.timeout {
            body["timeout_ms"] = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).into();
        }
        if let Some(key) = &options.idempotency_key {
            body["idempotency_key"] = key.as_str().into();
        }
        if let Some(key) = &options.affinity_key {
            body["affinity_key"] = key.as_str().into();
        }
        let patience = options.timeout.unwrap_or(CALL_TIMEOUT_MAX).min(CALL_TIMEOUT_MAX) + CALL_SLACK;
        let path = ["services", call.service.as_str(), "call"];
        let answered = tokio::select! {
            answered = self.post::<ToolResult>(&path, &body, Some(patience)) => answered,
            () = options.cancelled.cancelled() => {
                Err(Error::timeout("the caller cancelled the call").at(Phase::MaybeExecuted))
            }
        };
        answered.and_then(CallReport::of_annotated).map_err(|error| {
            error.with(|context| {
                context.service.get_or_insert_with(|| call.service.to_string());
                context.tool.get_or_insert_with(|| call.tool.to_string());
            })
        })
    }
}
