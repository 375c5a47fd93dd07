//! Takes what was seen of an instance into account: the one way in, for probes and
//! for calls. Decides nothing about health itself: that is
//! [`step`](super::state::step).

use std::time::Duration;

use super::probe::{Observation, ProbeOutcome};
use crate::cell::{Circumstances, Flapping, Recorded};
use crate::clock;
use crate::core::Core;
use crate::event::EventKind;
use crate::history;
use crate::model::{Endpoint, InstanceId, ServiceId, ServiceName};
use crate::store::{Entry, What};
use crate::view::{Delta, InstanceView, ServiceView, View};

impl Core {
    /// Takes an observation of an instance into account.
    pub(crate) fn observe(&self, view: &ServiceView, instance: InstanceId, sequence: u64, observation: Observation) {
        let Some((declared, seen)) = view.instance(instance) else { return };
        if !self.replicas.owns(instance) {
            // It is for another replica to say how it is.
            return;
        }
        let passed = observation.outcome == ProbeOutcome::Pass;
        let observation = match passed.then(|| view.drift(instance)).flatten() {
            Some(message) => Observation { outcome: ProbeOutcome::Degraded, message, ..observation },
            None => observation,
        };
        let failed = matches!(observation.outcome, ProbeOutcome::Fail { .. });
        let crash_loop = if failed { self.sessions.crash_loop(instance) } else { None };
        let soft = observation.outcome == ProbeOutcome::Fail { hard: false };
        let recorded = self.guard.record(instance, soft, self.monitor.watched(), |frozen| {
            seen.cell.record(sequence, observation, Circumstances { frozen, crash_loop })
        });
        if recorded.transition.is_some() {
            self.monitor.within(instance, self.next_look(instance, seen));
        }
        let process = matches!(declared.endpoint, Endpoint::Stdio(_));
        // One that lives and does not answer is of no use: the next probe starts another.
        if recorded.wedged
            && process
            && let Some(tail) = self.sessions.give_up(instance)
        {
            seen.cell.keep_stderr_tail(tail);
        }
        if recorded.visible {
            self.publish_health(view, instance, recorded);
        }
    }

    /// When the instance is to be looked at next.
    pub(crate) fn next_look(&self, instance: InstanceId, seen: &InstanceView) -> Duration {
        self.sessions.restart_wait(instance).unwrap_or_else(|| seen.cell.probe_delay())
    }

    /// Has the process of an instance, which ended, started again as soon as it may be.
    pub(crate) fn restart(&self, instance: InstanceId) {
        match self.sessions.restart_wait(instance) {
            Some(wait) => self.monitor.within(instance, wait),
            None => self.monitor.hint(instance),
        }
    }

    /// Ends what the health of an instance was held in for a while.
    pub(crate) fn pass_time(&self, service: &ServiceView, instance: InstanceId, seen: &InstanceView) {
        if let Some(recorded) = seen.cell.pass_time() {
            self.publish_health(service, instance, recorded);
        }
    }

    /// Shows everyone the health of an instance that this process looks after, and
    /// writes down what changed; where replicas share the store, together with what
    /// they are told, so that the journal says nothing that they were never told.
    pub(crate) fn publish_health(&self, view: &ServiceView, instance: InstanceId, recorded: Recorded) {
        let Some(name) = self.show_health(view, instance, &recorded) else { return };
        let shared = view.instance(instance).and_then(|(_, seen)| seen.cell.shared());
        let same = shared.is_some_and(|shared| shared.reason.code == recorded.health.reason.code);
        if recorded.transition.is_some() || recorded.flapping.is_some() || !same {
            self.replicas.outbox.changed(instance);
        }
        if let Some((from, _)) = recorded.transition
            && !self.replicas.tells_of(instance)
        {
            self.recorder.record(history::transition(&name, instance, from, &recorded.health));
        }
    }

    /// Shows readers here the health of an instance, and says what changed; returns
    /// the name of its service, if that is still there.
    pub(crate) fn show_health(
        &self,
        view: &ServiceView,
        instance: InstanceId,
        recorded: &Recorded,
    ) -> Option<ServiceName> {
        let service = view.service().id;
        let (_, next) = self.swap(None, &[Delta::Health { service, instance }]);
        view.traffic.health_changed();
        self.announce_health(&next, service, instance, recorded)
    }

    /// Says what changed about the health of an instance.
    pub(crate) fn announce_health(
        &self,
        view: &View,
        service: ServiceId,
        instance: InstanceId,
        recorded: &Recorded,
    ) -> Option<ServiceName> {
        let service = view.by_id(service)?.service();
        let publish = |kind| self.events.publish(view.revision(), Some(service.name().clone()), kind);
        if let Some((from, to)) = recorded.transition {
            let reason = recorded.health.reason.clone();
            tracing::info!(service = %service.name(), %instance, from = from.as_str(), to = to.as_str(),
                reason = %reason.message, "health changed");
            publish(EventKind::HealthChanged { instance, from, to, reason });
        }
        match recorded.flapping {
            Some(Flapping::Began { downs }) => {
                tracing::warn!(service = %service.name(), %instance, downs, "an instance goes down again and again");
                publish(EventKind::FlappingBegan { instance, downs });
            }
            Some(Flapping::Ended) => publish(EventKind::FlappingEnded { instance }),
            None => {}
        }
        Some(service.name().clone())
    }

    /// Writes a sample of a probe into the journal.
    pub(crate) fn sampled(&self, view: &ServiceView, instance: InstanceId, observation: &Observation) {
        if let Some((_, seen)) = view.instance(instance) {
            seen.cell.statistics.tally.probed(observation);
        }
        let failed = matches!(observation.outcome, ProbeOutcome::Fail { .. });
        self.recorder.record(Entry {
            at: clock::now(),
            service: Some(view.service().name().clone()),
            instance: Some(instance),
            what: What::Sample {
                outcome: observation.outcome.as_str().to_owned(),
                response_time_ms: observation.response_time.map(|time| time.as_secs_f64() * 1000.0),
                error: failed.then(|| observation.message.clone()),
            },
        });
    }
}
