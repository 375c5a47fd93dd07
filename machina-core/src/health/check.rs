//! Checks an instance through the session that calls use, and takes note of
//! what sessions say of their own accord.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep_until};

use super::monitor::Patient;
use super::probe::{Observation, ProbeOutcome, ProbePlan};
use super::turns::Place;
use crate::connect::{Notice, Session, Target};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::health::HealthState;
use crate::model::{Canary, Definitions, Endpoint, HealthLevel, Instance, InstanceId, StartPolicy};
use crate::sessions::target;
use crate::view::{InstanceView, ServiceView};

/// How long a list may take, at most: that a server works is known by then.
const LIST_TIMEOUT: Duration = Duration::from_secs(30);

/// Calls that fail within this time are taken to have seen one failure.
const SAME_FAILURE: Duration = Duration::from_millis(25);

/// A failed call asks for a probe at most this often.
const HINT_WINDOW: Duration = Duration::from_secs(1);

#[async_trait]
impl Patient for Core {
    fn place(&self, instance: InstanceId) -> Option<Place> {
        let view = self.view.load();
        let (declared, seen) = view.owner(instance)?.instance(instance)?;
        let host = declared.endpoint.host().map_or_else(|| instance.to_string(), |host| host.to_string());
        Some(Place { host: host.into(), prompt: seen.cell.health().state == HealthState::Healthy })
    }

    async fn check(&self, instance: InstanceId, asked: bool) -> Option<Duration> {
        let begun = Instant::now();
        let view = self.view();
        let service = view.owner(instance)?;
        let (declared, seen) = service.instance(instance)?;
        if !service.service().spec.admin_state.is_probed() || !declared.admin_state.is_probed() {
            return None;
        }
        if !self.replicas.owns(instance) {
            // About to be unwatched, or watched again when the leases are renewed.
            return Some(seen.cell.probe_delay());
        }
        self.pass_time(service, instance, seen);
        if asked {
            seen.cell.triggered();
        }
        if let Some(wait) = self.sessions.restart_wait(instance) {
            return Some(wait);
        }
        let expired = seen.cell.health().state == HealthState::Expired;
        let rests = expired || self.may_rest(service, declared, seen, asked);
        if !rests {
            self.probe(instance).await;
        }
        let delay = self.next_look(instance, seen);
        if seen.cell.health().state != HealthState::Healthy {
            return Some(delay);
        }
        // From when it was last known to answer, not from when we are through with it.
        // A process that was stopped because nobody called it may not have answered for long.
        let known = if rests { seen.cell.since_last_pass() } else { Some(begun.elapsed()) };
        Some(delay.saturating_sub(known.filter(|known| *known < delay).unwrap_or_default()))
    }

    async fn notice(&self, instance: InstanceId, notice: Notice) {
        let view = self.view();
        let Some(service) = view.owner(instance) else { return };
        let Some((_, seen)) = service.instance(instance) else { return };
        match notice {
            Notice::DefinitionsChanged => {
                seen.cell.doubt_definitions();
                self.monitor.hint(instance);
            }
            Notice::Closed(error) if error.context().hard => {
                let observation = Observation::of_failed_probe(&error);
                self.observe(service, instance, seen.cell.ticket(), observation);
                self.restart(instance);
            }
            Notice::Closed(_) => self.hint(instance),
        }
    }
}

impl Core {
    /// Probes an instance once and takes what was seen into account; only for
    /// routing, where another replica looks after it.
    pub(crate) async fn probe(&self, instance: InstanceId) {
        let view = self.view();
        let Some(service) = view.owner(instance) else { return };
        let Some((declared, seen)) = service.instance(instance) else { return };
        if !service.service().spec.admin_state.is_probed() || !declared.admin_state.is_probed() {
            return;
        }
        let index = service.instances().position(|(declared, _)| declared.id == instance);
        let target = index.and_then(|index| target(service, index, seen));
        let Some(mut target) = target else { return };
        let (cell, charge) = (&seen.cell, self.replicas.charge(instance));
        if let Some(reason) = self.absence(&target.service, &target.instance.endpoint) {
            if charge.is_some()
                && let Some(recorded) = cell.elsewhere(reason)
            {
                self.publish_health(service, instance, recorded);
            }
            return;
        }
        if charge.is_some()
            && let Some(recorded) = cell.starting()
        {
            self.publish_health(service, instance, recorded);
        }
        let (plan, refused) = self.plan(service, seen);
        if !matches!(target.instance.endpoint, Endpoint::Stdio(_)) {
            // To connect is part of the attempt.
            target.timeout = target.timeout.mul_f64(self.guard.factor()).min(plan.parameters.timeout);
        }
        let sequence = cell.ticket();
        cell.probing();
        let begun = Instant::now();
        let mut observation = self.prober.probe(&target, &plan).await;
        if declared.from_outside && seen.definitions.is_none() && !is_pass(&observation) {
            sleep_until(begun + coarse(begun.elapsed())).await;
        }
        cell.statistics.probed(observation.outcome);
        cell.statistics.canary_called(observation.canary);
        if observation.outcome != ProbeOutcome::Inconclusive {
            cell.routing.probed(is_pass(&observation), Instant::now(), &service.routing, self.random.unit());
        }
        let Some(charge) = charge else { return };
        if is_pass(&observation) && cell.definitions_are_due(list_every(&plan)) {
            observation = self.list(service, seen, &target, observation).await;
        }
        if observation.outcome == ProbeOutcome::Pass
            && let Some(why) = refused
        {
            observation = Observation { outcome: ProbeOutcome::Degraded, message: why, ..observation };
        }
        if self.replicas.charge(instance) != Some(charge) {
            let why = "the lease was lost during the probe".to_owned();
            observation = Observation { outcome: ProbeOutcome::Inconclusive, message: why, ..observation };
        }
        self.sampled(service, instance, &observation);
        // What it publishes may have been read just now.
        let view = self.view();
        self.observe(view.owner(instance).unwrap_or(service), instance, sequence, observation);
    }

    /// Looks at an instance out of turn: for the breaker too, where another replica
    /// looks after it.
    pub(crate) fn look_at(self: &Arc<Self>, instance: InstanceId) {
        if self.replicas.owns(instance) {
            self.monitor.hint(instance);
            return;
        }
        let view = self.view();
        let Some((_, seen)) = view.owner(instance).and_then(|service| service.instance(instance)) else { return };
        if seen.cell.is_unprobed_for(HINT_WINDOW) {
            seen.cell.probing();
            let core = Arc::clone(self);
            drop(self.monitor_tasks.spawn("probe for routing", async move { core.probe(instance).await }));
        }
    }

    /// What a probe of an instance looks at, and why it does not look at all that
    /// was declared.
    fn plan(&self, service: &ServiceView, seen: &InstanceView) -> (ProbePlan, Option<String>) {
        let policy = &service.service().spec.health_policy;
        let mut parameters = *seen.cell.parameters();
        let factor = self.guard.factor();
        parameters.timeout = parameters.timeout.mul_f64(factor);
        parameters.confirm_timeout = parameters.confirm_timeout.mul_f64(factor);
        if seen.cell.health().state == HealthState::Unhealthy {
            // That it is down needs no confirmation.
            parameters.retries = 0;
        }
        let canary = policy.canary.as_ref().filter(|_| parameters.level == HealthLevel::Canary);
        let (canary, refused) = match canary.map(|canary| may_call(canary, seen)) {
            Some(Ok(canary)) => (canary, None),
            Some(Err(why)) => (None, Some(why)),
            None => (None, None),
        };
        let (endpoints, expected_status) = (policy.endpoints.clone(), policy.expected_status.clone());
        (ProbePlan { parameters, endpoints, expected_status, canary }, refused)
    }

    /// What a call saw of an instance: evidence, and when the call failed a
    /// reason to look closer, unless that was done a moment ago.
    pub(crate) fn observe_call(&self, service: &ServiceView, instance: InstanceId, observation: Observation) {
        let Some((_, seen)) = service.instance(instance) else { return };
        let failed = matches!(observation.outcome, ProbeOutcome::Fail { .. } | ProbeOutcome::Inconclusive);
        // Many callers can see one failure: it counts once.
        let soft = observation.outcome == ProbeOutcome::Fail { hard: false };
        if !soft || seen.cell.counts_failed_call(SAME_FAILURE) {
            self.observe(service, instance, seen.cell.ticket(), observation);
        }
        if failed && seen.cell.is_unprobed_for(HINT_WINDOW) {
            self.hint(instance);
        }
    }

    /// An instance that says it has no such method, or takes no such arguments,
    /// may publish something else than is known.
    pub(crate) fn doubt_definitions(&self, service: &ServiceView, error: &Error) {
        const METHOD_NOT_FOUND: i64 = -32601;
        const INVALID_PARAMS: i64 = -32602;
        let context = error.context();
        if !matches!(context.upstream_code, Some(METHOD_NOT_FOUND | INVALID_PARAMS)) {
            return;
        }
        let instance = context.instance.as_deref().and_then(|id| id.parse().ok());
        if let Some((instance, seen)) = instance.and_then(|id| service.instance(id)) {
            seen.cell.doubt_definitions();
            self.monitor.hint(instance.id);
        }
    }

    /// Whether the instance need not be probed now: it answered a call of late and
    /// nobody asked, or it is a process that was stopped because no one needed it.
    fn may_rest(&self, service: &ServiceView, instance: &Instance, seen: &InstanceView, asked: bool) -> bool {
        let session = self.sessions.peek(instance.id);
        let known = seen.definitions.is_some();
        if session.is_none() && service.keeps_warm(instance.id) {
            return false;
        }
        if session.is_none() && known && matches!(instance.endpoint, Endpoint::Stdio(_)) {
            let state = seen.cell.health().state;
            let lazy = service.session.start == StartPolicy::Lazy;
            return state == HealthState::Healthy || (lazy && state == HealthState::Unknown);
        }
        let parameters = seen.cell.parameters();
        // Less than an interval: otherwise a probe would replace the next one.
        let answered = seen.cell.answered_within(parameters.passive_window.min(parameters.interval / 2));
        !asked && session.is_some() && answered && !seen.cell.is_in_doubt()
    }

    /// Lists what the instance publishes. That it can do so is part of being
    /// healthy.
    async fn list(
        &self,
        service: &ServiceView,
        seen: &InstanceView,
        target: &Target,
        observation: Observation,
    ) -> Observation {
        let Some(session) = self.sessions.peek(target.instance.id) else { return observation };
        seen.cell.listing_definitions();
        match definitions(&session).await {
            Ok(definitions) => {
                let id = target.instance.id;
                if let Err(error) = self.defined(service.service(), id, definitions).await {
                    tracing::warn!(service = %target.service, %error, "the definitions were not stored");
                    seen.cell.doubt_definitions();
                }
                observation
            }
            Err(error) => {
                seen.cell.doubt_definitions();
                let failed = Observation::of_failed_probe(&error);
                Observation { message: format!("tools/list: {}", failed.message), ..failed }
            }
        }
    }
}

async fn definitions(session: &Arc<dyn Session>) -> Result<Definitions> {
    let listed = tokio::time::timeout(LIST_TIMEOUT, session.definitions()).await;
    listed.unwrap_or_else(|_| Err(Error::timeout(format!("no answer within {LIST_TIMEOUT:?}"))))
}

/// The canary, if its tool is known to be read-only; nothing while no tool is
/// known, and why not when it is not read-only.
fn may_call(canary: &Canary, seen: &InstanceView) -> Result<Option<Canary>, String> {
    let Some(definitions) = &seen.definitions else { return Ok(None) };
    match definitions.tool(canary.tool.as_str()) {
        Some(tool) if tool.hints().read_only => Ok(Some(canary.clone())),
        Some(_) => Err(format!(
            "the canary `{}` is not called: the server does not say that the tool is read-only (`readOnlyHint`)",
            canary.tool
        )),
        None => Err(format!("the canary `{}` is not called: the instance has no such tool", canary.tool)),
    }
}

/// Every how many probes the definitions are listed, whatever the server says.
fn list_every(plan: &ProbePlan) -> u32 {
    if plan.parameters.level == HealthLevel::Ping { u32::MAX } else { plan.parameters.list_every }
}

/// How exactly it can be told when a server answered that was registered from
/// outside and was never seen to speak MCP: how soon a port answers says what is
/// there, and its registrant may not be one who could ask it.
const COARSE: Duration = Duration::from_millis(500);

/// The next multiple of [`COARSE`] after `time`.
fn coarse(time: Duration) -> Duration {
    let steps = time.as_millis() / COARSE.as_millis() + 1;
    COARSE * u32::try_from(steps).unwrap_or(u32::MAX)
}

fn is_pass(observation: &Observation) -> bool {
    matches!(observation.outcome, ProbeOutcome::Pass | ProbeOutcome::Degraded)
}
