//! Real processes that do not stay: how often they are started, and what is told
//! of them.

use std::time::Duration;

use machina_core::{
    CallOptions, Config, ErrorKind, HealthState, Instance, InstanceHealth, Machina, Phase, ServiceSpec,
};
use machina_tests::{Fixture, Process, call, open, settled, wait_until};
use rustix::process::Signal;
use serde_json::json;

const SOON: Duration = Duration::from_secs(60);

/// In a crash loop after three ends, and then started every 20 seconds.
fn spec(args: &[&str]) -> ServiceSpec {
    let mut spec = ServiceSpec::new("mortal").unwrap().instance(Instance::new(Fixture::stdio_spec(args)));
    spec.session_policy.crash_loop_restarts = Some(2);
    spec.session_policy.crash_loop_interval = Some(Duration::from_secs(20));
    spec.routing_policy.restart_hold = Some(Duration::ZERO);
    spec
}

async fn only(machina: &Machina) -> InstanceHealth {
    machina.health("mortal").await.unwrap().instances.remove(0)
}

async fn reaches(machina: &Machina, wanted: HealthState) -> InstanceHealth {
    wait_until(SOON, wanted.as_str(), async || {
        let seen = only(machina).await;
        if seen.health.state == wanted { Ok(seen) } else { Err(format!("{seen:?}")) }
    })
    .await
}

#[tokio::test]
async fn a_process_that_never_gets_ready_shows_why_and_is_left_alone() {
    let machina = open(Config::default()).await;
    machina.register(spec(&["--exit-on-discover", "--era", "modern", "--stderr-lines", "3"])).await.unwrap();
    let seen = reaches(&machina, HealthState::CrashLoop).await;
    assert!(seen.stderr_tail.contains("stderr line 2"), "{seen:?}");
    assert!(seen.health.reason.message.contains("ended 3 times within 600s"), "{seen:?}");
    let error = machina.call(&call("mortal", "echo", json!({})), &CallOptions::default()).await.unwrap_err();
    let context = error.context();
    assert_eq!((error.kind(), context.phase), (ErrorKind::Unavailable, Some(Phase::NotSent)), "{error:?}");
    assert!(context.retry_after_ms.is_some_and(|ms| ms <= 20_000), "{error:?}");
    machina.close().await;
}

#[tokio::test]
async fn a_process_that_is_killed_again_and_again_is_back_in_the_loop_at_once() {
    let machina = open(Config::default()).await;
    machina.register(spec(&[])).await.unwrap();
    settled(&machina, SOON).await;
    let mut before = 0;
    for _ in 0..3 {
        let process = wait_until(SOON, "another process is healthy", async || {
            let seen = only(&machina).await;
            let other = seen.process_id.filter(|pid| *pid != before && seen.health.state == HealthState::Healthy);
            other.and_then(Process::of).ok_or_else(|| format!("{seen:?}"))
        })
        .await;
        before = process.pid;
        process.signal(Signal::KILL);
    }
    let seen = reaches(&machina, HealthState::CrashLoop).await;
    assert_eq!(seen.process_id, None, "{seen:?}");
    let back = reaches(&machina, HealthState::Healthy).await;
    Process::of(back.process_id.unwrap()).unwrap().signal(Signal::KILL);
    reaches(&machina, HealthState::CrashLoop).await;
    machina.close().await;
}
