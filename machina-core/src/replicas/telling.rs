//! What this process tells the other replicas, and what it takes from them: the
//! health of instances and their heartbeats, through the store. Only what changes
//! is written at once, in batches; that an instance is as it was, once a minute.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;

use super::Charge;
use crate::cell::{Recorded, age};
use crate::core::Core;
use crate::error::{Error, ErrorKind, Result};
use crate::health::{CALLS_PATIENCE, Health, HealthState};
use crate::history::transition;
use crate::model::{InstanceId, ServiceId, ServiceName};
use crate::shards::shard_of;
use crate::store::{Batch, Change, Image, Seen};
use crate::view::{Delta, View};

/// How many changes are committed together at most.
const BATCH_MAX: usize = 500;

/// How long changes gather after a batch was written.
const GATHER: Duration = Duration::from_millis(20);

/// How often heartbeats are passed on.
const HEARTBEATS_EVERY: Duration = Duration::from_secs(1);

/// How often it is said that instances are as they were.
const SEEN_EVERY: Duration = Duration::from_secs(60);

/// When what the store did not take is tried again.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What becomes of an instance whose health is to be written.
enum Turn {
    /// It is written.
    Now(Report),
    /// It cannot be now, because nobody here looks after the instance; it is news all
    /// the same, and nobody else may know it yet.
    Later,
    /// There is nothing to tell.
    Never,
}

/// The health of one instance, to be written by whoever looks after it.
struct Report {
    service: ServiceId,
    name: ServiceName,
    instance: InstanceId,
    health: Arc<Health>,
    /// What the others were told before.
    before: HealthState,
    charge: Charge,
}

impl Core {
    /// Passes on what changes here, until cancelled.
    pub(crate) async fn keep_telling(self: Arc<Self>) {
        loop {
            self.replicas.outbox.filled().await;
            let wait = match self.tell_others().await {
                Ok(()) => GATHER,
                Err(error) => {
                    tracing::debug!(%error, "the other replicas were not told");
                    RETRY_AFTER
                }
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Passes on heartbeats, that instances were looked at, and once more what could
    /// not be told when it was news; runs until cancelled.
    pub(crate) async fn keep_reminding(self: Arc<Self>) {
        let mut reminded = tokio::time::Instant::now();
        loop {
            tokio::time::sleep(HEARTBEATS_EVERY).await;
            self.replicas.outbox.again();
            if let Err(error) = self.pass_heartbeats().await {
                tracing::debug!(%error, "heartbeats were not passed on");
            }
            if reminded.elapsed() >= SEEN_EVERY {
                reminded = tokio::time::Instant::now();
                if let Err(error) = self.remind().await {
                    tracing::debug!(%error, "the other replicas were not reminded");
                }
            }
        }
    }

    /// Writes every change of health that the store does not have yet.
    pub(super) async fn tell_others(&self) -> Result<()> {
        loop {
            let taken = self.replicas.outbox.take_health(BATCH_MAX);
            if taken.is_empty() {
                return Ok(());
            }
            let (view, mut told) = (self.view(), Vec::new());
            for instance in &taken {
                match self.turn(&view, *instance) {
                    Turn::Now(report) => told.push(report),
                    Turn::Later => self.replicas.outbox.later(*instance),
                    Turn::Never => {}
                }
            }
            if let Err(error) = self.tell(told).await {
                taken.into_iter().for_each(|instance| self.replicas.outbox.changed(instance));
                return Err(error);
            }
        }
    }

    /// Whether the health of an instance is news, and for this process to say.
    fn turn(&self, view: &View, instance: InstanceId) -> Turn {
        let seen = view.owner(instance).and_then(|service| Some((service, service.instance(instance)?.1)));
        let Some((service, seen)) = seen else { return Turn::Never };
        let (health, shared) = (seen.cell.health(), seen.cell.shared());
        match self.replicas.charge(instance) {
            Some(Charge::Own) => Turn::Never,
            // Until the lease is renewed, or another has said how the instance is.
            None if is_news(&health, shared.as_deref()) => Turn::Later,
            Some(charge) if shared.as_ref().is_none_or(|shared| *shared != health) => {
                let (service, name) = (service.service().id, service.service().name().clone());
                let before = shared.map_or(HealthState::Unknown, |shared| shared.state);
                Turn::Now(Report { service, name, instance, health, before, charge })
            }
            None | Some(_) => Turn::Never,
        }
    }

    /// Writes them together; where one cannot be written, the others all the same.
    async fn tell(&self, told: Vec<Report>) -> Result<()> {
        let mut parts = vec![told];
        while let Some(mut part) = parts.pop() {
            match self.write_health(&part).await {
                Err(error) if error.kind() == ErrorKind::Conflict && part.len() > 1 => {
                    let second = part.split_off(part.len() / 2);
                    parts.extend([part, second]);
                }
                // Another replica looks after it by now, or it is gone, or the lease ran out
                // unnoticed and is good again when it is renewed.
                Err(error) if error.kind() == ErrorKind::Conflict => {
                    tracing::debug!(%error, "what was seen here is not taken now");
                    part.iter().for_each(|report| self.replicas.outbox.later(report.instance));
                    self.replicas.refused(part.len());
                }
                other => other?,
            }
        }
        Ok(())
    }

    async fn write_health(&self, told: &[Report]) -> Result<()> {
        let by_shard: BTreeMap<u16, Charge> = told.iter().map(|told| (shard_of(told.instance), told.charge)).collect();
        let put = |told: &Report| Change::PutHealth {
            service: told.service,
            instance: told.instance,
            health: Arc::clone(&told.health),
        };
        let changed = told.iter().filter(|told| told.before != told.health.state);
        let entry = |told: &Report| transition(&told.name, told.instance, told.before, &told.health);
        let batch = Batch {
            preconditions: by_shard.into_values().filter_map(|charge| self.replicas.condition(charge)).collect(),
            changes: told.iter().map(put).collect(),
            entries: changed.map(entry).collect(),
        };
        self.write(batch).await
    }

    /// Commits a batch of what was observed.
    async fn write(&self, batch: Batch) -> Result<()> {
        if batch.changes.is_empty() {
            return Ok(());
        }
        let deltas = batch.changes.iter().cloned().map(Delta::of).collect();
        let committed = async {
            let _committing = self.committing.lock().await;
            self.commit(&batch, deltas).await.map(drop)
        };
        let committed = timeout(self.config.replicas.patience(), committed).await;
        committed.unwrap_or_else(|_| Err(Error::unavailable("the store did not answer in time")))
    }

    async fn pass_heartbeats(&self) -> Result<()> {
        loop {
            let heartbeats = self.replicas.outbox.take_heartbeats(BATCH_MAX);
            if heartbeats.is_empty() {
                return Ok(());
            }
            let seen = heartbeats.iter().map(|(instance, at)| Seen {
                instance: *instance,
                last_check: None,
                heartbeat: Some(*at),
            });
            let batch = Batch { changes: vec![Change::Seen(seen.collect())], ..Batch::default() };
            if let Err(error) = self.write(batch).await {
                heartbeats.into_iter().for_each(|(instance, at)| self.replicas.outbox.heard(instance, at));
                return Err(error);
            }
        }
    }

    /// Says of everything that is looked after here that it was looked at.
    async fn remind(&self) -> Result<()> {
        let (view, mut all) = (self.view(), Vec::new());
        for (instance, seen) in view.services().flat_map(|service| service.instances()) {
            let charge = self.replicas.charge(instance.id).filter(|charge| *charge != Charge::Own);
            let Some(charge) = charge else { continue };
            let (health, shared) = (seen.cell.health(), seen.cell.shared());
            let same = |shared: &Arc<Health>| health.reason == shared.reason && !is_news(&health, Some(shared));
            let Some(shared) = shared.filter(same) else {
                self.replicas.outbox.changed(instance.id);
                continue;
            };
            if health.last_check > shared.last_check {
                all.push((charge, Seen { instance: instance.id, last_check: health.last_check, heartbeat: None }));
            }
        }
        for part in all.chunks(BATCH_MAX) {
            let by_shard: BTreeMap<u16, Charge> =
                part.iter().map(|(charge, seen)| (shard_of(seen.instance), *charge)).collect();
            let batch = Batch {
                preconditions: by_shard.into_values().filter_map(|charge| self.replicas.condition(charge)).collect(),
                changes: vec![Change::Seen(part.iter().map(|(_, seen)| *seen).collect())],
                entries: Vec::new(),
            };
            match self.write(batch).await {
                Err(error) if error.kind() == ErrorKind::Conflict => self.replicas.refused(part.len()),
                other => other?,
            }
        }
        Ok(())
    }

    /// What is seen here and was never written does not count any more: another
    /// replica goes on from what the store has.
    pub(super) fn forget_unshared(&self, shards: &BTreeSet<u16>) {
        let view = self.view();
        for service in view.services() {
            for (instance, seen) in service.instances().filter(|(one, _)| shards.contains(&shard_of(one.id))) {
                let Some(shared) = seen.cell.shared() else { continue };
                if !self.replicas.owns(instance.id)
                    && let Some(recorded) = seen.cell.tell(&shared)
                {
                    self.show_health(service, instance.id, &recorded);
                }
            }
        }
    }

    /// Takes over what the store says of the health of instances: that of others
    /// as it is, one's own as known to the others.
    pub(crate) fn told(&self, deltas: &[Delta]) {
        let view = self.view();
        let mut shown: Vec<(ServiceId, InstanceId, Option<Recorded>)> = Vec::new();
        for delta in deltas {
            match delta {
                Delta::Reported { service, instance, health } => {
                    let Some((_, seen)) = view.by_id(*service).and_then(|one| one.instance(*instance)) else {
                        continue;
                    };
                    if self.replicas.owns(*instance) {
                        seen.cell.set_shared(Arc::clone(health));
                        if is_news(&seen.cell.health(), Some(health)) {
                            // It changed meanwhile, or the store was replaced by an older one.
                            self.replicas.outbox.changed(*instance);
                        }
                    } else if let Some(recorded) = seen.cell.tell(health) {
                        shown.push((*service, *instance, Some(recorded)));
                    }
                }
                Delta::Seen(all) => {
                    for seen in all.iter() {
                        shown.extend(self.seen(&view, seen).map(|service| (service, seen.instance, None)));
                    }
                }
                _ => {}
            }
        }
        self.show_told(&view, shown);
    }

    /// Takes note of when an instance was seen; returns its service if readers
    /// would see that.
    fn seen(&self, view: &View, at: &Seen) -> Option<ServiceId> {
        let service = view.owner(at.instance)?;
        let (_, seen) = service.instance(at.instance)?;
        if let Some(heartbeat) = at.heartbeat
            && let Some(until) = seen.cell.heard(heartbeat, Duration::ZERO)
        {
            self.heard_of(service, at.instance, seen, until);
        }
        let visible = at.last_check.is_some_and(|last_check| seen.cell.seen_at(last_check));
        visible.then(|| service.service().id)
    }

    fn show_told(&self, view: &View, shown: Vec<(ServiceId, InstanceId, Option<Recorded>)>) {
        if shown.is_empty() {
            return;
        }
        let deltas: Vec<Delta> = shown
            .iter()
            .map(|(service, instance, _)| Delta::Health { service: *service, instance: *instance })
            .collect();
        let (_, next) = self.swap(None, &deltas);
        for (service, instance, recorded) in shown {
            let (Some(service), Some(recorded)) = (view.by_id(service), recorded) else { continue };
            service.traffic.health_changed();
            self.announce_health(&next, service.service().id, instance, &recorded);
            if recorded.health.state == HealthState::Expired
                && let Some(session) = self.sessions.peek(instance)
            {
                self.sessions.retire(instance, &session, CALLS_PATIENCE);
            }
        }
    }

    /// What the store remembers of health and heartbeats, for a view that stands
    /// at its revision.
    pub(super) fn reported(image: &Image, services: &BTreeMap<InstanceId, ServiceId>) -> Vec<Delta> {
        let reported = image.health.iter().filter_map(|(instance, health)| {
            let service = *services.get(instance)?;
            Some(Delta::Reported { service, instance: *instance, health: Arc::clone(health) })
        });
        reported.collect()
    }

    /// Heartbeats that came while the store was not followed.
    pub(super) fn recall_heartbeats(&self, heartbeats: &BTreeMap<InstanceId, Timestamp>) {
        let view = self.view();
        for (instance, at) in heartbeats {
            let Some(service) = view.owner(*instance) else { continue };
            let Some((_, seen)) = service.instance(*instance) else { continue };
            if let Some(until) = seen.cell.heard(*at, age(*at)) {
                self.heard_of(service, *instance, seen, until);
            }
        }
    }
}

/// Whether the store has something else of an instance than what those who read it
/// are to know at once.
fn is_news(health: &Health, shared: Option<&Health>) -> bool {
    let told = |health: &Health| (health.state, health.reason.code, health.flapping);
    shared.is_none_or(|shared| told(shared) != told(health))
}
