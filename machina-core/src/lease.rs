//! The life of an instance that registered itself: it is there as long as its
//! heartbeats come. One that falls silent expires, and is removed a while later;
//! a declared instance has no lease and never expires.
//!
//! After a restart each lease begins anew. Where several replicas share a store,
//! any of them takes heartbeats, the others are told through the store, and the
//! one that looks after the instance says that its lease has run out. Decides
//! nothing about health: that is [`step`](crate::health::step).

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::access::{Principal, Role, Scoped};
use crate::cell::LeaseLook;
use crate::clock;
use crate::core::Core;
use crate::error::Result;
use crate::health::{CALLS_PATIENCE, HealthState, Reason, ReasonCode};
use crate::model::{InstanceId, Revision, ServiceName};
use crate::view::{InstanceView, ServiceView};
use crate::write::Mutation;

/// When the removal of an instance is tried again that did not succeed.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// When a lease is looked at again that another replica looks after.
const LOOK_AGAIN: Duration = Duration::from_secs(5);

/// The lease of an instance, as it stands after a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Lease {
    /// How long it lasts without a heartbeat, in milliseconds.
    pub ttl_ms: u64,
    /// When it runs out unless the next heartbeat comes before.
    pub expires_at: Timestamp,
    /// When the next heartbeat should be sent, in milliseconds from now: a third
    /// of the whole, so that two may be lost.
    pub renew_after_ms: u64,
}

/// What came of a heartbeat.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Heartbeat {
    /// The service.
    pub service: ServiceName,
    /// The instance; none when none was named and the service has no lease at all.
    pub instance: Option<InstanceId>,
    /// Its lease; none for a declared instance, which never expires and needs no
    /// heartbeat.
    pub lease: Option<Lease>,
    /// Its health. After it had expired it is unknown until it was probed.
    pub health: Option<HealthState>,
    /// The revision that readers see.
    pub revision: Revision,
}

/// The lease of one instance as its cell keeps it. Pure: the time is an argument.
#[derive(Debug, Clone, Copy)]
pub(crate) struct LeaseClock {
    ttl: Duration,
    renewed: Instant,
    renewed_at: Timestamp,
    /// Whether a heartbeat or a registration began it, and not a start of the registry.
    heard: bool,
}

impl LeaseClock {
    /// A lease that begins now, without anyone having been heard of.
    pub(crate) fn start(ttl: Duration, now: Instant, at: Timestamp) -> Self {
        Self { ttl, renewed: now, renewed_at: at, heard: false }
    }

    /// The instance was heard of.
    pub(crate) fn renew(&mut self, now: Instant, at: Timestamp) {
        *self = Self { renewed: now, renewed_at: at, heard: true, ..*self };
    }

    /// Someone else heard of the instance then; says whether that is news.
    pub(crate) fn hear(&mut self, renewed: Instant, at: Timestamp) -> bool {
        let news = renewed > self.renewed && !(self.heard && self.renewed_at == at);
        if news {
            self.renew(renewed, at);
        }
        news
    }

    /// The same lease with another duration.
    pub(crate) fn lasting(self, ttl: Duration) -> Self {
        Self { ttl, ..self }
    }

    /// The moment at which it runs out.
    pub(crate) fn until(&self) -> Instant {
        self.renewed + self.ttl
    }

    /// When the instance was last heard of; `None` since the registry started.
    pub(crate) fn last_heartbeat(&self) -> Option<Timestamp> {
        self.heard.then_some(self.renewed_at)
    }

    pub(crate) fn expires_at(&self) -> Timestamp {
        self.renewed_at.checked_add(self.ttl).unwrap_or(Timestamp::MAX)
    }

    pub(crate) fn lease(&self) -> Lease {
        let ttl_ms = u64::try_from(self.ttl.as_millis()).unwrap_or(u64::MAX);
        Lease { ttl_ms, expires_at: self.expires_at(), renew_after_ms: ttl_ms / 3 }
    }

    /// Why the instance is expired.
    pub(crate) fn reason(&self) -> Reason {
        let (ttl, at) = (self.ttl, self.renewed_at);
        let message = match self.heard {
            true => format!("no heartbeat for {ttl:?}: the last one came at {at}"),
            false => format!("no heartbeat for {ttl:?}: none has come since {at}"),
        };
        Reason { code: ReasonCode::Expired, message }
    }
}

/// When each lease is to be looked at. A heartbeat moves no timer: the lease is
/// looked at when it would have run out, and again when it really does.
#[derive(Debug, Default)]
pub(crate) struct LeaseTimers {
    timers: Mutex<Timers>,
    earlier: Notify,
}

/// One timer per instance, in both orders.
#[derive(Debug, Default)]
struct Timers {
    due: BTreeSet<(Instant, InstanceId)>,
    of: HashMap<InstanceId, Instant>,
}

impl LeaseTimers {
    fn timers(&self) -> MutexGuard<'_, Timers> {
        self.timers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has the instance looked at by `at`, if not earlier.
    pub(crate) fn arm(&self, instance: InstanceId, at: Instant) {
        let mut timers = self.timers();
        match timers.of.get(&instance).copied() {
            Some(earlier) if earlier <= at => return,
            Some(later) => drop(timers.due.remove(&(later, instance))),
            None => {}
        }
        timers.of.insert(instance, at);
        timers.due.insert((at, instance));
        if timers.due.first() == Some(&(at, instance)) {
            self.earlier.notify_one();
        }
    }

    fn disarm(&self, instance: InstanceId) {
        let mut timers = self.timers();
        if let Some(at) = timers.of.remove(&instance) {
            timers.due.remove(&(at, instance));
        }
    }

    /// The next instance to look at, when it is time.
    async fn next(&self) -> InstanceId {
        loop {
            let first = self.timers().due.first().copied();
            match first {
                None => self.earlier.notified().await,
                Some((at, instance)) if at <= Instant::now() => {
                    self.disarm(instance);
                    return instance;
                }
                Some((at, _)) => tokio::select! {
                    biased;
                    () = tokio::time::sleep_until(at) => {}
                    () = self.earlier.notified() => {}
                },
            }
        }
    }
}

impl Core {
    /// Begins, changes or ends the leases of a service as it is declared now.
    pub(crate) fn keep_leases(&self, service: &ServiceView) {
        if self.is_follower {
            // Heartbeats go to the Machina that is followed, and so does the end of who sends none.
            return;
        }
        for (instance, seen) in service.instances() {
            let recorded = seen.cell.set_lease(instance.lease_ttl, self.replicas.owns(instance.id));
            if let Some(until) = seen.cell.lease_until() {
                self.leases.arm(instance.id, until);
            }
            if let Some(recorded) = recorded {
                self.publish_health(service, instance.id, recorded);
                self.monitor.hint(instance.id);
            }
        }
    }

    /// Forgets the leases of instances that `new` does not have any more.
    pub(crate) fn drop_leases(&self, old: &ServiceView, new: Option<&ServiceView>) {
        for (instance, _) in old.instances() {
            if new.is_none_or(|new| new.instance(instance.id).is_none()) {
                self.leases.disarm(instance.id);
            }
        }
    }

    /// The instance was heard of; returns its lease, if it has one.
    pub(crate) fn renew_lease(&self, service: &ServiceView, instance: InstanceId) -> Option<Lease> {
        let (_, seen) = service.instance(instance)?;
        let lease = seen.cell.renew()?;
        self.replicas.outbox.heard(instance, clock::now());
        self.heard_of(service, instance, seen, lease.until());
        Some(lease.lease())
    }

    /// The instance was heard of, here or elsewhere, so that its lease lasts until
    /// then: if it had run out, the instance is back.
    pub(crate) fn heard_of(&self, service: &ServiceView, instance: InstanceId, seen: &InstanceView, until: Instant) {
        if self.replicas.owns(instance)
            && let Some(recorded) = seen.cell.come_back()
        {
            self.publish_health(service, instance, recorded);
            self.monitor.hint(instance);
        }
        // While it was expired its timer stood at its removal.
        self.leases.arm(instance, until);
    }

    /// Looks at each lease when it runs out; runs until cancelled.
    pub(crate) async fn expire_leases(self: Arc<Self>) {
        loop {
            let instance = self.leases.next().await;
            if let Some(at) = self.look_at_lease(instance).await {
                self.leases.arm(instance, at);
            }
        }
    }

    /// Takes an instance out of use whose lease ran out, or removes it when it
    /// has been out for long enough; returns when to look at it again.
    async fn look_at_lease(self: &Arc<Self>, instance: InstanceId) -> Option<Instant> {
        let view = self.view();
        let service = view.owner(instance)?;
        let (_, seen) = service.instance(instance)?;
        if !self.replicas.owns(instance) {
            return seen.cell.lease_until().map(|until| until.max(Instant::now() + LOOK_AGAIN));
        }
        match seen.cell.look_at_lease(self.config.health.expired_retention) {
            LeaseLook::None => None,
            LeaseLook::Until(at) => Some(at),
            LeaseLook::Expired { recorded, remove_at } => {
                self.publish_health(service, instance, recorded);
                if let Some(session) = self.sessions.peek(instance) {
                    self.sessions.retire(instance, &session, CALLS_PATIENCE);
                }
                Some(remove_at)
            }
            LeaseLook::Over => match self.remove_expired(service, instance).await {
                Ok(()) => None,
                Err(error) => {
                    tracing::warn!(%instance, %error, "an expired instance was not removed");
                    Some(Instant::now() + RETRY_AFTER)
                }
            },
        }
    }

    /// Removes an instance, and its service too when that was nothing but this
    /// instance: it registered itself.
    async fn remove_expired(self: &Arc<Self>, view: &ServiceView, instance: InstanceId) -> Result<()> {
        let service = view.service();
        let (name, expected) = (service.name().clone(), Some(service.revision));
        let mut spec = service.spec.clone();
        spec.instances.retain(|one| one.id != instance);
        let mutation = match spec.instances.is_empty() {
            true => Mutation::Deregister { name, expected },
            false => Mutation::Update { name, spec, expected },
        };
        let principal = Arc::new(Principal::new("lease-expiry", Role::Admin));
        Scoped { core: Arc::clone(self), principal }.change(vec![mutation]).await.map(drop)
    }
}

#[cfg(test)]
#[path = "lease_tests.rs"]
mod tests;
