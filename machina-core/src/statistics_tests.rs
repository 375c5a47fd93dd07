use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::machina::Machina;
use crate::route::CallOptions;
use crate::testing::registry_suite::{call, service, settle};
use crate::testing::{Behaviour, SimConnector};
use crate::{ServiceView, Status};

const MS: Duration = Duration::from_millis(1);

#[test]
fn the_bounds_are_the_same_in_both_units() {
    for (seconds, micros) in DURATION_BOUNDS.iter().zip(BOUNDS_MICROS) {
        assert_eq!(Duration::from_secs_f64(*seconds), Duration::from_micros(micros));
    }
}

#[test]
fn a_duration_falls_into_the_bucket_that_reaches_up_to_it() {
    let counters = CallCounters::default();
    for duration in [Duration::ZERO, 5 * MS, 5 * MS + Duration::from_micros(1), 10_000 * MS, 10_001 * MS] {
        counters.ended(duration, CallOutcome::Answered);
    }
    let seen = counters.snapshot();
    assert_eq!((seen.buckets[0], seen.buckets[1], seen.buckets[13], seen.buckets[14]), (2, 1, 1, 1));
    assert_eq!((seen.count, seen.errors, seen.buckets.len()), (5, 0, DURATION_BOUNDS.len() + 1));
    assert!((seen.duration_seconds - 20.011_001).abs() < 1e-9, "{}", seen.duration_seconds);
}

#[test]
fn quantiles_are_estimated_within_the_bucket() {
    let counters = CallCounters::default();
    assert_eq!(counters.snapshot().p50_ms, None);
    (0..98).for_each(|_| counters.ended(20 * MS, CallOutcome::Answered));
    counters.ended(60 * MS, CallOutcome::Answered);
    counters.ended(99_000 * MS, CallOutcome::Failed(ErrorKind::Timeout));
    let seen = counters.snapshot();
    let between = |quantile: Option<f64>, least, most| quantile.is_some_and(|ms| (least..=most).contains(&ms));
    assert!(between(seen.p50_ms, 10.0, 25.0) && between(seen.p95_ms, 10.0, 25.0), "{seen:?}");
    assert!(between(seen.p99_ms, 50.0, 75.0), "{seen:?}");
    assert_eq!(quantile(&seen.buckets, 1.0), Some(10_000.0), "what lies beyond counts as the last bound");
}

#[test]
fn errors_are_counted_by_kind_and_the_failures_of_tools_apart() {
    let counters = CallCounters::default();
    for kind in ErrorKind::ALL {
        counters.ended(MS, CallOutcome::Failed(*kind));
    }
    counters.ended(MS, CallOutcome::Failed(ErrorKind::Lost));
    counters.ended(MS, CallOutcome::ToolError);
    let seen = counters.snapshot();
    assert_eq!((seen.errors_by_kind.len(), seen.errors_by_kind["lost"]), (ErrorKind::ALL.len(), 2));
    let errors = ErrorKind::ALL.len() as u64 + 1;
    assert_eq!((seen.errors, seen.tool_errors, seen.count), (errors, 1, errors + 1));
}

#[test]
fn so_many_tools_are_counted_by_name_and_no_more() {
    let counters = ServiceCounters::default();
    for number in 0..TOOLS_MAX + 5 {
        counters.ended(Some(&format!("tool{number}")), MS, CallOutcome::Answered);
    }
    counters.ended(None, MS, CallOutcome::Answered);
    let seen = counters.snapshot();
    assert_eq!((seen.tools.len(), seen.calls.count), (TOOLS_MAX, TOOLS_MAX as u64 + 6));
    assert!(seen.tools.values().all(|tool| tool.count == 1));
}

#[test]
fn nothing_is_lost_when_many_count_at_once() {
    let counters = ServiceCounters::default();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                (0..1000).for_each(|n| counters.ended(Some(&format!("t{}", n % 7)), MS, CallOutcome::Answered))
            });
        }
    });
    let seen = counters.snapshot();
    assert_eq!((seen.calls.count, seen.tools.values().map(|tool| tool.count).sum::<u64>()), (4000, 4000));
}

#[test]
fn samples_add_up_like_the_probes_that_they_are_of() {
    let (live, mut samples) = (ProbeTally::default(), Tallied::default());
    for (outcome, ms) in [(ProbeOutcome::Pass, 12), (ProbeOutcome::Pass, 30), (ProbeOutcome::Fail { hard: false }, 900)]
    {
        let took = Some(Duration::from_millis(ms));
        live.probed(&Observation { response_time: took, ..Observation::new(outcome, "") });
        samples.add_sample(outcome != ProbeOutcome::Pass, took);
    }
    samples.add_sample(false, None);
    let live = live.take();
    assert_eq!((samples.passes(), samples.failures, &samples.durations), (2, 1, &live.durations));
    assert_eq!(samples.quantile(0.5), live.quantile(0.5));
}

#[tokio::test(start_paused = true)]
async fn calls_attempts_and_probes_are_counted_where_they_happen() {
    let sim = SimConnector::default();
    let machina = Machina::builder().connector(Arc::new(sim.clone())).open().await.unwrap();
    let instances = [sim.instance("one"), sim.instance("two")];
    machina.register(service("a", &[&instances[0], &instances[1]])).await.unwrap();
    settle(&machina, "a", Status::Healthy).await;
    let echo = call("a", "echo", json!({"text": "x"}));
    machina.call(&echo, &CallOptions::default()).await.unwrap();

    instances.iter().for_each(|instance| sim.set(instance, Behaviour::Reject));
    machina.call(&echo, &CallOptions::default()).await.unwrap_err();
    instances.iter().for_each(|instance| sim.set(instance, Behaviour::Refuse));
    machina.call(&echo, &CallOptions::default()).await.unwrap_err();
    let cancelled = CallOptions::default();
    cancelled.cancelled.cancel();
    machina.call(&echo, &cancelled).await.unwrap_err();
    machina.call(&call("a", "nonesuch", json!({})), &CallOptions::default()).await.unwrap_err();

    // A new declaration does not begin the count anew.
    machina.system().patch("a", &json!({"title": "A"}), None).await.unwrap();
    let view = machina.get("a").unwrap();
    let seen = ServiceView::statistics(&view);
    assert_eq!((seen.calls.count, seen.calls.errors), (3, 2), "{seen:?}");
    assert_eq!(seen.calls.errors_by_kind["rejected"], 1, "{seen:?}");
    assert_eq!((seen.tools.len(), &seen.tools["echo"]), (1, &seen.calls));
    let attempts: Vec<_> = view.instances().map(|(_, seen)| seen.statistics()).collect();
    let of = |count: fn(&InstanceStatistics) -> u64| attempts.iter().map(count).sum::<u64>();
    assert_eq!(of(|one| one.attempts.count - one.attempts.errors), 1);
    assert!(of(|one| one.attempts.errors) >= 3, "a refused call was tried at both: {attempts:?}");
    let of = |count: fn(&InstanceStatistics) -> u64| attempts.iter().map(count).sum::<u64>();
    assert!(of(|one| one.bytes_sent) >= 4 && of(|one| one.bytes_received) >= 1, "{attempts:?}");
    assert!(attempts.iter().all(|one| one.probes["pass"] >= 1 && one.probes.len() == 5), "{attempts:?}");
    machina.close().await;
}
