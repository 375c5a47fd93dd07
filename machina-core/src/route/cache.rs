//! Answers that are kept for a while and given again to the same question, so that
//! no instance is asked: only of tools that the operator lists with a time, only
//! where they are trusted to be read-only. Refuses errors, answers of tools that
//! have changed since, and callers who do not see the same services.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::eligible::reads_only;
use super::options::CallOptions;
use super::report::CallReport;
use crate::clock;
use crate::connect::LOG_LEVEL;
use crate::model::{InstanceId, ToolCall, ToolResult};
use crate::replies::RequestHash;
use crate::scratch::Scratches;
use crate::view::ServiceView;

/// How long an answer may be that is kept, in bytes of JSON.
const ANSWER_BYTES_MAX: usize = 1024 * 1024;

/// What a request may have in its `_meta` without being another question.
const NEUTRAL_META: [&str; 4] = ["traceparent", "tracestate", "baggage", LOG_LEVEL];

/// Where the answer to a call is kept, and for how long.
#[derive(Debug)]
pub(crate) struct Recall {
    key: String,
    time: Duration,
}

/// An answer as it is kept.
#[derive(Serialize, Deserialize)]
struct KeptAnswer {
    /// When it came, in milliseconds since 1970.
    at: i64,
    instance: InstanceId,
    result: ToolResult,
}

impl Recall {
    /// Where the answer to `call` of someone of `tenant` is kept, if it may be.
    pub(crate) fn of(view: &ServiceView, tenant: Option<&str>, call: &ToolCall, options: &CallOptions) -> Option<Self> {
        let service = view.service();
        let policy = &service.spec.routing_policy;
        if policy.cached_tools.is_empty() {
            return None;
        }
        let (tool, time) = (call.tool.as_str(), policy.cached_tools.get(call.tool.as_str())?.0);
        let offered = view.tool(tool)?;
        let neutral = options.meta.keys().all(|name| NEUTRAL_META.contains(&name.as_str()));
        if !neutral || !reads_only(view, tool) {
            return None;
        }
        let arguments = serde_json_canonicalizer::to_vec(&call.arguments).ok()?;
        let (id, revision) = (service.id.to_string(), service.revision.to_string());
        let class = tenant.map_or_else(String::new, |tenant| format!("tenant {tenant}"));
        let parts: [&[u8]; 5] =
            [id.as_bytes(), revision.as_bytes(), class.as_bytes(), offered.tool.hash().as_bytes(), &arguments];
        Some(Self { key: RequestHash::of(parts).as_str().to_owned(), time })
    }

    /// The answer that is kept here or by another replica, if it is still of use.
    pub(crate) async fn find(&self, scratches: &Scratches, started: Instant) -> Option<CallReport> {
        if let Some(own) = scratches.own(&self.key) {
            return self.read(&own, started).map(|(report, _)| report);
        }
        let shared = scratches.shared(&self.key).await?;
        let (report, left) = self.read(&shared, started)?;
        scratches.keep_own(&self.key, shared, left);
        Some(report)
    }

    /// Keeps the answer of `report`, unless it tells of an error or is too long.
    pub(crate) async fn keep(&self, scratches: &Scratches, report: &CallReport) {
        if report.result.is_error() {
            return;
        }
        let at = clock::now().as_millisecond();
        let answer = KeptAnswer { at, instance: report.instance, result: report.result.clone() };
        let Some(bytes) = serde_json::to_vec(&answer).ok().filter(|bytes| bytes.len() <= ANSWER_BYTES_MAX) else {
            return;
        };
        scratches.keep_shared(&self.key, &bytes, self.time).await;
        scratches.keep_own(&self.key, bytes.into(), self.time);
    }

    /// What `bytes` tell, and for how long they may still be told.
    fn read(&self, bytes: &[u8], started: Instant) -> Option<(CallReport, Duration)> {
        let KeptAnswer { at, instance, result } = serde_json::from_slice(bytes).ok()?;
        // The clock of another replica may be ahead of ours.
        let age_ms = u64::try_from(clock::now().as_millisecond().saturating_sub(at)).unwrap_or(0);
        let left = self.time.checked_sub(Duration::from_millis(age_ms)).filter(|left| !left.is_zero())?;
        let duration_ms = started.elapsed().as_secs_f64() * 1000.0;
        Some((CallReport { result, instance, attempts: Vec::new(), duration_ms, age_ms: Some(age_ms) }, left))
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
