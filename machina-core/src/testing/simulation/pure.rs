//! The pure machine under losses, a hundred million probes at a time: nothing
//! runs but [`step`], with the attempts of a probe as the prober makes them.

use std::time::Duration;

use tokio::time::Instant;

use crate::health::{Evidence, HealthEvent, HealthState, Machine, Observation, ProbeOutcome, probe_delay, step};
use crate::model::HealthParameters;
use crate::random::Random;

/// How long a well instance takes to answer.
const LATENCY: Duration = Duration::from_millis(5);

/// How long is looked on after a burst: whoever is to fall has fallen by then.
const AFTERWARDS: Duration = Duration::from_secs(120);

/// What became of well instances whose probes are lost now and then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Losses {
    /// Probes that began.
    pub probes: u64,
    /// Attempts that were lost.
    pub lost: u64,
    /// Probes that failed, for all their attempts.
    pub failed: u64,
    /// How often a well instance was taken down.
    pub ejections: u64,
}

/// One well instance, and the machine that watches it.
struct Watched<'a> {
    machine: Machine,
    parameters: &'a HealthParameters,
    random: &'a Random,
    sequence: u64,
    begun: Instant,
    /// Time since it began.
    now: Duration,
    losses: &'a mut Losses,
}

impl<'a> Watched<'a> {
    /// An instance that was found healthy just now.
    fn new(parameters: &'a HealthParameters, random: &'a Random, losses: &'a mut Losses) -> Self {
        let begun = Instant::now();
        let machine = Machine::new(begun, parameters);
        let mut watched = Self { machine, parameters, random, sequence: 0, begun, now: Duration::ZERO, losses };
        watched.take(ProbeOutcome::Pass);
        watched
    }

    fn take(&mut self, outcome: ProbeOutcome) {
        self.sequence += 1;
        let evidence = Evidence { sequence: self.sequence, observation: Observation::new(outcome, "") };
        let event = HealthEvent::Observed { evidence, frozen: false, crash_loop: false };
        let effects = step(&mut self.machine, &event, self.begun + self.now, self.parameters);
        let fell = effects.transition.is_some_and(|(from, to)| from.is_up() && to == HealthState::Unhealthy);
        self.losses.ejections += u64::from(fell);
    }

    /// Waits until the next probe is due, and makes it; `share` of what is sent at
    /// a time is lost.
    fn probe(&mut self, share: &impl Fn(Duration) -> f64) {
        let delay = probe_delay(&self.machine, self.begun + self.now, self.parameters);
        self.now += delay.mul_f64(0.1f64.mul_add(self.random.unit(), 0.9));
        self.losses.probes += 1;
        let mut attempts = 0;
        while self.random.chance(share(self.now)) {
            self.losses.lost += 1;
            let first = attempts == 0;
            self.now += if first { self.parameters.timeout } else { self.parameters.confirm_timeout };
            if attempts == self.parameters.retries {
                self.losses.failed += 1;
                return self.take(ProbeOutcome::Fail { hard: false });
            }
            attempts += 1;
            self.now += self.parameters.confirm_delay.mul_f64(1.0 + self.random.unit());
        }
        self.now += LATENCY;
        self.take(ProbeOutcome::Pass);
    }
}

/// Well instances that are probed so many times in all, while `share` of all
/// attempts is lost.
#[must_use]
pub fn losses(seed: u64, instances: u64, probes: u64, share: f64, parameters: &HealthParameters) -> Losses {
    let (random, mut losses) = (Random::seeded(seed), Losses::default());
    for _ in 0..instances {
        let mut watched = Watched::new(parameters, &random, &mut losses);
        for _ in 0..probes / instances {
            watched.probe(&|_| share);
        }
    }
    losses
}

/// Well instances of which each has one burst, `length` long, in which `share` of
/// all attempts is lost.
#[must_use]
pub fn bursts(seed: u64, bursts: u64, length: Duration, share: f64, parameters: &HealthParameters) -> Losses {
    let (random, mut losses) = (Random::seeded(seed), Losses::default());
    for _ in 0..bursts {
        let begins = parameters.interval.mul_f64(random.unit());
        let lossy = |now: Duration| if now >= begins && now < begins + length { share } else { 0.0 };
        let mut watched = Watched::new(parameters, &random, &mut losses);
        while watched.now < begins + length + AFTERWARDS {
            watched.probe(&lossy);
        }
    }
    losses
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_always_lost_is_taken_down_and_what_is_never_lost_is_not() {
        let parameters = HealthParameters::default();
        assert_eq!(losses(1, 10, 1000, 0.0, &parameters).ejections, 0);
        let gone = losses(1, 10, 1000, 1.0, &parameters);
        assert_eq!((gone.ejections, gone.failed), (10, 1000));
    }

    #[test]
    fn without_confirmation_a_loss_is_a_failure() {
        let careless = HealthParameters { retries: 0, failure_threshold: 1, ..HealthParameters::default() };
        let naive = losses(1, 100, 100_000, 0.01, &careless);
        assert!((800..1200).contains(&naive.ejections), "{naive:?}");
    }

    #[test]
    fn a_burst_as_long_as_the_bound_takes_down_and_a_short_one_does_not() {
        let parameters = HealthParameters::default();
        let long = super::super::bounds::black_hole(&parameters);
        assert_eq!(bursts(1, 100, long, 1.0, &parameters).ejections, 100);
        assert_eq!(bursts(1, 100, Duration::from_secs(5), 1.0, &parameters).ejections, 0);
    }
}
