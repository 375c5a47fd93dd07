//! One of several processes over one store: what this one looks after, and what it
//! tells the others. A process that has its store to itself looks after everything
//! and tells nobody.
//!
//! Whoever holds the lease of a shard probes its instances, and is the only one
//! who says how they are; the others take that over as it stands in the store. A
//! replica that could not renew its leases for half of their time looks after
//! nothing any more, long before another may take its place.

#[cfg(test)]
mod alerts_tests;
#[cfg(test)]
mod chaos_tests;
#[cfg(test)]
mod cluster;
#[cfg(test)]
mod cluster_tests;
mod config;
mod following;
mod hints;
mod holding;
#[cfg(test)]
mod lapse_tests;
mod outbox;
mod standing;
mod telling;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Notify;
use tokio::time::Instant;

pub use self::config::ReplicasConfig;
pub(crate) use self::following::Freshness;
use self::hints::Told;
use self::outbox::Outbox;
pub use self::standing::{ReplicaStanding, StoreStanding};
use crate::model::InstanceId;
use crate::shards::{Held, Leases, ReplicaId, SHARDS, ShardLease, shard_of};
use crate::store::Precondition;

/// How often it is looked whether another replica tells people now.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// What this process has to do with others.
#[derive(Debug)]
pub(crate) struct Replicas {
    shared: Option<Shared>,
    /// What the others are to be told.
    pub(crate) outbox: Outbox,
    /// What others are to look at.
    told: Told,
    /// The instances that are in process: each replica has its own, and none says
    /// how those of another are.
    own: ArcSwap<HashSet<InstanceId>>,
}

/// What a process knows that shares its store.
#[derive(Debug)]
struct Shared {
    leases: Arc<dyn Leases>,
    id: ReplicaId,
    held: ArcSwap<Holding>,
    /// How many replicas there were when the leases were last renewed.
    count: AtomicU32,
    /// A lease is gone that was thought to be held.
    doubted: Notify,
    /// How many writes were refused.
    refused: AtomicU64,
}

/// What is held, and until when that counts.
#[derive(Debug, Clone)]
struct Holding {
    epochs: Vec<Option<u64>>,
    until: Instant,
}

impl Holding {
    fn nothing() -> Self {
        Self { epochs: vec![None; usize::from(SHARDS)], until: Instant::now() }
    }

    /// Of what was held when the leases were renewed at `begun`; half of their time
    /// is for the others to be sure.
    fn of(held: &[ShardLease], begun: Instant, ttl: Duration) -> Self {
        let mut holding = Self { until: begun + ttl / 2, ..Self::nothing() };
        for lease in held {
            if let Some(epoch) = holding.epochs.get_mut(usize::from(lease.shard)) {
                *epoch = Some(lease.epoch);
            }
        }
        holding
    }

    fn lease(&self, shard: u16) -> Option<ShardLease> {
        let epoch = (*self.epochs.get(usize::from(shard))?)?;
        Some(ShardLease { shard, epoch })
    }
}

/// That this process looks after an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Charge {
    /// Nobody else could.
    Alone,
    /// It is in process, and the others look after theirs.
    Own,
    /// It holds the lease of its shard.
    Holds(ShardLease),
}

impl Replicas {
    pub(crate) fn new(leases: Option<Arc<dyn Leases>>) -> Self {
        let shared = leases.map(|leases| Shared {
            leases,
            id: ReplicaId::generate(),
            held: ArcSwap::from_pointee(Holding::nothing()),
            count: AtomicU32::new(1),
            doubted: Notify::new(),
            refused: AtomicU64::new(0),
        });
        let outbox = Outbox::new(shared.is_some());
        Self { shared, outbox, told: Told::default(), own: ArcSwap::default() }
    }

    /// These instances are in process: this replica looks after its own, whoever
    /// has their shards.
    pub(crate) fn keep(&self, instances: &[InstanceId]) {
        if self.is_shared() && instances.iter().any(|instance| !self.is_own(*instance)) {
            self.own.rcu(|own| own.iter().chain(instances).copied().collect::<HashSet<_>>());
        }
    }

    /// The instance is gone, or left alone.
    pub(crate) fn let_go(&self, instance: InstanceId) {
        if self.is_own(instance) {
            self.own.rcu(|own| own.iter().copied().filter(|one| *one != instance).collect::<HashSet<_>>());
        }
    }

    /// Whether it is an instance that is in process.
    fn is_own(&self, instance: InstanceId) -> bool {
        let own = self.own.load();
        !own.is_empty() && own.contains(&instance)
    }

    /// Whether others may use the store too.
    pub(crate) fn is_shared(&self) -> bool {
        self.shared.is_some()
    }

    /// The leases, where there are others.
    fn leases(&self) -> Option<Arc<dyn Leases>> {
        self.shared.as_ref().map(|shared| Arc::clone(&shared.leases))
    }

    /// Whether this process looks after the instance now.
    pub(crate) fn owns(&self, instance: InstanceId) -> bool {
        self.charge(instance).is_some()
    }

    /// By what right this process looks after the instance now, if it does.
    pub(crate) fn charge(&self, instance: InstanceId) -> Option<Charge> {
        match &self.shared {
            None => Some(Charge::Alone),
            Some(_) if self.is_own(instance) => Some(Charge::Own),
            Some(shared) => shared.lease(shard_of(instance)).map(Charge::Holds),
        }
    }

    /// Whether the other replicas are told of the health of an instance by whoever
    /// looks after it.
    pub(crate) fn tells_of(&self, instance: InstanceId) -> bool {
        matches!(self.charge(instance), None | Some(Charge::Holds(_)))
    }

    /// Whether this is the one that tells people of alerts: whoever has the first
    /// shard.
    pub(crate) fn tells_people(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.lease(0).is_some())
    }

    /// Waits until that is not as it was.
    pub(crate) async fn until_another_tells_people(&self, tells: bool) {
        if self.shared.is_none() {
            std::future::pending::<()>().await;
        }
        while self.tells_people() == tells {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    /// The id of this one, if there can be others.
    fn id(&self) -> String {
        self.shared.as_ref().map(|shared| shared.id.to_string()).unwrap_or_default()
    }

    /// Whether there was no other replica when the leases were last renewed.
    pub(crate) fn is_alone(&self) -> bool {
        self.shared.as_ref().is_none_or(|shared| shared.count.load(Ordering::Relaxed) <= 1)
    }

    /// What must be true for what is written by this right.
    pub(crate) fn condition(&self, charge: Charge) -> Option<Precondition> {
        let (shared, Charge::Holds(lease)) = (self.shared.as_ref()?, charge) else { return None };
        Some(Precondition::Holds { shard: lease.shard, replica: shared.id, epoch: lease.epoch })
    }

    /// The store refused writes, most likely because a lease is gone: look what is
    /// left.
    fn refused(&self, writes: usize) {
        if let Some(shared) = &self.shared {
            shared.refused.fetch_add(writes as u64, Ordering::Relaxed);
            shared.doubted.notify_one();
        }
    }
}

impl Shared {
    fn lease(&self, shard: u16) -> Option<ShardLease> {
        let held = self.held.load();
        held.lease(shard).filter(|_| Instant::now() < held.until)
    }

    fn renewed(&self, held: &Held, active: &[ShardLease], begun: Instant, ttl: Duration) {
        self.count.store(held.replicas, Ordering::Relaxed);
        self.held.store(Arc::new(Holding::of(active, begun, ttl)));
    }
}
