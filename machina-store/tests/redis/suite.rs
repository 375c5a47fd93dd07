//! Redis counts and keeps as memory does.

use std::sync::Arc;
use std::time::Duration;

use machina_core::{Admission, Rate, Scratch as _};
use machina_store::Redis;

use crate::patient::Patient;
use crate::server::{connected, connected_to, database, is_soon, shared_url};
use crate::waking::a_commit_wakes;

machina_core::scratch_suite!(patient(&shared_url()).await);

async fn patient(url: &str) -> Patient {
    Patient::of(connected_to(url).await, url).await
}

/// What comes of 200 calls at the same moment; `None` where one had no answer, so
/// that nobody knows whether it was counted.
async fn taken_at_once(one: &Redis, other: &Redis, rate: Rate) -> Option<Vec<Admission>> {
    let key: Arc<str> = machina_core::ReplicaId::generate().to_string().into();
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..200 {
        let (redis, key) = (if number % 2 == 0 { one.clone() } else { other.clone() }, Arc::clone(&key));
        calls.spawn(async move { redis.take(&key, rate).await });
    }
    calls.join_all().await.into_iter().collect()
}

#[tokio::test]
async fn of_many_that_count_at_once_no_more_pass_than_may() {
    let (one, other) = (connected().await, connected().await);
    let rate = Rate { per_minute: 1, burst: 40 };
    let taken = match taken_at_once(&one, &other, rate).await {
        Some(taken) => taken,
        None => {
            is_soon(&one, true).await;
            is_soon(&other, true).await;
            taken_at_once(&one, &other, rate).await.expect("it can be asked the second time")
        }
    };
    assert_eq!(taken.into_iter().filter(|taken| *taken == Admission::Now).count(), 40);
}

#[tokio::test]
async fn registries_in_different_databases_share_nothing() {
    let (one, other) = (patient(&database(1)).await, patient(&database(2)).await);
    let key = machina_core::ReplicaId::generate().to_string();
    one.put(&key, b"x", Duration::from_secs(60)).await;
    assert!(other.get(&key).await.is_none() && one.get(&key).await.is_some());
}

#[tokio::test]
async fn nothing_is_kept_for_ever() {
    let redis = patient(&shared_url()).await;
    let key = machina_core::ReplicaId::generate().to_string();
    redis.put(&key, b"x", Duration::from_secs(60)).await;
    redis.take(&key, Rate { per_minute: 1, burst: 5 }).await;
    let client = ::redis::Client::open(shared_url()).unwrap();
    let mut connection = client.get_multiplexed_async_connection().await.unwrap();
    for kind in ["kept", "rate"] {
        let name = format!("machina:{kind}:{key}");
        let left: i64 = ::redis::cmd("PTTL").arg(name).query_async(&mut connection).await.unwrap();
        assert!((1..=60_000).contains(&left), "{kind}: {left} ms");
    }
}

/// What `docs/guide/redis.md` says that the user needs.
#[tokio::test]
async fn a_user_with_few_rights_is_enough() {
    let client = ::redis::Client::open(shared_url()).unwrap();
    let mut admin = client.get_multiplexed_async_connection().await.unwrap();
    let name = format!("machina-{}", machina_core::ReplicaId::generate());
    let guide = include_str!("../../../docs/guide/redis.md");
    let rights = guide.split_once("The user needs `").unwrap().1.split_once('`').unwrap().0;
    let mut user = ::redis::cmd("ACL");
    user.arg("SETUSER").arg(&name).arg("on").arg(">secret").arg("resetchannels").arg("&machina:*").arg("~machina:*");
    for right in rights.split(' ') {
        user.arg(right);
    }
    let () = user.query_async(&mut admin).await.unwrap();

    let place = database(7).split_once('@').expect("the address names a user").1.to_owned();
    let url = format!("redis://{name}:secret@{place}");
    let (one, other) = (connected_to(&url).await, connected_to(&url).await);
    let asking = Patient::of(one.clone(), &database(7)).await;
    machina_core::testing::scratch_suite::what_is_kept_is_found(&asking).await;
    machina_core::testing::scratch_suite::a_rate_lets_a_burst_pass(&asking).await;
    a_commit_wakes(&one, &other).await;
    let () = ::redis::cmd("ACL").arg("DELUSER").arg(&name).query_async(&mut admin).await.unwrap();
}

#[tokio::test]
async fn what_is_closed_is_not_asked_any_more() {
    let redis = connected().await;
    redis.close().await;
    assert!(!redis.is_connected() && redis.get("x").await.is_none());
    redis.close().await;
}
