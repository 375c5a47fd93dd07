//! Leases that lapse, and come back: what was seen until then is told as soon as it
//! may be, and never when another has looked since.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::cluster::Cluster;
use crate::health::HealthState;
use crate::model::InstanceId;
use crate::shards::{Leases, ReplicaId};
use crate::store::{Batch, Change, Changes, Store};

const SECOND: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_secs(30);

/// Two replicas, an instance, and which of the two looks after it.
async fn two_replicas() -> (Cluster, InstanceId, usize) {
    let cluster = Cluster::of(2, 3).await;
    let instance = cluster.instances[0].id;
    let holder = cluster.holder(instance);
    (cluster, instance, holder)
}

#[tokio::test(start_paused = true)]
async fn what_was_seen_before_a_lease_lapsed_is_told_when_it_is_renewed() {
    let (cluster, instance, holder) = two_replicas().await;
    let core = &cluster.replicas[holder].system().core;
    let charge = core.replicas.charge(instance);
    cluster.lines[holder].renewal().await;
    cluster.lines[holder].cut(true);
    cluster.world.set_down(instance, true);
    core.look_at(instance);
    tokio::time::sleep(SECOND * 13).await;
    assert!(!core.replicas.owns(instance), "the lease has lapsed");
    let states = [holder, 1 - holder].map(|replica| cluster.health(replica, instance).unwrap().state);
    assert_eq!(states, [HealthState::Unhealthy, HealthState::Healthy]);
    cluster.lines[holder].cut(false);
    cluster.agree_within(SECOND * 5).await;
    assert_eq!(core.replicas.charge(instance), charge, "nobody else had it meanwhile");
}

#[tokio::test(start_paused = true)]
async fn what_was_seen_is_told_when_the_renewal_came_too_late() {
    let (cluster, instance, holder) = two_replicas().await;
    let core = &cluster.replicas[holder].system().core;
    let charge = core.replicas.charge(instance);
    cluster.lines[holder].renewal().await;
    let renewed = Instant::now();
    cluster.lines[holder].stall(true);
    // The second attempt to tell of it comes when the lease has lapsed already.
    tokio::time::sleep_until(renewed + SECOND * 3).await;
    cluster.world.set_down(instance, true);
    core.look_at(instance);
    tokio::time::sleep_until(renewed + SECOND * 8).await;
    assert!(!core.replicas.owns(instance), "the lease has lapsed");
    cluster.lines[holder].stall(false);
    cluster.agree_within(SECOND * 5).await;
    assert_eq!(core.replicas.charge(instance), charge, "nobody else had it meanwhile");
}

/// One that is silent for so long that another has looked meanwhile has nothing to say.
#[tokio::test(start_paused = true)]
async fn what_was_seen_before_another_looked_does_not_count() {
    // So many that some are not looked at again before it could be told.
    let mut cluster = Cluster::of(2, 100).await;
    let holder = cluster.holder(cluster.instances[0].id);
    let core = Arc::clone(&cluster.replicas[holder].system().core);
    let of_holder = cluster.instances.iter().map(|instance| instance.id).filter(|id| core.replicas.owns(*id));
    let instances: Vec<InstanceId> = of_holder.collect();
    let before = cluster.store.load().await.unwrap().revision;
    cluster.lines[holder].renewal().await;
    cluster.lines[holder].cut(true);
    // Too late to look once more before the lease lapses.
    tokio::time::sleep(SECOND * 6).await;
    for instance in &instances {
        cluster.world.set_down(*instance, true);
        core.look_at(*instance);
    }
    tokio::time::sleep(SECOND).await;
    instances.iter().for_each(|instance| cluster.world.set_down(*instance, false));
    tokio::time::sleep(SECOND * 30).await;
    for instance in &instances {
        assert_eq!(cluster.health(holder, *instance).unwrap().state, HealthState::Unhealthy);
        assert_eq!(cluster.holder(*instance), 1 - holder);
    }
    // The other ends before this one is back.
    cluster.lines.remove(1 - holder);
    cluster.replicas.remove(1 - holder).close().await;
    cluster.lines[0].cut(false);
    cluster.agree_within(SECOND * 6).await;
    tokio::time::sleep(SECOND * 5).await;
    assert!(instances.iter().all(|instance| core.replicas.owns(*instance)));
    let Changes::Tail(tail) = cluster.store.changes(before).await.unwrap() else { panic!("it is all there") };
    let told = tail.iter().filter_map(|(_, change)| match change {
        Change::PutHealth { health, .. } => Some(health.state),
        _ => None,
    });
    let stale = told.filter(|state| *state != HealthState::Healthy).count();
    assert_eq!(stale, 0, "of {} instances that was told which another had looked at since", instances.len());
}

/// The store does not know a lease any more that its holder takes to be good.
#[tokio::test(start_paused = true)]
async fn what_the_store_refused_is_told_as_soon_as_it_may_be() {
    let (cluster, instance, holder) = two_replicas().await;
    let core = &cluster.replicas[holder].system().core;
    for down in [true, false] {
        let id = cluster.replicas[holder].standing().replica.unwrap().id;
        let id = ReplicaId::from(id.parse::<uuid::Uuid>().unwrap());
        cluster.lines[holder].renewal().await;
        cluster.store.release(id).await.unwrap();
        cluster.world.set_down(instance, down);
        core.look_at(instance);
        cluster.agree_within(SECOND * 5).await;
        cluster.settle().await;
        tokio::time::sleep(SECOND * 10).await;
    }
}

/// Whatever the store has of an instance, it is put right by whoever looks after it.
#[tokio::test(start_paused = true)]
async fn what_the_store_says_otherwise_is_put_right() {
    let cluster = Cluster::of(2, 3).await;
    let (service, instance) = (cluster.replicas[0].get("s0").unwrap().service().id, cluster.instances[0].id);
    let healthy = cluster.store.load().await.unwrap().health[&instance].clone();
    cluster.world.set_down(instance, true);
    tokio::time::sleep(INTERVAL + SECOND).await;
    assert_eq!(cluster.disagreement(), None);
    let change = Change::PutHealth { service, instance, health: healthy };
    cluster.store.commit(&Batch { changes: vec![change], ..Batch::default() }).await.unwrap();
    tokio::time::sleep(SECOND * 3).await;
    assert_eq!(cluster.disagreement(), None);
    assert_eq!(cluster.store.load().await.unwrap().health[&instance].state, HealthState::Unhealthy);
}
