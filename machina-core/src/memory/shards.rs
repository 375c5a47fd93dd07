//! The leases of shards as a [`MemoryStore`](super::MemoryStore) keeps them. Pure:
//! the time is an argument.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::shards::{Held, ReplicaId, SHARDS, ShardLease};

/// The lease of one shard. One that was never claimed has run out from the start.
#[derive(Debug, Clone, Copy, Default)]
struct Lease {
    holder: Option<(ReplicaId, Instant)>,
    epoch: u64,
}

impl Lease {
    fn is_of(&self, replica: ReplicaId) -> bool {
        self.holder.is_some_and(|(holder, _)| holder == replica)
    }

    fn is_free(&self, now: Instant) -> bool {
        self.holder.is_none_or(|(_, until)| until <= now)
    }
}

/// Who holds what.
#[derive(Debug)]
pub(super) struct Shards {
    leases: Vec<Lease>,
    /// Until when each replica counts.
    replicas: BTreeMap<ReplicaId, Instant>,
}

impl Shards {
    pub(super) fn new() -> Self {
        Self { leases: vec![Lease::default(); usize::from(SHARDS)], replicas: BTreeMap::new() }
    }

    pub(super) fn hold(&mut self, replica: ReplicaId, ttl: Duration, now: Instant) -> Held {
        let until = now + ttl;
        self.replicas.retain(|_, counts_until| *counts_until > now);
        self.replicas.insert(replica, until);
        let share = usize::from(SHARDS).div_ceil(self.replicas.len());
        let mut mine = 0;
        for lease in self.leases.iter_mut().filter(|lease| lease.is_of(replica)) {
            mine += 1;
            lease.holder = (mine <= share).then_some((replica, until));
        }
        for lease in self.leases.iter_mut().filter(|lease| lease.is_free(now)).take(share.saturating_sub(mine)) {
            *lease = Lease { holder: Some((replica, until)), epoch: lease.epoch + 1 };
        }
        self.held(replica, now)
    }

    fn held(&self, replica: ReplicaId, now: Instant) -> Held {
        let leases = || (0..SHARDS).zip(&self.leases);
        let mine = leases().filter(|(_, lease)| lease.is_of(replica));
        let others = leases().filter(|(_, lease)| !lease.is_of(replica)).filter_map(|(_, lease)| lease.holder);
        let first = others.map(|(_, until)| until.saturating_duration_since(now)).min();
        Held {
            shards: mine.map(|(shard, lease)| ShardLease { shard, epoch: lease.epoch }).collect(),
            replicas: u32::try_from(self.replicas.len()).unwrap_or(u32::MAX),
            next_expiry: first,
        }
    }

    pub(super) fn release(&mut self, replica: ReplicaId) {
        self.replicas.remove(&replica);
        for lease in self.leases.iter_mut().filter(|lease| lease.is_of(replica)) {
            lease.holder = None;
        }
    }

    pub(super) fn holds(&self, replica: ReplicaId, held: ShardLease, now: Instant) -> bool {
        let lease = self.leases.get(usize::from(held.shard));
        lease.is_some_and(|lease| lease.is_of(replica) && !lease.is_free(now) && lease.epoch == held.epoch)
    }
}
