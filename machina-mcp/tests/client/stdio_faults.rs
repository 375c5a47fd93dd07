//! Child processes that die, hang, flood and do not let go.

use std::time::Duration;

use crate::stdio_support::*;
use machina_core::{Connector, Era, ErrorKind, Notice, Phase, StdioEndpoint};
use machina_mcp::client::{StdioConfig, StdioConnector};
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};

#[tokio::test]
async fn a_server_that_hangs_on_the_question_is_started_again_and_asked_the_older_way() {
    let mut target = target(endpoint(&["legacy", "hang_discover"]), None);
    target.timeout = Duration::from_secs(14);
    let begun = Instant::now();
    let session = StdioConnector::new(config(), environment()).connect(&target).await.unwrap();
    assert_eq!(session.protocol_version(), "2025-11-25");
    assert!(begun.elapsed() < target.timeout);
    session.close().await;
}

#[tokio::test]
async fn a_child_that_dies_in_flight_leaves_an_unknown_outcome_and_its_last_words() {
    let session = connect_to(endpoint(&["legacy"]).env("TOKEN", "hunter2-hunter2"), Some(Era::Legacy)).await.unwrap();
    let error = call(&session, "die", json!({})).await.unwrap_err();
    assert_eq!((error.kind(), error.context().phase), (ErrorKind::Lost, Some(Phase::MaybeExecuted)));
    assert!(error.message().contains("exit status: 3"), "{error}");
    assert!(error.context().hard);
    assert_eq!(error.context().stderr_tail.as_deref(), Some("about to die with ********"));
    assert!(session.is_closed());
    for _ in 0..2 {
        let Notice::Closed(reason) = session.notice().await else { panic!("not closed") };
        assert!(reason.context().hard);
    }
    let error = call(&session, "echo", json!({})).await.unwrap_err();
    assert_eq!((error.kind(), error.context().phase), (ErrorKind::Unreachable, Some(Phase::NotSent)));
    session.close().await;
}

#[tokio::test]
async fn a_killed_child_is_noticed_within_a_second() {
    let session = connect(&["legacy"]).await;
    let pid = session.process_id().unwrap();
    rustix::process::kill_process(rustix::process::Pid::from_raw(pid as i32).unwrap(), rustix::process::Signal::KILL)
        .unwrap();
    let notice = timeout(Duration::from_secs(1), session.notice()).await.expect("in time");
    assert!(matches!(notice, Notice::Closed(_)));
    session.close().await;
    assert!(!exists(pid), "no zombie is left");
}

#[tokio::test]
async fn a_connect_that_cannot_work_says_why_and_is_phase_a() {
    let error = connect_to(endpoint(&["legacy", "crash"]), None).await.unwrap_err();
    assert_eq!((error.kind(), error.context().phase), (ErrorKind::Unreachable, Some(Phase::NotSent)));
    assert!(error.context().hard);
    assert!(error.context().stderr_tail.as_deref().unwrap().contains("configuration missing"), "{error:?}");

    let missing = StdioEndpoint::new("no-such-launcher", ["x"]);
    let error = connect_to(missing, None).await.unwrap_err();
    assert_eq!(error.message(), "command `no-such-launcher` not found on PATH");

    let error = connect_to(endpoint(&["${NO_SUCH_VARIABLE}"]), None).await.unwrap_err();
    assert_eq!((error.kind(), error.context().phase), (ErrorKind::Invalid, Some(Phase::NotSent)));
    assert_eq!(error.context().problems[0].field, "args[2]");
    let error = connect_to(endpoint(&[]).env("LD_PRELOAD", "/x.so"), None).await.unwrap_err();
    assert_eq!(error.context().problems[0].field, "env.LD_PRELOAD");
}

#[tokio::test]
async fn a_start_that_takes_too_long_ends_in_time_with_what_the_child_said() {
    for era in [Some(Era::Legacy), Some(Era::Modern), None] {
        let mut target = target(endpoint(&["legacy", "silent"]), era);
        target.timeout = Duration::from_secs(4);
        let begun = Instant::now();
        let error = StdioConnector::new(config(), environment()).connect(&target).await.unwrap_err();
        assert!(begun.elapsed() < target.timeout + Duration::from_secs(2), "{era:?}: {:?}", begun.elapsed());
        assert_eq!((error.kind(), error.context().phase), (ErrorKind::Timeout, Some(Phase::NotSent)));
        assert_eq!(error.context().stderr_tail.as_deref(), Some("waiting for a licence"), "{era:?}");
    }
    let mut target = target(endpoint(&["legacy", "choke"]), None);
    target.timeout = Duration::from_secs(4);
    let error = StdioConnector::new(config(), environment()).connect(&target).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert_eq!(error.context().stderr_tail.as_deref(), Some("choked on the question"), "the words of the first start");
}

#[tokio::test]
async fn a_silent_question_leaves_time_for_the_handshake_however_long_its_wait_is() {
    let config = StdioConfig { discover_timeout: Duration::from_secs(60), ..config() };
    let mut target = target(endpoint(&["legacy", "hang_discover"]), None);
    target.timeout = Duration::from_secs(18);
    let session = StdioConnector::new(config, environment()).connect(&target).await.unwrap();
    assert_eq!(session.protocol_version(), "2025-11-25");
    session.close().await;
}

#[tokio::test]
async fn a_start_waits_for_its_place_within_its_own_time_and_a_slow_one_gives_its_place_up() {
    let connector = StdioConnector::new(StdioConfig { starts_max: 1, ..config() }, environment());
    let slow = target(endpoint(&["legacy", "silent"]), Some(Era::Legacy));
    let mut short = target(endpoint(&["legacy"]), Some(Era::Legacy));
    let mut long = short.clone();
    short.timeout = Duration::from_millis(500);
    long.timeout = Duration::from_secs(15);
    let begun = Instant::now();
    let others = async {
        sleep(Duration::from_millis(100)).await;
        let error = connector.connect(&short).await.unwrap_err();
        assert!(begun.elapsed() < Duration::from_secs(2));
        assert_eq!((error.kind(), error.context().phase), (ErrorKind::Unreachable, Some(Phase::NotSent)));
        assert!(error.message().contains("no place to start") && !error.context().hard, "{error}");
        let session = connector.connect(&long).await.unwrap();
        assert!(begun.elapsed() >= Duration::from_secs(10), "only one may start");
        session.close().await;
    };
    tokio::select! {
        result = connector.connect(&slow) => panic!("{result:?}"),
        () = others => {}
    }
}

#[tokio::test]
async fn a_child_that_closes_only_its_stdin_loses_its_session() {
    let session = connect(&["legacy", "shut"]).await;
    let pid = session.process_id().unwrap();
    let shut = async {
        while !session.stderr_tail().contains("shut") {
            sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(Duration::from_secs(10), shut).await.expect("its stdin is closed");
    let error = call(&session, "echo", json!({})).await.unwrap_err();
    assert_eq!((error.kind(), error.context().phase), (ErrorKind::Unreachable, Some(Phase::NotSent)), "{error}");
    let notice = timeout(Duration::from_secs(1), session.notice()).await.expect("in time");
    let Notice::Closed(reason) = notice else { panic!("not closed") };
    assert!(reason.message().contains("no longer takes messages on its stdin"), "{reason}");
    assert!(!reason.context().hard && session.is_closed());
    session.close().await;
    assert!(!exists(pid));
}

#[tokio::test]
async fn what_a_child_repeats_of_its_secrets_is_masked() {
    let endpoint = endpoint(&["legacy", "junk"]).env("TOKEN", "hunter2-hunter2");
    let session = connect_to(endpoint, Some(Era::Legacy)).await.unwrap();
    let error = call(&session, "hunter2-hunter2", json!({})).await.unwrap_err();
    assert_eq!(error.context().phase, Some(Phase::Answered));
    assert!(error.message().ends_with("unknown '********'"), "{error}");
    session.close().await;
}

#[tokio::test]
async fn closing_leaves_nothing_behind_however_stubborn_the_child() {
    for quirks in [&["legacy", "family"][..], &["legacy", "stubborn", "family"]] {
        let session = connect(quirks).await;
        let pid = session.process_id().unwrap();
        let stderr = session.stderr_tail();
        let grandchild: u32 = stderr.trim().rsplit(' ').next().unwrap().parse().unwrap();
        assert!(runs(pid) && runs(grandchild));
        session.close().await;
        assert!(!exists(pid), "{quirks:?}: reaped");
        assert!(gone(grandchild).await, "{quirks:?}");
        assert!(matches!(session.notice().await, Notice::Closed(reason) if !reason.context().hard));
    }
}

#[tokio::test]
async fn dropping_a_session_or_a_connect_leaves_nothing_behind() {
    let session = connect(&["legacy", "stubborn", "family"]).await;
    let pid = session.process_id().unwrap();
    let grandchild: u32 = session.stderr_tail().trim().rsplit(' ').next().unwrap().parse().unwrap();
    drop(session);
    assert!(gone(pid).await && gone(grandchild).await);

    let marker = format!("{:?}", Instant::now()).replace(|c: char| !c.is_ascii_digit(), "");
    let endpoint = endpoint(&["legacy", "silent", &marker]);
    assert!(timeout(Duration::from_millis(600), connect_to(endpoint, None)).await.is_err());
    let running = || {
        std::fs::read_dir("/proc").unwrap().flatten().any(|entry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains(&marker)
        })
    };
    for _ in 0..300 {
        if !running() {
            return;
        }
        sleep(Duration::from_millis(10)).await;
    }
    panic!("a child of an abandoned connect still runs");
}

#[tokio::test]
async fn an_answer_over_the_limit_fails_alone() {
    let config = StdioConfig { message_bytes_max: 100_000, ..config() };
    let connector = StdioConnector::new(config, environment());
    let session = connector.connect(&target(endpoint(&[]), Some(Era::Legacy))).await.unwrap();
    let (big, echo) =
        tokio::join!(call(&session, "big", json!({"bytes": 3_000_000})), call(&session, "echo", json!({})));
    let error = big.unwrap_err();
    assert_eq!((error.kind(), error.context().phase), (ErrorKind::Rejected, Some(Phase::Answered)));
    assert_eq!(echo.unwrap(), "{}");
    let error = call(&session, "echo", json!({"x": "y".repeat(200_000)})).await.unwrap_err();
    assert_eq!((error.kind(), error.context().phase), (ErrorKind::Invalid, Some(Phase::NotSent)));
    assert_eq!(call(&session, "echo", json!({})).await.unwrap(), "{}");
    session.close().await;
}

#[tokio::test]
async fn a_flood_on_stderr_is_drained_and_only_its_end_kept() {
    let session = connect(&["legacy"]).await;
    call(&session, "stderr", json!({"lines": 50_000})).await.unwrap();
    assert_eq!(call(&session, "echo", json!({})).await.unwrap(), "{}");
    let tail = session.stderr_tail();
    assert_eq!((tail.len(), tail.lines().all(|line| line.len() == 99)), (655 * 100, true), "whole lines only");
    session.close().await;
}

#[tokio::test]
async fn junk_on_stdout_is_skipped_and_shown() {
    let session = connect(&["legacy", "junk"]).await;
    assert_eq!(call(&session, "echo", json!({})).await.unwrap(), "{}");
    assert!(session.stderr_tail().contains("[stdout] starting up..."));
    session.close().await;
}

#[tokio::test]
async fn a_child_that_does_not_read_loses_its_session_and_tells_the_phases_apart() {
    let session = connect(&["legacy", "deaf"]).await;
    let load = object(json!({"x": "y".repeat(1_000_000)}));
    let context = within();
    let calls = (0..4).map(|_| session.call("echo", &load, &context));
    let results = futures_util::future::join_all(calls).await;
    let phases: Vec<_> = results.iter().map(|r| r.as_ref().unwrap_err().context().phase.unwrap()).collect();
    assert_eq!(phases.iter().filter(|p| **p == Phase::MaybeExecuted).count(), 1, "{phases:?}");
    assert_eq!(phases.iter().filter(|p| **p == Phase::NotSent).count(), 3, "{phases:?}");
    assert!(matches!(session.notice().await, Notice::Closed(_)));
    session.close().await;
}

#[tokio::test]
async fn a_server_without_ping_is_alive_nevertheless_and_a_silent_one_is_not() {
    let session = connect(&["legacy", "no_ping"]).await;
    session.probe(Duration::from_secs(5)).await.unwrap();
    let pid = rustix::process::Pid::from_raw(session.process_id().unwrap() as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
    let error = session.probe(Duration::from_millis(300)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout);
    session.close().await;
    assert!(!exists(pid.as_raw_nonzero().get() as u32), "a stopped process is killed too");
}
