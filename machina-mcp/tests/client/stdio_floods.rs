//! Child processes that say too much, or listen to nothing: no other one suffers, and memory stays bounded.

use std::sync::Arc;
use std::time::Duration;

use crate::stdio_support::*;
use futures_util::future::join_all;
use machina_core::{CallContext, Connector, Era, ErrorKind, Notice, Phase, Result, Session};
use machina_mcp::client::{StdioConfig, StdioConnector};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

const MIB: u64 = 1024 * 1024;
/// How long a call of another may take meanwhile, and how many there are at least: if all had to wait for the end of
/// a flood, none would be answered during it.
const SLOWEST: Duration = Duration::from_secs(3);
const CALLS_MIN: u32 = 3;

/// Held by whoever measures memory and delays: another flood would add to them.
static ALONE: Mutex<()> = Mutex::const_new(());

/// How much memory this process has, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// Has the child say much, for as long as that takes on a slow machine.
async fn flood(session: &Arc<dyn Session>, tool: &str, arguments: Value) -> Result<String> {
    let context = CallContext::within(Duration::from_secs(60));
    Ok(session.call(tool, &object(arguments), &context).await?.text())
}

/// Calls `session` again and again until `until` is ready; the slowest call of all.
async fn slowest_call<T>(session: &Arc<dyn Session>, until: impl Future<Output = T>) -> (T, Duration, u32) {
    let (mut slowest, mut count) = (Duration::ZERO, 0);
    let calls = async {
        loop {
            let begun = Instant::now();
            assert_eq!(call(session, "echo", json!({})).await.unwrap(), "{}");
            slowest = slowest.max(begun.elapsed());
            count += 1;
        }
    };
    let done = tokio::select! {
        done = until => done,
        () = calls => unreachable!("calls are made until then"),
    };
    (done, slowest, count)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_line_without_end_ends_the_session_and_costs_no_memory() {
    let _alone = ALONE.lock().await;
    let other = connect(&["legacy"]).await;
    let session = connect(&["legacy"]).await;
    let pid = session.process_id().unwrap();
    let before = resident();
    let flood = flood(&session, "endless", json!({"mebibytes": 100}));
    let (result, slowest, count) = slowest_call(&other, flood).await;
    let grown = resident().saturating_sub(before) / MIB;
    println!("100 MiB in one line: {grown} MiB more memory; {count} calls of others, the slowest took {slowest:?}");
    let error = result.unwrap_err();
    assert_eq!((error.kind(), error.context().phase), (ErrorKind::Lost, Some(Phase::MaybeExecuted)), "{error}");
    let said = format!("the process wrote a line of more than {} bytes to stdout; a message may have", 64 * MIB);
    assert!(error.message().contains(&said), "{error}");
    assert!(grown < 24, "{grown} MiB");
    assert!(matches!(session.notice().await, Notice::Closed(_)) && session.is_closed());
    assert!(count >= CALLS_MIN && slowest < SLOWEST, "{count} calls, {slowest:?}");
    assert!(gone(pid).await, "it is of no use any more");
    session.close().await;
    other.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_million_lines_on_stderr_are_drained_and_delay_no_other() {
    let _alone = ALONE.lock().await;
    let (other, session) = (connect(&["legacy"]).await, connect(&["legacy"]).await);
    let begun = Instant::now();
    let before = resident();
    let (result, slowest, count) = slowest_call(&other, flood(&session, "stderr", json!({"lines": 1_000_000}))).await;
    result.unwrap();
    let (took, grown) = (begun.elapsed(), resident().saturating_sub(before) / MIB);
    println!("10^6 lines in {took:?}, {grown} MiB more memory; {count} calls of others, the slowest took {slowest:?}");
    assert_eq!(call(&session, "echo", json!({})).await.unwrap(), "{}");
    let tail = session.stderr_tail();
    assert!(tail.len() <= 64 * 1024 && tail.lines().all(|line| line.len() == 99));
    assert!(count >= CALLS_MIN && slowest < SLOWEST, "{count} calls, {slowest:?}");
    assert!(grown < 16, "{grown} MiB");
    session.close().await;
    other.close().await;
}

#[tokio::test]
async fn noise_on_stdout_fails_the_next_probe_once() {
    let session = connect(&["legacy"]).await;
    call(&session, "noise", json!({"lines": 9})).await.unwrap();
    session.probe(Duration::from_secs(5)).await.unwrap();
    call(&session, "noise", json!({"lines": 25})).await.unwrap();
    let error = session.probe(Duration::from_secs(5)).await.unwrap_err();
    assert!(error.message().contains("25 lines in a row to stdout that are no messages (34 in all)"), "{error}");
    assert!(!error.context().hard && error.context().phase != Some(Phase::Answered), "soft evidence: {error:?}");
    assert!(error.context().stderr_tail.as_deref().unwrap().contains("[stdout] progress: 50 %"));
    session.probe(Duration::from_secs(5)).await.unwrap();
    session.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_calls_a_child_that_does_not_read_waits_within_bounds_and_delays_no_other() {
    let _alone = ALONE.lock().await;
    let other = connect(&["legacy"]).await;
    let config = StdioConfig { queue_bytes_max: 1_000_000, ..config() };
    let patience = config.write_timeout;
    let connector = StdioConnector::new(config, environment());
    let deaf = connector.connect(&target(endpoint(&["legacy", "deaf"]), Some(Era::Legacy))).await.unwrap();
    let load = object(json!({"x": "y".repeat(200_000)}));
    let (context, before, begun) = (within(), resident(), Instant::now());
    let calls = join_all((0..20).map(|_| deaf.call("echo", &load, &context)));
    let (results, slowest, count) = slowest_call(&other, calls).await;
    assert!(begun.elapsed() < patience * 6, "{:?}", begun.elapsed());
    // The pipe takes the beginning of the first one; of the others nothing was written.
    let (mut partly, mut not) = (0, 0);
    for error in results.into_iter().map(Result::unwrap_err) {
        match error.context().phase {
            Some(Phase::MaybeExecuted) => partly += 1,
            Some(Phase::NotSent) => not += 1,
            phase => panic!("{phase:?}: {error}"),
        }
    }
    assert_eq!((partly, not), (1, 19));
    let grown = resident().saturating_sub(before) / MIB;
    println!("a deaf child: {grown} MiB more memory; {count} calls of others, the slowest took {slowest:?}");
    assert!(grown < 16, "{grown} MiB");
    assert!(count >= CALLS_MIN && slowest < SLOWEST, "{count} calls, {slowest:?}");
    let Notice::Closed(reason) = deaf.notice().await else { panic!("not closed") };
    assert!(reason.message().contains("did not read its stdin for 700"), "{reason}");
    deaf.close().await;
    other.close().await;
}
