//! How the leases of shards must behave: one function for each point of the
//! **Behaviour** list of [`Leases`]. The macro [`leases_suite!`](crate::leases_suite)
//! makes a test of each. Every function expects a back-end that is still empty and
//! has leases, and panics where the behaviour differs.

mod writes;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use self::writes::{
    a_holder_may_write, an_expired_lease_writes_nothing, another_may_not_write, health_is_among_the_changes,
    health_is_kept, health_needs_its_instance, removed_instance_loses_its_health, seen_merges,
};
use crate::model::InstanceId;
use crate::shards::{Held, Leases, ReplicaId, SHARDS, ShardLease};
use crate::store::Backend;

/// Stamps one `#[tokio::test]` for each behaviour of a back-end with leases.
///
/// The expression makes an empty [`Backend`](crate::Backend) that has leases, or
/// anything that is `AsRef<Backend>`; it may `.await`. The crate that uses the
/// macro needs `tokio` with `macros` and `rt`.
#[macro_export]
macro_rules! leases_suite {
    ($make:expr) => {
        $crate::leases_suite! { @each $make =>
            one_replica_holds_everything, two_replicas_share, no_shard_is_held_twice, a_silent_replica_is_replaced,
            a_claim_has_a_new_epoch, a_released_replica_holds_nothing, the_next_expiry_is_that_of_another,
            a_holder_may_write, another_may_not_write, an_expired_lease_writes_nothing, health_is_kept,
            health_needs_its_instance, removed_instance_loses_its_health, health_is_among_the_changes, seen_merges,
            a_hint_reaches_who_waits,
        }
    };
    (@each $make:expr => $($behaviour:ident,)*) => {
        $(
            #[::tokio::test]
            async fn $behaviour() {
                let made = $make;
                $crate::testing::leases_suite::$behaviour(::std::convert::AsRef::as_ref(&made)).await;
            }
        )*
    };
}

/// Longer than any test takes.
const LONG: Duration = Duration::from_secs(60);

/// So short that a test can wait for its end.
const SHORT: Duration = Duration::from_secs(1);

/// The same, where something else comes first, which takes its time on a busy machine.
const BRIEF: Duration = Duration::from_secs(5);

/// Longer than any test takes, and still told from [`LONG`].
const MIDDLING: Duration = Duration::from_secs(25);

const ALL: usize = SHARDS as usize;

fn leases(backend: &Backend) -> &dyn Leases {
    &**backend.leases.as_ref().expect("the back-end has leases")
}

async fn hold(backend: &Backend, replica: ReplicaId, ttl: Duration) -> Held {
    let held = leases(backend).hold(replica, ttl).await.expect("the leases are held");
    assert!(held.shards.is_sorted() && held.shards.iter().all(|lease| lease.shard < SHARDS), "{held:?}");
    held
}

fn shards(held: &Held) -> BTreeSet<u16> {
    held.shards.iter().map(|lease| lease.shard).collect()
}

/// A hint names instances, and comes to whoever waits while changes are waited for too.
pub async fn a_hint_reaches_who_waits(backend: &Backend) {
    let instances: Vec<InstanceId> = (0..500).map(|_| InstanceId::generate()).collect();
    let wakes = async {
        loop {
            drop(backend.store.changed().await);
        }
    };
    // The first may be given before anybody listens.
    let given = async {
        loop {
            leases(backend).hint(&instances).await.expect("the hint is given");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let hinted = async {
        let mut told = BTreeSet::new();
        while told.len() < instances.len() {
            told.extend(leases(backend).hinted().await.expect("a hint comes"));
        }
        told
    };
    let told = tokio::select! {
        told = tokio::time::timeout(LONG, hinted) => told.expect("hints arrive"),
        () = wakes => unreachable!("it waits for ever"),
        () = given => unreachable!("it goes on for ever"),
    };
    assert_eq!(told, instances.iter().copied().collect());
}

/// 256 shards, and it keeps them with their epochs.
pub async fn one_replica_holds_everything(backend: &Backend) {
    let replica = ReplicaId::generate();
    let first = hold(backend, replica, LONG).await;
    assert_eq!((shards(&first).len(), first.replicas, first.next_expiry), (ALL, 1, None));
    assert_eq!(hold(backend, replica, LONG).await, first);
}

/// The first lets go above its share, the second then claims up to its own.
pub async fn two_replicas_share(backend: &Backend) {
    let (a, b) = (ReplicaId::generate(), ReplicaId::generate());
    let all = hold(backend, a, LONG).await;
    let none = hold(backend, b, LONG).await;
    assert_eq!((none.shards.len(), none.replicas), (0, 2), "nothing is taken from a replica that lives");
    let half = hold(backend, a, LONG).await;
    assert_eq!((half.shards.len(), half.replicas), (ALL / 2, 2));
    assert!(half.shards.iter().all(|lease| all.shards.contains(lease)), "what stays keeps its epoch");
    let other = hold(backend, b, LONG).await;
    assert_eq!(other.shards.len(), ALL / 2);
    assert!(shards(&half).is_disjoint(&shards(&other)));
    assert_eq!(hold(backend, a, LONG).await.shards, half.shards, "and then nothing moves any more");
}

/// Whatever the order of calls, also at once.
pub async fn no_shard_is_held_twice(backend: &Backend) {
    let replicas: Vec<ReplicaId> = (0..4).map(|_| ReplicaId::generate()).collect();
    let mut latest: BTreeMap<ReplicaId, Held> = BTreeMap::new();
    for _ in 0..6 {
        let at = |index: usize| hold(backend, replicas[index], LONG);
        let (a, b, c, d) = tokio::join!(at(0), at(1), at(2), at(3));
        latest = replicas.iter().copied().zip([a, b, c, d]).collect();
    }
    let mut taken = BTreeSet::new();
    for held in latest.values() {
        assert_eq!((held.shards.len(), held.replicas), (ALL / 4, 4), "everyone has its share");
        held.shards.iter().for_each(|lease| assert!(taken.insert(lease.shard), "{lease:?} is held twice"));
    }
    assert_eq!(taken.len(), ALL);
}

/// After its `ttl`, and not before; it is not counted any more.
pub async fn a_silent_replica_is_replaced(backend: &Backend) {
    let (silent, other) = (ReplicaId::generate(), ReplicaId::generate());
    hold(backend, silent, BRIEF).await;
    assert_eq!(hold(backend, other, LONG).await.shards, [], "before its time is over");
    tokio::time::sleep(BRIEF + BRIEF / 5).await;
    let held = hold(backend, other, LONG).await;
    assert_eq!((held.shards.len(), held.replicas, held.next_expiry), (ALL, 1, None));
    let back = hold(backend, silent, LONG).await;
    assert_eq!((back.shards.len(), back.replicas), (0, 2), "it comes back as anyone else");
}

/// Greater than any that the shard had.
pub async fn a_claim_has_a_new_epoch(backend: &Backend) {
    let mut epochs: BTreeMap<u16, u64> = BTreeMap::new();
    for _ in 0..3 {
        let replica = ReplicaId::generate();
        for ShardLease { shard, epoch } in hold(backend, replica, LONG).await.shards {
            let before = epochs.insert(shard, epoch);
            assert!(before.is_none_or(|before| before < epoch), "shard {shard}: {epoch} after {before:?}");
        }
        leases(backend).release(replica).await.expect("the leases are released");
    }
    assert_eq!(epochs.len(), ALL);
}

/// Its shards are free at once, and it is not counted.
pub async fn a_released_replica_holds_nothing(backend: &Backend) {
    let (a, b) = (ReplicaId::generate(), ReplicaId::generate());
    hold(backend, a, LONG).await;
    leases(backend).release(a).await.expect("the leases are released");
    leases(backend).release(a).await.expect("to release nothing is no error");
    let held = hold(backend, b, LONG).await;
    assert_eq!((held.shards.len(), held.replicas, held.next_expiry), (ALL, 1, None));
}

/// Never of the leases of the one that asks.
pub async fn the_next_expiry_is_that_of_another(backend: &Backend) {
    let (a, b) = (ReplicaId::generate(), ReplicaId::generate());
    hold(backend, a, LONG).await;
    let held = hold(backend, b, MIDDLING).await;
    let expiry = held.next_expiry.expect("the other holds something");
    assert!(expiry <= LONG && expiry > LONG / 2, "{expiry:?}");
    assert_eq!(hold(backend, a, LONG).await.next_expiry, None, "the other holds nothing yet");
    hold(backend, b, MIDDLING).await;
    let expiry = hold(backend, a, LONG).await.next_expiry.expect("now it does");
    assert!(expiry <= MIDDLING, "{expiry:?}");
}
