//! The invariants S1 to S5 and S10, and what is said of flapping and crash loops,
//! as properties of any history: a model that knows only which evidence counts
//! is held against the machine after each step.

use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// What happens next.
#[derive(Debug, Clone, Copy)]
enum Happening {
    /// Something is seen whose number lies so far behind the newest one.
    Seen {
        outcome: ProbeOutcome,
        lag: u64,
        frozen: bool,
        crash_loop: bool,
    },
    Starting,
    Expired,
    /// A heartbeat comes.
    Returned,
    /// Nothing happens for a while.
    Wait(Duration),
}

/// A history, and which of what was seen counts.
#[derive(Debug, Clone)]
struct History {
    parameters: HealthParameters,
    happenings: Vec<Happening>,
    now: Duration,
    /// The number of the newest evidence that exists.
    number: u64,
    /// The number of the newest evidence that counts.
    newest: u64,
    expired: bool,
    /// The outcomes that count, of this life.
    counted: Vec<ProbeOutcome>,
    /// Whether the last happening was evidence that counts.
    counts: bool,
}

fn is_pass(outcome: ProbeOutcome) -> bool {
    matches!(outcome, ProbeOutcome::Pass | ProbeOutcome::Degraded | ProbeOutcome::AuthRequired)
}

impl History {
    /// How many of the newest outcomes are all passes, or all failures.
    fn in_a_row(&self, passes: bool) -> u32 {
        let row = self.counted.iter().rev().take_while(|outcome| is_pass(**outcome) == passes).count();
        u32::try_from(row).unwrap()
    }
}

fn outcomes() -> impl Strategy<Value = ProbeOutcome> {
    prop_oneof![
        4 => Just(ProbeOutcome::Pass),
        5 => Just(ProbeOutcome::Fail { hard: false }),
        2 => Just(ProbeOutcome::Fail { hard: true }),
        1 => Just(ProbeOutcome::Inconclusive),
        1 => Just(ProbeOutcome::Degraded),
        1 => Just(ProbeOutcome::AuthRequired),
    ]
}

fn parameters() -> impl Strategy<Value = HealthParameters> {
    (1..6_u32, 1..5_u32, 1..4_u32, 1..7_u32, 0..90_u64, 10..900_u64, 1..1200_u64).prop_map(
        |(fall, rise, flaps, flap_rise, grace, window, hold)| HealthParameters {
            failure_threshold: fall,
            success_threshold: rise,
            flap_threshold: flaps,
            flap_success_threshold: flap_rise,
            startup_grace: SECOND * u32::try_from(grace).unwrap(),
            flap_window: Duration::from_secs(window),
            flap_hold: Duration::from_secs(hold),
            ..HealthParameters::default()
        },
    )
}

impl ReferenceStateMachine for History {
    type State = Self;
    type Transition = Happening;

    fn init_state() -> BoxedStrategy<Self> {
        let new = |parameters| Self {
            parameters,
            happenings: Vec::new(),
            now: Duration::ZERO,
            number: 0,
            newest: 0,
            expired: false,
            counted: Vec::new(),
            counts: false,
        };
        parameters().prop_map(new).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Happening> {
        let lag = prop_oneof![9 => Just(0_u64), 1 => 1..4_u64];
        let seen = (outcomes(), lag, prop::bool::weighted(0.2), prop::bool::weighted(0.1));
        let seen =
            seen.prop_map(|(outcome, lag, frozen, crash_loop)| Happening::Seen { outcome, lag, frozen, crash_loop });
        let wait = prop_oneof![4 => 0..20_u64, 1 => 0..1200_u64];
        prop_oneof![
            20 => seen,
            8 => wait.prop_map(|seconds| Happening::Wait(Duration::from_secs(seconds))),
            1 => Just(Happening::Starting),
            1 => Just(Happening::Expired),
            1 => Just(Happening::Returned),
        ]
        .boxed()
    }

    fn apply(mut history: Self, happening: &Happening) -> Self {
        history.happenings.push(*happening);
        history.counts = false;
        match *happening {
            Happening::Seen { outcome, lag, .. } => {
                history.number += 1;
                let number = history.number.saturating_sub(lag);
                history.counts = number > history.newest && !history.expired && outcome != ProbeOutcome::Inconclusive;
                if history.counts {
                    history.newest = number;
                    history.counted.push(outcome);
                }
            }
            Happening::Expired => {
                history.expired = true;
                history.counted.clear();
            }
            Happening::Returned if history.expired => {
                history.expired = false;
                history.newest = history.newest.max(history.number);
            }
            Happening::Starting | Happening::Returned => {}
            Happening::Wait(time) => history.now += time,
        }
        history
    }
}

/// The machine, and what it did so far.
struct Subject {
    parameters: HealthParameters,
    machine: Machine,
    start: Instant,
    now: Instant,
    number: u64,
    /// When it went down.
    downs: Vec<Instant>,
}

impl Subject {
    fn new(parameters: HealthParameters) -> Self {
        let start = Instant::now();
        let machine = Machine::new(start, &parameters);
        Self { parameters, machine, start, now: start, number: 0, downs: Vec::new() }
    }

    fn take(&mut self, happening: Happening) -> Effects {
        let event = match happening {
            Happening::Seen { outcome, lag, frozen, crash_loop } => {
                self.number += 1;
                let sequence = self.number.saturating_sub(lag);
                let evidence = Evidence { sequence, observation: Observation::new(outcome, "") };
                HealthEvent::Observed { evidence, frozen, crash_loop }
            }
            Happening::Starting => HealthEvent::Starting,
            Happening::Expired => HealthEvent::Expired,
            Happening::Returned => HealthEvent::Returned { sequence: self.number },
            Happening::Wait(time) => {
                self.now += time;
                HealthEvent::TimePassed
            }
        };
        step(&mut self.machine, &event, self.now, &self.parameters)
    }

    /// What must hold after evidence that counts.
    fn check_evidence(&self, history: &History, before: &Machine, happening: Happening) {
        let Happening::Seen { outcome, frozen, crash_loop, .. } = happening else { return };
        let (from, to) = (before.state, self.machine.state);
        let failed = !is_pass(outcome);
        let hard = outcome == ProbeOutcome::Fail { hard: true };
        assert_eq!(self.machine.soft, history.in_a_row(false), "S2");
        if from.is_up() {
            let fallen = failed
                && (hard || crash_loop || (history.in_a_row(false) >= history.parameters.failure_threshold && !frozen));
            assert_eq!(to.is_up(), !fallen, "S1: {from:?} to {to:?}");
        } else if to.is_up() {
            let known = !from.is_undecided();
            let needed = if known { self.needed(before) } else { 1 };
            assert!(history.in_a_row(true) >= needed, "S3: {needed} are needed");
            assert_eq!(to, HealthState::Healthy);
        }
        assert_eq!(
            to == HealthState::CrashLoop,
            (failed && crash_loop) || (from == HealthState::CrashLoop && !to.is_up())
        );
        let told = failed && (self.now >= before.grace_until || hard) || is_pass(outcome);
        assert!(!to.is_undecided() || !told || before.soft + 1 < history.parameters.failure_threshold);
    }

    /// How many passes an instance needs to come back that was so before.
    fn needed(&self, before: &Machine) -> u32 {
        let mut before = before.clone();
        before.flaps.pass_time(self.now, &self.parameters);
        before.needed(&self.parameters)
    }

    /// What must hold of flapping, by its definition.
    fn check_flapping(&self) {
        let HealthParameters { flap_threshold, flap_window, flap_hold, .. } = self.parameters;
        let within = |last: &Instant| self.downs.iter().filter(|at| *at <= last && *last - **at < flap_window).count();
        if self.machine.flaps.is_flapping() {
            assert!(self.downs.iter().any(|down| within(down) > flap_threshold as usize), "without reason");
        } else if let Some(last) = self.downs.last().filter(|last| self.now - **last < flap_hold) {
            assert!(within(last) <= flap_threshold as usize, "and nobody says so");
        }
    }
}

struct Invariants;

impl StateMachineTest for Invariants {
    type SystemUnderTest = Subject;
    type Reference = History;

    fn init_test(history: &History) -> Subject {
        Subject::new(history.parameters)
    }

    fn apply(mut subject: Subject, history: &History, happening: Happening) -> Subject {
        let before = subject.machine.clone();
        let effects = subject.take(happening);
        let machine = &subject.machine;
        let evidence = matches!(happening, Happening::Seen { .. });
        assert_eq!(effects.transition, (before.state != machine.state).then_some((before.state, machine.state)));
        assert_eq!(effects.flapping.is_some(), before.flaps.is_flapping() != machine.flaps.is_flapping());
        assert_eq!(
            machine.entered != before.entered,
            effects.transition.is_some() && machine.entered == subject.now && before.entered != subject.now
        );
        if evidence && !history.counts {
            assert_eq!(machine, &before, "S4, S5");
        }
        if evidence {
            assert_eq!(effects.applied, history.counts);
        }
        assert_eq!(machine.state == HealthState::Expired, history.expired, "only a heartbeat ends what a lease began");
        if matches!(happening, Happening::Wait(_)) {
            assert_eq!(machine.state, before.state, "time alone changes no state");
        }
        if matches!(happening, Happening::Expired) {
            subject.downs.clear();
        } else if before.state.is_up() && !subject.machine.state.is_up() {
            subject.downs.push(subject.now);
        }
        if history.counts {
            subject.check_evidence(history, &before, happening);
        }
        subject.check_flapping();
        subject
    }

    fn check_invariants(subject: &Subject, history: &History) {
        assert_eq!(subject.now - subject.start, history.now);
        let HealthParameters { interval, fast_interval, .. } = subject.parameters;
        let delay = probe_delay(&subject.machine, subject.now, &subject.parameters);
        assert!((fast_interval..=interval).contains(&delay), "{delay:?}");
    }

    fn teardown(subject: Subject, history: History) {
        let mut again = Subject { now: subject.start, start: subject.start, ..Subject::new(history.parameters) };
        again.machine = Machine::new(subject.start, &history.parameters);
        for happening in history.happenings {
            again.take(happening);
        }
        assert_eq!(again.machine, subject.machine, "S10");
    }
}

prop_state_machine! {
    #[test]
    fn every_history_keeps_the_invariants(sequential 1..200 => Invariants);
}
