//! Which instances may take a call, and why the others may not: the same
//! answer for [`call`](super::call) and for `explain`.

use serde::{Deserialize, Serialize};

use super::balance::{CallKey, Candidate};
use crate::config::RoutingConfig;
use crate::health::{HealthState, ReasonCode};
use crate::model::{AdminState, BalancerKind, Instance, InstanceId, ServiceName};
use crate::view::{InstanceView, ServiceView};

/// How good a candidate an instance is. Only those with the best standing are
/// balanced over; a worse one is used when there is no better.
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
    /// Why it has that standing.
    pub reason: String,
    /// Its health.
    pub health: HealthState,
    /// The expected cost of giving it the call; lower is better.
    pub cost: f64,
    /// Its expected latency in milliseconds.
    pub latency_ms: f64,
    /// Calls it is working on.
    pub in_flight: u32,
    /// Its weight.
    pub weight: u32,
    /// Whether it would be picked now.
    pub picked: bool,
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
    /// Whether a call of the tool may be repeated when its outcome is unknown,
    /// and why.
    pub repeatable: bool,
    /// How that was decided.
    pub repeatable_reason: String,
    /// Every instance.
    pub candidates: Vec<Candidacy>,
}

/// The standing of an instance for calls of `tool`, and why.
pub(super) fn standing(
    view: &ServiceView,
    index: usize,
    instance: &Instance,
    seen: &InstanceView,
    tool: Option<&str>,
) -> (Standing, String) {
    let spec = &view.service().spec;
    for (what, state, reason) in
        [("service", spec.admin_state, &spec.admin_reason), ("instance", instance.admin_state, &instance.admin_reason)]
    {
        if !state.admits_calls() {
            let why = reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default();
            return (Standing::Excluded, format!("the {what} is {}{why}", state.as_str()));
        }
    }
    if let Some(tool) = tool.filter(|tool| !view.may_offer(index, tool)) {
        return (Standing::Excluded, format!("does not offer `{tool}`"));
    }
    let health = &seen.health;
    let why = || match health.reason.message.as_str() {
        "" => health.state.as_str().to_owned(),
        message => format!("{}: {message}", health.state.as_str()),
    };
    let standing = match health.state {
        HealthState::Healthy | HealthState::Suspect => Standing::Up,
        HealthState::Unknown | HealthState::Starting | HealthState::Recovering => Standing::Uncertain,
        HealthState::Unhealthy if health.reason.code == ReasonCode::Down => Standing::Down,
        HealthState::Unhealthy => Standing::Failing,
        HealthState::Expired => Standing::Excluded,
    };
    (standing, why())
}

/// The candidates with the best standing among those that `allowed` admits.
pub(super) fn best(view: &ServiceView, tool: Option<&str>, allowed: impl Fn(InstanceId) -> bool) -> Vec<Candidate> {
    let standings = view.instances().enumerate().filter(|(_, (instance, _))| allowed(instance.id)).map(
        |(index, (instance, seen))| (standing(view, index, instance, seen, tool).0, candidate(index, instance, seen)),
    );
    let standings: Vec<(Standing, Candidate)> = standings.filter(|(s, _)| *s != Standing::Excluded).collect();
    let best = standings.iter().map(|(standing, _)| *standing).min();
    standings.into_iter().filter(|(standing, _)| Some(*standing) == best).map(|(_, candidate)| candidate).collect()
}

fn candidate(index: usize, instance: &Instance, seen: &InstanceView) -> Candidate {
    Candidate { index, latency: seen.cell.latency(), in_flight: seen.cell.in_flight(), weight: instance.weight }
}

/// Whether repeating a call of `tool` is harmless as far as the operator says,
/// and how that was decided.
pub(super) fn repeatable(view: &ServiceView, tool: &str, config: &RoutingConfig) -> (bool, &'static str) {
    let policy = &view.service().spec.routing_policy;
    if policy.idempotent_tools.iter().any(|name| name == tool) {
        return (true, "the operator lists it in routing_policy.idempotent_tools");
    }
    let Some(offered) = view.tool(tool) else {
        return (false, "its definition is not known");
    };
    let hints = offered.tool.hints();
    match (hints.read_only || hints.idempotent, policy.trust_annotations || config.trust_annotations) {
        (true, true) => (true, "the server's annotations say so and the operator trusts them"),
        (true, false) => (false, "the server's annotations say so, but routing_policy.trust_annotations is off"),
        (false, _) => (false, "nothing says that repeating it is harmless"),
    }
}

/// Why a call of `tool` would go where it would go.
pub(crate) fn explain(view: &ServiceView, tool: Option<&str>, key: CallKey, config: &RoutingConfig) -> Explanation {
    let spec = &view.service().spec;
    let balancer = spec.routing_policy.balancer.unwrap_or(config.balancer);
    let candidates = best(view, tool, |_| true);
    let picked = (!candidates.is_empty()).then(|| candidates[balancer.balancer().pick(key, &candidates)].index);
    let (repeatable, reason) = tool.map_or((false, "no tool was named"), |tool| repeatable(view, tool, config));
    let candidacies = view.instances().enumerate().map(|(index, (instance, seen))| {
        let (standing, reason) = standing(view, index, instance, seen, tool);
        let candidate = candidate(index, instance, seen);
        Candidacy {
            instance: instance.id,
            location: instance.endpoint.location(),
            standing,
            reason,
            health: seen.health.state,
            cost: candidate.cost(),
            latency_ms: candidate.latency * 1000.0,
            in_flight: candidate.in_flight,
            weight: candidate.weight,
            picked: picked == Some(index),
        }
    });
    Explanation {
        service: spec.name.clone(),
        tool: tool.map(str::to_owned),
        admin_state: spec.admin_state,
        admin_reason: spec.admin_reason.clone(),
        balancer,
        repeatable,
        repeatable_reason: reason.to_owned(),
        candidates: candidacies.collect(),
    }
}
