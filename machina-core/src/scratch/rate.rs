//! How many calls may be made (the generic cell rate algorithm, ITU-T I.371): one
//! number for each key says when it will be free of all that was counted. Pure.

use std::time::Duration;

const MINUTE_MICROS: u64 = 60_000_000;

/// How many calls may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// On average; at least 1.
    pub per_minute: u32,
    /// How many of them may come at once; at least 1.
    pub burst: u32,
}

/// Whether a call may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// It may, and is counted.
    Now,
    /// It may not until so much later, and is not counted.
    After(Duration),
}

impl Rate {
    /// This rate; `None` where `per_minute` is 0, which means any number.
    pub(crate) fn limited(per_minute: u32, burst: u32) -> Option<Self> {
        (per_minute > 0).then_some(Self { per_minute, burst })
    }

    /// The time that each call takes up, in microseconds.
    #[must_use]
    pub fn interval_micros(self) -> u64 {
        (MINUTE_MICROS / u64::from(self.per_minute.max(1))).max(1)
    }

    /// How far ahead of time calls may be counted, in microseconds.
    #[must_use]
    pub fn tolerance_micros(self) -> u64 {
        self.interval_micros() * u64::from(self.burst.max(1) - 1)
    }

    /// Counts a call at `now` where all that was counted before is over at `free`,
    /// all in microseconds: when it will be over then, or how long the call waits.
    pub(super) fn count(self, free: u64, now: u64) -> Result<u64, Duration> {
        let (interval, tolerance) = (self.interval_micros(), self.tolerance_micros());
        let free = free.clamp(now, now + tolerance + interval);
        match (free - now).saturating_sub(tolerance) {
            0 => Ok(free + interval),
            wait => Err(Duration::from_micros(wait)),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However calls come, no stretch of time has more than the burst and its share.
        #[test]
        fn no_stretch_of_time_has_too_many(
            per_minute in 1_u32..10_000,
            burst in 1_u32..50,
            gaps in proptest::collection::vec(0_u64..2_000_000, 1..200),
        ) {
            let rate = Rate { per_minute, burst };
            let (mut now, mut free, mut passed) = (1_000, 0, Vec::new());
            for gap in gaps {
                now += gap;
                match rate.count(free, now) {
                    Ok(next) => {
                        free = next;
                        passed.push(now);
                    }
                    Err(wait) => {
                        let later = now + u64::try_from(wait.as_micros()).unwrap();
                        prop_assert!(rate.count(free, later).is_ok(), "it may come back when it was told to");
                        prop_assert!(rate.count(free, later - 1).is_err(), "and not before");
                    }
                }
            }
            for (index, from) in passed.iter().enumerate() {
                for (count, to) in passed[index..].iter().enumerate() {
                    let allowed = u64::from(burst) + (to - from) / rate.interval_micros();
                    prop_assert!((count as u64) < allowed, "{count} more from {from} to {to}");
                }
            }
        }
    }

    #[test]
    fn no_number_means_no_limit() {
        assert_eq!(Rate::limited(0, 5), None);
        assert_eq!(Rate::limited(7, 5), Some(Rate { per_minute: 7, burst: 5 }));
        let odd = Rate { per_minute: 0, burst: 0 };
        assert_eq!((odd.interval_micros(), odd.tolerance_micros()), (MINUTE_MICROS, 0));
        assert_eq!(Rate { per_minute: u32::MAX, burst: 1 }.interval_micros(), 1);
    }
}
