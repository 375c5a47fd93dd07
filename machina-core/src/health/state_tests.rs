use std::sync::LazyLock;

use super::*;

static PARAMETERS: LazyLock<HealthParameters> = LazyLock::new(HealthParameters::default);

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
        self.see_under(outcome, sequence, (false, false))
    }

    fn see_under(&mut self, outcome: ProbeOutcome, sequence: u64, (frozen, crash_loop): (bool, bool)) -> Effects {
        let evidence = Evidence { sequence, observation: Observation::new(outcome, "") };
        let event = HealthEvent::Observed { evidence, frozen, crash_loop };
        step(&mut self.machine, &event, self.now, &PARAMETERS)
    }

    fn see_frozen(&mut self, outcome: ProbeOutcome) -> HealthState {
        self.sequence += 1;
        self.see_under(outcome, self.sequence, (true, false));
        self.machine.state
    }

    fn crash(&mut self) -> Effects {
        self.sequence += 1;
        self.see_under(HARD, self.sequence, (false, true))
    }

    /// Goes down and comes back so often.
    fn flap(&mut self, times: u32) {
        for _ in 0..times {
            self.states(&[HARD, PASS]);
        }
    }

    fn pass_time(&mut self, time: Duration) -> Effects {
        self.now += time;
        step(&mut self.machine, &HealthEvent::TimePassed, self.now, &PARAMETERS)
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
    let later = run.now + Duration::from_secs(3600);
    run.machine.triggered(later);
    assert_eq!(probe_delay(&run.machine, later, &PARAMETERS).as_secs(), 3, "something says that it is worth a look");
    assert_eq!(run.machine.state, HealthState::Unhealthy);
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
fn while_ejections_are_frozen_only_hard_evidence_takes_it_down() {
    let mut run = Run::new();
    run.see(PASS);
    for _ in 0..10 {
        assert_eq!(run.see_frozen(SOFT), HealthState::Suspect);
    }
    let after = run.see(SOFT);
    assert_eq!(
        after.transition,
        Some((HealthState::Suspect, HealthState::Unhealthy)),
        "the first one after the freeze"
    );
    assert!(after.wedged);

    let mut run = Run::new();
    run.see(PASS);
    assert_eq!([SOFT, PASS].map(|outcome| run.see_frozen(outcome)), [HealthState::Suspect, HealthState::Healthy]);
    assert_eq!(run.see_frozen(HARD), HealthState::Unhealthy);
}

#[test]
fn one_that_was_not_up_is_not_kept_up_by_a_freeze() {
    let mut run = Run::new();
    run.states(&[PASS, SOFT, SOFT, SOFT, SOFT, PASS]);
    assert_eq!(run.see_frozen(SOFT), HealthState::Unhealthy, "it was recovering");
    let mut run = Run::new();
    run.states(&[SOFT; 3]);
    run.now += PARAMETERS.startup_grace;
    assert_eq!(run.see_frozen(SOFT), HealthState::Unhealthy, "it has never answered");
}

#[test]
fn one_that_flaps_needs_more_passes_until_it_has_held() {
    let mut run = Run::new();
    run.see(PASS);
    run.flap(PARAMETERS.flap_threshold);
    assert!(!run.machine.flaps.is_flapping());
    let began = run.see(HARD);
    assert_eq!((began.flapping, run.machine.flaps.downs()), (Some(true), PARAMETERS.flap_threshold + 1));
    use HealthState::{Healthy, Recovering};
    assert_eq!(run.states(&[PASS; 5]), [Recovering, Recovering, Recovering, Recovering, Healthy]);
    assert_eq!(
        run.states(&[HARD, PASS, PASS, PASS, PASS, PASS])[4..],
        [Recovering, Healthy],
        "hard evidence is no way around"
    );

    assert_eq!(run.pass_time(PARAMETERS.flap_hold - Duration::from_secs(1)).flapping, None);
    let ended = run.pass_time(Duration::from_secs(1));
    assert_eq!((ended.flapping, ended.transition, ended.applied), (Some(false), None, false));
    assert_eq!(run.states(&[HARD, PASS]), [HealthState::Unhealthy, Healthy]);
}

#[test]
fn one_that_goes_down_now_and_then_does_not_flap() {
    let mut run = Run::new();
    run.see(PASS);
    for _ in 0..20 {
        run.now += PARAMETERS.flap_window / PARAMETERS.flap_threshold;
        run.flap(1);
        assert!(!run.machine.flaps.is_flapping());
    }
}

#[test]
fn a_flapping_one_whose_lease_ran_out_begins_anew() {
    let mut run = Run::new();
    run.see(PASS);
    run.flap(PARAMETERS.flap_threshold + 1);
    let expired = step(&mut run.machine, &HealthEvent::Expired, run.now, &PARAMETERS);
    assert_eq!(expired.flapping, Some(false));
    step(&mut run.machine, &HealthEvent::Returned { sequence: run.sequence }, run.now, &PARAMETERS);
    assert_eq!(run.states(&[PASS]), [HealthState::Healthy]);
}

#[test]
fn only_passes_end_a_crash_loop() {
    use HealthState::{CrashLoop, Healthy, Unhealthy};
    let mut run = Run::new();
    assert_eq!(run.states(&[PASS, HARD]), [Healthy, Unhealthy]);
    assert_eq!(run.crash().transition, Some((Unhealthy, CrashLoop)));
    assert_eq!(run.states(&[SOFT, HARD, PASS, SOFT, PASS]), [CrashLoop; 5]);
    assert_eq!(run.states(&[PASS]), [Healthy], "two in a row");
    assert_eq!(run.crash().transition, Some((Healthy, CrashLoop)), "back in it at once");
    assert_eq!(probe_delay(&run.machine, run.now, &PARAMETERS), PARAMETERS.fast_interval);
}

#[test]
fn one_that_stays_silent_is_wedged_again_and_again() {
    let mut run = Run::new();
    run.see(PASS);
    let wedged = |run: &mut Run| (0..12).map(|_| run.see(SOFT).wedged).collect::<Vec<_>>();
    let every_fourth: Vec<bool> = (1..=12).map(|count| count % 4 == 0).collect();
    assert_eq!(wedged(&mut run), every_fourth);
    assert!(!Run::new().see(HARD).wedged, "what ended is not there");
    let mut starting = Run::new();
    assert_eq!(wedged(&mut starting), [false; 12], "it may still be starting");
}

#[test]
fn what_is_elsewhere_is_unknown_whatever_was_seen_before() {
    let mut run = Run::new();
    run.states(&[PASS, SOFT, HARD]);
    run.sequence += 1;
    let leaves = HealthEvent::Elsewhere { sequence: run.sequence };
    let effects = step(&mut run.machine, &leaves, run.now, &PARAMETERS);
    assert_eq!(effects.transition, Some((HealthState::Unhealthy, HealthState::Unknown)));
    assert_eq!(step(&mut run.machine, &leaves, run.now, &PARAMETERS).transition, None);
    assert!(!run.see_at(HARD, run.sequence).applied, "it is evidence of before");
    assert_eq!(run.states(&[PASS]), [HealthState::Healthy], "it is as new");
}
