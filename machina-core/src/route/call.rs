//! The loop that carries a request: pick, send, decide. There is no other place
//! that retries, and failover is picking again.

use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::attempt::{Attempted, Circumstances, Seat};
use super::balance::CallKey;
use super::classify::{Decision, Failure, decide};
use super::eligible::{Rank, reason};
use super::hedging::hedge_delay;
use super::options::CallOptions;
use super::outbound::Outbound;
use super::report::Attempt;
use super::waiting::{Search, Seating};
use crate::config::Config;
use crate::error::{Error, ErrorKind, Outcome, Phase, Result};
use crate::health::Observation;
use crate::model::{Endpoint, InstanceId};
use crate::sessions::Sessions;
use crate::view::ServiceView;

/// How many attempts of a call may come to nothing before anything is sent.
const UNSENT_ATTEMPTS_MAX: usize = 5;

/// How long a call then waits before it tries them again.
const UNSENT_PAUSE: Duration = Duration::from_millis(50);

/// What the loop needs of the core.
pub(crate) struct Route<'a> {
    pub(crate) view: &'a ServiceView,
    pub(crate) sessions: &'a Sessions,
    pub(crate) config: &'a Config,
    pub(crate) key: CallKey,
    /// Told about every observation that an attempt makes.
    pub(crate) observe: &'a (dyn Fn(InstanceId, Observation) + Send + Sync),
    /// Asked to have an instance probed now.
    pub(crate) hint: &'a (dyn Fn(InstanceId) + Send + Sync),
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
    route.view.traffic.budget.deposit(started);
    let circumstances = Circumstances::new(route, outbound, options, started);
    let safe = options.idempotency_key.is_some() || outbound.is_repeatable(route.view);
    let mut carrying = Carrying::new(&circumstances, safe);
    let (answer, instance) = match carrying.run().await {
        Ok(answered) => answered,
        Err(error) => return Err(carrying.finish(error)),
    };
    let duration_ms = started.elapsed().as_secs_f64() * 1000.0;
    Ok(Carried { answer, instance, attempts: carrying.attempts, duration_ms })
}

/// The state of one call.
pub(super) struct Carrying<'a, O> {
    pub(super) on: &'a Circumstances<'a, O>,
    pub(super) attempts: Vec<Attempt>,
    pub(super) search: Search,
    /// Some attempt may have been executed.
    unknown: bool,
    /// Attempts that were sent, and that were not.
    sent: usize,
    unsent: usize,
    /// How the last attempt ended.
    last: Option<(Failure, Error)>,
    /// The next attempt needs nothing of the budget.
    is_free: bool,
    /// Instances that had the call again on a new session.
    renewed: SmallVec<[usize; 2]>,
    /// Until when it waits at most for an instance to come back.
    hold_until: Option<Instant>,
}

impl<'a, O: Outbound> Carrying<'a, O> {
    fn new(on: &'a Circumstances<'a, O>, safe: bool) -> Self {
        Self {
            on,
            attempts: Vec::with_capacity(1),
            search: Search { safe, ..Search::default() },
            unknown: false,
            sent: 0,
            unsent: 0,
            last: None,
            is_free: false,
            renewed: SmallVec::new(),
            hold_until: None,
        }
    }

    async fn run(&mut self) -> Result<(O::Answer, InstanceId)> {
        loop {
            if self.unsent >= UNSENT_ATTEMPTS_MAX && !self.pause().await {
                return Err(self.last_or(Self::nothing_left));
            }
            let seat = match self.on.find(&self.search) {
                Seating::Seat(seat) if !self.may_wait_instead(&seat) => seat,
                seating => Box::pin(self.wait(seating)).await?,
            };
            if let Some((failure, error)) = &self.last
                && !self.is_paid(*failure, seat.rank)
            {
                drop(seat);
                let error = error.clone();
                // To wait costs no one anything.
                if !self.hold().await? {
                    return Err(error);
                }
                self.is_free = true;
                continue;
            }
            let (index, instance) = (seat.index, seat.instance.id);
            let (view, tool) = (self.on.route.view, self.on.outbound.tool());
            let outcome = match hedge_delay(view, tool).filter(|_| self.attempts.is_empty()) {
                None => {
                    let Attempted { attempt, outcome } = self.on.attempt(&seat, self.search.safe).await;
                    drop(seat);
                    self.attempts.push(attempt);
                    outcome.map(|answer| (answer, instance))
                }
                Some(delay) => Box::pin(self.race(seat, delay)).await,
            };
            let (failure, error) = match outcome {
                Ok(answered) => return Ok(answered),
                Err(failed) => failed,
            };
            self.last = Some((failure, error.clone()));
            if !self.goes_on(index, failure) {
                return Err(error);
            }
        }
    }

    /// Takes a failed attempt into account; says whether there may be another.
    fn goes_on(&mut self, index: usize, failure: Failure) -> bool {
        self.failed(failure);
        (self.search.only, self.is_free) = (None, false);
        let more = match decide(failure, self.search.safe) {
            Decision::Fail => false,
            Decision::NextInstance => {
                self.search.tried.push(index);
                true
            }
            Decision::NewSession => {
                (self.search.only, self.is_free) = (Some(index), true);
                let again = self.renewed.contains(&index);
                self.renewed.push(index);
                !again
            }
        };
        let attempts_max = self.on.route.view.routing.attempts_max as usize;
        let in_time = Instant::now() < self.on.deadline && !self.on.options.cancelled.is_cancelled();
        more && in_time && self.sent < attempts_max
    }

    /// Counts a failed attempt.
    pub(super) fn failed(&mut self, failure: Failure) {
        self.unknown |= is_lost(failure);
        match failure.phase {
            Phase::NotSent => self.unsent += 1,
            _ => self.sent += 1,
        }
    }

    /// Whether the budget has enough for another attempt. What was not sent costs
    /// nothing, unless it now goes to an instance that is hardly better.
    fn is_paid(&self, failure: Failure, rank: Rank) -> bool {
        let free = self.is_free || (failure.phase == Phase::NotSent && rank == Rank::Eligible);
        let view = self.on.route.view;
        free || view.traffic.budget.withdraw(Instant::now(), &view.routing)
    }

    /// Whether a call that could only go to an instance that is down waits first.
    fn may_wait_instead(&self, seat: &Seat<'_>) -> bool {
        let process = matches!(seat.instance.endpoint, Endpoint::Stdio(_));
        seat.rank == Rank::Down && !process && self.attempts.is_empty() && self.hold_until.is_none()
    }

    /// Waits until an instance has room, or is back.
    async fn wait(&mut self, seating: Seating<'a>) -> Result<Seat<'a>> {
        let mut seating = match seating {
            Seating::Seat(seat) => {
                drop(seat);
                if !self.hold().await? && Instant::now() >= self.on.deadline {
                    return Err(self.last_or(Self::nothing_left));
                }
                self.on.find(&self.search)
            }
            seating => seating,
        };
        loop {
            seating = match seating {
                Seating::Seat(seat) => return Ok(seat),
                Seating::Full => match self.on.queue(&mut self.search).await {
                    Ok(seating) => seating,
                    Err(error) => return Err(self.last_or(|_| error)),
                },
                Seating::None => {
                    if self.search.only.take().is_none() && !self.starts_over() && !self.hold().await? {
                        return Err(self.last_or(Self::nothing_left));
                    }
                    self.on.find(&self.search)
                }
            };
        }
    }

    /// Where repeating is harmless, an instance that lost the call may have it again.
    fn starts_over(&mut self) -> bool {
        let lost = self.last.as_ref().is_some_and(|(failure, _)| is_lost(*failure)) && !self.search.tried.is_empty();
        if lost {
            self.search.tried.clear();
        }
        lost
    }

    /// Waits a little before instances are tried again that took nothing; `false`
    /// when none is expected to, or this has gone on for as long as a hold may.
    async fn pause(&mut self) -> bool {
        let until = self.hold_until();
        if Instant::now() + UNSENT_PAUSE >= until || !self.on.is_any_expected() {
            return false;
        }
        tokio::select! {
            biased;
            () = self.on.options.cancelled.cancelled() => return false,
            () = tokio::time::sleep(UNSENT_PAUSE) => {}
        }
        self.search.tried.clear();
        (self.search.afresh, self.is_free, self.unsent) = (true, true, 0);
        true
    }

    /// Until when the call waits for instances, from its first wait on.
    fn hold_until(&mut self) -> Instant {
        let longest = Instant::now() + self.on.route.view.routing.restart_hold;
        *self.hold_until.get_or_insert(longest.min(self.on.deadline))
    }

    /// Waits for an instance to come back; `false` when that is no use.
    async fn hold(&mut self) -> Result<bool> {
        let first = self.hold_until.is_none();
        let until = self.hold_until();
        let last = self.last.as_ref();
        if last.is_some_and(|(failure, _)| failure.phase != Phase::NotSent) {
            return Ok(false);
        }
        match self.on.hold(last.map(|(_, error)| error), until, &self.search.tried).await {
            Ok(false) => Ok(false),
            Ok(true) => {
                self.search.tried.clear();
                (self.search.afresh, self.is_free) = (true, first);
                Ok(true)
            }
            Err(error) => Err(self.last_or(|_| error)),
        }
    }

    /// The error of the last attempt, which says more than any other.
    fn last_or(&self, other: impl FnOnce(&Self) -> Error) -> Error {
        self.last.as_ref().map_or_else(|| other(self), |(_, error)| error.clone())
    }

    /// The error that the caller gets.
    fn finish(&self, error: Error) -> Error {
        let view = self.on.route.view;
        let kind = error.kind();
        error.with(|context| {
            // Whatever else happened, the last attempt's error is the one that is told.
            let last = self.last.as_ref().map(|(failure, _)| failure.phase);
            let phase = last.or(context.phase).unwrap_or(Phase::NotSent);
            context.service = Some(view.service().name().to_string());
            context.tool = self.on.outbound.tool().map(str::to_owned);
            context.attempts = u32::try_from(self.attempts.len()).ok();
            context.tried.clone_from(&self.attempts);
            context.instance = self.attempts.last().map(|attempt| attempt.instance.to_string());
            context.phase = Some(phase);
            context.outcome = match phase {
                // An answer that is no result does not say what was done.
                Phase::Answered => context.outcome.or(Some(Outcome::Executed)),
                _ if self.unknown => Some(Outcome::Unknown),
                phase => Some(phase.outcome()),
            };
            let waits = matches!(kind, ErrorKind::Unavailable | ErrorKind::Unreachable | ErrorKind::Overloaded);
            if waits && context.outcome == Some(Outcome::NotExecuted) && context.retry_after_ms.is_none() {
                let millis = self.on.route.config.health.fast_interval.as_millis();
                context.retry_after_ms = u64::try_from(millis).ok();
            }
        })
    }

    fn nothing_left(&self) -> Error {
        let (view, tool) = (self.on.route.view, self.on.outbound.tool());
        let name = view.service().name();
        let reasons = view.instances().enumerate().map(|(index, (instance, seen))| {
            let reason = reason(view, index, instance, &seen.cell.health(), tool);
            format!("{} ({reason})", instance.endpoint.location())
        });
        let reasons = reasons.collect::<Vec<_>>().join(", ");
        let why = if reasons.is_empty() { "it has no instances".to_owned() } else { reasons };
        Error::unavailable(format!("no instance of `{name}` can take the call: {why}")).at(Phase::NotSent)
    }
}

/// Whether the call may have been executed without an answer.
fn is_lost(failure: Failure) -> bool {
    matches!(failure.phase, Phase::MaybeExecuted | Phase::Committed)
}

#[cfg(test)]
#[path = "call_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "faults_tests.rs"]
mod faults_tests;

#[cfg(test)]
#[path = "preference_tests.rs"]
mod preference_tests;
