//! What may be written by whom, and how the health that replicas share is kept.

use std::sync::Arc;

use super::{LONG, SHORT, hold, leases};
use crate::error::{ErrorKind, Result};
use crate::health::{Health, HealthState, Reason, ReasonCode};
use crate::model::{InstanceId, Revision, Service};
use crate::shards::{ReplicaId, ShardLease};
use crate::store::{Backend, Batch, Change, Changes, Image, Precondition, Seen};
use crate::testing::store_suite::{delete, put, service, time, with_instances};

fn health(state: HealthState, second: i64) -> Arc<Health> {
    Arc::new(Health {
        state,
        reason: Reason { code: ReasonCode::Failing, message: format!("Ü: \"no answer\" {second}") },
        since: time(second),
        last_check: Some(time(second)),
        response_time_ms: Some(1.25),
        consecutive_failures: 3,
        flapping: second % 2 == 1,
    })
}

fn put_health(service: &Service, instance: InstanceId, health: &Arc<Health>) -> Change {
    Change::PutHealth { service: service.id, instance, health: Arc::clone(health) }
}

fn seen(all: &[Seen]) -> Change {
    Change::Seen(all.into())
}

fn holds(replica: ReplicaId, lease: ShardLease) -> Precondition {
    Precondition::Holds { shard: lease.shard, replica, epoch: lease.epoch }
}

async fn commit_if(backend: &Backend, preconditions: Vec<Precondition>, changes: Vec<Change>) -> Result<Revision> {
    backend.store.commit(&Batch { preconditions, changes, entries: Vec::new() }).await
}

async fn commit(backend: &Backend, changes: Vec<Change>) -> Revision {
    commit_if(backend, Vec::new(), changes).await.expect("the batch is committed")
}

async fn load(backend: &Backend) -> Image {
    backend.store.load().await.expect("the image is loaded")
}

/// Asserts that the batch is refused as a conflict and leaves no trace.
async fn assert_conflict(backend: &Backend, preconditions: Vec<Precondition>, changes: Vec<Change>) {
    let before = load(backend).await;
    let refused = commit_if(backend, preconditions, changes).await.expect_err("the batch is refused");
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    assert_eq!(load(backend).await, before);
}

/// [`Precondition::Holds`] lets its batch through.
pub async fn a_holder_may_write(backend: &Backend) {
    let (replica, instance) = (ReplicaId::generate(), InstanceId::generate());
    let a = with_instances("a", &[instance]);
    let held = hold(backend, replica, LONG).await;
    let both = vec![holds(replica, held.shards[0]), holds(replica, held.shards[255])];
    let unhealthy = health(HealthState::Unhealthy, 1);
    commit_if(backend, both, vec![put(&a), put_health(&a, instance, &unhealthy)])
        .await
        .expect("the batch is committed");
    assert_eq!(load(backend).await.health[&instance], unhealthy);
}

/// A replica that does not hold the shard, or held it at another epoch, gets a
/// conflict, and nothing has changed.
pub async fn another_may_not_write(backend: &Backend) {
    let (replica, other) = (ReplicaId::generate(), ReplicaId::generate());
    let change = || vec![put(&service("a"))];
    let held = hold(backend, replica, LONG).await;
    let [first, last] = [held.shards[0], held.shards[255]];
    assert_conflict(backend, vec![holds(other, first)], change()).await;
    assert_conflict(backend, vec![holds(replica, first), holds(other, last)], change()).await;
    let later = ShardLease { epoch: first.epoch + 1, ..first };
    assert_conflict(backend, vec![holds(replica, later)], change()).await;
    leases(backend).release(replica).await.expect("the leases are released");
    assert_conflict(backend, vec![holds(replica, first)], change()).await;
    let again = hold(backend, replica, LONG).await.shards[0];
    assert_conflict(backend, vec![holds(replica, first)], change()).await;
    commit_if(backend, vec![holds(replica, again)], change()).await.expect("it holds the shard now");
}

/// Also when nobody else has claimed the shard.
pub async fn an_expired_lease_writes_nothing(backend: &Backend) {
    let replica = ReplicaId::generate();
    let lease = hold(backend, replica, SHORT).await.shards[0];
    tokio::time::sleep(SHORT + SHORT / 5).await;
    assert_conflict(backend, vec![holds(replica, lease)], vec![put(&service("a"))]).await;
}

/// [`Change::PutHealth`] is loaded as it was put, the last one counts.
pub async fn health_is_kept(backend: &Backend) {
    let (i, j) = (InstanceId::generate(), InstanceId::generate());
    let a = with_instances("a", &[i, j]);
    let put_at = commit(backend, vec![put(&a)]).await;
    let bare = Arc::new(Health::unknown(time(1)));
    for state in HealthState::ALL {
        let one = health(*state, 3);
        let changes = vec![put_health(&a, i, &bare), put_health(&a, i, &one), put_health(&a, j, &bare)];
        commit(backend, changes).await;
        let image = load(backend).await;
        assert_eq!((&image.health[&i], &image.health[&j], image.health.len()), (&one, &bare, 2));
        assert_eq!(image.services[0].revision, put_at, "health is no change of the service");
    }
    commit(backend, vec![put(&a)]).await;
    assert_eq!(load(backend).await.health.len(), 2, "a service that is put again keeps it");
}

/// That of an undeclared instance is a conflict.
pub async fn health_needs_its_instance(backend: &Backend) {
    let instance = InstanceId::generate();
    let (a, b) = (with_instances("a", &[instance]), service("b"));
    commit(backend, vec![put(&a), put(&b)]).await;
    let one = health(HealthState::Healthy, 1);
    assert_conflict(backend, vec![], vec![put_health(&a, InstanceId::generate(), &one)]).await;
    assert_conflict(backend, vec![], vec![put_health(&b, instance, &one)]).await;
    assert_conflict(backend, vec![], vec![delete(&a), put_health(&a, instance, &one)]).await;
}

/// And its heartbeat.
pub async fn removed_instance_loses_its_health(backend: &Backend) {
    let (stays, goes) = (InstanceId::generate(), InstanceId::generate());
    let mut a = with_instances("a", &[stays, goes]);
    let one = health(HealthState::Healthy, 1);
    let heard = |instance| Seen { instance, last_check: None, heartbeat: Some(time(2)) };
    let both = seen(&[heard(stays), heard(goes)]);
    commit(backend, vec![put(&a), put_health(&a, stays, &one), put_health(&a, goes, &one), both]).await;
    a.spec.instances.pop();
    commit(backend, vec![put(&a)]).await;
    let image = load(backend).await;
    assert!(image.health.into_keys().eq([stays]) && image.heartbeats.into_keys().eq([stays]));
    commit(backend, vec![delete(&a)]).await;
    commit(backend, vec![put(&a)]).await;
    let image = load(backend).await;
    assert!(image.health.is_empty() && image.heartbeats.is_empty(), "that of the deleted service came back");
}

/// In order, with the revision of its batch.
pub async fn health_is_among_the_changes(backend: &Backend) {
    let instance = InstanceId::generate();
    let mut a = with_instances("a", &[instance]);
    a.revision = commit(backend, vec![put(&a)]).await;
    let (down, up) = (health(HealthState::Unhealthy, 1), health(HealthState::Healthy, 2));
    let at = seen(&[Seen { instance, last_check: Some(time(3)), heartbeat: Some(time(4)) }]);
    commit(backend, vec![put_health(&a, instance, &down), put_health(&a, instance, &up)]).await;
    commit(backend, vec![at.clone()]).await;
    let expected = vec![
        (Revision(2), put_health(&a, instance, &down)),
        (Revision(2), put_health(&a, instance, &up)),
        (Revision(3), at),
    ];
    assert_eq!(backend.store.changes(a.revision).await.expect("changes are read"), Changes::Tail(expected));
}

/// A later [`Seen`] counts, an earlier one and an unknown instance change nothing.
pub async fn seen_merges(backend: &Backend) {
    let (i, j) = (InstanceId::generate(), InstanceId::generate());
    let a = with_instances("a", &[i, j]);
    commit(backend, vec![put(&a), put_health(&a, i, &health(HealthState::Healthy, 5))]).await;
    let at = |instance, check: i64, heartbeat: i64| Seen {
        instance,
        last_check: Some(time(check)),
        heartbeat: Some(time(heartbeat)),
    };
    let read = || async {
        let image = load(backend).await;
        assert!(image.health.keys().eq([&i]), "to be seen is no health");
        (image.health[&i].last_check, image.heartbeats)
    };
    commit(backend, vec![seen(&[at(i, 7, 7), at(InstanceId::generate(), 7, 7), at(j, 7, 8)])]).await;
    let (last_check, heartbeats) = read().await;
    assert_eq!(last_check, Some(time(7)));
    assert_eq!((heartbeats[&i], heartbeats[&j], heartbeats.len()), (time(7), time(8), 2));
    let nothing = Seen { instance: i, last_check: None, heartbeat: None };
    commit(backend, vec![seen(&[at(i, 6, 6), nothing]), seen(&[])]).await;
    let (last_check, heartbeats) = read().await;
    assert_eq!((last_check, heartbeats[&i]), (Some(time(7)), time(7)));
    commit(backend, vec![seen(&[at(i, 8, 9), at(i, 9, 8)])]).await;
    let (last_check, heartbeats) = read().await;
    assert_eq!((last_check, heartbeats[&i], heartbeats[&j]), (Some(time(9)), time(9), time(8)));
}
