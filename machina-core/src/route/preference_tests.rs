//! Where calls go when several instances could take them, and what is said of it.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep};

use super::tests::{MS, SECOND, Stage, futures_of};
use super::*;
use crate::model::{BalancerKind, ServiceSpec};
use crate::route::{BreakerState, Locality, Standing};
use crate::testing::registry_suite::call;
use crate::testing::{Behaviour, Contact, Deed, Ending, Onlooker, add_tool, echo_tool};

/// The positions of the instances that answered calls with these options.
async fn answering(stage: &Stage, options: &CallOptions, calls: usize) -> BTreeSet<usize> {
    let mut answered = BTreeSet::new();
    for _ in 0..calls {
        let report = stage.call_with("echo", options).await.unwrap();
        answered.extend(stage.instances.iter().position(|instance| instance.id == report.instance));
    }
    answered
}

#[tokio::test(start_paused = true)]
async fn calls_with_the_same_key_go_to_the_same_instance_while_it_is_up() {
    let stage = Stage::of(4, |_| {}).await;
    let keyed = |key: &str| CallOptions { affinity_key: Some(key.to_owned()), ..CallOptions::default() };
    let mut all = BTreeSet::new();
    for key in 0..20 {
        let answered = answering(&stage, &keyed(&format!("session {key}")), 5).await;
        assert_eq!(answered.len(), 1);
        all.extend(answered);
    }
    assert_eq!(all.len(), 4, "keys are spread");
    let home = *answering(&stage, &keyed("one"), 1).await.first().unwrap();
    stage.sim.set(&stage.instances[home], Behaviour::Killed);
    let meanwhile = answering(&stage, &keyed("one"), 5).await;
    assert!(meanwhile.len() == 1 && !meanwhile.contains(&home));
    stage.sim.set(&stage.instances[home], Behaviour::Up);
    sleep(SECOND * 40).await;
    assert_eq!(answering(&stage, &keyed("one"), 5).await, BTreeSet::from([home]), "it is back");
}

/// One instance was killed and is back, its breaker still open; the other one is
/// killed now: nobody is eligible, but only one of them is down.
#[tokio::test(start_paused = true)]
async fn in_panic_calls_go_to_the_instance_that_answers_its_probes() {
    let stage = Stage::of(2, |spec| {
        spec.routing_policy.trust_annotations = Some(true);
        spec.routing_policy.ejection_failures = Some(1);
    })
    .await;
    stage.instances.iter().for_each(|instance| stage.sim.set_latency(instance, MS * 10));
    let [back, dead] = [0, 1].map(|index| stage.instances[index].id);
    stage.sim.set_failing(&stage.instances[0], 1.0);
    while stage.call("echo").await.unwrap().attempts.len() == 1 {}
    stage.sim.set_failing(&stage.instances[0], 0.0);
    stage.sim.set(&stage.instances[1], Behaviour::Refuse);
    stage.call("echo").await.unwrap();
    assert!(stage.explain("echo").await.panic);
    let (mut vain, mut answered) = (0, 0);
    for _ in 0..20 {
        for report in futures_of((0..8).map(|_| stage.call("echo"))).await {
            let report = report.unwrap();
            answered += usize::from(report.instance == back);
            vain += report.attempts.iter().filter(|attempt| attempt.instance == dead).count();
        }
    }
    assert_eq!((answered, vain), (160, 0));
}

#[tokio::test(start_paused = true)]
async fn an_argument_decides_the_instance_where_the_operator_says_so() {
    let stage = Stage::of(4, |spec| spec.routing_policy.affinity_argument = Some("text".into())).await;
    let mut all = BTreeSet::new();
    for text in 0..20 {
        let mut answered = BTreeSet::new();
        for ordinal in 0..4 {
            // A key of the caller's own counts only without the argument.
            let options = CallOptions { affinity_key: Some(format!("{ordinal}")), ..CallOptions::default() };
            let arguments = json!({"text": format!("tenant {text}")});
            answered.insert(stage.machina.call(&call("a", "echo", arguments), &options).await.unwrap().instance);
        }
        assert_eq!(answered.len(), 1);
        all.extend(answered);
    }
    assert_eq!(all.len(), 4);
    assert_eq!(stage.explain("echo").await.affinity_argument.as_deref(), Some("text"));
}

#[tokio::test(start_paused = true)]
async fn the_session_decides_the_instance_where_the_operator_says_so() {
    let of = |session: usize| CallOptions { session: Some(format!("{session}").into()), ..CallOptions::default() };
    let stage = Stage::of(4, |spec| spec.routing_policy.session_affinity = Some(true)).await;
    let mut all = BTreeSet::new();
    for session in 0..20 {
        let answered = answering(&stage, &of(session), 4).await;
        assert_eq!(answered.len(), 1);
        all.extend(answered);
    }
    assert_eq!(all.len(), 4);
    assert!(stage.explain("echo").await.session_affinity);

    let stage = Stage::of(4, |spec| spec.routing_policy.balancer = Some(BalancerKind::RoundRobin)).await;
    assert_eq!(answering(&stage, &of(0), 4).await.len(), 4);
}

#[tokio::test(start_paused = true)]
async fn nearby_instances_take_the_calls_until_too_few_are_up() {
    let mut config = Config::default();
    (config.routing.region, config.routing.zone) = (Some("eu".into()), Some("a".into()));
    let stage = Stage::with(config, 4, |spec| {
        spec.routing_policy.balancer = Some(BalancerKind::RoundRobin);
        for (instance, (region, zone)) in
            spec.instances.iter_mut().zip([("eu", "a"), ("eu", "b"), ("eu", "a"), ("us", "a")])
        {
            (instance.region, instance.zone) = (Some(region.into()), Some(zone.into()));
        }
    })
    .await;
    let options = CallOptions::default();
    assert_eq!(answering(&stage, &options, 20).await, BTreeSet::from([0, 2]));
    let explained = stage.explain("echo").await;
    assert_eq!(explained.locality, Locality::Zone);
    let localities: Vec<_> = explained.candidates.iter().map(|candidate| candidate.locality).collect();
    assert_eq!(localities, [Locality::Zone, Locality::Region, Locality::Zone, Locality::Anywhere]);
    assert!(!explained.candidates[1].eligible && explained.candidates[1].reason.contains("others are nearer"));
    stage.sim.set(&stage.instances[0], Behaviour::Killed);
    sleep(SECOND * 35).await;
    let spilled = answering(&stage, &options, 60).await;
    assert_eq!((spilled, stage.explain("echo").await.locality), (BTreeSet::from([1, 2, 3]), Locality::Anywhere));
}

#[tokio::test(start_paused = true)]
async fn each_balancer_can_be_chosen() {
    for balancer in
        [BalancerKind::PeakEwma, BalancerKind::RoundRobin, BalancerKind::WeightedRandom, BalancerKind::LeastOutstanding]
    {
        let stage = Stage::of(3, |spec| spec.routing_policy.balancer = Some(balancer)).await;
        let outcomes = futures_of((0..90).map(|_| stage.call("echo"))).await;
        let answered: BTreeSet<_> = outcomes.into_iter().map(|outcome| outcome.unwrap().instance).collect();
        assert_eq!(answered.len(), 3, "{balancer:?}");
        assert_eq!(stage.explain("echo").await.balancer, balancer);
    }
}

fn hedged(spec: &mut ServiceSpec) {
    spec.routing_policy.trust_annotations = Some(true);
    spec.routing_policy.hedged_tools = vec!["echo".into(), "add".into()];
}

#[derive(Debug, Default)]
struct CutOff(Mutex<u32>);

impl Onlooker for CutOff {
    fn saw(&self, _: &str, deed: Deed<'_>) {
        if matches!(deed, Deed::Ended { contact: Contact::Call, ending: Ending::CutOff, .. }) {
            *self.0.lock().unwrap() += 1;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_call_is_sent_to_a_second_instance_and_the_slower_one_is_cancelled() {
    let stage = Stage::of(2, hedged).await;
    let cut_off = Arc::new(CutOff::default());
    stage.sim.watch(cut_off.clone());
    for _ in 0..40 {
        stage.call("echo").await.unwrap();
    }
    stage.sim.set_latency(&stage.instances[0], SECOND);
    let report = loop {
        let report = stage.call("echo").await.unwrap();
        if report.attempts.len() > 1 {
            break report;
        }
    };
    let (slow, fast) = (&report.attempts[0], &report.attempts[1]);
    assert_eq!((slow.instance, slow.abandoned, slow.hedge), (stage.instances[0].id, true, false));
    assert_eq!((fast.instance, fast.abandoned, fast.hedge), (stage.instances[1].id, false, true));
    assert!((50.0..60.0).contains(&report.duration_ms) && slow.duration_ms >= 50.0, "{report:?}");
    assert_eq!(*cut_off.0.lock().unwrap(), 1, "the instance is told");
    assert_eq!(stage.explain("echo").await.hedge_delay_ms, Some(50));
    assert_eq!(stage.explain("echo").await.candidates[0].in_flight, 0);
}

#[tokio::test(start_paused = true)]
async fn few_calls_are_sent_twice_and_only_those_of_trusted_read_only_tools() {
    let stage = Stage::of(2, |spec| {
        hedged(spec);
        spec.routing_policy.balancer = Some(BalancerKind::RoundRobin);
    })
    .await;
    stage.instances.iter().for_each(|instance| stage.sim.set_latency(instance, MS * 100));
    let attempts = async |tool: &str, calls: usize| {
        let mut attempts = 0;
        for _ in 0..calls {
            attempts += stage.call(tool).await.unwrap().attempts.len();
        }
        attempts
    };
    assert_eq!(attempts("add", 100).await, 100, "it is not read-only");
    let sent = attempts("echo", 15).await;
    assert_eq!(sent, 15, "nothing is saved up yet");
    // From then on the delay is that which nearly all calls keep to, which is never reached.
    let sent = attempts("echo", 200).await;
    assert!(sent <= 210, "{sent}");
    assert_eq!(stage.explain("add").await.hedge_delay_ms, None);
    let distrusted = Stage::of(2, |spec| {
        hedged(spec);
        spec.routing_policy.trust_annotations = None;
    })
    .await;
    assert_eq!(distrusted.explain("echo").await.hedge_delay_ms, None);
}

/// A call may go to any instance that offers the tool, so what one of them says is not enough.
#[tokio::test(start_paused = true)]
async fn of_the_annotations_counts_what_all_instances_say_and_the_pins_allow() {
    let stage = Stage::of(2, hedged).await;
    let explained = stage.explain("echo").await;
    assert_eq!((explained.repeatable, explained.hedge_delay_ms), (true, Some(50)));
    let mut writes = echo_tool();
    writes["annotations"] = json!({"idempotentHint": true});
    stage.sim.set_tools(&stage.instances[1], vec![writes.clone(), add_tool()]);
    sleep(SECOND * 5).await;
    let explained = stage.explain("echo").await;
    assert_eq!((explained.repeatable, explained.hedge_delay_ms), (false, None), "the first says nothing of idempotent");
    writes["annotations"] = json!({"readOnlyHint": true, "idempotentHint": true});
    stage.sim.set_tools(&stage.instances[1], vec![writes, add_tool()]);
    sleep(SECOND * 5).await;
    let explained = stage.explain("echo").await;
    assert_eq!((explained.repeatable, explained.hedge_delay_ms), (true, Some(50)));
    let view = stage.machina.get("a").unwrap();
    let mut spec = view.service().spec.clone();
    spec.routing_policy.pins = [("echo".to_owned(), view.tool("echo").unwrap().tool.hash().to_owned())].into();
    stage.machina.update("a", spec, None).await.unwrap();
    let explained = stage.explain("echo").await;
    assert_eq!((explained.repeatable, explained.hedge_delay_ms), (false, None), "the second is not as pinned");
}

#[tokio::test(start_paused = true)]
async fn when_one_of_two_attempts_fails_the_other_one_counts() {
    let stage = Stage::of(2, hedged).await;
    for _ in 0..40 {
        stage.call("echo").await.unwrap();
    }
    let [one, two] = [&stage.instances[0], &stage.instances[1]];
    stage.sim.set_latency(one, SECOND);
    stage.sim.set_failing(two, 1.0);
    let report = loop {
        let report = stage.call("echo").await.unwrap();
        if report.attempts.iter().any(|attempt| attempt.hedge) {
            break report;
        }
    };
    assert_eq!(report.instance, one.id, "{report:?}");
    assert_eq!(report.attempts.iter().map(|attempt| attempt.error).collect::<Vec<_>>(), [Some(ErrorKind::Lost), None]);
    // Both lose the call.
    stage.sim.set(one, Behaviour::LoseAnswers);
    let began = Instant::now();
    let error = stage.call("echo").await.unwrap_err();
    assert_eq!((error.context().phase, error.context().outcome), (Some(Phase::MaybeExecuted), Some(Outcome::Unknown)));
    assert!(error.context().attempts.is_some_and(|attempts| (2..=4).contains(&attempts)), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(5));
}

#[tokio::test(start_paused = true)]
async fn an_explanation_says_all_that_decides() {
    let stage = Stage::of(3, |spec| {
        hedged(spec);
        spec.instances[1].weight = 3;
        spec.routing_policy.in_flight_max = Some(7);
        spec.routing_policy.attempts_max = Some(2);
    })
    .await;
    stage.call("echo").await.unwrap();
    let explained = stage.explain("echo").await;
    assert_eq!((explained.timeout_ms, explained.attempts_max, explained.hedge_delay_ms), (60_000, 2, Some(50)));
    assert_eq!((explained.panic, explained.retries_left, explained.queue_length), (false, 30, 0));
    assert!(explained.repeatable && explained.affinity_argument.is_none());
    for candidate in &explained.candidates {
        assert_eq!(
            (candidate.standing, candidate.eligible, candidate.breaker),
            (Standing::Up, true, BreakerState::Healthy)
        );
        assert_eq!((candidate.in_flight, candidate.in_flight_max, candidate.held_for_ms), (0, 7, None));
        assert!((candidate.share - 1.0).abs() < f64::EPSILON && candidate.reason == "healthy");
    }
    assert_eq!(explained.candidates.iter().filter(|candidate| candidate.picked).count(), 1);
    let picked = explained.candidates.iter().position(|candidate| candidate.picked).unwrap();
    let report = stage.call("echo").await.unwrap();
    assert_eq!(report.instance, stage.instances[picked].id, "and so it is");
    stage.set_all(Behaviour::Killed);
    sleep(SECOND * 40).await;
    let explained = stage.explain("echo").await;
    assert!(explained.panic, "{explained:?}");
    assert!(explained.candidates.iter().all(|candidate| candidate.standing == Standing::Down));
    assert!(serde_json::to_value(&explained).is_ok_and(|value| {
        serde_json::from_value(value).is_ok_and(|read: crate::route::Explanation| read == explained)
    }));
}
