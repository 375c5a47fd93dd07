use proptest::prelude::*;

use super::*;

const PARAMETERS: HealthParameters = HealthParameters {
    interval: Duration::from_secs(30),
    fast_interval: Duration::from_secs(3),
    timeout: Duration::from_secs(5),
    startup_grace: Duration::from_secs(30),
    fall: 4,
    rise: 2,
};

const PASS: ProbeOutcome = ProbeOutcome::Pass;
const SOFT: ProbeOutcome = ProbeOutcome::Fail { hard: false };
const HARD: ProbeOutcome = ProbeOutcome::Fail { hard: true };

struct Run {
    machine: Machine,
    now: Instant,
    sequence: u64,
}

impl Run {
    fn new() -> Self {
        let now = Instant::now();
        Self { machine: Machine::new(now, &PARAMETERS), now, sequence: 0 }
    }

    fn see(&mut self, outcome: ProbeOutcome) -> Effects {
        self.sequence += 1;
        self.see_at(outcome, self.sequence)
    }

    fn see_at(&mut self, outcome: ProbeOutcome, sequence: u64) -> Effects {
        let observation = Observation::new(outcome, "");
        let event = HealthEvent::Observed(Evidence { sequence, observation });
        step(&mut self.machine, &event, self.now, &PARAMETERS)
    }

    fn states(&mut self, outcomes: &[ProbeOutcome]) -> Vec<HealthState> {
        outcomes
            .iter()
            .map(|outcome| {
                self.see(*outcome);
                self.machine.state
            })
            .collect()
    }
}

#[test]
fn the_whole_round() {
    use HealthState::{Healthy, Recovering, Suspect, Unhealthy};
    let mut run = Run::new();
    let states = run.states(&[PASS, SOFT, SOFT, SOFT, SOFT, PASS, SOFT, PASS, PASS]);
    let expected = [Healthy, Suspect, Suspect, Suspect, Unhealthy, Recovering, Unhealthy, Recovering, Healthy];
    assert_eq!(states, expected);
}

#[test]
fn a_hard_failure_takes_one_and_so_does_coming_back() {
    let mut run = Run::new();
    assert_eq!(run.states(&[PASS, HARD, PASS]), [HealthState::Healthy, HealthState::Unhealthy, HealthState::Healthy]);
}

#[test]
fn within_the_grace_failures_mean_starting() {
    let mut run = Run::new();
    assert_eq!(run.states(&[SOFT; 5]), [HealthState::Starting; 5]);
    run.now += PARAMETERS.startup_grace;
    assert_eq!(run.states(&[SOFT]), [HealthState::Unhealthy]);
    assert_eq!(run.states(&[PASS]), [HealthState::Healthy], "a first registration needs one pass");
}

#[test]
fn a_command_that_does_not_exist_is_down_at_once() {
    assert_eq!(Run::new().states(&[HARD]), [HealthState::Unhealthy]);
}

#[test]
fn living_servers_that_want_credentials_or_patience_are_healthy() {
    let outcomes = [ProbeOutcome::AuthRequired, ProbeOutcome::Degraded];
    assert_eq!(Run::new().states(&outcomes), [HealthState::Healthy; 2]);
}

#[test]
fn the_longer_down_the_rarer_the_probes() {
    let mut run = Run::new();
    run.states(&[PASS, HARD]);
    let mut delays = Vec::new();
    for minutes in [0, 4, 6, 15, 60] {
        let now = run.now + Duration::from_secs(minutes * 60);
        delays.push(probe_delay(&run.machine, now, &PARAMETERS).as_secs());
    }
    assert_eq!(delays, [3, 3, 10, 30, 30], "never rarer than the interval itself");
}

#[test]
fn while_the_lease_is_over_no_evidence_counts() {
    let mut run = Run::new();
    run.states(&[PASS, SOFT]);
    let expired = step(&mut run.machine, &HealthEvent::Expired, run.now, &PARAMETERS);
    assert_eq!(expired.transition, Some((HealthState::Suspect, HealthState::Expired)));
    assert_eq!(run.states(&[PASS, SOFT, HARD, PASS]), [HealthState::Expired; 4]);
    let again = step(&mut run.machine, &HealthEvent::Expired, run.now, &PARAMETERS);
    assert!(!again.applied && again.transition.is_none());

    run.now += 10 * PARAMETERS.startup_grace;
    let stale = run.sequence + 1;
    let returned = step(&mut run.machine, &HealthEvent::Returned { sequence: stale }, run.now, &PARAMETERS);
    assert_eq!(returned.transition, Some((HealthState::Expired, HealthState::Unknown)));
    assert!(!run.see(PASS).applied, "that was seen of its earlier life");
    assert_eq!(run.states(&[SOFT; 5]), [HealthState::Starting; 5], "it has a new grace");
    assert_eq!(run.states(&[PASS]), [HealthState::Healthy]);
    let alive = step(&mut run.machine, &HealthEvent::Returned { sequence: 99 }, run.now, &PARAMETERS);
    assert!(!alive.applied && run.see(SOFT).applied, "a heartbeat of the living changes nothing");
}

#[test]
fn every_state_has_its_word_and_its_place() {
    let severities: std::collections::BTreeSet<_> = HealthState::ALL.iter().map(|state| state.severity()).collect();
    assert_eq!(severities, (0..7).collect());
    for state in HealthState::ALL {
        assert_eq!(HealthState::from_word(state.as_str()), Some(*state));
        assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
    }
    assert_eq!(HealthState::from_word("fine"), None);
}

fn outcomes() -> impl Strategy<Value = ProbeOutcome> {
    prop_oneof![
        4 => Just(PASS),
        4 => Just(SOFT),
        1 => Just(HARD),
        1 => Just(ProbeOutcome::Inconclusive),
        1 => Just(ProbeOutcome::Degraded),
        1 => Just(ProbeOutcome::AuthRequired),
    ]
}

/// One event: an outcome, how far its number lies behind the newest one, and
/// how many seconds pass before it.
fn events() -> impl Strategy<Value = Vec<(ProbeOutcome, u64, u64)>> {
    prop::collection::vec((outcomes(), prop_oneof![9 => Just(0u64), 1 => 1..4u64], 0..20u64), 0..200)
}

fn is_pass(outcome: ProbeOutcome) -> bool {
    matches!(outcome, PASS | ProbeOutcome::Degraded | ProbeOutcome::AuthRequired)
}

proptest! {
    #[test]
    fn invariants_s1_to_s5_and_s10(events in events()) {
        let mut run = Run::new();
        let mut again = Run { machine: run.machine.clone(), now: run.now, sequence: 0 };
        let mut applied: Vec<ProbeOutcome> = Vec::new();
        for (outcome, lag, seconds) in events {
            run.now += Duration::from_secs(seconds);
            run.sequence += 1;
            let sequence = run.sequence.saturating_sub(lag);
            let before = run.machine.clone();
            let effects = run.see_at(outcome, sequence);
            if sequence <= before.newest || outcome == ProbeOutcome::Inconclusive {
                prop_assert_eq!(&run.machine, &before, "S4, S5");
                prop_assert!(!effects.applied);
            } else {
                applied.push(outcome);
            }
            if is_pass(outcome) && effects.applied {
                prop_assert_eq!(run.machine.soft, 0, "S2");
            }
            let tail = |n: usize| applied.iter().rev().take(n).copied().collect::<Vec<_>>();
            match effects.transition {
                Some((from, HealthState::Unhealthy)) if from.is_up() => {
                    let fallen = tail(PARAMETERS.fall as usize);
                    let soft = fallen.len() == 4 && fallen.iter().all(|o| *o == SOFT);
                    prop_assert!(soft || outcome == HARD, "S1: {:?}", fallen);
                }
                Some((HealthState::Unhealthy | HealthState::Recovering, HealthState::Healthy)) => {
                    let risen = tail(before.needed as usize);
                    prop_assert!(risen.len() == before.needed as usize && risen.into_iter().all(is_pass), "S3");
                }
                _ => {}
            }
            again.now = run.now;
            again.see_at(outcome, sequence);
            prop_assert_eq!(&again.machine, &run.machine, "S10");
        }
    }

    #[test]
    fn only_a_heartbeat_ends_what_a_lease_began(events in prop::collection::vec((0..8u8, outcomes(), 0..60u64), 0..200)) {
        let mut run = Run::new();
        for (choice, outcome, seconds) in events {
            run.now += Duration::from_secs(seconds);
            let before = run.machine.clone();
            let effects = match choice {
                0 => step(&mut run.machine, &HealthEvent::Expired, run.now, &PARAMETERS),
                1 => step(&mut run.machine, &HealthEvent::Returned { sequence: run.sequence }, run.now, &PARAMETERS),
                2 => step(&mut run.machine, &HealthEvent::Starting, run.now, &PARAMETERS),
                _ => run.see(outcome),
            };
            let expired = |machine: &Machine| machine.state == HealthState::Expired;
            match choice {
                0 => prop_assert!(expired(&run.machine)),
                1 if expired(&before) => prop_assert_eq!(run.machine.state, HealthState::Unknown),
                1 => prop_assert_eq!(&run.machine, &before),
                _ if expired(&before) => prop_assert_eq!(&run.machine, &before),
                _ => prop_assert!(!expired(&run.machine)),
            }
            prop_assert_eq!(effects.transition.is_some(), before.state != run.machine.state);
        }
    }
}
