//! Who of several replicas over one store looks after which instances. Every
//! instance belongs to one of [`SHARDS`] shards, and a replica that holds the
//! lease of a shard probes its instances and says how they are. The leases live
//! in the store, under the store's clock; each claim of a shard gets a new
//! epoch, and what a replica writes about a shard is committed only while it
//! holds it at that epoch ([`Precondition::Holds`](crate::Precondition::Holds)).
//!
//! Elects no leader, trusts no clock of a replica, and keeps no lock.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use uuid::Uuid;

use crate::error::Result;
use crate::model::InstanceId;

/// How many shards there are. Never changes: the replicas of two versions must agree.
pub const SHARDS: u16 = 256;

/// The shard of an instance, in every process and version the same.
#[must_use]
pub fn shard_of(instance: InstanceId) -> u16 {
    const BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let hash = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(PRIME);
    let hash = instance.as_uuid().as_bytes().iter().fold(BASIS, hash);
    let folded = (hash ^ (hash >> 32)) % u64::from(SHARDS);
    u16::try_from(folded).unwrap_or_default()
}

/// One process among those that share a store. Made anew at each start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplicaId(Uuid);

impl ReplicaId {
    /// An id that nobody has.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }
}

impl From<Uuid> for ReplicaId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

impl From<ReplicaId> for Uuid {
    fn from(id: ReplicaId) -> Self {
        id.0
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0, f)
    }
}

/// That a replica holds a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardLease {
    /// Below [`SHARDS`].
    pub shard: u16,
    /// Greater with each claim of the shard, by whomever; the same for as long as
    /// the replica renews it.
    pub epoch: u64,
}

/// What a replica holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Held {
    /// Its shards, in order.
    pub shards: Vec<ShardLease>,
    /// How many replicas there are, itself included: those that have called
    /// [`Leases::hold`] and whose time has not run out.
    pub replicas: u32,
    /// When the first lease of another replica runs out unless it is renewed:
    /// worth another look then. `None` when no other replica holds any.
    pub next_expiry: Option<Duration>,
}

/// Shares the shards out among replicas.
///
/// The fair share of a replica is [`SHARDS`] divided by the number of replicas,
/// rounded up.
///
/// # Behaviour
/// Each point is a test in `machina_core::testing`:
/// * `one_replica_holds_everything`: 256 shards, and it keeps them with their epochs.
/// * `two_replicas_share`: the first lets go above its share, the second then claims up to its own.
/// * `no_shard_is_held_twice`: whatever the order of calls, also at once.
/// * `a_silent_replica_is_replaced`: after its `ttl`, and not before; it is not counted any more.
/// * `a_claim_has_a_new_epoch`: greater than any that the shard had.
/// * `a_released_replica_holds_nothing`: its shards are free at once, and it is not counted.
/// * `the_next_expiry_is_that_of_another`: never of the leases of the one that asks.
/// * `a_holder_may_write`: [`Precondition::Holds`](crate::Precondition::Holds) lets its batch through.
/// * `another_may_not_write`: a replica that does not hold the shard, or held it at another epoch,
///   gets a conflict, and nothing has changed.
/// * `an_expired_lease_writes_nothing`: also when nobody else has claimed the shard.
/// * `health_is_kept`: [`Change::PutHealth`](crate::Change::PutHealth) is loaded as it was put, the last one counts.
/// * `health_needs_its_instance`: that of an undeclared instance is a conflict.
/// * `removed_instance_loses_its_health`: and its heartbeat.
/// * `health_is_among_the_changes`: in order, with the revision of its batch.
/// * `seen_merges`: a later [`Seen`](crate::Seen) counts, an earlier one and an unknown instance change nothing.
#[async_trait]
pub trait Leases: fmt::Debug + Send + Sync + 'static {
    /// Renews what the replica holds for `ttl` from now, lets go of what is above
    /// its fair share, and claims free or expired shards up to it. The time is the
    /// store's.
    async fn hold(&self, replica: ReplicaId, ttl: Duration) -> Result<Held>;

    /// Lets go of everything: the replica is ending.
    async fn release(&self, replica: ReplicaId) -> Result<()>;

    /// Tells every replica that these instances are worth a look, as one of them saw
    /// them fail. A hint and nothing more: it may be lost, and is never kept.
    async fn hint(&self, instances: &[InstanceId]) -> Result<()>;

    /// Waits until a replica, perhaps this one, hints at instances. A store may take
    /// hints in only while somebody waits in [`Store::changed`](crate::Store::changed).
    async fn hinted(&self) -> Result<Vec<InstanceId>>;
}

/// Carries hints within a process: for those who implement [`Leases`].
#[derive(Debug)]
pub struct Hints(broadcast::Sender<Vec<InstanceId>>);

/// How many hints may come before one who waits has taken the first of them.
const HINTS_MAX: usize = 64;

impl Default for Hints {
    fn default() -> Self {
        Self(broadcast::Sender::new(HINTS_MAX))
    }
}

impl Hints {
    /// Tells all who wait; where nobody does, nobody is told.
    pub fn give(&self, instances: Vec<InstanceId>) {
        let _ = self.0.send(instances);
    }

    /// Waits for the next hint; those that came with it are part of it.
    pub async fn next(&self) -> Vec<InstanceId> {
        let mut hints = self.0.subscribe();
        let mut told = loop {
            match hints.recv().await {
                Ok(instances) => break instances,
                Err(RecvError::Lagged(_)) => {}
                // Not while `self` is there.
                Err(RecvError::Closed) => std::future::pending().await,
            }
        };
        while let Ok(more) = hints.try_recv() {
            told.extend(more);
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shard_of_an_instance_never_changes() {
        let instance: InstanceId = "01890a5d-ac96-774b-bcce-b302099a8057".parse().unwrap();
        assert_eq!(shard_of(instance), 111);
    }

    #[test]
    fn instances_are_spread_over_all_shards() {
        let mut counts = vec![0_u32; usize::from(SHARDS)];
        (0..25_600).for_each(|_| counts[usize::from(shard_of(InstanceId::generate()))] += 1);
        assert!(counts.iter().all(|count| (50..160).contains(count)), "{counts:?}");
    }

    #[tokio::test]
    async fn hints_that_come_together_are_all_told() {
        let hints = Hints::default();
        let instances: Vec<InstanceId> = (0..3).map(|_| InstanceId::generate()).collect();
        let (told, ()) = tokio::join!(hints.next(), async {
            instances.iter().for_each(|instance| hints.give(vec![*instance]));
        });
        assert_eq!(told, instances);
    }
}
