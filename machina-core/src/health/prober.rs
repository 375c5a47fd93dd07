//! The default prober: asks the instance itself over the session that calls use,
//! and asks again over a new connection before it says that there is no answer.
//!
//! Says what it saw and never what that means.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::faults::{Resolver, is_unresolved, name_of, was_refused};
use super::probe::{Observation, ProbeOutcome, ProbePlan, Prober};
use crate::connect::{CallContext, Session, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::model::{Canary, Endpoint, HealthEndpoint};
use crate::random::Random;
use crate::sessions::Sessions;

/// How long calls over a connection that failed a probe may still take.
pub(crate) const CALLS_PATIENCE: Duration = Duration::from_secs(600);

/// Nothing is concluded from a failure when our own timers fire later than this.
const LATE: Duration = Duration::from_secs(1);

/// An answer that takes more than this share of its time is a slow one.
const SLOW: u32 = 2;

/// The default prober.
#[derive(Debug)]
pub(crate) struct SessionProber {
    sessions: Sessions,
    random: Arc<Random>,
    resolver: Mutex<Resolver>,
}

/// What an attempt saw.
struct Attempt {
    observation: Observation,
    /// Nobody listens there.
    refused: bool,
    /// The session over which no answer came.
    unanswered: Option<Arc<dyn Session>>,
}

impl From<Observation> for Attempt {
    fn from(observation: Observation) -> Self {
        Self { observation, refused: false, unanswered: None }
    }
}

/// When an attempt must have ended, and how long it had.
#[derive(Clone, Copy)]
struct Limit {
    until: Instant,
    time: Duration,
}

impl Limit {
    fn of(time: Duration) -> Self {
        Self { until: Instant::now() + time, time }
    }

    /// What comes of `question`, unless that takes too long.
    async fn on<T>(self, question: impl Future<Output = Result<T>>) -> Result<T> {
        let answered = timeout_at(self.until, question).await;
        answered.unwrap_or_else(|_| Err(Error::timeout(format!("no answer within {:?}", self.time))))
    }
}

#[async_trait]
impl Prober for SessionProber {
    async fn probe(&self, target: &Target, plan: &ProbePlan) -> Observation {
        let parameters = &plan.parameters;
        // Nothing is lost on the way to a process: it is asked once.
        let stdio = matches!(target.instance.endpoint, Endpoint::Stdio(_));
        let attempts_max = if stdio { 1 } else { 1 + parameters.retries };
        let (mut attempts, mut refusals) = (0, 0);
        loop {
            let time = if attempts == 0 { parameters.timeout } else { parameters.confirm_timeout };
            attempts += 1;
            let Attempt { observation, refused, unanswered } = self.attempt(target, plan, time).await;
            if let Some(session) = unanswered.filter(|_| !stdio) {
                // The next attempt, or the next probe, is made over a new connection.
                self.sessions.retire(target.instance.id, &session, CALLS_PATIENCE);
            }
            refusals += u32::from(refused);
            let again = observation.outcome == (ProbeOutcome::Fail { hard: false }) && !stdio;
            if again && refusals == 2 {
                // Refused twice: nobody listens there.
                return Observation { outcome: ProbeOutcome::Fail { hard: true }, ..observation };
            }
            if !again || (attempts >= attempts_max && !refused) {
                return observation;
            }
            let pause = parameters.confirm_delay.mul_f64(1.0 + self.random.unit());
            let due = Instant::now() + pause;
            sleep_until(due).await;
            if let Some(late) = lateness(due) {
                return late;
            }
        }
    }
}

/// What is seen when our own timers fire too late for any conclusion.
fn lateness(due: Instant) -> Option<Observation> {
    let late = due.elapsed();
    let message = || format!("Machina itself was late by {late:.1?}");
    (late > LATE).then(|| Observation::new(ProbeOutcome::Inconclusive, message()))
}

impl SessionProber {
    pub(crate) fn new(sessions: Sessions, random: Arc<Random>) -> Self {
        Self { sessions, random, resolver: Mutex::default() }
    }

    /// Asks the instance once, over a new session if there is none.
    async fn attempt(&self, target: &Target, plan: &ProbePlan, time: Duration) -> Attempt {
        let stdio = matches!(target.instance.endpoint, Endpoint::Stdio(_));
        let limit = Limit::of(time);
        let opening = self.sessions.open_to_probe(target);
        // A process has a time of its own to start.
        let opened = if stdio { opening.await } else { limit.on(opening).await };
        let limit = if stdio { Limit::of(time) } else { limit };
        let attempt = match opened {
            Ok(opened) => {
                if !opened.reused && name_of(&target.instance.endpoint).is_some() {
                    self.resolver.lock().unwrap_or_else(PoisonError::into_inner).resolved();
                }
                self.examine(target, plan, &opened.session, limit).await
            }
            Err(error) => self.unopened(target, plan, &error),
        };
        let soft = attempt.observation.outcome == (ProbeOutcome::Fail { hard: false });
        match lateness(limit.until).filter(|_| soft) {
            Some(late) => Attempt { observation: late, ..attempt },
            None => attempt,
        }
    }

    /// What it means that there is no session.
    fn unopened(&self, target: &Target, plan: &ProbePlan, error: &Error) -> Attempt {
        let observation = Observation::of_failed_probe(error);
        if is_unresolved(error)
            && let Some(name) = name_of(&target.instance.endpoint)
        {
            let mut resolver = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
            if resolver.failed(&name, Instant::now(), plan.parameters.interval) {
                return Observation { outcome: ProbeOutcome::Inconclusive, ..observation }.into();
            }
        }
        Attempt { refused: was_refused(error), ..observation.into() }
    }

    /// Asks everything that the plan says, until something is wrong.
    async fn examine(&self, target: &Target, plan: &ProbePlan, session: &Arc<dyn Session>, limit: Limit) -> Attempt {
        let asked = Instant::now();
        let left = limit.until.saturating_duration_since(asked);
        if let Err(error) = limit.on(session.probe(left)).await {
            let observation = Observation::of_failed_probe(&error);
            let failed = matches!(observation.outcome, ProbeOutcome::Fail { .. });
            let unanswered = failed.then(|| Arc::clone(session));
            return Attempt { refused: was_refused(&error), unanswered, observation };
        }
        let took = asked.elapsed();
        let mut seen = match took > plan.parameters.timeout / SLOW {
            true => Observation::new(ProbeOutcome::Degraded, format!("it took {took:.1?} to answer")),
            false => Observation::pass(took),
        };
        seen.response_time = Some(took);
        if let Some(canary) = &plan.canary {
            let failed = limit.on(call(canary, session, limit)).await.err();
            let canary_passed = Some(failed.is_none());
            if let Some(error) = failed {
                return Observation { canary: canary_passed, ..of_failed_canary(canary, &error) }.into();
            }
            seen.canary = canary_passed;
        }
        for endpoint in &plan.endpoints {
            let checked = limit.on(self.sessions.check(target, endpoint, &plan.expected_status)).await;
            let Err(error) = checked else { continue };
            let failed = Observation { canary: seen.canary, ..of_failed_check(endpoint, plan, &error) };
            if failed.outcome != ProbeOutcome::Degraded {
                return failed.into();
            }
            seen = Observation { response_time: seen.response_time, ..failed };
        }
        seen.into()
    }
}

/// Calls the canary; an answer that says it failed is a failure.
async fn call(canary: &Canary, session: &Arc<dyn Session>, limit: Limit) -> Result<()> {
    let context = CallContext { deadline: limit.until, ..CallContext::within(limit.time) };
    let result = session.call(canary.tool.as_str(), &canary.arguments, &context).await?;
    // What it says may be meant for its callers only.
    if result.is_error() { Err(Error::rejected("the tool says that it failed")) } else { Ok(()) }
}

/// What a failed call of the canary says: unlike at a probe, an answer that is no
/// result is a failure.
fn of_failed_canary(canary: &Canary, error: &Error) -> Observation {
    let seen = Observation::of_failed_probe(error);
    let outcome = match seen.outcome {
        ProbeOutcome::AuthRequired => ProbeOutcome::AuthRequired,
        _ if error.kind() == ErrorKind::Rejected || error.kind() == ErrorKind::Invalid => {
            ProbeOutcome::Fail { hard: false }
        }
        other => other,
    };
    Observation { message: format!("canary `{}`: {}", canary.tool, seen.message), outcome, ..seen }
}

/// What a failed look at an endpoint says. That of another port is never final.
fn of_failed_check(endpoint: &HealthEndpoint, plan: &ProbePlan, error: &Error) -> Observation {
    let seen = Observation::of_failed_probe(error);
    let outcome = match (error.kind(), error.context().upstream_status) {
        (_, Some(429)) | (ErrorKind::Unsupported, _) => ProbeOutcome::Degraded,
        // Whoever says which statuses count as well does not count these.
        (_, Some(401 | 403)) if !plan.expected_status.is_empty() => ProbeOutcome::Fail { hard: false },
        _ => match seen.outcome {
            ProbeOutcome::Pass | ProbeOutcome::Fail { .. } => ProbeOutcome::Fail { hard: false },
            other => other,
        },
    };
    Observation { message: format!("{}: {}", endpoint.as_str(), seen.message), outcome, ..seen }
}

#[cfg(test)]
#[path = "prober_tests.rs"]
mod tests;
