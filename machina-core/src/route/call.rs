//! The loop that carries a request: pick, open, send, record, decide. There is no
//! other place that retries, and failover is picking again.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::balance::{CallKey, FAILURE_PENALTY};
use super::classify::{Decision, Failure, decide};
use super::eligible::best;
use super::options::CallOptions;
use super::outbound::Outbound;
use super::report::Attempt;
use crate::config::Config;
use crate::connect::{CallContext, ProgressSink};
use crate::error::{Error, Outcome, Phase, Result};
use crate::health::Observation;
use crate::model::InstanceId;
use crate::sessions::{Opened, Sessions, target};
use crate::view::{InstanceView, ServiceView};

/// How many attempts of a call may come to nothing before anything is sent.
const UNSENT_ATTEMPTS_MAX: usize = 5;

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
struct Progressing<'a, O: Outbound> {
    route: &'a Route<'a>,
    outbound: &'a O,
    deadline: Instant,
    attempts: Vec<Attempt>,
    /// How often each instance was tried.
    tried: HashMap<InstanceId, u32>,
    /// Some attempt may have been executed.
    unknown: bool,
    /// How far the progress had come that was passed on.
    furthest: Arc<Mutex<Option<f64>>>,
}

/// An answer, and how it was come by.
pub(crate) struct Carried<A> {
    pub(crate) answer: A,
    pub(crate) instance: InstanceId,
    /// Every attempt, the last one successful.
    pub(crate) attempts: Vec<Attempt>,
    /// How long it took in all, in milliseconds.
    pub(crate) duration_ms: f64,
}

/// Carries `outbound` to an instance and returns its answer.
///
/// # Errors
/// The error of the last attempt, with the number of attempts, the instance and
/// what is known about the effect of the request in its context.
pub(crate) async fn carry<O: Outbound>(
    route: &Route<'_>,
    outbound: &O,
    options: &CallOptions,
) -> Result<Carried<O::Answer>> {
    let started = Instant::now();
    let policy = &route.view.service().spec.routing_policy;
    let timeout = options.timeout.unwrap_or_else(|| route.config.routing.timeout(policy));
    let mut progressing = Progressing {
        route,
        outbound,
        deadline: started + timeout,
        attempts: Vec::new(),
        tried: HashMap::new(),
        unknown: false,
        furthest: Arc::default(),
    };
    let safe = options.idempotency_key.is_some() || outbound.is_repeatable(route.view, &route.config.routing);
    let (answer, instance) = progressing.run(options, safe).await?;
    let duration_ms = millis(started.elapsed());
    Ok(Carried { answer, instance, attempts: progressing.attempts, duration_ms })
}

impl<O: Outbound> Progressing<'_, O> {
    async fn run(&mut self, options: &CallOptions, safe: bool) -> Result<(O::Answer, InstanceId)> {
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
        let candidates = best(view, self.outbound.tool(), |id| self.tried.get(&id).is_none_or(|n| *n == 0));
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
    ) -> std::result::Result<(O::Answer, InstanceId), (Failure, Error)> {
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
                seen.cell.statistics.attempted(elapsed, None);
                (self.route.observe)(instance.id, Observation::pass(elapsed));
                Ok((result, instance.id))
            }
            Err(error) => {
                let failure = Failure::of(&error, self.has_progressed(), stale);
                let answered = failure.phase == Phase::Answered;
                if !cancelled {
                    seen.cell.statistics.attempted(elapsed, Some(error.kind()));
                    seen.cell.observe_latency(if answered { elapsed } else { elapsed.max(FAILURE_PENALTY) });
                    (self.route.observe)(instance.id, Observation::of_failed_call(&error));
                }
                Err((failure, error))
            }
        }
    }

    /// Opens or finds the session and sends the request; says whether the session
    /// had been open before and turned out to be over.
    async fn send(&self, index: usize, seen: &InstanceView, options: &CallOptions) -> (Result<O::Answer>, bool) {
        let opened = match self.open(index, seen, options).await {
            Ok(opened) => opened,
            Err(error) => return (Err(error.at(Phase::NotSent)), false),
        };
        let context = CallContext {
            deadline: self.deadline,
            idle_timeout: None,
            cancelled: options.cancelled.clone(),
            progress: options.progress.clone().map(|sink| self.noting_progress(sink)),
            log: options.log.clone(),
            meta: options.meta.clone(),
        };
        let outcome = self.outbound.send(&*opened.session, &context).await;
        // A session that is still open after the call was not stale.
        let stale = opened.reused && opened.session.is_closed();
        (outcome, stale)
    }

    async fn open(&self, index: usize, seen: &InstanceView, options: &CallOptions) -> Result<Opened> {
        let gone = || Error::internal("the instance is gone");
        let instance = self.route.view.service().spec.instances.get(index).ok_or_else(gone)?;
        let sessions = self.route.sessions;
        if let Some(session) = sessions.current(instance.id) {
            return Ok(Opened { session, reused: true });
        }
        let target = target(self.route.view, index, seen, &self.route.config.sessions).ok_or_else(gone)?;
        tokio::select! {
            () = options.cancelled.cancelled() => Err(Error::timeout("the caller cancelled the call")),
            opened = tokio::time::timeout_at(self.deadline, sessions.open(&target)) => {
                opened.unwrap_or_else(|_| Err(Error::timeout("the deadline passed while the instance was starting")))
            }
        }
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
            context.service = Some(self.route.view.service().name().to_string());
            context.tool = self.outbound.tool().map(str::to_owned);
            context.attempts = u32::try_from(self.attempts.len()).ok();
            context.instance = self.attempts.last().map(|attempt| attempt.instance.to_string());
            context.outcome = match context.phase {
                // An answer that is no result does not say what was done.
                Some(Phase::Answered) => context.outcome.or(Some(Outcome::Executed)),
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
            let tool = self.outbound.tool();
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
