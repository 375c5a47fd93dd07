//! How child processes end: politely, in time, one after the other.

use std::time::Duration;

use crate::stdio_support::*;
use futures_util::future::join_all;
use machina_core::{Connector, Era, ErrorKind, Phase};
use machina_mcp::client::{StdioConfig, StdioConnector};
use serde_json::json;
use tokio::time::Instant;

const PATIENCE: Duration = Duration::from_millis(400);

fn patient() -> StdioConnector {
    let config = StdioConfig { stop_after_eof: PATIENCE, stop_after_term: PATIENCE, ..config() };
    StdioConnector::new(config, environment())
}

#[tokio::test]
async fn a_child_is_asked_to_end_before_it_is_killed_and_several_at_a_time() {
    let connector = patient();
    for (quirks, least, most) in [
        (&["legacy"][..], Duration::ZERO, PATIENCE),
        (&["legacy", "lingers"], PATIENCE, PATIENCE * 2),
        (&["legacy", "stubborn"], PATIENCE * 2, PATIENCE * 4),
    ] {
        let sessions = join_all(
            (0..5).map(|_| async { connector.connect(&target(endpoint(quirks), Some(Era::Legacy))).await.unwrap() }),
        );
        let sessions = sessions.await;
        let begun = Instant::now();
        join_all(sessions.iter().map(|session| session.close())).await;
        let took = begun.elapsed();
        assert!(sessions.iter().all(|session| !exists(session.process_id().unwrap())), "{quirks:?}: reaped");
        assert!(took >= least && took < most + Duration::from_millis(300), "{quirks:?}: {took:?}");
    }
}

#[tokio::test]
async fn the_next_process_of_an_instance_starts_when_the_one_before_is_gone() {
    let connector = patient();
    let target = target(endpoint(&["legacy", "stubborn"]), Some(Era::Legacy));
    let before = connector.connect(&target).await.unwrap();
    let pid = before.process_id().unwrap();
    let begun = Instant::now();
    let next = async {
        let next = connector.connect(&target).await.unwrap();
        assert!(!exists(pid), "two processes of one instance");
        assert!(begun.elapsed() >= PATIENCE * 2, "{:?}", begun.elapsed());
        next
    };
    let (next, ()) = tokio::join!(next, before.close());
    assert_eq!(call(&next, "echo", json!({})).await.unwrap(), "{}");
    next.close().await;
}

#[tokio::test]
async fn whoever_waits_for_the_process_before_waits_within_its_own_time() {
    let connector = patient();
    let mut target = target(endpoint(&["legacy"]), Some(Era::Legacy));
    let before = connector.connect(&target).await.unwrap();
    target.timeout = Duration::from_millis(300);
    let error = connector.connect(&target).await.unwrap_err();
    assert_eq!((error.kind(), error.context().phase), (ErrorKind::Unreachable, Some(Phase::NotSent)));
    assert!(error.message().contains("the process before has not ended") && !error.context().hard, "{error}");
    assert_eq!(call(&before, "echo", json!({})).await.unwrap(), "{}", "it is left alone");
    before.close().await;
}
