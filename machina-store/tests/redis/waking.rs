//! Replicas wake each other through Redis.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use machina_core::testing::registry_suite::service;
use machina_core::{Backend, Batch, Changes, Image, Machina, MemoryReplies, MemoryStore, Result, Revision, Store};
use machina_store::Redis;
use tokio::time::{Instant, sleep, timeout};

use crate::server::{connected_to, database};

/// How often a replica asks the store by itself.
pub(crate) const POLL: Duration = Duration::from_secs(1);

/// A store in this process that several replicas share, none of which it wakes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Shared(Arc<MemoryStore>);

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for Shared {
    async fn load(&self) -> Result<Image> {
        self.0.load().await
    }
    async fn commit(&self, batch: &Batch) -> Result<Revision> {
        self.0.commit(batch).await
    }
    async fn changes(&self, after: Revision) -> Result<Changes> {
        self.0.changes(after).await
    }
    async fn changed(&self) -> Result<()> {
        sleep(POLL).await;
        Ok(())
    }
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

impl Shared {
    pub(crate) fn backend(&self) -> Backend {
        let (store, journal) = (Arc::new(self.clone()), Arc::clone(&self.0));
        Backend { store, journal, replies: Arc::new(MemoryReplies::new()), leases: None, scratch: None }
    }
}

/// How long `other` takes to see a service that `one` registers.
pub(crate) async fn seen_after(one: &Machina, other: &Machina, name: &str) -> Duration {
    one.register(service(name, &[])).await.unwrap();
    let begun = Instant::now();
    while other.get(name).is_none() {
        assert!(begun.elapsed() < POLL * 5, "{name} is never seen");
        sleep(Duration::from_millis(1)).await;
    }
    begun.elapsed()
}

/// The middle one of `count` such times.
pub(crate) async fn seen_after_usually(one: &Machina, other: &Machina, prefix: &str, count: usize) -> Duration {
    let mut times = Vec::new();
    for number in 0..count {
        times.push(seen_after(one, other, &format!("{prefix}-{number}")).await);
    }
    times.sort();
    eprintln!("{prefix}: seen after {:?} usually, {:?} at worst", times[count / 2], times[count - 1]);
    times[count / 2]
}

async fn two_in(number: u32) -> (Redis, Redis) {
    (connected_to(&database(number)).await, connected_to(&database(number)).await)
}

#[tokio::test]
async fn a_commit_wakes_the_others_and_not_oneself() {
    let (one, other) = two_in(3).await;
    a_commit_wakes(&one, &other).await;
}

pub(crate) async fn a_commit_wakes(one: &Redis, other: &Redis) {
    let shared = Shared::default();
    let (one, other) = (one.attach(shared.backend()), other.attach(shared.backend()));
    // Each connection wakes once, because nobody knows what was told before.
    for backend in [&one, &other] {
        timeout(POLL / 2, backend.store.changed()).await.unwrap().unwrap();
    }
    for _ in 0..2 {
        one.store.commit(&Batch::default()).await.unwrap();
        timeout(POLL / 2, other.store.changed()).await.expect("it is woken").unwrap();
        timeout(POLL / 2, one.store.changed()).await.expect_err("it knows what it does itself");
    }
}

#[tokio::test]
async fn what_is_committed_last_is_told_before_the_end() {
    let shared = Shared::default();
    let (one, other) = two_in(4).await;
    let (one, other) = (one.attach(shared.backend()), other.attach(shared.backend()));
    timeout(POLL / 2, other.store.changed()).await.unwrap().unwrap();
    one.store.commit(&Batch::default()).await.unwrap();
    one.store.close().await.unwrap();
    timeout(POLL / 2, other.store.changed()).await.expect("it is woken").unwrap();
}

#[tokio::test]
async fn a_commit_that_fails_wakes_nobody() {
    let shared = Shared::default();
    let (one, other) = two_in(5).await;
    let (one, other) = (one.attach(shared.backend()), other.attach(shared.backend()));
    timeout(POLL / 2, other.store.changed()).await.unwrap().unwrap();
    let missing = machina_core::Precondition::Exists(machina_core::ServiceId::generate());
    let batch = Batch { preconditions: vec![missing], ..Batch::default() };
    one.store.commit(&batch).await.unwrap_err();
    timeout(POLL / 2, other.store.changed()).await.expect_err("nothing has changed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_see_each_others_changes_at_once() {
    let shared = Shared::default();
    let with = async |redis: Redis| Machina::builder().backend(redis.attach(shared.backend())).open().await.unwrap();
    let (one, other) = two_in(6).await;
    let (one, other) = (with(one).await, with(other).await);
    assert!(seen_after_usually(&one, &other, "there", 21).await < POLL / 5);
    assert!(seen_after_usually(&other, &one, "back", 21).await < POLL / 5);
    for machina in [one, other] {
        machina.close().await;
    }
}
