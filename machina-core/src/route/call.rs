//! The loop that carries a call: pick, open, send, record, decide. There is no
//! other place that retries, and failover is picking again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::balance::{CallKey, FAILURE_PENALTY};
use super::classify::{Decision, Failure, decide};
use super::eligible::{best, repeatable};
use crate::config::Config;
use crate::connect::{CallContext, ProgressSink};
use crate::error::{Error, ErrorKind, Outcome, Phase, Problem, Result};
use crate::health::Observation;
use crate::model::{InstanceId, ToolCall, ToolResult};
use crate::sessions::{Sessions, target};
use crate::view::{InstanceView, ServiceView};

/// How many attempts of a call may come to nothing before anything is sent.
const UNSENT_ATTEMPTS_MAX: usize = 5;

/// The longest that a call may be allowed to take, and the longest key.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);
const KEY_MAX: usize = 255;

/// The circumstances of a call.
#[derive(Clone, Default)]
pub struct CallOptions {
    /// How long it may take in all; the service's own limit by default.
    pub timeout: Option<Duration>,
    /// Says that the caller may repeat the call: it is then repeated even if
    /// its outcome is unknown.
    pub idempotency_key: Option<String>,
    /// Fires when the caller has lost interest.
    pub cancelled: CancellationToken,
    /// Who is told about progress.
    pub progress: Option<ProgressSink>,
}

impl CallOptions {
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) with every wrong field at once.
    pub(crate) fn validate(&self) -> Result<()> {
        let mut problems = Vec::new();
        if self.timeout.is_some_and(|timeout| timeout.is_zero() || timeout > TIMEOUT_MAX) {
            let detail = format!("must be 1 to {}", TIMEOUT_MAX.as_millis());
            problems.push(Problem { field: "timeout_ms".to_owned(), detail });
        }
        let fits = |key: &String| (1..=KEY_MAX).contains(&key.len()) && !key.chars().any(char::is_control);
        if !self.idempotency_key.as_ref().is_none_or(fits) {
            let detail = format!("must have 1 to {KEY_MAX} bytes, and no control characters");
            problems.push(Problem { field: "idempotency_key".to_owned(), detail });
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::invalid_fields(problems)) }
    }
}

impl std::fmt::Debug for CallOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallOptions")
            .field("timeout", &self.timeout)
            .field("idempotency_key", &self.idempotency_key.is_some())
            .field("progress", &self.progress.is_some())
            .finish_non_exhaustive()
    }
}

/// One attempt of a call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Attempt {
    /// The instance.
    pub instance: InstanceId,
    /// How long it took, in milliseconds.
    pub duration_ms: f64,
    /// How it failed; `None` when it answered.
    pub error: Option<ErrorKind>,
    /// How far it had come when it failed.
    pub phase: Option<Phase>,
}

/// An answer, and how it was come by.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CallReport {
    /// What the tool answered.
    pub result: ToolResult,
    /// The instance that answered.
    pub instance: InstanceId,
    /// Every attempt, the last one successful.
    pub attempts: Vec<Attempt>,
    /// How long it took in all, in milliseconds.
    pub duration_ms: f64,
}

impl CallReport {
    /// The key in `_meta` under which [`CallReport::annotated`] says how the
    /// answer was come by.
    pub const META_KEY: &'static str = "dev.machina/call";

    /// The result with `_meta` saying the instance, the number of attempts, the
    /// duration, and each attempt.
    #[must_use]
    pub fn annotated(mut self) -> ToolResult {
        let how = json!({"instance": self.instance, "attempts": self.attempts.len(), "duration_ms": self.duration_ms,
            "tried": self.attempts});
        match self.result.0.entry("_meta").or_insert_with(|| json!({})) {
            Value::Object(meta) => drop(meta.insert(Self::META_KEY.to_owned(), how)),
            other => *other = json!({ Self::META_KEY: how }),
        }
        self.result
    }

    /// What [`CallReport::annotated`] made the result of.
    ///
    /// # Errors
    /// [`Rejected`](ErrorKind::Rejected) when it did not.
    pub fn of_annotated(mut result: ToolResult) -> Result<Self> {
        #[derive(Deserialize)]
        struct How {
            instance: InstanceId,
            duration_ms: f64,
            tried: Vec<Attempt>,
        }
        let unknown =
            || Error::rejected(format!("the answer does not say in _meta[\"{}\"] how it was come by", Self::META_KEY));
        let meta = result.0.get_mut("_meta").and_then(Value::as_object_mut).ok_or_else(unknown)?;
        let how = meta.shift_remove(Self::META_KEY).ok_or_else(unknown)?;
        if meta.is_empty() {
            result.0.shift_remove("_meta");
        }
        let How { instance, duration_ms, tried } = serde_json::from_value(how).map_err(|_| unknown())?;
        Ok(Self { result, instance, attempts: tried, duration_ms })
    }
}

/// What the loop needs of the core.
pub(crate) struct Route<'a> {
    pub(crate) view: &'a ServiceView,
    pub(crate) sessions: &'a Sessions,
    pub(crate) config: &'a Config,
    pub(crate) key: CallKey,
    /// Told about every observation that an attempt makes.
    pub(crate) observe: &'a (dyn Fn(InstanceId, Observation) + Send + Sync),
}

/// The state of one call.
struct Progressing<'a> {
    route: &'a Route<'a>,
    call: &'a ToolCall,
    deadline: Instant,
    attempts: Vec<Attempt>,
    /// How often each instance was tried.
    tried: HashMap<InstanceId, u32>,
    /// Some attempt may have been executed.
    unknown: bool,
    /// How far the progress had come that was passed on.
    furthest: Arc<Mutex<Option<f64>>>,
}

/// Carries `call` to an instance and returns its answer.
///
/// # Errors
/// The error of the last attempt, with the number of attempts, the instance and
/// what is known about the effect of the call in its context.
pub(crate) async fn call(route: &Route<'_>, call: &ToolCall, options: &CallOptions) -> Result<CallReport> {
    let started = Instant::now();
    let policy = &route.view.service().spec.routing_policy;
    let timeout = options.timeout.unwrap_or_else(|| route.config.routing.timeout(policy));
    let mut progressing = Progressing {
        route,
        call,
        deadline: started + timeout,
        attempts: Vec::new(),
        tried: HashMap::new(),
        unknown: false,
        furthest: Arc::default(),
    };
    let (trusted, _) = repeatable(route.view, call.tool.as_str(), &route.config.routing);
    let safe = trusted || options.idempotency_key.is_some();
    let (result, instance) = progressing.run(options, safe).await?;
    let duration_ms = millis(started.elapsed());
    Ok(CallReport { result, instance, attempts: progressing.attempts, duration_ms })
}

impl Progressing<'_> {
    async fn run(&mut self, options: &CallOptions, safe: bool) -> Result<(ToolResult, InstanceId)> {
        let policy = &self.route.view.service().spec.routing_policy;
        let attempts_max = policy.attempts_max.unwrap_or(self.route.config.routing.attempts_max) as usize;
        let mut last: Option<Error> = None;
        let mut sent = 0;
        loop {
            let Some(index) = self.pick() else {
                return Err(self.finish(last.unwrap_or_else(|| self.nothing_left())));
            };
            let (failure, error) = match self.attempt(index, options).await {
                Ok(answered) => return Ok(answered),
                Err(failed) => failed,
            };
            sent += usize::from(failure.phase != Phase::NotSent);
            self.unknown |= matches!(failure.phase, Phase::MaybeExecuted | Phase::Committed);
            let instance = self.attempts.last().map(|attempt| attempt.instance);
            let more = match decide(failure, safe) {
                Decision::Fail => false,
                Decision::NextInstance => {
                    // Where repeating is harmless, an instance that lost the call may have it again.
                    let lost = matches!(failure.phase, Phase::MaybeExecuted | Phase::Committed);
                    if lost && self.pick().is_none() {
                        self.tried.clear();
                    }
                    true
                }
                Decision::NewSession => {
                    let again = instance.and_then(|id| self.tried.get_mut(&id)).filter(|count| **count == 1);
                    again.map(|count| *count = 0).is_some()
                }
            };
            let spent = sent >= attempts_max || self.attempts.len() - sent >= UNSENT_ATTEMPTS_MAX;
            let in_time = Instant::now() < self.deadline && !options.cancelled.is_cancelled();
            if !more || !in_time || spent {
                return Err(self.finish(error));
            }
            last = Some(error);
        }
    }

    fn pick(&self) -> Option<usize> {
        let view = self.route.view;
        let candidates = best(view, Some(self.call.tool.as_str()), |id| self.tried.get(&id).is_none_or(|n| *n == 0));
        if candidates.is_empty() {
            return None;
        }
        let kind = view.service().spec.routing_policy.balancer.unwrap_or(self.route.config.routing.balancer);
        Some(candidates[kind.balancer().pick(self.route.key, &candidates)].index)
    }

    async fn attempt(
        &mut self,
        index: usize,
        options: &CallOptions,
    ) -> std::result::Result<(ToolResult, InstanceId), (Failure, Error)> {
        let view = self.route.view;
        let Some((instance, seen)) = view.instances().nth(index) else {
            let error = Error::internal("the balancer picked an instance that does not exist").at(Phase::NotSent);
            return Err((Failure::of(&error, false, false), error));
        };
        let again = self.attempts.iter().any(|attempt| attempt.instance == instance.id);
        *self.tried.entry(instance.id).or_default() += 1 + u32::from(again);
        let _in_flight = seen.cell.enter();
        let started = Instant::now();
        let (outcome, stale) = self.send(index, seen, options).await;
        let elapsed = started.elapsed();
        let error = outcome.as_ref().err();
        self.attempts.push(Attempt {
            instance: instance.id,
            duration_ms: millis(elapsed),
            error: error.map(Error::kind),
            phase: error.and_then(|error| error.context().phase),
        });
        let cancelled = options.cancelled.is_cancelled();
        match outcome {
            Ok(result) => {
                seen.cell.observe_latency(elapsed);
                (self.route.observe)(instance.id, Observation::pass(elapsed));
                Ok((result, instance.id))
            }
            Err(error) => {
                let failure = Failure::of(&error, self.has_progressed(), stale);
                let answered = failure.phase == Phase::Answered;
                if !cancelled {
                    seen.cell.observe_latency(if answered { elapsed } else { elapsed.max(FAILURE_PENALTY) });
                    (self.route.observe)(instance.id, Observation::of_failed_call(&error));
                }
                Err((failure, error))
            }
        }
    }

    /// Opens or finds the session and sends the call; says whether the session
    /// had been open before and turned out to be over.
    async fn send(&self, index: usize, seen: &InstanceView, options: &CallOptions) -> (Result<ToolResult>, bool) {
        let Some(target) = target(self.route.view, index, seen, &self.route.config.sessions) else {
            return (Err(Error::internal("the instance is gone").at(Phase::NotSent)), false);
        };
        let opened = tokio::select! {
            () = options.cancelled.cancelled() => Err(Error::timeout("the caller cancelled the call")),
            opened = tokio::time::timeout_at(self.deadline, self.route.sessions.open(&target)) => {
                opened.unwrap_or_else(|_| Err(Error::timeout("the deadline passed while the instance was starting")))
            }
        };
        let opened = match opened {
            Ok(opened) => opened,
            Err(error) => return (Err(error.at(Phase::NotSent)), false),
        };
        let context = CallContext {
            deadline: self.deadline,
            idle_timeout: None,
            cancelled: options.cancelled.clone(),
            progress: options.progress.clone().map(|sink| self.noting_progress(sink)),
        };
        let call = opened.session.call(self.call.tool.as_str(), &self.call.arguments, &context);
        let outcome = call.await;
        // A session that is still open after the call was not stale.
        let stale = opened.reused && opened.session.is_closed();
        (outcome, stale)
    }

    fn has_progressed(&self) -> bool {
        self.furthest.lock().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    /// Passes progress on that goes beyond what the caller has seen, also from an
    /// earlier attempt: to the caller, it only ever grows.
    fn noting_progress(&self, sink: ProgressSink) -> ProgressSink {
        let furthest = Arc::clone(&self.furthest);
        Arc::new(move |progress| {
            let mut furthest = furthest.lock().unwrap_or_else(PoisonError::into_inner);
            if furthest.is_none_or(|furthest| progress.progress > furthest) {
                *furthest = Some(progress.progress);
                drop(furthest);
                sink(progress);
            }
        })
    }

    /// The error that the caller gets.
    fn finish(&self, error: Error) -> Error {
        let unknown = self.unknown;
        error.with(|context| {
            context.service = Some(self.call.service.to_string());
            context.tool = Some(self.call.tool.to_string());
            context.attempts = u32::try_from(self.attempts.len()).ok();
            context.instance = self.attempts.last().map(|attempt| attempt.instance.to_string());
            context.outcome = match context.phase {
                Some(Phase::Answered) => Some(Outcome::Executed),
                _ if unknown => Some(Outcome::Unknown),
                Some(phase) => Some(phase.outcome()),
                None => Some(Outcome::NotExecuted),
            };
        })
    }

    fn nothing_left(&self) -> Error {
        let view = self.route.view;
        let name = view.service().name();
        let reasons = view.instances().enumerate().map(|(index, (instance, seen))| {
            let tool = Some(self.call.tool.as_str());
            let (_, reason) = super::eligible::standing(view, index, instance, seen, tool);
            format!("{} ({reason})", instance.endpoint.location())
        });
        let reasons = reasons.collect::<Vec<_>>().join(", ");
        let why = if reasons.is_empty() { "it has no instances".to_owned() } else { reasons };
        Error::unavailable(format!("no instance of `{name}` can take the call: {why}"))
            .retry_after(self.route.config.health.fast_interval)
    }
}

fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(result: Value) -> CallReport {
        let instance = InstanceId::generate();
        let failed = Attempt {
            instance: InstanceId::generate(),
            duration_ms: 0.5,
            error: Some(ErrorKind::Unreachable),
            phase: Some(Phase::NotSent),
        };
        let answered = Attempt { instance, duration_ms: 2.0, error: None, phase: None };
        let result = ToolResult(result.as_object().cloned().unwrap());
        CallReport { result, instance, attempts: vec![failed, answered], duration_ms: 2.75 }
    }

    #[test]
    fn an_annotated_result_says_all_of_the_report() {
        for result in [json!({"content": []}), json!({"_meta": {"a": 1}, "content": []})] {
            let report = report(result);
            let annotated = report.clone().annotated();
            assert_eq!(annotated.0["_meta"][CallReport::META_KEY]["attempts"], 2);
            assert_eq!(CallReport::of_annotated(annotated).unwrap(), report);
        }
        let odd = report(json!({"_meta": "odd"})).annotated();
        assert_eq!(odd.0["_meta"][CallReport::META_KEY]["duration_ms"], 2.75);
    }

    #[test]
    fn a_result_without_annotation_is_no_report() {
        for result in [json!({}), json!({"_meta": {}}), json!({"_meta": {CallReport::META_KEY: {"attempts": 1}}})] {
            let error = CallReport::of_annotated(report(result).result).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Rejected);
        }
    }

    #[test]
    fn options_out_of_range_are_named() {
        let options = |timeout, key: &str| CallOptions {
            timeout: Some(timeout),
            idempotency_key: Some(key.to_owned()),
            ..CallOptions::default()
        };
        options(TIMEOUT_MAX, &"k".repeat(KEY_MAX)).validate().unwrap();
        let long = "k".repeat(KEY_MAX + 1);
        for (timeout, key) in [(Duration::ZERO, ""), (Duration::MAX, "a\nb"), (TIMEOUT_MAX * 2, &long)] {
            let error = options(timeout, key).validate().unwrap_err();
            let fields: Vec<_> = error.context().problems.iter().map(|problem| problem.field.as_str()).collect();
            assert_eq!(fields, ["timeout_ms", "idempotency_key"]);
        }
    }
}
