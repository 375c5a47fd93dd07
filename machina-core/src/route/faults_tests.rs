//! What the loop does while a whole service is away.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::tests::{MS, SECOND, Stage, futures_of};
use super::*;
use crate::testing::Behaviour;

fn trusting(spec: &mut crate::model::ServiceSpec) {
    spec.routing_policy.trust_annotations = Some(true);
}

/// T15: calls go on while all instances are down, and when they are back.
#[tokio::test(start_paused = true)]
async fn repetitions_add_a_fifth_at_most_while_all_is_down() {
    for behaviour in [Behaviour::Refuse, Behaviour::Killed, Behaviour::LoseAnswers, Behaviour::Busy] {
        let stage = Stage::of(3, trusting).await;
        stage.set_all(behaviour);
        let (mut offered, mut attempts, down) = (0, 0, Instant::now());
        for _ in 0..600 {
            let began = Instant::now();
            let outcomes = futures_of((0..10).map(|_| stage.call("echo"))).await;
            offered += outcomes.len();
            attempts +=
                outcomes.iter().map(|outcome| outcome.as_ref().unwrap_err().context().attempts.unwrap()).sum::<u32>();
            sleep((MS * 100).saturating_sub(began.elapsed())).await;
        }
        let attempts = f64::from(attempts);
        // A fifth, and three a second: as many as ten seconds have may come at once.
        #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
        let most = offered as f64 * 1.2 + 3.0 * (down.elapsed().as_secs_f64() + 10.0);
        eprintln!("{behaviour:?}: {attempts} attempts for {offered} calls in {:?}", down.elapsed());
        assert!(attempts <= most, "{behaviour:?}: {attempts} attempts for {offered} calls");
        stage.set_all(Behaviour::Up);
        let back = Instant::now();
        while futures_of((0..10).map(|_| stage.call("echo"))).await.iter().any(Result::is_err) {
            sleep(MS * 100).await;
        }
        assert!(back.elapsed() <= SECOND * 15, "{behaviour:?}: {:?}", back.elapsed());
        sleep(SECOND * 15).await;
        let outcomes = futures_of((0..100).map(|_| stage.call("echo"))).await;
        assert!(outcomes.iter().all(|outcome| outcome.as_ref().is_ok_and(|report| report.attempts.len() == 1)));
        stage.machina.close().await;
    }
}

#[tokio::test(start_paused = true)]
async fn lost_calls_are_repeated_as_far_as_the_budget_goes() {
    let stage = Stage::of(2, |spec| {
        trusting(spec);
        spec.routing_policy.retries_per_second = Some(0);
        spec.routing_policy.retry_percentage = Some(10);
    })
    .await;
    stage.set_all(Behaviour::LoseAnswers);
    let outcomes = futures_of((0..100).map(|_| stage.call("echo"))).await;
    let attempts: u32 = outcomes.iter().map(|outcome| outcome.as_ref().unwrap_err().context().attempts.unwrap()).sum();
    assert_eq!(attempts, 110);
    assert_eq!(stage.explain("echo").await.retries_left, 0);
    sleep(SECOND * 10).await;
    let none = stage.call("echo").await.unwrap_err();
    assert_eq!(none.context().attempts, Some(1), "a tenth of one call is none");
}

#[tokio::test(start_paused = true)]
async fn what_was_not_sent_is_tried_elsewhere_for_free() {
    let stage = Stage::of(4, |spec| {
        (spec.routing_policy.retries_per_second, spec.routing_policy.retry_percentage) = (Some(0), Some(0));
    })
    .await;
    stage.instances[..2].iter().for_each(|instance| stage.sim.set(instance, Behaviour::Refuse));
    let outcomes = futures_of((0..20).map(|_| stage.call("add"))).await;
    assert!(outcomes.iter().all(Result::is_ok));
    assert!(outcomes.iter().any(|outcome| outcome.as_ref().unwrap().attempts.len() > 1));
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_the_only_instance_to_come_back() {
    let stage = Stage::of(1, |_| {}).await;
    for behaviour in [Behaviour::Killed, Behaviour::Refuse] {
        stage.sim.set(&stage.instances[0], behaviour);
        let began = Instant::now();
        let back = async {
            sleep(SECOND * 2).await;
            stage.sim.set(&stage.instances[0], Behaviour::Up);
        };
        let calls = futures_of((0..10).map(|number| {
            let stage = &stage;
            async move {
                sleep(MS * 100 * number).await;
                stage.call("add").await
            }
        }));
        let (outcomes, ()) = tokio::join!(calls, back);
        for outcome in outcomes {
            let report = outcome.unwrap();
            assert!(report.attempts.len() <= 2, "{:?}", report.attempts);
        }
        assert!(began.elapsed() <= SECOND * 5 + MS * 10, "{behaviour:?}: {:?}", began.elapsed());
        sleep(SECOND * 30).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ended_is_waited_for() {
    let sim = crate::testing::SimConnector::seeded(1);
    let process = sim.process("one");
    let machina = crate::machina::Machina::builder().connector(std::sync::Arc::new(sim.clone())).open().await.unwrap();
    machina.register(crate::testing::registry_suite::service("a", &[&process])).await.unwrap();
    crate::testing::registry_suite::settle(&machina, "a", crate::health::Status::Healthy).await;
    let request = crate::testing::registry_suite::call("a", "add", serde_json::json!({}));
    // The second time it is not started again at once.
    for _ in 0..2 {
        sim.exit(&process);
        sleep(MS).await;
        let report = machina.call(&request, &CallOptions::default()).await.unwrap();
        assert!(report.duration_ms <= 5000.0, "{report:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_an_instance_no_longer_than_it_may() {
    let stage = Stage::of(1, |_| {}).await;
    stage.set_all(Behaviour::Killed);
    let failed = async |timeout: Duration| {
        let began = Instant::now();
        let options = CallOptions { timeout: Some(timeout), ..CallOptions::default() };
        let error = stage.call_with("add", &options).await.unwrap_err();
        let context = error.context();
        assert_eq!((context.outcome, context.phase), (Some(Outcome::NotExecuted), Some(Phase::NotSent)), "{error:?}");
        assert!(context.retry_after_ms.is_some(), "{error:?}");
        began.elapsed()
    };
    assert_eq!(failed(SECOND * 60).await, SECOND * 5);
    assert_eq!(failed(SECOND).await, SECOND);
    sleep(SECOND * 30).await;
    assert!(failed(SECOND * 60).await < MS * 10, "it has been away for so long that nobody expects it");
}

#[tokio::test(start_paused = true)]
async fn few_calls_wait_for_an_instance_to_come_back() {
    let stage = Stage::of(1, |spec| spec.routing_policy.queue_max = Some(3)).await;
    stage.set_all(Behaviour::Killed);
    let outcomes = futures_of((0..10).map(|_| async {
        let began = Instant::now();
        stage.call("add").await.unwrap_err();
        began.elapsed()
    }))
    .await;
    assert_eq!(outcomes.iter().filter(|waited| **waited >= SECOND).count(), 3, "{outcomes:?}");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_never_answered_is_not_waited_for() {
    let sim = crate::testing::SimConnector::seeded(1);
    let (gone, up) = (sim.process("gone"), sim.instance("up"));
    sim.set(&gone, Behaviour::Killed);
    let machina = crate::machina::Machina::builder().connector(std::sync::Arc::new(sim.clone())).open().await.unwrap();
    for (name, instance) in [("a", &gone), ("b", &up)] {
        machina.register(crate::testing::registry_suite::service(name, &[instance])).await.unwrap();
    }
    sleep(SECOND).await;
    let began = Instant::now();
    let request = crate::testing::registry_suite::call("a", "add", serde_json::json!({}));
    let error = machina.call(&request, &CallOptions::default()).await.unwrap_err();
    assert_eq!(error.context().outcome, Some(Outcome::NotExecuted));
    assert!(began.elapsed() < MS * 100, "{:?}", began.elapsed());
}
