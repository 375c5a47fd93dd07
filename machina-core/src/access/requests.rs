//! What a principal asks of instances: calls of tools, and requests for the
//! prompts and resources that they publish.

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::principal::Role;
use super::scoped::{Scoped, no_tool};
use crate::clock;
use crate::error::{Outcome, Result};
use crate::health::Observation;
use crate::machina::Router;
use crate::model::{InstanceId, ToolCall};
use crate::route::{
    CallKey, CallOptions, CallReport, Carried, Explanation, Recall, Route, UpstreamRequest, carry, explain,
};
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
        self.admit(&view).await?;
        let observe = |instance, observation| self.core.observe_call(&view, instance, observation);
        let hint = |instance| self.core.look_at(instance);
        let carried = carry(&self.route(&view, &observe, &hint), request, options).await?;
        Ok(carried.answer)
    }

    fn route<'a>(
        &'a self,
        view: &'a ServiceView,
        observe: &'a (dyn Fn(InstanceId, Observation) + Send + Sync),
        hint: &'a (dyn Fn(InstanceId) + Send + Sync),
    ) -> Route<'a> {
        let core = &self.core;
        Route { view, sessions: &core.sessions, config: &core.config, key: key(view.next_call()), observe, hint }
    }

    /// The answer to a call: one that is kept, or that of an instance.
    async fn answer(
        &self,
        view: &ServiceView,
        request: &ToolCall,
        options: &CallOptions,
        started: tokio::time::Instant,
    ) -> Result<CallReport> {
        check_arguments(view, request)?;
        let (core, tenant) = (&self.core, self.principal.tenant.as_deref());
        let recall = Recall::of(view, tenant, request, options);
        if let Some(recall) = &recall
            && let Some(kept) = Box::pin(recall.find(&core.scratches, started)).await
        {
            return Ok(kept);
        }
        let observe = |instance, observation| core.observe_call(view, instance, observation);
        let hint = |instance| core.look_at(instance);
        let carried = carry(&self.route(view, &observe, &hint), request, options).await?;
        let Carried { answer, instance, attempts, duration_ms } = carried;
        let report = CallReport { result: answer, instance, attempts, duration_ms, age_ms: None };
        if let Some(recall) = &recall {
            Box::pin(recall.keep(&core.scratches, &report)).await;
        }
        Ok(report)
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
        let (tried, success, error) = match outcome {
            Ok(report) => (report.attempts.clone(), !report.result.is_error(), None),
            Err(error) => (error.context().tried.clone(), false, Some(error.kind().to_string())),
        };
        let keeps = self.core.config.journal.keep_arguments;
        self.core.recorder.record(Entry {
            at: clock::now(),
            service: Some(call.service.clone()),
            instance: match outcome {
                Ok(report) => Some(report.instance),
                Err(error) => error.context().instance.as_deref().and_then(|id| id.parse().ok()),
            },
            what: What::Call {
                tool: call.tool.to_string(),
                principal: self.principal.id.clone(),
                duration_ms: started.elapsed().as_secs_f64() * 1000.0,
                attempts: u32::try_from(tried.len()).unwrap_or(u32::MAX),
                success,
                error,
                tried,
                arguments: keeps.then(|| kept(&call.arguments)).flatten(),
            },
        });
    }
}

#[async_trait]
impl Router for Scoped {
    async fn explain(&self, service: &str, tool: Option<&str>) -> Result<Explanation> {
        let view = self.routed(service, tool)?;
        Ok(explain(&view, tool, key(view.routed_calls()), &self.core.config))
    }

    async fn call(&self, request: &ToolCall, options: &CallOptions) -> Result<CallReport> {
        self.principal.require(Role::Developer, "call tools")?;
        options.validate()?;
        let view = self.routed(request.service.as_str(), Some(request.tool.as_str()))?;
        self.admit(&view).await?;
        let started = tokio::time::Instant::now();
        let outcome = self.answer(&view, request, options, started).await;
        self.record_call(request, started, &outcome);
        if !options.cancelled.is_cancelled() {
            count(&view, request, started.elapsed(), &outcome);
        }
        outcome.inspect_err(|error| self.core.doubt_definitions(&view, error))
    }
}

/// How long arguments may be that are kept, in bytes.
const ARGUMENTS_MAX: usize = 16 * 1024;

/// The arguments of a call as the journal keeps them.
fn kept(arguments: &Map<String, Value>) -> Option<Value> {
    let length = serde_json::to_string(arguments).map_or(usize::MAX, |text| text.len());
    (length <= ARGUMENTS_MAX).then(|| Value::Object(arguments.clone()))
}

/// Holds the arguments against what the tool takes, unless the service is not to be
/// spoken for.
fn check_arguments(view: &ServiceView, call: &ToolCall) -> Result<()> {
    let offered = view.tool(call.tool.as_str()).filter(|_| view.routing.validate_arguments);
    let checked = offered.map_or(Ok(()), |offered| offered.tool.check_arguments(&call.arguments));
    checked.map_err(|error| {
        error.with(|context| {
            context.service = Some(call.service.to_string());
            context.tool = Some(call.tool.to_string());
            context.attempts = Some(0);
            context.outcome = Some(Outcome::NotExecuted);
        })
    })
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
    // A scramble (splitmix64): the balancer needs no more than spread.
    let mut random = ordinal.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    random = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    random = (random ^ (random >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    CallKey { ordinal, random: random ^ (random >> 31) }
}

#[cfg(test)]
#[path = "requests_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "pins_tests.rs"]
mod pins_tests;
