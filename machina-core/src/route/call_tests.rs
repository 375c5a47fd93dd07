//! The loop against simulated instances, under paused time.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::*;
use crate::health::Status;
use crate::machina::Machina;
use crate::model::{BalancerKind, Instance, ServiceSpec, TimeLimit};
use crate::route::{BreakerState, CallReport, Explanation};
use crate::testing::registry_suite::{call, service, settle};
use crate::testing::{Behaviour, SimConnector};

pub(in crate::route) const MS: Duration = Duration::from_millis(1);
pub(in crate::route) const SECOND: Duration = Duration::from_secs(1);

/// A registry with one service `a`, all of whose instances are healthy.
pub(in crate::route) struct Stage {
    pub(in crate::route) machina: Machina,
    pub(in crate::route) sim: SimConnector,
    pub(in crate::route) instances: Vec<Instance>,
}

impl Stage {
    pub(in crate::route) async fn with(config: Config, count: usize, change: impl FnOnce(&mut ServiceSpec)) -> Self {
        let sim = SimConnector::seeded(1);
        let names = (0..count).map(|index| format!("i{index}"));
        let instances: Vec<Instance> = names.map(|name| sim.instance(&name)).collect();
        let mut spec = service("a", &instances.iter().collect::<Vec<_>>());
        change(&mut spec);
        let builder = Machina::builder().config(config).seed(1).connector(Arc::new(sim.clone()));
        let machina = builder.open().await.unwrap();
        machina.register(spec).await.unwrap();
        settle(&machina, "a", Status::Healthy).await;
        // What is known from the first checks is not what these tests are about.
        sleep(SECOND).await;
        Self { machina, sim, instances }
    }

    pub(in crate::route) async fn of(count: usize, change: impl FnOnce(&mut ServiceSpec)) -> Self {
        Self::with(Config::default(), count, change).await
    }

    pub(in crate::route) async fn call_with(&self, tool: &str, options: &CallOptions) -> Result<CallReport> {
        self.machina.call(&call("a", tool, json!({})), options).await
    }

    pub(in crate::route) async fn call(&self, tool: &str) -> Result<CallReport> {
        self.call_with(tool, &CallOptions::default()).await
    }

    pub(in crate::route) async fn explain(&self, tool: &str) -> Explanation {
        self.machina.explain("a", Some(tool)).await.unwrap()
    }

    pub(in crate::route) fn set_all(&self, behaviour: Behaviour) {
        self.instances.iter().for_each(|instance| self.sim.set(instance, behaviour));
    }

    fn executions(&self) -> Vec<u64> {
        self.instances.iter().map(|instance| self.sim.executions(instance)).collect()
    }
}

fn trusting(spec: &mut ServiceSpec) {
    spec.routing_policy.trust_annotations = Some(true);
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_fails_fast_gets_hardly_any_calls() {
    let stage = Stage::of(5, |_| {}).await;
    stage.instances.iter().for_each(|instance| stage.sim.set_latency(instance, MS * 10));
    stage.sim.set_failing(&stage.instances[0], 1.0);
    let mut failed = 0;
    for _ in 0..200 {
        let calls = (0..50).map(|_| stage.call("add"));
        let outcomes = futures_of(calls).await;
        failed += outcomes.iter().filter(|outcome| outcome.is_err()).count();
    }
    eprintln!("one of five fails fast: {failed} of 10000 calls failed without retry");
    assert!(failed <= 12, "{failed}");
    let explained = stage.explain("add").await;
    assert_ne!(explained.candidates[0].breaker, BreakerState::Healthy);
}

/// Runs all of them at once, in their order.
pub(in crate::route) async fn futures_of<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut futures: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in &mut futures {
            if output.is_none()
                && let std::task::Poll::Ready(done) = future.as_mut().poll(context)
            {
                *output = Some(done);
            }
        }
        match futures.iter().all(|(_, output)| output.is_some()) {
            true => std::task::Poll::Ready(()),
            false => std::task::Poll::Pending,
        }
    })
    .await;
    futures.into_iter().filter_map(|(_, output)| output).collect()
}

#[tokio::test(start_paused = true)]
async fn an_ejected_instance_is_probed_and_then_gets_one_call() {
    let stage = Stage::of(2, |spec| {
        trusting(spec);
        spec.routing_policy.ejection_failures = Some(1);
    })
    .await;
    stage.sim.set_failing(&stage.instances[0], 1.0);
    while stage.call("echo").await.unwrap().attempts.len() == 1 {}
    let state = || async { stage.explain("echo").await.candidates[0].clone() };
    let ejected = state().await;
    assert_eq!((ejected.breaker, ejected.eligible), (BreakerState::Ejected, false), "{ejected:?}");
    assert!(ejected.ejected_for_ms.is_some() && ejected.reason.contains("too many of its calls failed"));
    stage.sim.set_failing(&stage.instances[0], 0.0);
    sleep(SECOND).await;
    let before = stage.executions()[0];
    stage.call("echo").await.unwrap();
    assert_eq!(stage.executions()[0], before, "not before a probe has passed");
    assert_eq!(state().await.breaker, BreakerState::Probation);
    sleep(MS * 100).await;
    stage.call("echo").await.unwrap();
    assert_eq!((state().await.breaker, stage.executions()[0]), (BreakerState::Healthy, before + 1));
    stage.machina.close().await;
}

#[tokio::test(start_paused = true)]
async fn the_only_instance_is_called_however_often_it_fails() {
    let stage = Stage::of(1, |_| {}).await;
    stage.sim.set_failing(&stage.instances[0], 1.0);
    for _ in 0..20 {
        let error = stage.call("add").await.unwrap_err();
        assert_eq!((error.kind(), error.context().attempts), (ErrorKind::Lost, Some(1)));
    }
    let explained = stage.explain("add").await;
    let only = &explained.candidates[0];
    assert!(explained.panic && only.eligible && only.picked && only.breaker != BreakerState::Healthy, "{explained:?}");
    stage.sim.set_failing(&stage.instances[0], 0.0);
    stage.call("add").await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_says_when_to_come_back_is_left_alone_until_then() {
    let stage = Stage::of(3, |spec| spec.routing_policy.balancer = Some(BalancerKind::RoundRobin)).await;
    stage.sim.set(&stage.instances[1], Behaviour::Busy);
    let held = loop {
        let report = stage.call("add").await.unwrap();
        if report.attempts.len() == 2 {
            break report.attempts[0].clone();
        }
    };
    assert_eq!((held.instance, held.phase), (stage.instances[1].id, Some(Phase::Refused)));
    assert_eq!((held.error, held.outcome), (Some(ErrorKind::Overloaded), Some(Outcome::NotExecuted)));
    let candidate = stage.explain("add").await.candidates[1].clone();
    assert!(!candidate.eligible && candidate.held_for_ms.is_some_and(|millis| (900..=1000).contains(&millis)));
    assert!(candidate.reason.contains("asked to be left alone"), "{}", candidate.reason);
    for _ in 0..20 {
        assert_eq!(stage.call("add").await.unwrap().attempts.len(), 1);
    }
    stage.sim.set(&stage.instances[1], Behaviour::Up);
    sleep(SECOND).await;
    assert_eq!(stage.explain("add").await.candidates[1].held_for_ms, None);
}

#[tokio::test(start_paused = true)]
async fn calls_wait_in_their_order_for_room() {
    let stage = Stage::of(1, |spec| {
        spec.routing_policy.in_flight_max = Some(2);
        spec.routing_policy.queue_max = Some(4);
    })
    .await;
    stage.sim.set_latency(&stage.instances[0], MS * 100);
    let began = Instant::now();
    let ended = std::sync::Mutex::new(Vec::new());
    let calls = (0..7).map(|number| {
        let (stage, ended) = (&stage, &ended);
        async move {
            let outcome = stage.call("add").await;
            ended.lock().unwrap().push((number, began.elapsed().as_millis(), outcome.is_ok()));
            outcome
        }
    });
    let looking = async {
        sleep(MS * 50).await;
        stage.explain("add").await
    };
    let (outcomes, explained) = tokio::join!(futures_of(calls), looking);
    assert_eq!((explained.queue_length, explained.queue_max, explained.candidates[0].in_flight), (4, 4, 2));
    assert!(explained.candidates[0].reason.contains("works on as many calls"), "{explained:?}");
    let rejected = outcomes[6].as_ref().unwrap_err();
    let context = rejected.context();
    assert_eq!(
        (rejected.kind(), context.attempts, context.phase),
        (ErrorKind::Overloaded, Some(0), Some(Phase::NotSent))
    );
    assert_eq!((context.outcome, context.retry_after_ms), (Some(Outcome::NotExecuted), Some(1000)));
    let ended = ended.into_inner().unwrap();
    let order: Vec<_> = ended.iter().map(|(number, at, ok)| (*number, *at / 100, *ok)).collect();
    assert_eq!(
        order,
        [(6, 0, false), (0, 1, true), (1, 1, true), (2, 2, true), (3, 2, true), (4, 3, true), (5, 3, true)]
    );
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_room_no_longer_than_it_may() {
    let stage = Stage::of(1, |spec| {
        spec.routing_policy.in_flight_max = Some(1);
        spec.routing_policy.queue_timeout = Some(MS * 300);
    })
    .await;
    stage.sim.set_latency(&stage.instances[0], SECOND * 5);
    let waiting = async |timeout: Duration| {
        let began = Instant::now();
        let options = CallOptions { timeout: Some(timeout), ..CallOptions::default() };
        let error = stage.call_with("add", &options).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Overloaded);
        began.elapsed()
    };
    let second = async {
        sleep(MS).await;
        assert_eq!(waiting(SECOND * 60).await, MS * 300);
        assert_eq!(waiting(MS * 200).await, MS * 100, "half its time");
    };
    let (first, ()) = tokio::join!(stage.call("add"), second);
    first.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_gives_its_place_up() {
    let stage = Stage::of(1, |spec| spec.routing_policy.in_flight_max = Some(1)).await;
    stage.sim.set_latency(&stage.instances[0], MS * 100);
    let options = CallOptions::default();
    let leaving = async {
        sleep(MS * 10).await;
        options.cancelled.cancel();
    };
    let (first, second, third, ()) =
        tokio::join!(stage.call("add"), stage.call_with("add", &options), stage.call("add"), leaving);
    assert!(first.is_ok() && third.is_ok());
    let error = second.unwrap_err();
    assert_eq!((error.kind(), error.context().outcome), (ErrorKind::Timeout, Some(Outcome::NotExecuted)));
    assert_eq!(stage.executions(), [2]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_call_ends_when_the_service_says_so() {
    let stage = Stage::of(1, |spec| spec.routing_policy.idle_timeout = Some(SECOND)).await;
    stage.sim.set_latency(&stage.instances[0], SECOND * 5);
    let began = Instant::now();
    let error = stage.call("add").await.unwrap_err();
    assert_eq!((error.kind(), began.elapsed()), (ErrorKind::Timeout, SECOND));
    assert_eq!(stage.sim.cancellations(&stage.instances[0]), 1);
}

#[tokio::test(start_paused = true)]
async fn a_tool_with_a_time_of_its_own_may_be_silent_for_all_of_it() {
    let stage = Stage::of(1, |spec| {
        spec.routing_policy.tool_timeouts.insert("add".into(), TimeLimit(SECOND * 300));
        // The instance is as slow with probes.
        spec.health_policy.interval = Some(SECOND * 3600);
    })
    .await;
    stage.sim.set_latency(&stage.instances[0], SECOND * 200);
    stage.call("add").await.unwrap();
    let began = Instant::now();
    stage.call("echo").await.unwrap_err();
    assert_eq!(began.elapsed(), SECOND * 60, "the others have the time of the registry");
    assert_eq!(stage.explain("add").await.timeout_ms, 300_000);
}

/// What is told of each way in which a call fails.
#[tokio::test(start_paused = true)]
async fn each_error_says_what_is_known() {
    use ErrorKind::{Lost, Overloaded, Rejected, Timeout, Unreachable};
    use Outcome::{Executed, NotExecuted, Unknown};
    use Phase::{Answered, Committed, MaybeExecuted, NotSent, Refused};
    let rows = [
        // behaviour, tool, with progress, kind, phase, outcome, attempts, says when to retry
        (Behaviour::Refuse, "add", false, (Unreachable, NotSent, NotExecuted), 2, true),
        (Behaviour::Refuse, "echo", false, (Unreachable, NotSent, NotExecuted), 2, true),
        (Behaviour::LoseAnswers, "add", false, (Lost, MaybeExecuted, Unknown), 1, false),
        (Behaviour::LoseAnswers, "echo", false, (Lost, MaybeExecuted, Unknown), 3, false),
        (Behaviour::LoseAfterProgress, "add", true, (Lost, Committed, Unknown), 1, false),
        (Behaviour::LoseAfterProgress, "echo", true, (Lost, Committed, Unknown), 3, false),
        (Behaviour::Busy, "add", false, (Overloaded, Refused, NotExecuted), 2, true),
        (Behaviour::Unauthorised, "echo", false, (Rejected, Refused, NotExecuted), 1, false),
        (Behaviour::Reject, "echo", false, (Rejected, Answered, Executed), 1, false),
        (Behaviour::AsksForInput, "echo", false, (Rejected, Answered, Unknown), 1, false),
        (Behaviour::Wedged, "add", false, (Timeout, MaybeExecuted, Unknown), 1, false),
    ];
    for (behaviour, tool, progress, (kind, phase, outcome), attempts, retry) in rows {
        let stage = Stage::of(2, |spec| {
            trusting(spec);
            spec.routing_policy.restart_hold = Some(Duration::ZERO);
        })
        .await;
        stage.set_all(behaviour);
        let told: crate::connect::ProgressSink = Arc::new(|_| {});
        let options = CallOptions { progress: progress.then_some(told), ..CallOptions::default() };
        let error = stage.call_with(tool, &options).await.unwrap_err();
        let context = error.context();
        assert_eq!((error.kind(), context.phase, context.outcome), (kind, Some(phase), Some(outcome)), "{error:?}");
        assert_eq!(context.attempts, Some(attempts), "{behaviour:?} {error:?}");
        assert_eq!(context.retry_after_ms.is_some(), retry, "{behaviour:?} {error:?}");
        let known = |id: &String| stage.instances.iter().any(|instance| instance.id.to_string() == *id);
        assert!(context.instance.as_ref().is_some_and(known), "{error:?}");
        assert_eq!((context.service.as_deref(), context.tool.as_deref()), (Some("a"), Some(tool)));
    }
}

/// On several threads at once, whoever waits is woken, and everyone gets a turn.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_one_who_waits_is_forgotten() {
    let stage = Arc::new(Stage::of(2, |spec| spec.routing_policy.in_flight_max = Some(1)).await);
    stage.instances.iter().for_each(|instance| stage.sim.set_latency(instance, Duration::ZERO));
    let tasks = crate::tasks::Tasks::new();
    let callers = (0..16).map(|_| {
        let stage = Arc::clone(&stage);
        tasks.spawn("call", async move {
            for _ in 0..200 {
                stage.call("add").await.unwrap();
                tokio::task::yield_now().await;
            }
        })
    });
    for caller in callers.collect::<Vec<_>>() {
        caller.await.unwrap();
    }
    assert_eq!(stage.executions().iter().sum::<u64>(), 16 * 200);
    let explained = stage.explain("add").await;
    assert!(explained.queue_length == 0 && explained.candidates.iter().all(|candidate| candidate.in_flight == 0));
}
