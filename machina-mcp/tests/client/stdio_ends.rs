//! How child processes end: politely, and in time.

use std::time::Duration;

use crate::stdio_support::*;
use futures_util::future::join_all;
use machina_core::{Connector, Era};
use machina_mcp::client::{StdioConfig, StdioConnector};
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
        assert!(took >= least && took < most + Duration::from_millis(900), "{quirks:?}: {took:?}");
    }
}
