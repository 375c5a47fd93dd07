//! Several real `machina serve` over one real PostgreSQL, the short way: see
//! `endure`. Each starts a PostgreSQL of its own, and fails where it cannot.

use crate::endure::endure;

/// T20: a replica is killed, one is stopped for 20 s, one is cut off.
#[tokio::test]
async fn replicas_take_over_and_nobody_writes_what_is_stale() {
    endure("T20").await;
}

/// T21: wake-ups are lost, and PostgreSQL is started anew.
#[tokio::test]
async fn no_change_is_missed_though_wake_ups_are_lost() {
    endure("T21").await;
}

/// T22: how soon the others know.
#[tokio::test]
async fn changes_reach_the_other_replicas() {
    endure("T22").await;
}

/// T23: the store is gone for a while.
#[tokio::test]
async fn without_the_store_what_is_known_is_routed() {
    endure("T23").await;
}
