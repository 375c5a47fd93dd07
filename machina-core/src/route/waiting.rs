//! How a call comes to an instance: at once where one has room, in a line where
//! all are busy, and after a while where the only one is being started again.

use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::time::Instant;

use super::affinity::rendezvous;
use super::attempt::{Circumstances, Seat, cancelled};
use super::balance::Candidate;
use super::eligible::{Candidates, Found, Lack, Onlooking, Rank, Standing, Survey, in_flight_max, standing};
use super::limits::longest_wait;
use super::outbound::Outbound;
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::health::HealthState;
use crate::model::{Endpoint, Instance};
use crate::view::InstanceView;

/// Waiting calls have an instance probed that was not for so long.
const PROBE_PAUSE: Duration = Duration::from_secs(1);

/// What a call looks for.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// Instances that were tried.
    pub(super) tried: SmallVec<[usize; 4]>,
    /// Only this one will do.
    pub(super) only: Option<usize>,
    /// Repeating the call does no harm.
    pub(super) safe: bool,
    /// So much time has passed that health is to be asked for anew.
    pub(super) afresh: bool,
}

impl Search {
    fn admits(&self, index: usize) -> bool {
        self.only.map_or_else(|| !self.tried.contains(&index), |only| only == index)
    }
}

/// What came of a search.
pub(super) enum Seating<'a> {
    /// An instance has room.
    Seat(Seat<'a>),
    /// None has, or others were here before.
    Full,
    /// There is none.
    None,
}

impl<'a, O: Outbound> Circumstances<'a, O> {
    fn onlooking(&self, now: Instant, afresh: bool) -> Onlooking<'a> {
        // The tool lives as long as the call.
        let (view, config, tool) = (self.route.view, self.route.config, self.outbound.tool());
        Onlooking { view, config, tool, now, afresh }
    }

    /// Finds an instance, unless others wait for one already.
    pub(super) fn find(&self, search: &Search) -> Seating<'a> {
        if self.route.view.traffic.waiting() > 0 { Seating::Full } else { self.find_in_turn(search) }
    }

    fn find_in_turn(&self, search: &Search) -> Seating<'a> {
        loop {
            let now = Instant::now();
            let survey = self.onlooking(now, search.afresh).survey();
            self.ask_for_probes(&survey, now);
            let candidates = match survey.select(|index| search.admits(index)) {
                Ok(candidates) => candidates,
                Err(Lack::Room) => return Seating::Full,
                Err(Lack::Instances) => return Seating::None,
            };
            let picked = candidates[self.pick(&survey, &candidates, search.safe)].index;
            if let Some(seat) = self.take(&survey.found[picked], now) {
                return Seating::Seat(seat);
            }
            // Someone was faster: look again.
        }
    }

    fn pick(&self, survey: &Survey, candidates: &[Candidate], safe: bool) -> usize {
        let view = self.route.view;
        if candidates.len() == 1 {
            return 0;
        }
        let argument = view.service().spec.routing_policy.affinity_argument.as_deref();
        let argument = argument.and_then(|name| self.outbound.argument_key(name));
        let session = self.options.session.as_deref().filter(|_| view.routing.session_affinity);
        if let Some(key) = argument.as_deref().or(self.options.affinity_key.as_deref()).or(session) {
            let id = |index: usize| view.service().spec.instances[index].id;
            // In panic, a key stays with those that are up as long as there are any.
            let up = |candidate: &&Candidate| survey.found[candidate.index].rank == Rank::Eligible;
            let eligible: Candidates = candidates.iter().filter(up).copied().collect();
            let among = if eligible.is_empty() { candidates } else { &eligible };
            let index = among[rendezvous(key, among, id)].index;
            return candidates.iter().position(|candidate| candidate.index == index).unwrap_or(0);
        }
        let on_trial = |candidate: &Candidate| survey.found[candidate.index].is_trial;
        match candidates.iter().position(on_trial) {
            // A call that can be repeated is what an instance on probation is tried with.
            Some(trial) if safe => trial,
            _ => view.routing.balancer.balancer().pick(self.route.key, candidates),
        }
    }

    /// Takes the room of an instance, if there still is some.
    fn take(&self, found: &Found, now: Instant) -> Option<Seat<'a>> {
        let view = self.route.view;
        let index = found.candidate.index;
        let (instance, seen) = view.instances().nth(index)?;
        let routing = &seen.cell.routing;
        if !routing.try_enter(in_flight_max(view, self.route.config, instance), now) {
            return None;
        }
        let (carried, traffic) = (Arc::default(), &view.traffic);
        let mut seat = Seat { index, instance, seen, rank: found.rank, is_trial: false, carried, traffic };
        if found.is_trial {
            seat.is_trial = routing.begin_trial();
            return seat.is_trial.then_some(seat);
        }
        Some(seat)
    }

    /// Has those instances probed whose time of ejection is over.
    fn ask_for_probes(&self, survey: &Survey, now: Instant) {
        for found in survey.found.iter().filter(|found| found.wants_probe) {
            if let Some((instance, seen)) = self.route.view.instances().nth(found.candidate.index)
                && seen.cell.routing.wants_probe(now)
            {
                (self.route.hint)(instance.id);
            }
        }
    }

    /// Waits in the line until an instance has room.
    ///
    /// # Errors
    /// [`Overloaded`](ErrorKind::Overloaded) when the line is full or the wait was
    /// too long; [`Timeout`](ErrorKind::Timeout) when the caller went away.
    pub(super) async fn queue(&self, search: &mut Search) -> Result<Seating<'a>> {
        let (traffic, parameters) = (&self.route.view.traffic, &self.route.view.routing);
        let wait = longest_wait(parameters, Instant::now(), self.deadline);
        let place = traffic.join(parameters.queue_max).ok_or_else(|| self.overloaded("too many wait already"))?;
        let until = Instant::now() + wait;
        loop {
            tokio::select! {
                biased;
                () = self.options.cancelled.cancelled() => return Err(cancelled()),
                () = place.turn() => {}
                () = tokio::time::sleep_until(until) => return Err(self.overloaded("none had room in time")),
            }
            search.afresh = true;
            match self.find_in_turn(search) {
                Seating::Full => place.pass(),
                found => return Ok(found),
            }
        }
    }

    fn overloaded(&self, why: &str) -> Error {
        let (name, parameters) = (self.route.view.service().name(), &self.route.view.routing);
        let message = format!("no instance of `{name}` has room for the call: {why}");
        Error::overloaded(message).at(Phase::NotSent).retry_after(parameters.queue_timeout.max(PROBE_PAUSE))
    }

    /// Waits until `until` for an instance to come back, unless one is there that was
    /// not `tried`. `false` when none is expected to, or none did.
    ///
    /// # Errors
    /// As [`Circumstances::queue`].
    pub(super) async fn hold(&self, last: Option<&Error>, until: Instant, tried: &[usize]) -> Result<bool> {
        let now = Instant::now();
        let wait = last.and_then(|error| error.context().retry_after_ms).map(Duration::from_millis);
        let of_use = last.is_none_or(|error| match error.kind() {
            ErrorKind::Unreachable => true,
            ErrorKind::Unavailable => wait.is_some(),
            _ => false,
        });
        if !of_use || wait.is_some_and(|wait| now + wait > until) || now >= until || !self.is_any_expected() {
            return Ok(false);
        }
        let most = self.route.view.routing.queue_max;
        let held = self.route.view.traffic.hold(most).ok_or_else(|| self.overloaded("too many wait for it already"))?;
        self.have_probed();
        if self.up().any(|index| !tried.contains(&index)) {
            return Ok(true);
        }
        loop {
            tokio::select! {
                biased;
                () = self.options.cancelled.cancelled() => return Err(cancelled()),
                () = held.changed() => {}
                () = tokio::time::sleep_until(until) => return Ok(self.is_any_back()),
            }
            if self.is_any_back() {
                return Ok(true);
            }
        }
    }

    /// The instances that the operator lets take the call, with their health now.
    fn admitted(&self) -> impl Iterator<Item = (usize, &'a Instance, &'a InstanceView, HealthState)> {
        let (view, tool) = (self.route.view, self.outbound.tool());
        view.instances().enumerate().filter_map(move |(index, (instance, seen))| {
            let health = seen.cell.health();
            let admitted = standing(view, index, instance, &health, tool) != Standing::Excluded;
            admitted.then_some((index, instance, seen, health.state))
        })
    }

    /// Whether an instance is being started, or was well until a moment ago.
    pub(super) fn is_any_expected(&self) -> bool {
        let of_late = self.route.view.routing.restart_hold * 2;
        self.admitted().any(|(_, instance, seen, state)| match state {
            HealthState::Starting => true,
            HealthState::CrashLoop => false,
            _ if !seen.cell.routing.has_answered() => false,
            HealthState::Healthy | HealthState::Recovering => true,
            _ if matches!(instance.endpoint, Endpoint::Stdio(_)) => true,
            _ => seen.cell.in_state_for() <= of_late,
        })
    }

    fn is_any_back(&self) -> bool {
        self.up().next().is_some()
    }

    /// Those that answer.
    fn up(&self) -> impl Iterator<Item = usize> {
        let up = |state| matches!(state, HealthState::Healthy | HealthState::Recovering);
        self.admitted().filter_map(move |(index, .., state)| up(state).then_some(index))
    }

    /// Has instances probed that were not just now.
    fn have_probed(&self) {
        let unprobed = self.admitted().filter(|(_, _, seen, _)| seen.cell.is_unprobed_for(PROBE_PAUSE));
        unprobed.for_each(|(_, instance, ..)| (self.route.hint)(instance.id));
    }
}
