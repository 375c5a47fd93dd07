//! The share of its calls that an instance gets which has come back: it grows
//! from a tenth to all of them. Pure: `now` is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// The share at the beginning.
const LEAST: f64 = 0.1;

/// A slow start under way.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct SlowStart {
    /// When the instance came back.
    pub(crate) since: Instant,
    /// How long it takes to the full share.
    pub(crate) lasting: Duration,
}

impl SlowStart {
    /// The share at `now`, from 0.1 to 1; 1 means that it is over.
    pub(crate) fn share(self, now: Instant) -> f64 {
        let passed = now.saturating_duration_since(self.since);
        if passed >= self.lasting {
            return 1.0;
        }
        (1.0 - LEAST).mul_add(passed.as_secs_f64() / self.lasting.as_secs_f64(), LEAST)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn it_grows_in_a_straight_line() {
        let start = SlowStart { since: Instant::now(), lasting: Duration::from_secs(30) };
        let shares = [0, 10, 15, 30, 99].map(|seconds| start.share(start.since + Duration::from_secs(seconds)));
        for (share, expected) in shares.into_iter().zip([0.1, 0.4, 0.55, 1.0, 1.0]) {
            assert!((share - expected).abs() < 1e-9, "{shares:?}");
        }
        assert!((SlowStart { lasting: Duration::ZERO, ..start }.share(start.since) - 1.0).abs() < f64::EPSILON);
    }

    proptest! {
        #[test]
        fn it_never_shrinks_and_never_leaves_its_range(lasting in 0..100_000_u64, times in prop::collection::vec(0..200_000_u64, 1..50)) {
            let start = SlowStart { since: Instant::now(), lasting: Duration::from_millis(lasting) };
            let mut times = times;
            times.sort_unstable();
            let mut before = LEAST;
            for time in times {
                let share = start.share(start.since + Duration::from_millis(time));
                prop_assert!((before..=1.0).contains(&share), "{before} then {share}");
                prop_assert_eq!(share >= 1.0, time >= lasting);
                before = share;
            }
        }
    }
}
