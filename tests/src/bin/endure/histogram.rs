//! How long things took, in a space that does not grow with their number.

use std::time::Duration;

use crate::report::shown;

/// How much longer each bucket reaches than the one before: what is read back is
/// at most this much too long.
const GROWTH: f64 = 1.02;
/// The shortest time that is told apart from none.
const SHORTEST: Duration = Duration::from_micros(10);
/// Up to some five minutes.
const BUCKETS: usize = 900;

/// Times, as counts of buckets.
#[derive(Debug, Clone)]
pub(crate) struct Histogram {
    counts: Vec<u32>,
    longest: Duration,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: vec![0; BUCKETS], longest: Duration::ZERO }
    }
}

impl Histogram {
    /// Counts one.
    pub(crate) fn add(&mut self, time: Duration) {
        let growth = (time.as_secs_f64() / SHORTEST.as_secs_f64()).max(1.0).ln() / GROWTH.ln();
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let bucket = (growth as usize).min(BUCKETS - 1);
        self.counts[bucket] += 1;
        self.longest = self.longest.max(time);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.counts.iter().map(|count| u64::from(*count)).sum()
    }

    /// The time within which `percent` of all lie; zero of none.
    pub(crate) fn quantile(&self, percent: u64) -> Duration {
        let wanted = (self.count() * percent).div_ceil(100);
        let mut seen = 0;
        // The last bucket has no end of its own.
        for (bucket, count) in (1..).zip(&self.counts[..BUCKETS - 1]) {
            seen += u64::from(*count);
            if seen >= wanted && seen > 0 {
                return SHORTEST.mul_f64(GROWTH.powi(bucket)).min(self.longest);
            }
        }
        self.longest
    }

    /// Those of both.
    pub(crate) fn with(mut self, other: &Self) -> Self {
        for (count, more) in self.counts.iter_mut().zip(&other.counts) {
            *count += more;
        }
        self.longest = self.longest.max(other.longest);
        self
    }
}

impl std::fmt::Display for Histogram {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [half, most] = [50, 99].map(|percent| shown(self.quantile(percent)));
        write!(f, "p50 {half}, p99 {most}, max {}", shown(self.longest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_is_at_most_a_bucket_too_long() {
        let mut histogram = Histogram::default();
        assert_eq!((histogram.count(), histogram.quantile(99)), (0, Duration::ZERO));
        for ms in 1..=1000 {
            histogram.add(Duration::from_millis(ms));
        }
        for (percent, ms) in [(50, 500.0), (99, 990.0), (100, 1000.0)] {
            let read = histogram.quantile(percent).as_secs_f64() * 1000.0;
            assert!((ms..=ms * GROWTH).contains(&read), "p{percent} is {read} ms");
        }
        histogram.add(Duration::from_secs(3600));
        histogram.add(Duration::ZERO);
        let twice = histogram.clone().with(&histogram);
        assert_eq!((twice.count(), twice.quantile(100)), (2004, Duration::from_secs(3600)));
    }
}
