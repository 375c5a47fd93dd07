//! One attempt of a call at one instance: open, send, record. Knows nothing of
//! other attempts.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::balance::unit;
use super::breaker::CallEvidence;
use super::call::Route;
use super::classify::{Failure, evidence};
use super::eligible::Rank;
use super::options::CallOptions;
use super::outbound::Outbound;
use super::report::Attempt;
use super::traffic::Traffic;
use crate::connect::{CallContext, Carried, ProgressSink};
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::health::Observation;
use crate::model::{Endpoint, Instance};
use crate::sessions::{Opened, target};
use crate::view::InstanceView;

/// Who gives an instance less time than this finds out nothing about it.
const TELLING_TIME: Duration = Duration::from_secs(1);

/// What all attempts of a call have in common.
pub(super) struct Circumstances<'a, O> {
    pub(super) route: &'a Route<'a>,
    pub(super) outbound: &'a O,
    pub(super) options: &'a CallOptions,
    pub(super) deadline: Instant,
    /// How long an instance may be silent.
    idle_timeout: Option<Duration>,
    /// How far the progress had come that was passed on, where anyone is told.
    furthest: Option<Arc<Mutex<Option<f64>>>>,
}

/// An instance that has room for the call, until this is dropped.
#[derive(Debug)]
pub(super) struct Seat<'a> {
    pub(super) index: usize,
    pub(super) instance: &'a Instance,
    pub(super) seen: &'a InstanceView,
    pub(super) rank: Rank,
    /// The call is the one that the breaker waits for.
    pub(super) is_trial: bool,
    /// What the call and its answer amount to.
    pub(super) carried: Arc<Carried>,
    pub(super) traffic: &'a Traffic,
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        if self.is_trial {
            self.seen.cell.routing.end_trial();
        }
        self.seen.cell.routing.leave();
        self.seen.cell.statistics.carried(&self.carried);
        self.traffic.freed();
    }
}

/// How an attempt ended.
pub(super) struct Attempted<A> {
    pub(super) attempt: Attempt,
    pub(super) outcome: std::result::Result<A, (Failure, Error)>,
}

impl<'a, O: Outbound> Circumstances<'a, O> {
    pub(super) fn new(route: &'a Route<'a>, outbound: &'a O, options: &'a CallOptions, started: Instant) -> Self {
        let (policy, parameters) = (&route.view.service().spec.routing_policy, &route.view.routing);
        let tool = outbound.tool();
        let timeout = options.timeout.unwrap_or_else(|| policy.timeout_of(tool, parameters));
        // Who gives a call a time of its own lets it be silent for all of it, unless
        // the service says how long.
        let own = options.timeout.is_some()
            || policy.timeout.is_some()
            || tool.is_some_and(|tool| policy.tool_timeouts.contains_key(tool));
        let idle = policy.idle_timeout.or((!own).then_some(parameters.idle_timeout));
        Self {
            route,
            outbound,
            options,
            deadline: started + timeout,
            // An instance is asked for progress only if that makes a difference.
            idle_timeout: idle.filter(|idle| *idle < timeout),
            furthest: options.progress.is_some().then(Arc::default),
        }
    }

    /// Sends the call to the instance, and records what came of it. A call that may
    /// be repeated does not wait for an instance that stops answering its probes,
    /// where there is another.
    pub(super) async fn attempt(&self, seat: &Seat<'_>, may_repeat: bool) -> Attempted<O::Answer> {
        let started = Instant::now();
        let (outcome, stale) = match may_repeat && self.route.view.instances().len() > 1 {
            false => self.send(seat).await,
            true => tokio::select! {
                biased;
                sent = self.send(seat) => sent,
                () = seat.seen.cell.routing.doubted() => (Err(left_behind()), false),
            },
        };
        let now = Instant::now();
        let elapsed = now.saturating_duration_since(started);
        let attempt = Attempt::ended(seat.instance.id, elapsed, &seat.carried, outcome.as_ref().err());
        let outcome = match outcome {
            Ok(answer) => {
                self.succeeded(seat, elapsed, now);
                Ok(answer)
            }
            Err(error) => {
                let failure = Failure::of(&error, self.has_progressed(), stale);
                self.failed(seat, elapsed, now, failure, &error);
                Err((failure, error))
            }
        };
        let abandoned = outcome.is_err() && self.options.cancelled.is_cancelled();
        Attempted { attempt: Attempt { abandoned, ..attempt }, outcome }
    }

    fn succeeded(&self, seat: &Seat<'_>, elapsed: Duration, now: Instant) {
        let cell = &seat.seen.cell;
        self.record(seat, CallEvidence::Success, elapsed, now);
        cell.statistics.attempted(elapsed, None);
        (self.route.observe)(seat.instance.id, Observation::pass(elapsed));
    }

    fn failed(&self, seat: &Seat<'_>, elapsed: Duration, now: Instant, failure: Failure, error: &Error) {
        let cell = &seat.seen.cell;
        if self.options.cancelled.is_cancelled() {
            return cell.routing.gave_up(elapsed, now);
        }
        cell.statistics.attempted(elapsed, Some(error.kind()));
        let parameters = &self.route.view.routing;
        let hasty = failure.kind == ErrorKind::Timeout && elapsed < TELLING_TIME.min(parameters.timeout);
        match evidence(failure, error).filter(|_| !hasty) {
            None => cell.routing.gave_up(elapsed, now),
            Some(CallEvidence::Success) => self.record(seat, CallEvidence::Success, elapsed, now),
            Some(evidence) => self.record(seat, evidence, elapsed.max(parameters.failure_penalty), now),
        }
        if failure.phase == Phase::Refused
            && let Some(millis) = error.context().retry_after_ms
        {
            cell.routing.hold(Duration::from_millis(millis).min(parameters.retry_after_max), now);
        }
        (self.route.observe)(seat.instance.id, Observation::of_failed_call(error));
    }

    fn record(&self, seat: &Seat<'_>, evidence: CallEvidence, latency: Duration, now: Instant) {
        let random = unit(self.route.key.random.rotate_left(17));
        let ejected = seat.seen.cell.routing.record(evidence, latency, now, &self.route.view.routing, random);
        if ejected {
            tracing::info!(service = %self.route.view.service().name(), instance = %seat.instance.id,
                "ejected: too many of its calls failed");
            (self.route.hint)(seat.instance.id);
        }
    }

    /// Opens or finds the session and sends the request; says whether the session
    /// had been open before and turned out to be over.
    async fn send(&self, seat: &Seat<'_>) -> (Result<O::Answer>, bool) {
        let opened = match self.open(seat).await {
            Ok(opened) => opened,
            Err(error) => return (Err(error.at(Phase::NotSent)), false),
        };
        let options = self.options;
        let context = CallContext {
            deadline: self.deadline,
            idle_timeout: self.idle_timeout,
            cancelled: options.cancelled.clone(),
            progress: options.progress.clone().map(|sink| self.noting_progress(sink)),
            log: options.log.clone(),
            carried: Arc::clone(&seat.carried),
            meta: options.meta.clone(),
        };
        let outcome = self.outbound.send(&*opened.session, &context).await;
        // A session that is still open after the call was not stale.
        let stale = opened.reused && opened.session.is_closed();
        (outcome, stale)
    }

    async fn open(&self, seat: &Seat<'_>) -> Result<Opened> {
        let sessions = self.route.sessions;
        if let Some(session) = sessions.current(seat.instance.id) {
            return Ok(Opened { session, reused: true });
        }
        let gone = || Error::internal("the instance is gone");
        let target = target(self.route.view, seat.index, seat.seen).ok_or_else(gone)?;
        let opened = tokio::select! {
            biased;
            () = self.options.cancelled.cancelled() => return Err(cancelled()),
            opened = tokio::time::timeout_at(self.ready_until(seat), sessions.open(&target)) => opened,
        };
        opened.unwrap_or_else(|_| match Instant::now() < self.deadline {
            true => Err(Error::unavailable("the instance is being started again, and was not ready in time")),
            false => Err(Error::timeout("the deadline passed while the instance was starting")),
        })
    }

    /// Until when an instance may take to be ready: one that went down has less
    /// time than one that is started because it is needed.
    fn ready_until(&self, seat: &Seat<'_>) -> Instant {
        let restarting = seat.rank == Rank::Down && matches!(seat.instance.endpoint, Endpoint::Stdio(_));
        let hold = self.route.view.routing.restart_hold;
        if restarting { self.deadline.min(Instant::now() + hold) } else { self.deadline }
    }

    fn has_progressed(&self) -> bool {
        let has =
            |furthest: &Arc<Mutex<Option<f64>>>| furthest.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        self.furthest.as_ref().is_some_and(has)
    }

    /// Passes progress on that goes beyond what the caller has seen, also from an
    /// earlier attempt: to the caller, it only ever grows.
    fn noting_progress(&self, sink: ProgressSink) -> ProgressSink {
        let furthest = self.furthest.clone().unwrap_or_default();
        Arc::new(move |progress| {
            let mut furthest = furthest.lock().unwrap_or_else(PoisonError::into_inner);
            if furthest.is_none_or(|furthest| progress.progress > furthest) {
                *furthest = Some(progress.progress);
                drop(furthest);
                sink(progress);
            }
        })
    }
}

/// The error of an attempt that was given up because the instance fell silent.
fn left_behind() -> Error {
    Error::lost("the instance stopped answering its probes while it had the call").at(Phase::MaybeExecuted)
}

/// The error of a call whose caller went away.
pub(super) fn cancelled() -> Error {
    Error::timeout("the caller cancelled the call").at(Phase::NotSent)
}
