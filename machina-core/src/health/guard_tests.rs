use super::*;
use crate::health::{Health, Reason};

fn guard() -> Guard {
    Guard::new(&HealthConfig::default())
}

fn recorded(transition: Option<(HealthState, HealthState)>) -> Recorded {
    let health = Arc::new(Health::unknown(crate::clock::now()));
    assert_eq!(health.reason, Reason::default());
    Recorded { health, transition, visible: true, flapping: None, wedged: false }
}

const TO_SUSPECT: Option<(HealthState, HealthState)> = Some((HealthState::Healthy, HealthState::Suspect));
const DOWN: Option<(HealthState, HealthState)> = Some((HealthState::Suspect, HealthState::Unhealthy));

/// Whether soft failures were frozen when this was recorded.
fn sees(guard: &Guard, instance: InstanceId, soft: bool, transition: Option<(HealthState, HealthState)>) -> bool {
    let mut told = false;
    guard.record(instance, soft, 10, |frozen| {
        told = frozen;
        recorded(if frozen && soft { None } else { transition })
    });
    told
}

#[tokio::test(start_paused = true)]
async fn many_that_begin_to_fail_freeze_soft_failures_and_nothing_else() {
    let guard = guard();
    let all: Vec<_> = (0..4).map(|_| InstanceId::generate()).collect();
    for instance in &all[..3] {
        assert!(!sees(&guard, *instance, true, TO_SUSPECT));
    }
    assert!(guard.holds());
    assert!(sees(&guard, all[0], true, DOWN), "soft");
    assert!(!sees(&guard, all[1], false, DOWN), "hard");
    assert_eq!(guard.look(10, &Ok(())), 2, "what is certainly down is explained");
    guard.forget(all[2]);
    tokio::time::advance(Duration::from_secs(30)).await;
    assert_eq!(guard.look(10, &Ok(())), 1);
    assert!(!guard.holds());
}

#[tokio::test(start_paused = true)]
async fn one_share_of_them_goes_down_within_an_interval() {
    let guard = guard();
    let [first, second] = [InstanceId::generate(), InstanceId::generate()];
    assert!(!sees(&guard, first, true, DOWN));
    assert!(sees(&guard, second, true, DOWN), "one of ten, at 15 %");
    tokio::time::advance(Duration::from_secs(30)).await;
    assert!(!sees(&guard, second, true, DOWN));
}

#[tokio::test(start_paused = true)]
async fn one_that_goes_down_at_its_first_failure_counts_as_both() {
    let guard = guard();
    let at_once = Some((HealthState::Healthy, HealthState::Unhealthy));
    assert!(!sees(&guard, InstanceId::generate(), true, at_once));
    assert!(sees(&guard, InstanceId::generate(), true, at_once));
}

#[tokio::test(start_paused = true)]
async fn where_nobody_watches_nothing_is_frozen() {
    let guard = guard();
    for _ in 0..100 {
        let recorded = guard.record(InstanceId::generate(), true, 0, |frozen| {
            assert!(!frozen);
            recorded(DOWN)
        });
        assert!(recorded.visible);
    }
    assert!(!guard.holds());
}

#[tokio::test(start_paused = true)]
async fn while_machina_stands_still_nothing_goes_down_for_it() {
    let guard = guard();
    let mut lag = Lag::default();
    let mut late = |by: u64| {
        lag.measured(Duration::from_secs(by));
        guard.measured(lag);
        guard.look(10, &Ok(()));
        guard.holds()
    };
    assert!(!late(4), "a probe waits for 5 s");
    assert!(late(20));
    assert!(sees(&guard, InstanceId::generate(), true, DOWN), "soft");
    assert!(!sees(&guard, InstanceId::generate(), false, DOWN), "hard");
    assert!((0..4).all(|_| late(0)), "10 s, 5 s, 2.5 s, 1.25 s");
    assert!(!late(0));
    assert!(!late(4), "once it is over, as ever");
}

#[test]
fn this_process_can_connect_to_itself() {
    self_test().unwrap();
}
