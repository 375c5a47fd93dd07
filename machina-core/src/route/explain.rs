//! Why a call would go where it would go: each instance as the router sees it, and
//! what holds for the call. Changes nothing.

use serde::{Deserialize, Serialize};
use tokio::time::Instant;

use super::balance::CallKey;
use super::breaker::BreakerState;
use super::eligible::{
    Found, Locality, Onlooking, Rank, Standing, ejected, in_flight_max, reason, repeatable, standing,
};
use super::hedging::hedge_delay;
use crate::config::Config;
use crate::health::HealthState;
use crate::model::{AdminState, BalancerKind, Instance, InstanceId, ServiceName};
use crate::view::{InstanceView, ServiceView};

/// One instance, seen as a candidate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Candidacy {
    /// The instance.
    pub instance: InstanceId,
    /// Where it runs.
    pub location: String,
    /// Its standing.
    pub standing: Standing,
    /// Whether it is one of those that the call is balanced over.
    pub eligible: bool,
    /// Why it has that standing, and why it is not eligible if it is not.
    pub reason: String,
    /// Its health.
    pub health: HealthState,
    /// What its calls say about it.
    #[serde(default)]
    pub breaker: BreakerState,
    /// How long it stays ejected, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ejected_for_ms: Option<u64>,
    /// How long it asked to be left alone, in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub held_for_ms: Option<u64>,
    /// How far away it is.
    #[serde(default)]
    pub locality: Locality,
    /// The expected cost of giving it the call; lower is better.
    pub cost: f64,
    /// Its expected latency in milliseconds.
    pub latency_ms: f64,
    /// Calls it is working on.
    pub in_flight: u32,
    /// How many it works on at once.
    #[serde(default)]
    pub in_flight_max: u32,
    /// Its weight.
    pub weight: u32,
    /// The part of its weight that it gets while it starts slowly, up to 1.
    #[serde(default = "whole")]
    pub share: f64,
    /// Whether it would be picked now.
    pub picked: bool,
}

fn whole() -> f64 {
    1.0
}

/// Why a call would go where it would go.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Explanation {
    /// The service.
    pub service: ServiceName,
    /// The tool, where one was named.
    pub tool: Option<String>,
    /// What the operator said about the service.
    pub admin_state: AdminState,
    /// Why, where that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_reason: Option<String>,
    /// The balancer in use.
    pub balancer: BalancerKind,
    /// The argument whose value decides the instance instead, where a call has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub affinity_argument: Option<String>,
    /// Whether, without that argument, the session of the host decides it.
    #[serde(default)]
    pub session_affinity: bool,
    /// Whether so few instances are up that all are used which are not certainly
    /// down.
    #[serde(default)]
    pub panic: bool,
    /// From how far away instances are used, in the first place.
    #[serde(default)]
    pub locality: Locality,
    /// How many calls wait for an instance with room.
    #[serde(default)]
    pub queue_length: u32,
    /// How many may.
    #[serde(default)]
    pub queue_max: u32,
    /// How long the call may take in all, in milliseconds.
    #[serde(default)]
    pub timeout_ms: u64,
    /// How many attempts it may have, where repeating it is safe.
    #[serde(default)]
    pub attempts_max: u32,
    /// How many calls of the service may be repeated now.
    #[serde(default)]
    pub retries_left: u64,
    /// After how long the call is also sent to a second instance, in milliseconds;
    /// none for tools that are not hedged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hedge_delay_ms: Option<u64>,
    /// Whether a call of the tool may be repeated when its outcome is unknown,
    /// and why.
    pub repeatable: bool,
    /// How that was decided.
    pub repeatable_reason: String,
    /// Every instance.
    pub candidates: Vec<Candidacy>,
}

/// Why a call of `tool` would go where it would go.
pub(crate) fn explain(view: &ServiceView, tool: Option<&str>, key: CallKey, config: &Config) -> Explanation {
    let spec = &view.service().spec;
    let (now, parameters) = (Instant::now(), &view.routing);
    let onlooking = Onlooking { view, config, tool, now, afresh: false };
    let survey = onlooking.survey();
    let candidates = survey.select(|_| true).unwrap_or_default();
    let picked =
        (!candidates.is_empty()).then(|| candidates[parameters.balancer.balancer().pick(key, &candidates)].index);
    let (repeatable, why) = tool.map_or((false, "no tool was named"), |tool| repeatable(view, tool));
    let instances = view.instances().zip(&survey.found);
    let candidacies = instances.map(|((instance, seen), found)| {
        let index = found.candidate.index;
        let eligible = candidates.iter().any(|candidate| candidate.index == index);
        let candidacy = onlooking.candidacy(instance, seen, found, eligible);
        Candidacy { picked: picked == Some(index), ..candidacy }
    });
    Explanation {
        service: spec.name.clone(),
        tool: tool.map(str::to_owned),
        admin_state: spec.admin_state,
        admin_reason: spec.admin_reason.clone(),
        balancer: parameters.balancer,
        affinity_argument: spec.routing_policy.affinity_argument.clone(),
        session_affinity: parameters.session_affinity,
        panic: survey.is_panic,
        locality: survey.reach,
        queue_length: view.traffic.waiting(),
        queue_max: parameters.queue_max,
        timeout_ms: millis(spec.routing_policy.timeout_of(tool, parameters)),
        attempts_max: parameters.attempts_max,
        retries_left: view.traffic.budget.left(now, parameters),
        hedge_delay_ms: hedge_delay(view, tool).map(millis),
        repeatable,
        repeatable_reason: why.to_owned(),
        candidates: candidacies.collect(),
    }
}

impl Onlooking<'_> {
    fn candidacy(&self, instance: &Instance, seen: &InstanceView, found: &Found, eligible: bool) -> Candidacy {
        let Found { candidate, rank, .. } = found;
        let (breaker, held) = (seen.cell.routing.breaker(self.now), seen.cell.routing.held_for(self.now));
        let standing = standing(self.view, candidate.index, instance, &seen.health, self.tool);
        let mut reason = reason(self.view, candidate.index, instance, &seen.health, self.tool);
        let more = match rank {
            Rank::Excluded => None,
            Rank::Held => Some("asked to be left alone"),
            _ if !eligible && found.is_full => Some("works on as many calls as it may"),
            Rank::Eligible if !eligible => Some("others are nearer"),
            _ => ejected(breaker.state),
        };
        if let Some(more) = more {
            reason = format!("{reason}; {more}");
        }
        Candidacy {
            instance: instance.id,
            location: instance.endpoint.location(),
            standing,
            eligible,
            reason,
            health: seen.health.state,
            breaker: breaker.state,
            ejected_for_ms: (!breaker.ejected_for.is_zero()).then(|| millis(breaker.ejected_for)),
            held_for_ms: (!held.is_zero()).then(|| millis(held)),
            locality: found.locality,
            cost: candidate.cost(),
            latency_ms: seen.cell.routing.latency(self.now, &self.view.routing) * 1000.0,
            in_flight: candidate.in_flight,
            in_flight_max: in_flight_max(self.view, self.config, instance),
            weight: candidate.weight,
            share: candidate.share,
            picked: false,
        }
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
