//! Checks an instance through the session that calls use, and takes note of
//! what sessions say of their own accord.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::monitor::Patient;
use super::probe::{Observation, ProbeOutcome, Prober};
use crate::config::StartPolicy;
use crate::connect::{Notice, Session, Target};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::health::HealthState;
use crate::model::{Definitions, Endpoint, Instance, InstanceId};
use crate::sessions::{Sessions, target};
use crate::view::{InstanceView, ServiceView};

/// How long a failed probe waits before it is confirmed on a new connection.
const CONFIRM_AFTER: Duration = Duration::from_millis(250);

/// How long calls over a connection that failed a probe may still take.
const CALLS_PATIENCE: Duration = Duration::from_secs(600);

/// Calls that fail within this time are taken to have seen one failure.
const SAME_FAILURE: Duration = Duration::from_millis(25);

/// A failed call asks for a probe at most this often.
const HINT_WINDOW: Duration = Duration::from_secs(1);

/// A process that held for this long is started again at once when it ends.
const RESTART_WINDOW: Duration = Duration::from_secs(60);

/// The default prober: asks the instance itself.
#[derive(Debug)]
pub(crate) struct SessionProber {
    pub(crate) sessions: Sessions,
}

#[async_trait]
impl Prober for SessionProber {
    async fn probe(&self, target: &Target, timeout: Duration) -> Observation {
        let stdio = matches!(target.instance.endpoint, Endpoint::Stdio(_));
        let (mut attempts, mut refusals) = (0, 0);
        loop {
            attempts += 1;
            let error = match self.attempt(target, timeout, attempts == 1).await {
                Ok(took) => return Observation::pass(took),
                Err(error) => error,
            };
            let seen = Observation::of_failed_probe(&error);
            let refused = was_refused(&error);
            refusals += u32::from(refused);
            if refusals == 2 {
                // Refused twice: no one listens there.
                return Observation::of_failed_probe(&error.with(|context| context.hard = true));
            }
            let confirmed = attempts > 1 && !refused;
            if stdio || confirmed || seen.outcome != (ProbeOutcome::Fail { hard: false }) {
                return seen;
            }
            tokio::time::sleep(CONFIRM_AFTER).await;
        }
    }
}

/// Whether the other side refused the connection, which is more than silence.
fn was_refused(error: &Error) -> bool {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        if error.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}

impl SessionProber {
    /// Asks the instance, over a new session if there is none; returns how long
    /// the answer took, without the opening.
    /// When that is not the last attempt, a session without an answer is taken
    /// out of use, so that the next one is made over a new connection.
    async fn attempt(&self, target: &Target, timeout: Duration, again: bool) -> Result<Duration> {
        let session = self.sessions.open_to_probe(target).await?.session;
        let started = Instant::now();
        let answered = tokio::time::timeout(timeout, session.probe(timeout)).await;
        let answered = answered.unwrap_or_else(|_| Err(Error::timeout(format!("no answer within {timeout:?}"))));
        if answered.is_err() && again && !matches!(target.instance.endpoint, Endpoint::Stdio(_)) {
            self.sessions.retire(target.instance.id, &session, CALLS_PATIENCE);
        }
        answered.map(|()| started.elapsed())
    }
}

#[async_trait]
impl Patient for Core {
    async fn check(&self, instance: InstanceId) -> Option<Duration> {
        let view = self.view();
        let service = view.owner(instance)?;
        let (declared, seen) = service.instance(instance)?;
        if !service.service().spec.admin_state.is_probed() || !declared.admin_state.is_probed() {
            return None;
        }
        let expired = seen.cell.health().state == HealthState::Expired;
        if !expired && !self.may_rest(declared, seen) {
            self.probe(instance).await;
        }
        Some(seen.cell.probe_delay())
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
                if seen.cell.exited(RESTART_WINDOW) {
                    self.monitor.hint(instance);
                }
            }
            Notice::Closed(_) => self.monitor.hint(instance),
        }
    }
}

impl Core {
    /// Probes an instance once and takes what was seen into account.
    pub(crate) async fn probe(&self, instance: InstanceId) {
        let view = self.view();
        let Some(service) = view.owner(instance) else { return };
        let Some((declared, seen)) = service.instance(instance) else { return };
        if !service.service().spec.admin_state.is_probed() || !declared.admin_state.is_probed() {
            return;
        }
        let index = service.instances().position(|(declared, _)| declared.id == instance);
        let target = index.and_then(|index| target(service, index, seen, &self.config.sessions));
        let Some(target) = target else { return };
        let cell = &seen.cell;
        if let Some(recorded) = cell.starting() {
            self.publish_health(service, instance, recorded);
        }
        let sequence = cell.ticket();
        cell.probing();
        let mut observation = self.prober.probe(&target, cell.parameters().timeout).await;
        cell.statistics.probed(observation.outcome);
        if is_pass(&observation) && cell.definitions_are_due(self.config.health.list_every) {
            observation = self.list(service, seen, &target, observation).await;
        }
        self.sampled(service, instance, &observation);
        self.observe(service, instance, sequence, observation);
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
            self.monitor.hint(instance);
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

    /// Whether the instance need not be probed now: it answered a call of late,
    /// or it is a process that was stopped because no one needed it.
    fn may_rest(&self, instance: &Instance, seen: &InstanceView) -> bool {
        let session = self.sessions.peek(instance.id);
        let known = seen.definitions.is_some();
        if session.is_none() && known && matches!(instance.endpoint, Endpoint::Stdio(_)) {
            let state = seen.cell.health().state;
            let lazy = self.config.sessions.start == StartPolicy::Lazy;
            return state == HealthState::Healthy || (lazy && state == HealthState::Unknown);
        }
        session.is_some() && seen.cell.answered_within(self.config.health.passive_window) && !seen.cell.is_in_doubt()
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
        match self.definitions(&session, target).await {
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

    async fn definitions(&self, session: &Arc<dyn Session>, target: &Target) -> Result<Definitions> {
        let patience = target.timeout;
        let listed = tokio::time::timeout(patience, session.definitions()).await;
        listed.unwrap_or_else(|_| Err(Error::timeout(format!("no answer within {patience:?}"))))
    }
}

fn is_pass(observation: &Observation) -> bool {
    matches!(observation.outcome, ProbeOutcome::Pass | ProbeOutcome::Degraded)
}
