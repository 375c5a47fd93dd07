//! How many calls of a service may be repeated: so many percent of its calls and
//! so many a second besides, over the last ten seconds. Repetitions then never
//! add much to a load that is too high already. Pure, without a lock.
//!
//! The same rule as tower's `TpsBudget`, which takes the time by itself, keeps its
//! numbers for good where those of a service may change, and would bring tower
//! along for one counter.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::time::Instant;

use crate::model::RoutingParameters;

/// Over how many seconds calls and repetitions are counted.
const SECONDS: u32 = 10;

/// Counts events by second; those of [`SECONDS`] ago are forgotten.
#[derive(Debug, Default)]
struct Counter([AtomicU64; SECONDS as usize]);

impl Counter {
    fn add(&self, second: u32) {
        let slot = &self.0[(second % SECONDS) as usize];
        let next = |packed: u64| Some(if stamp(packed) == second { packed + 1 } else { (u64::from(second) << 32) | 1 });
        // The function always has a next value.
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, next);
    }

    fn sum(&self, second: u32) -> u64 {
        let packed = self.0.iter().map(|slot| slot.load(Ordering::Relaxed));
        packed.filter(|packed| second.wrapping_sub(stamp(*packed)) < SECONDS).map(|packed| packed & COUNT).sum()
    }
}

const COUNT: u64 = 0xffff_ffff;

fn stamp(packed: u64) -> u32 {
    u32::try_from(packed >> 32).unwrap_or(u32::MAX)
}

/// The budget of one service.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    begun: Instant,
    calls: Counter,
    retries: Counter,
}

impl RetryBudget {
    pub(crate) fn new(now: Instant) -> Self {
        Self { begun: now, calls: Counter::default(), retries: Counter::default() }
    }

    /// A call came in.
    pub(crate) fn deposit(&self, now: Instant) {
        self.calls.add(self.second(now));
    }

    /// Takes one repetition out; `false` when there is none left.
    pub(crate) fn withdraw(&self, now: Instant, parameters: &RoutingParameters) -> bool {
        let allowed = self.left(now, parameters) > 0;
        if allowed {
            self.retries.add(self.second(now));
        }
        allowed
    }

    /// How many repetitions are left.
    pub(crate) fn left(&self, now: Instant, parameters: &RoutingParameters) -> u64 {
        let second = self.second(now);
        let share = self.calls.sum(second) * u64::from(parameters.retry_percentage) / 100;
        let reserve = u64::from(parameters.retries_per_second) * u64::from(SECONDS);
        (share + reserve).saturating_sub(self.retries.sum(second))
    }

    fn second(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.begun).as_secs()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn parameters(percentage: u32, per_second: u32) -> RoutingParameters {
        RoutingParameters {
            retry_percentage: percentage,
            retries_per_second: per_second,
            ..RoutingParameters::default()
        }
    }

    fn withdrawn(budget: &RetryBudget, now: Instant, parameters: &RoutingParameters) -> usize {
        (0..10_000).take_while(|_| budget.withdraw(now, parameters)).count()
    }

    #[test]
    fn a_share_of_the_calls_and_a_few_a_second_may_be_repeated() {
        let (now, rule) = (Instant::now(), RoutingParameters::default());
        let budget = RetryBudget::new(now);
        assert_eq!(withdrawn(&budget, now, &rule), 30, "3 a second for 10 seconds");
        (0..100).for_each(|_| budget.deposit(now));
        assert_eq!(budget.left(now, &rule), 20);
        assert_eq!(withdrawn(&budget, now, &rule), 20);
        assert_eq!(withdrawn(&budget, now + SECOND * 9, &rule), 0);
        assert_eq!(withdrawn(&budget, now + SECOND * 10, &rule), 30, "all is forgotten");
    }

    #[test]
    fn a_service_may_forbid_repetitions() {
        let now = Instant::now();
        let budget = RetryBudget::new(now);
        (0..1000).for_each(|_| budget.deposit(now));
        assert_eq!(withdrawn(&budget, now, &parameters(0, 0)), 0);
        assert_eq!(withdrawn(&budget, now, &parameters(100, 0)), 1000);
    }

    proptest! {
        /// In every ten seconds, however calls and failures come.
        #[test]
        fn repetitions_never_exceed_the_rule(
            steps in prop::collection::vec((0..700_u64, 0..20_u32, 0..20_u32), 1..150),
            percentage in 0..100_u32, per_second in 0..5_u32,
        ) {
            let rule = parameters(percentage, per_second);
            let begun = Instant::now();
            let (mut now, budget) = (begun, RetryBudget::new(begun));
            let (mut calls, mut retries) = (Vec::new(), Vec::new());
            for (pause, called, wanted) in steps {
                now += Duration::from_millis(pause);
                let second = |at: &Instant| (*at - begun).as_secs();
                let recent = |times: &[Instant]| {
                    times.iter().filter(|at| second(&now) - second(at) < 10).count() as u64
                };
                (0..called).for_each(|_| budget.deposit(now));
                calls.extend((0..called).map(|_| now));
                let allowed = recent(&calls) * u64::from(percentage) / 100 + u64::from(per_second) * 10;
                for _ in 0..wanted {
                    let left = allowed.saturating_sub(recent(&retries));
                    prop_assert_eq!(budget.left(now, &rule), left);
                    prop_assert_eq!(budget.withdraw(now, &rule), left > 0);
                    retries.extend((left > 0).then_some(now));
                }
            }
        }
    }
}
