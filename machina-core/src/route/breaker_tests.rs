use std::sync::LazyLock;

use proptest::prelude::*;

use super::*;

static PARAMETERS: LazyLock<RoutingParameters> = LazyLock::new(RoutingParameters::default);
const SECOND: Duration = Duration::from_secs(1);

struct Run {
    breaker: Breaker,
    now: Instant,
}

impl Run {
    fn new() -> Self {
        let now = Instant::now();
        Self { breaker: Breaker::new(now), now }
    }

    fn see(&mut self, evidence: CallEvidence, times: usize) -> bool {
        (0..times).any(|_| self.breaker.record(evidence, self.now, &PARAMETERS, 0.0))
    }

    fn probed(&mut self, passed: bool) -> Stage {
        self.breaker.probed(passed, self.now, &PARAMETERS, 0.0);
        self.breaker.stage()
    }

    fn ejected_for(&self) -> Option<Duration> {
        match self.breaker.stage() {
            Stage::Ejected { until } => Some(until - self.now),
            _ => None,
        }
    }
}

use CallEvidence::{Failure, Limited, Success};

#[test]
fn failures_in_a_row_eject_and_a_success_between_them_does_not() {
    let mut run = Run::new();
    assert!(!run.see(Failure, 4) && !run.see(Success, 1) && !run.see(Failure, 4));
    assert_eq!(run.breaker.stage(), Stage::Healthy);
    assert!(run.see(Failure, 1));
    assert_eq!(run.ejected_for(), Some(SECOND));
}

#[test]
fn too_small_a_share_of_successes_ejects_once_it_rests_on_enough_calls() {
    let mut run = Run::new();
    // 14 of 19 is less than 80 %, and rests on too few.
    for _ in 0..4 {
        assert!(!run.see(Success, 3) && !run.see(Failure, 1));
    }
    assert!(!run.see(Success, 2) && !run.see(Failure, 1));
    assert!(run.see(Failure, 1), "14 of 20");
    // The same, spread over more than the window.
    let mut run = Run::new();
    for _ in 0..40 {
        assert!(!run.see(Success, 1) && !run.see(Failure, 1));
        run.now += SECOND * 2;
    }
}

#[test]
fn an_instance_that_has_too_much_to_do_is_counted_by_its_share_only() {
    let mut run = Run::new();
    assert!(!run.see(Limited, 19), "as many in a row as there may be");
    assert!(run.see(Limited, 1));
    let mut run = Run::new();
    assert!(!run.see(Failure, 4) && !run.see(Limited, 5));
    assert!(run.see(Failure, 1), "a limit between them does not make failures fewer");
}

#[test]
fn probation_is_a_probe_and_then_one_call() {
    let mut run = Run::new();
    run.see(Failure, 5);
    assert_eq!(run.probed(true), Stage::Ejected { until: run.now + SECOND }, "too early");
    assert!(!run.see(Success, 1) && !run.breaker.is_due(run.now));
    run.now += SECOND;
    assert_eq!(Run { breaker: run.breaker.clone(), now: run.now }.probed(true), Stage::Trial, "it was probed anyway");
    assert!(run.breaker.is_due(run.now) && !run.breaker.is_due(run.now), "one probe is asked for");
    assert!(!run.breaker.begin_trial());
    run.now += ASK_AGAIN;
    assert!(run.breaker.is_due(run.now), "it did not come");
    assert_eq!(run.probed(true), Stage::Trial);
    assert!(run.breaker.begin_trial() && !run.breaker.begin_trial(), "one call at a time");
    run.breaker.end_trial();
    assert_eq!(run.breaker.stage(), Stage::Trial, "it was cancelled: another one");
    assert!(run.breaker.begin_trial());
    assert!(!run.see(Success, 1));
    assert_eq!(run.breaker.stage(), Stage::Healthy);
}

#[test]
fn each_ejection_in_a_row_is_twice_as_long_until_all_is_well_for_a_while() {
    let mut run = Run::new();
    run.see(Failure, 5);
    for seconds in [1_u64, 2, 4, 8, 16, 32, 60, 60] {
        assert_eq!(run.ejected_for(), Some(SECOND * u32::try_from(seconds).unwrap()));
        run.now += SECOND * 60;
        assert!(run.breaker.is_due(run.now));
        // By the probe, and by the call.
        if seconds % 2 == 0 {
            run.probed(false);
        } else {
            run.probed(true);
            run.breaker.begin_trial();
            assert!(run.see(Failure, 1));
        }
    }
    run.now += SECOND * 60;
    assert!(run.breaker.is_due(run.now));
    run.probed(true);
    run.see(Success, 1);
    run.now += SECOND * 30;
    run.see(Failure, 5);
    assert_eq!(run.ejected_for(), Some(SECOND * 60), "not long enough");
    run.now += SECOND * 60;
    run.breaker.is_due(run.now);
    run.see(Success, 1);
    run.now += SECOND * 61;
    run.see(Failure, 5);
    assert_eq!(run.ejected_for(), Some(SECOND));
}

fn evidence() -> impl Strategy<Value = CallEvidence> {
    prop_oneof![3 => Just(Success), 2 => Just(Failure), 1 => Just(Limited)]
}

proptest! {
    /// Against a plain model: all calls of the last ten seconds, kept one by one.
    #[test]
    fn an_ejection_has_its_reason_and_its_bounds(
        steps in prop::collection::vec((evidence(), 0..3_000_u64, 0.0..1.0_f64), 1..200),
    ) {
        let mut run = Run::new();
        let mut seen: Vec<(Instant, CallEvidence)> = Vec::new();
        for (evidence, pause, random) in steps {
            run.now += Duration::from_millis(pause);
            seen.push((run.now, evidence));
            let ejected = run.breaker.record(evidence, run.now, &PARAMETERS, random);
            let in_row = seen.iter().rev().filter(|(_, e)| *e != Limited).take_while(|(_, e)| *e == Failure).count();
            let window: Vec<_> = seen.iter().filter(|(at, _)| run.now - *at <= SECOND * 10).collect();
            let good = window.iter().filter(|(_, e)| *e == Success).count();
            if in_row >= 5 {
                prop_assert!(ejected);
            }
            if ejected {
                let (least, most) = (window.len() >= 20, in_row >= 5);
                prop_assert!(most || (least && good < window.len()), "{} of {}", good, window.len());
                let time = run.ejected_for().unwrap();
                prop_assert!(time >= SECOND / 2 && time <= SECOND * 60, "{time:?}");
                // Start over: the model knows no probation.
                run.breaker = Breaker::new(run.now);
                seen.clear();
            }
        }
    }

    /// Whatever happens, only a success ends an ejection, and not before its time.
    #[test]
    fn only_a_success_on_probation_brings_it_back(
        steps in prop::collection::vec((0..5_u8, 0..3_000_u64), 1..200),
    ) {
        let mut run = Run::new();
        run.see(Failure, 5);
        for (what, pause) in steps {
            run.now += Duration::from_millis(pause);
            let before = run.breaker.stage();
            match what {
                0 => drop(run.see(Failure, 1)),
                1 => drop(run.see(Success, 1)),
                2 => drop(run.probed(true)),
                3 => drop(run.probed(false)),
                _ => drop(run.breaker.is_due(run.now)),
            }
            let after = run.breaker.stage();
            if before != Stage::Healthy && after == Stage::Healthy {
                let was_ejected = matches!(before, Stage::Ejected { .. });
                prop_assert!(what == 1 && !was_ejected);
            }
            if let Stage::Ejected { until } = before {
                prop_assert!(after == before || until <= run.now);
            }
        }
    }
}
