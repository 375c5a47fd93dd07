//! What a principal asks of instances: calls of tools, and requests for the
//! prompts and resources that they publish.

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::principal::Role;
use super::scoped::{Scoped, no_tool};
use crate::clock;
use crate::error::Result;
use crate::machina::Router;
use crate::model::ToolCall;
use crate::route::{CallKey, CallOptions, CallReport, Carried, Explanation, Route, UpstreamRequest, carry, explain};
use crate::statistics::CallOutcome;
use crate::store::{Entry, What};
use crate::view::ServiceView;

impl Scoped {
    /// Asks an instance of a service for something that it publishes besides
    /// tools, such as a prompt, and returns its result word for word.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) for a method that is not
    /// passed on; else as [`Router::call`].
    pub async fn request(
        &self,
        service: &str,
        request: &UpstreamRequest,
        options: &CallOptions,
    ) -> Result<Map<String, Value>> {
        self.principal.require(Role::Developer, "read what services publish")?;
        options.validate()?;
        request.validate()?;
        let view = self.service(service)?;
        let observe = |instance, observation| self.core.observe_call(&view, instance, observation);
        let carried = carry(&self.route(&view, &observe), request, options).await?;
        Ok(carried.answer)
    }

    fn route<'a>(
        &'a self,
        view: &'a ServiceView,
        observe: &'a (dyn Fn(crate::model::InstanceId, crate::health::Observation) + Send + Sync),
    ) -> Route<'a> {
        let core = &self.core;
        Route { view, sessions: &core.sessions, config: &core.config, key: key(view.next_call()), observe }
    }

    /// The service and tool of a call, as far as the principal may see them.
    fn routed(&self, service: &str, tool: Option<&str>) -> Result<std::sync::Arc<ServiceView>> {
        let view = self.service(service)?;
        match tool {
            Some(tool) if view.has_definitions() && view.tool(tool).is_none() => Err(no_tool(&view, tool)),
            _ => Ok(view),
        }
    }

    fn record_call(&self, call: &ToolCall, started: tokio::time::Instant, outcome: &Result<CallReport>) {
        let (attempts, success, error) = match outcome {
            Ok(report) => (report.attempts.len(), !report.result.is_error(), None),
            Err(error) => (error.context().attempts.unwrap_or(0) as usize, false, Some(error.kind().to_string())),
        };
        self.core.recorder.record(Entry {
            at: clock::now(),
            service: Some(call.service.clone()),
            instance: outcome.as_ref().ok().map(|report| report.instance),
            what: What::Call {
                tool: call.tool.to_string(),
                principal: self.principal.id.clone(),
                duration_ms: started.elapsed().as_secs_f64() * 1000.0,
                attempts: u32::try_from(attempts).unwrap_or(u32::MAX),
                success,
                error,
            },
        });
    }
}

#[async_trait]
impl Router for Scoped {
    async fn explain(&self, service: &str, tool: Option<&str>) -> Result<Explanation> {
        let view = self.routed(service, tool)?;
        Ok(explain(&view, tool, key(view.routed_calls()), &self.core.config.routing))
    }

    async fn call(&self, request: &ToolCall, options: &CallOptions) -> Result<CallReport> {
        self.principal.require(Role::Developer, "call tools")?;
        options.validate()?;
        let view = self.routed(request.service.as_str(), Some(request.tool.as_str()))?;
        let started = tokio::time::Instant::now();
        let core = &self.core;
        let observe = |instance, observation| core.observe_call(&view, instance, observation);
        let carried = carry(&self.route(&view, &observe), request, options).await;
        let outcome = carried.map(|Carried { answer, instance, attempts, duration_ms }| CallReport {
            result: answer,
            instance,
            attempts,
            duration_ms,
        });
        self.record_call(request, started, &outcome);
        if !options.cancelled.is_cancelled() {
            count(&view, request, started.elapsed(), &outcome);
        }
        outcome.inspect_err(|error| core.doubt_definitions(&view, error))
    }
}

/// Counts a call that its caller did not cancel.
fn count(view: &ServiceView, call: &ToolCall, duration: std::time::Duration, outcome: &Result<CallReport>) {
    let counted = match outcome {
        Ok(report) if report.result.is_error() => CallOutcome::ToolError,
        Ok(_) => CallOutcome::Answered,
        Err(error) => CallOutcome::Failed(error.kind()),
    };
    view.count_call(call.tool.as_str(), duration, counted);
    if let (CallOutcome::ToolError, Ok(report)) = (counted, outcome)
        && let Some((_, seen)) = view.instance(report.instance)
    {
        seen.cell.statistics.tool_failed();
    }
}

fn key(ordinal: u64) -> CallKey {
    // A cheap scramble (splitmix64): the balancer needs no more than spread.
    let mut random = ordinal.wrapping_add(0x9e37_79b9_7f4a_7c15).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    random ^= random >> 27;
    CallKey { ordinal, random }
}

#[cfg(test)]
#[path = "requests_tests.rs"]
mod tests;
