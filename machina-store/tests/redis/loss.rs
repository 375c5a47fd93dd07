//! Redis goes away under load: nothing fails, nothing waits for long, and when it is
//! back it is used again.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use machina_core::testing::SimConnector;
use machina_core::testing::registry_suite::{call, service, settle};
use machina_core::{CallOptions, Machina, Mutation, Rate, Scratch as _, Status, Tasks, TimeLimit};
use machina_store::Redis;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::server::{OwnRedis, connected_to, is_soon};
use crate::waking::{POLL, Shared, seen_after_usually};

const SECOND: Duration = Duration::from_secs(1);

/// What was asked of the replicas in one stretch of time, and what came of it.
#[derive(Debug, Default)]
struct Tally {
    calls: AtomicU64,
    kept: AtomicU64,
    commits: AtomicU64,
    failed: AtomicU64,
    slowest_micros: AtomicU64,
}

impl Tally {
    fn count(&self, counter: &AtomicU64, begun: Instant) {
        counter.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(begun.elapsed().as_micros()).unwrap();
        self.slowest_micros.fetch_max(micros, Ordering::Relaxed);
    }

    /// What was counted since the last time, which is to be no failure and something of
    /// everything else.
    fn stretch(&self, name: &str) {
        let take = |counter: &AtomicU64| counter.swap(0, Ordering::Relaxed);
        let (calls, kept, commits) = (take(&self.calls), take(&self.kept), take(&self.commits));
        let (failed, slowest) = (take(&self.failed), Duration::from_micros(take(&self.slowest_micros)));
        eprintln!(
            "{name}: {calls} calls, {kept} of them kept, {commits} commits, {failed} failed, slowest {slowest:?}"
        );
        assert_eq!(failed, 0, "{name}");
        assert!(calls > 20 && kept > 0 && commits > 5, "{name}");
        // The bound is for one that counts, asks and keeps while the machine has other work.
        assert!(slowest < SECOND * 2, "{name}: {slowest:?}");
    }
}

async fn replica(shared: &Shared, url: &str, sim: &SimConnector) -> (Machina, Redis) {
    let redis = connected_to(url).await;
    let builder = Machina::builder().backend(redis.attach(shared.backend())).connector(Arc::new(sim.clone()));
    (builder.open().await.unwrap(), redis)
}

/// Calls until it is told to stop: every second time the same as before.
async fn keep_calling(machina: Machina, tally: Arc<Tally>, over: Arc<AtomicBool>, caller: u64) {
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        number += 1;
        let begun = Instant::now();
        let echo = call("a", "echo", json!({"text": format!("{caller}-{}", number / 2)}));
        match machina.call(&echo, &CallOptions::default()).await {
            Ok(report) if report.age_ms.is_some() => {
                tally.kept.fetch_add(1, Ordering::Relaxed);
                tally.count(&tally.calls, begun);
            }
            Ok(_) => tally.count(&tally.calls, begun),
            Err(error) => {
                eprintln!("a call failed: {error}");
                tally.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        sleep(Duration::from_millis(2)).await;
    }
}

/// Commits until it is told to stop.
async fn keep_committing(machina: Machina, tally: Arc<Tally>, over: Arc<AtomicBool>, name: &'static str) {
    let mut number = 0;
    while !over.load(Ordering::Relaxed) {
        number += 1;
        let mut spec = service(name, &[]);
        spec.description = format!("the {number}th");
        let begun = Instant::now();
        match machina.apply(vec![Mutation::Put(spec)]).await {
            Ok(_) => tally.count(&tally.commits, begun),
            Err(error) => {
                eprintln!("a commit failed: {error}");
                tally.failed.fetch_add(1, Ordering::Relaxed);
            }
        }
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_redis_no_call_and_no_commit_fails() {
    let (mut server, shared, sim) = (OwnRedis::start(), Shared::default(), SimConnector::seeded(1));
    let ((one, first), (other, second)) =
        (replica(&shared, &server.url(), &sim).await, replica(&shared, &server.url(), &sim).await);
    let mut spec = service("a", &[&sim.instance("one"), &sim.instance("two")]);
    spec.routing_policy.trust_annotations = Some(true);
    spec.routing_policy.cached_tools = [("echo".to_owned(), TimeLimit(SECOND * 60))].into();
    (spec.routing_policy.calls_per_minute, spec.routing_policy.calls_burst) = (Some(1_000_000), Some(100_000));
    one.register(spec).await.unwrap();
    for machina in [&one, &other] {
        while machina.get("a").is_none() {
            sleep(Duration::from_millis(5)).await;
        }
        settle(machina, "a", Status::Healthy).await;
    }

    let (tally, over, tasks) = (Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)), Tasks::new());
    for (number, machina) in [&one, &other, &one, &other].into_iter().enumerate() {
        let caller = keep_calling(machina.clone(), Arc::clone(&tally), Arc::clone(&over), number as u64);
        tasks.spawn("caller", caller);
    }
    for (machina, name) in [(&one, "c1"), (&other, "c2")] {
        tasks.spawn("committer", keep_committing(machina.clone(), Arc::clone(&tally), Arc::clone(&over), name));
    }
    sleep(SECOND).await;
    tally.stretch("with Redis");

    for (loss, mend) in [("kill", "start"), ("pause", "resume"), ("stop", "start")] {
        server.order(loss);
        sleep(SECOND * 2).await;
        tally.stretch(loss);
        assert!(!first.is_connected() && !second.is_connected(), "{loss}");
        server.order(mend);
        is_soon(&first, true).await;
        is_soon(&second, true).await;
        sleep(SECOND).await;
        tally.stretch(mend);
    }
    over.store(true, Ordering::Relaxed);
    assert!(tasks.finish(SECOND * 10).await);

    assert!(seen_after_usually(&one, &other, "again", 11).await < POLL / 5, "it wakes again");
    let (rate, key) = (Rate { per_minute: 1, burst: 1 }, "of both");
    assert_eq!(first.take(key, rate).await, Some(machina_core::Admission::Now));
    assert_ne!(second.take(key, rate).await, Some(machina_core::Admission::Now), "it counts again for both");
    for machina in [one, other] {
        machina.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_gone_costs_a_call_nothing() {
    let mut server = OwnRedis::start();
    let redis = connected_to(&server.url()).await;
    // It keeps its connections and says nothing: the worst that it can do.
    server.order("pause");
    let begun = Instant::now();
    assert!(redis.get("x").await.is_none());
    let first = begun.elapsed();
    let begun = Instant::now();
    for _ in 0..10_000 {
        assert!(redis.get("x").await.is_none());
        assert!(redis.take("x", Rate { per_minute: 1, burst: 1 }).await.is_none());
        redis.put("x", b"y", SECOND).await;
    }
    let rest = begun.elapsed();
    eprintln!("the first waited {first:?}, the next 30,000 together {rest:?}");
    assert!(first < Duration::from_millis(600) && rest < SECOND, "{first:?}, {rest:?}");
    redis.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn its_state_is_told_and_makes_nobody_unready() {
    let mut server = OwnRedis::start();
    let (shared, sim) = (Shared::default(), SimConnector::seeded(3));
    let (machina, redis) = replica(&shared, &server.url(), &sim).await;
    let connected = machina.scratch_standing().unwrap();
    assert!(connected.connected, "{connected:?}");
    server.order("kill");
    is_soon(&redis, false).await;
    let away = machina.scratch_standing().unwrap();
    assert!(!away.connected && away.since >= connected.since, "{away:?}");
    machina.ready().await.unwrap();
    sleep(Duration::from_millis(50)).await;
    assert_eq!(machina.scratch_standing(), Some(away), "the time is that of the loss, not of each attempt");
    server.order("start");
    is_soon(&redis, true).await;
    let again = machina.scratch_standing().unwrap();
    assert!(again.connected && again.since >= away.since, "{again:?}");
    machina.close().await;
    assert!(!machina.scratch_standing().unwrap().connected, "it is closed");
}
