//! The bounds L1 and L2, as formulas of what is configured: a prober without a
//! network is run against the machine, under any parameters and with any luck.

use proptest::prelude::*;

use super::*;
use crate::model::{HealthConfig, HealthPolicy};
use crate::testing::simulation::bounds;

/// An instance that answers nothing between two moments.
#[derive(Debug, Clone, Copy)]
struct Outage {
    from: Duration,
    until: Duration,
}

/// A prober and what it knows.
struct Watch<'a> {
    machine: Machine,
    start: Instant,
    now: Duration,
    parameters: HealthParameters,
    outage: Outage,
    /// Numbers from 0 to 1, over and over.
    luck: std::iter::Cycle<std::slice::Iter<'a, f64>>,
}

impl<'a> Watch<'a> {
    fn new(parameters: HealthParameters, outage: Outage, luck: &'a [f64]) -> Self {
        let start = Instant::now();
        let machine = Machine::new(start, &parameters);
        Self { machine, start, now: Duration::ZERO, parameters, outage, luck: luck.iter().cycle() }
    }

    fn chance(&mut self) -> f64 {
        self.luck.next().copied().unwrap_or_default()
    }

    /// One attempt: answered at once, or not within the time.
    fn attempt(&mut self, timeout: Duration) -> bool {
        let answers = !(self.outage.from..self.outage.until).contains(&self.now);
        if !answers {
            self.now += timeout;
        }
        answers
    }

    fn probe(&mut self) -> bool {
        let HealthParameters { timeout, confirm_timeout, confirm_delay, retries, .. } = self.parameters;
        let mut passed = self.attempt(timeout);
        for _ in 0..retries {
            if passed {
                break;
            }
            let delay = confirm_delay.mul_f64(1.0 + self.chance());
            self.now += delay;
            passed = self.attempt(confirm_timeout);
        }
        passed
    }

    /// Probes until the machine is in `state`; returns when that was.
    fn until(&mut self, state: HealthState) -> Duration {
        for _ in 0..100_000 {
            let outcome = if self.probe() { ProbeOutcome::Pass } else { ProbeOutcome::Fail { hard: false } };
            let evidence = Evidence { sequence: self.machine.newest + 1, observation: Observation::new(outcome, "") };
            let event = HealthEvent::Observed { evidence, frozen: false, crash_loop: false };
            step(&mut self.machine, &event, self.start + self.now, &self.parameters);
            let reached = self.now;
            let delay = probe_delay(&self.machine, self.start + self.now, &self.parameters);
            let jitter = 0.1_f64.mul_add(self.chance(), 0.9);
            self.now += delay.mul_f64(jitter);
            if self.machine.state == state {
                return reached;
            }
        }
        panic!("never {state:?}");
    }
}

fn parameters() -> impl Strategy<Value = HealthParameters> {
    let times = (1_000..120_000_u64, 100..10_000_u64, 100..10_000_u64, 100..10_000_u64, 0..2_000_u64);
    (times, 1..8_u32, 1..6_u32, 0..4_u32).prop_map(
        |((interval, fast, timeout, confirm, delay), fall, rise, retries)| {
            let policy = HealthPolicy {
                interval: Some(Duration::from_millis(interval)),
                fast_interval: Some(Duration::from_millis(fast)),
                timeout: Some(Duration::from_millis(timeout)),
                confirm_timeout: Some(Duration::from_millis(confirm)),
                confirm_delay: Some(Duration::from_millis(delay)),
                failure_threshold: Some(fall),
                success_threshold: Some(rise),
                retries: Some(retries),
                ..HealthPolicy::default()
            };
            HealthConfig::default().parameters(&policy, false)
        },
    )
}

proptest! {
    #[test]
    fn l1_and_l2_hold_for_any_parameters(
        parameters in parameters(),
        healthy in 0.0..5.0_f64,
        down in 0.0..1.0_f64,
        luck in prop::collection::vec(0.0..=1.0_f64, 1..20),
    ) {
        let from = parameters.interval.mul_f64(healthy) + Duration::from_nanos(1);
        let never = Outage { from, until: Duration::MAX };
        let mut watch = Watch::new(parameters, never, &luck);
        watch.until(HealthState::Healthy);
        let fell = watch.until(HealthState::Unhealthy);
        prop_assert!(fell - from <= bounds::black_hole(&parameters), "L1: found after {:?}", fell - from);

        // The last probe that fails ends within five minutes of the first that took it down.
        let longest = Duration::from_secs(300).saturating_sub(bounds::failed_probe(&parameters));
        watch.outage.until = fell + longest.mul_f64(down);
        let back = watch.outage.until;
        let rose = watch.until(HealthState::Healthy);
        prop_assert!(rose.saturating_sub(back) <= bounds::recovery(&parameters), "L2: found after {:?}", rose - back);
    }
}

#[test]
fn the_bounds_are_reached_and_no_tighter_ones_hold() {
    let parameters = HealthParameters::default();
    let outage = Outage { from: Duration::from_nanos(1), until: Duration::MAX };
    let mut watch = Watch::new(parameters, outage, &[1.0]);
    watch.until(HealthState::Healthy);
    let found = watch.until(HealthState::Unhealthy) - outage.from;
    assert_eq!(found + outage.from, bounds::black_hole(&parameters), "the worst luck");
    assert!(found >= Duration::from_secs(72));
}
