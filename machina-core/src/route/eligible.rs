//! Which instances may take a call: the same answer for [`call`](super::call) and
//! for [`explain`](super::explain). Reads only, without a lock; picks nothing.
//!
//! The rule: balance over those that are up, nearby ones first. When too few are,
//! use all that are not certainly down (panic), because then the fault may well be
//! elsewhere: those that answer their probes first, the others when these have no
//! room. Never give up while one is left that is not certainly down.

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::balance::Candidate;
use super::breaker::BreakerState;
use crate::config::Config;
use crate::health::{Health, HealthState, ReasonCode};
use crate::model::{AdminState, Endpoint, Instance, RoutingPolicy};
use crate::offered::OfferedTool;
use crate::view::{InstanceView, ServiceView};

/// What is known of an instance, as far as calls are concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Standing {
    /// It answers.
    Up,
    /// Nothing is decided yet, or it is coming back.
    Uncertain,
    /// It fails its checks; soft evidence alone never takes the last one out.
    Failing,
    /// It is certainly down; tried only because nothing else is left.
    Down,
    /// It may not be used: the operator said so, it lacks the tool, or its
    /// heartbeats have stopped.
    Excluded,
}

/// How good a candidate an instance is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// It is up, and its calls succeed.
    Eligible,
    /// It answers its probes or is about to, but is not to be relied on yet.
    Dubious,
    /// It fails its checks, or its calls as well as its last check, and is not
    /// certainly down.
    Failing,
    /// It asked to be left alone for a while.
    Held,
    /// It is certainly down.
    Down,
    /// It may not be used.
    Excluded,
}

/// How far away an instance is from this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Locality {
    /// In the same zone.
    Zone,
    /// In the same region.
    Region,
    /// Elsewhere, or nobody said where either of them is.
    #[default]
    Anywhere,
}

/// One instance as it is found at a moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Found {
    pub(super) rank: Rank,
    pub(super) locality: Locality,
    pub(super) candidate: Candidate,
    /// It works on as many calls as it may.
    pub(super) is_full: bool,
    /// A call would be the one that its breaker waits for.
    pub(super) is_trial: bool,
    /// Its breaker wants a probe.
    pub(super) wants_probe: bool,
}

/// The instances of a service at a moment.
#[derive(Debug, Default)]
pub(super) struct Survey {
    pub(super) found: SmallVec<[Found; 8]>,
    /// Too few are eligible: all are used that are not certainly down.
    pub(super) is_panic: bool,
    /// From how far away they are used.
    pub(super) reach: Locality,
}

/// Those that may take a call, all of the same rank or, in panic, of ranks that
/// count alike.
pub(super) type Candidates = SmallVec<[Candidate; 8]>;

/// Why nobody may take a call now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lack {
    /// None has room.
    Room,
    /// There is none.
    Instances,
}

/// Where one looks from.
pub(super) struct Onlooking<'a> {
    pub(super) view: &'a ServiceView,
    pub(super) config: &'a Config,
    pub(super) tool: Option<&'a str>,
    pub(super) now: Instant,
    /// Whether the health is asked for anew: the view may be old.
    pub(super) afresh: bool,
}

impl Onlooking<'_> {
    pub(super) fn survey(&self) -> Survey {
        let mut survey = Survey::default();
        let found = self.view.instances().enumerate().map(|(index, (instance, seen))| self.find(index, instance, seen));
        survey.found.extend(found);
        survey.judge(self.view.routing.panic_percentage, self.view.routing.locality_percentage);
        survey
    }

    /// One instance as it is now.
    pub(super) fn find(&self, index: usize, instance: &Instance, seen: &InstanceView) -> Found {
        let (parameters, cell) = (&self.view.routing, &seen.cell.routing);
        let health = self.afresh.then(|| seen.cell.health());
        let health = health.as_deref().unwrap_or(&seen.health);
        let standing = standing(self.view, index, instance, health, self.tool);
        let breaker = cell.breaker(self.now);
        let in_flight = cell.in_flight();
        let latency = cell.latency(self.now, parameters).max(cell.silence(self.now));
        let doubt = parameters.failure_penalty.as_secs_f64();
        // In panic, those that are up are still the better choice.
        let (rank, least) = match standing {
            Standing::Up if !breaker.admits && health.state == HealthState::Suspect => (Rank::Failing, 2.0 * doubt),
            Standing::Up if !breaker.admits => (Rank::Dubious, 2.0 * doubt),
            Standing::Up => (Rank::Eligible, 0.0),
            Standing::Uncertain if health.state == HealthState::Recovering => (Rank::Dubious, 0.0),
            Standing::Uncertain => (Rank::Dubious, doubt),
            Standing::Failing => (Rank::Failing, 2.0 * doubt),
            Standing::Down => (Rank::Down, 0.0),
            Standing::Excluded => (Rank::Excluded, 0.0),
        };
        let held = rank <= Rank::Failing && !cell.held_for(self.now).is_zero();
        Found {
            rank: if held { Rank::Held } else { rank },
            locality: self.locality(instance),
            candidate: Candidate {
                index,
                latency: latency.max(least),
                in_flight,
                weight: instance.weight,
                share: seen.share(),
            },
            is_full: in_flight >= in_flight_max(self.view, self.config, instance),
            is_trial: standing == Standing::Up && breaker.is_trial,
            wants_probe: breaker.is_due,
        }
    }

    fn locality(&self, instance: &Instance) -> Locality {
        let here = &self.config.routing;
        match (
            here.region.is_some() && here.region == instance.region,
            here.zone.is_some() && here.zone == instance.zone,
        ) {
            (true, true) => Locality::Zone,
            (true, false) => Locality::Region,
            (false, _) => Locality::Anywhere,
        }
    }
}

impl Survey {
    fn judge(&mut self, panic_percentage: u32, locality_percentage: u32) {
        let share = |within: Locality, percentage: u32| {
            let there = self.found.iter().filter(|found| found.rank != Rank::Excluded && found.locality <= within);
            let (all, eligible) = there
                .fold((0, 0), |(all, eligible), found| (all + 1, eligible + u32::from(found.rank == Rank::Eligible)));
            all > 0 && eligible * 100 >= all * percentage && eligible > 0
        };
        let is_panic = !share(Locality::Anywhere, panic_percentage);
        let near = [Locality::Zone, Locality::Region].into_iter().find(|within| share(*within, locality_percentage));
        (self.is_panic, self.reach) = (is_panic, near.filter(|_| !is_panic).unwrap_or_default());
    }

    /// How late an instance is used: in the first place, or when there is nobody
    /// with room in the places before. `None` when it never is.
    fn place(&self, found: &Found) -> Option<u8> {
        match found.rank {
            Rank::Eligible if found.locality <= self.reach => Some(0),
            Rank::Eligible => Some(1),
            Rank::Dubious if self.is_panic => Some(0),
            // However many calls the others have in flight, while they have room.
            Rank::Failing if self.is_panic => Some(1),
            Rank::Dubious => Some(2),
            Rank::Failing => Some(3),
            Rank::Held => Some(4),
            Rank::Down => Some(5),
            Rank::Excluded => None,
        }
    }

    /// Those that may take the call now, of the ones that `allowed` admits.
    pub(super) fn select(&self, allowed: impl Fn(usize) -> bool) -> Result<Candidates, Lack> {
        let places = || {
            let allowed = self.found.iter().filter(|found| allowed(found.candidate.index));
            allowed.filter_map(|found| Some((self.place(found)?, found)))
        };
        let first = |full: bool| places().filter(|(_, found)| found.is_full == full).map(|(place, _)| place).min();
        match (first(false), first(true)) {
            (None, None) => Err(Lack::Instances),
            (None, Some(_)) => Err(Lack::Room),
            // Too much to do is no reason to use those that are not well.
            (Some(free), Some(full)) if full < free && free > 1 => Err(Lack::Room),
            (Some(free), _) => {
                let best = places().filter(|(place, found)| *place == free && !found.is_full);
                Ok(best.map(|(_, found)| found.candidate).collect())
            }
        }
    }
}

/// How many calls an instance works on at once.
pub(super) fn in_flight_max(view: &ServiceView, config: &Config, instance: &Instance) -> u32 {
    let stdio = matches!(instance.endpoint, Endpoint::Stdio(_));
    config.routing.in_flight_max(&view.service().spec.routing_policy, stdio)
}

/// The standing of an instance for calls of `tool`.
pub(super) fn standing(
    view: &ServiceView,
    index: usize,
    instance: &Instance,
    health: &Health,
    tool: Option<&str>,
) -> Standing {
    let admitted = view.service().spec.admin_state.admits_calls() && instance.admin_state.admits_calls();
    if !admitted || tool.is_some_and(|tool| !view.may_offer(index, tool)) {
        return Standing::Excluded;
    }
    match health.state {
        HealthState::Healthy | HealthState::Suspect => Standing::Up,
        HealthState::Unknown | HealthState::Starting | HealthState::Recovering => Standing::Uncertain,
        HealthState::Unhealthy if health.reason.code == ReasonCode::Down => Standing::Down,
        HealthState::Unhealthy => Standing::Failing,
        HealthState::CrashLoop => Standing::Down,
        HealthState::Expired => Standing::Excluded,
    }
}

/// Why an instance has the standing that it has.
pub(super) fn reason(
    view: &ServiceView,
    index: usize,
    instance: &Instance,
    health: &Health,
    tool: Option<&str>,
) -> String {
    let spec = &view.service().spec;
    let said = |what: &str, state: AdminState, reason: &Option<String>| {
        let why = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
        format!("the {what} is {}{why}", state.as_str())
    };
    if !spec.admin_state.admits_calls() {
        return said("service", spec.admin_state, &spec.admin_reason);
    }
    if !instance.admin_state.admits_calls() {
        return said("instance", instance.admin_state, &instance.admin_reason);
    }
    if let Some(tool) = tool.filter(|tool| !view.may_offer(index, tool)) {
        return format!("does not offer `{tool}`");
    }
    match health.reason.message.as_str() {
        "" => health.state.as_str().to_owned(),
        message => format!("{}: {message}", health.state.as_str()),
    }
}

/// What is to be said of the breaker of an instance that it does not admit.
pub(super) fn ejected(state: BreakerState) -> Option<&'static str> {
    match state {
        BreakerState::Healthy => None,
        BreakerState::Ejected => Some("too many of its calls failed"),
        BreakerState::Probation => Some("on probation after too many of its calls failed"),
    }
}

/// Whether repeating a call of `tool` is harmless as far as the operator says,
/// and how that was decided.
pub(super) fn repeatable(view: &ServiceView, tool: &str) -> (bool, &'static str) {
    let policy = &view.service().spec.routing_policy;
    if policy.idempotent_tools.iter().any(|name| name == tool) {
        return (true, "the operator lists it in routing_policy.idempotent_tools");
    }
    let Some(offered) = view.tool(tool) else {
        return (false, "its definition is not known");
    };
    if !is_as_pinned(policy, offered) {
        return (false, "it is another tool than the operator pinned");
    }
    let hints = offered.hints();
    match (hints.read_only || hints.idempotent, view.routing.trust_annotations) {
        (true, true) => (true, "the server's annotations say so and the operator trusts them"),
        (true, false) => (false, "the server's annotations say so, but routing_policy.trust_annotations is off"),
        (false, _) => (false, "nothing says that repeating it is harmless"),
    }
}

/// Whether calls of `tool` only read: every instance that offers it says so, and the operator trusts that.
pub(super) fn reads_only(view: &ServiceView, tool: &str) -> bool {
    let policy = &view.service().spec.routing_policy;
    let says_so = |offered: &OfferedTool| offered.hints().read_only && is_as_pinned(policy, offered);
    view.tool(tool).is_some_and(says_so) && repeatable(view, tool).0
}

fn is_as_pinned(policy: &RoutingPolicy, offered: &OfferedTool) -> bool {
    policy.pins.get(offered.tool.name().as_str()).is_none_or(|pin| offered.is_as_pinned(pin))
}

#[cfg(test)]
#[path = "eligible_tests.rs"]
mod tests;
