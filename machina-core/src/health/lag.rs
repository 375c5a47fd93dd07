//! How late Machina's own loop is, and what follows: while it is, an answer that
//! comes late may have come in time, so probes get up to eight times their time.
//!
//! Bookkeeping only: knows no task, lock or clock.

use std::time::Duration;

/// How much more time a probe gets at most.
const FACTOR_MAX: f64 = 8.0;

/// The lateness of late: each measurement raises it at once, and lowers it by half
/// at most.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Lag(Duration);

impl Lag {
    /// A timer fired so late.
    pub(crate) fn measured(&mut self, lateness: Duration) {
        self.0 = lateness.max(self.0 / 2);
    }

    /// How late it is.
    pub(crate) const fn lateness(self) -> Duration {
        self.0
    }

    /// How many times its time a probe gets while the loop should be no later
    /// than `most`: 1 to 8.
    pub(crate) fn factor(self, most: Duration) -> f64 {
        (self.0.as_secs_f64() / most.as_secs_f64().max(f64::MIN_POSITIVE)).clamp(1.0, FACTOR_MAX)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: Duration = Duration::from_millis(100);

    #[test]
    fn a_loop_in_time_changes_nothing_and_a_late_one_gives_time() {
        let mut lag = Lag::default();
        assert_eq!(lag.factor(MOST), 1.0);
        for (lateness, factor) in [(90, 1.0), (100, 1.0), (250, 2.5), (799, 7.99), (20_000, 8.0)] {
            lag = Lag::default();
            lag.measured(Duration::from_millis(lateness));
            assert!((lag.factor(MOST) - factor).abs() < 1e-9, "{lateness} ms");
        }
    }

    #[test]
    fn it_is_over_a_few_measurements_after_the_loop_is_in_time_again() {
        let mut lag = Lag::default();
        lag.measured(Duration::from_secs(20));
        let measurements = (1..100).find(|_| {
            lag.measured(Duration::ZERO);
            lag.factor(MOST) <= 1.0
        });
        assert_eq!(measurements, Some(8), "20 s halved eight times is less than 100 ms");
    }

    proptest! {
        #[test]
        fn the_factor_is_one_to_eight(lateness in prop::collection::vec(0..100_000_u64, 0..50), most in 0..60_000_u64) {
            let mut lag = Lag::default();
            for milliseconds in lateness {
                lag.measured(Duration::from_millis(milliseconds));
                prop_assert!((1.0..=FACTOR_MAX).contains(&lag.factor(Duration::from_millis(most))));
            }
        }
    }
}
