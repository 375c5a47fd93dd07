//! Which of several eligible instances takes a call. Pure: no I/O, no lock, no
//! clock; time and randomness come in as arguments.

use std::fmt;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::BalancerKind;

/// What is observed as the latency of a failed attempt, so that an instance that
/// fails fast does not look fast. Stock Peak-EWMA feeds such an instance.
pub(crate) const FAILURE_PENALTY: Duration = Duration::from_secs(5);

/// The time over which an old latency loses its weight.
const DECAY: Duration = Duration::from_secs(10);

/// What is assumed of an instance that was never called, in seconds.
const LATENCY_DEFAULT: f64 = 0.030;

/// Up to this many candidates are all compared; of more, two random ones are
/// (the power of two choices, Mitzenmacher 2001).
const SCAN_MAX: usize = 16;

/// A latency average that follows peaks at once and forgets them slowly
/// (Peak-EWMA, as in Finagle and tower).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ewma {
    seconds: f64,
    updated: Instant,
}

impl Ewma {
    pub(crate) const fn new(now: Instant) -> Self {
        Self { seconds: LATENCY_DEFAULT, updated: now }
    }

    /// The average now: what lies above the default decays towards it, so that
    /// an instance that once failed is tried again.
    pub(crate) fn value(&self, now: Instant) -> f64 {
        let weight = self.weight(now);
        LATENCY_DEFAULT.min(self.seconds) + (self.seconds - LATENCY_DEFAULT).max(0.0) * weight
    }

    pub(crate) fn observe(&mut self, latency: Duration, now: Instant) {
        let latency = latency.as_secs_f64();
        let weight = self.weight(now);
        let average = self.seconds * weight + latency * (1.0 - weight);
        self.seconds = if latency > self.seconds { latency } else { average };
        self.updated = now;
    }

    fn weight(&self, now: Instant) -> f64 {
        let elapsed = now.saturating_duration_since(self.updated).as_secs_f64();
        (-elapsed / DECAY.as_secs_f64()).exp()
    }
}

/// An instance that may take the call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// Its position among the instances of the service.
    pub index: usize,
    /// Its expected latency in seconds, failures included.
    pub latency: f64,
    /// Calls it is working on.
    pub in_flight: u32,
    /// Its weight.
    pub weight: u32,
}

impl Candidate {
    /// The expected cost of giving it one more call: latency × (calls in flight
    /// + 1) ÷ weight.
    #[must_use]
    pub fn cost(&self) -> f64 {
        self.latency * f64::from(self.in_flight + 1) / f64::from(self.weight.max(1))
    }
}

/// What a balancer may know about the call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CallKey {
    /// Grows by one with each call of the service.
    pub ordinal: u64,
    /// A random number.
    pub random: u64,
}

/// Picks one of several candidates.
pub trait Balancer: fmt::Debug + Send + Sync + 'static {
    /// The position, in `candidates`, of the one to take the call. `candidates`
    /// is never empty.
    fn pick(&self, call: CallKey, candidates: &[Candidate]) -> usize;
}

/// The least expected cost.
#[derive(Debug, Clone, Copy, Default)]
pub struct PeakEwma;

/// One after the other, each as often as its weight says.
#[derive(Debug, Clone, Copy, Default)]
pub struct RoundRobin;

impl Balancer for PeakEwma {
    fn pick(&self, call: CallKey, candidates: &[Candidate]) -> usize {
        let count = candidates.len();
        if count <= SCAN_MAX {
            let start = modulo(call.ordinal, count);
            let (after, before) = candidates.split_at(start);
            let rotated = (start..).zip(before).chain((0..).zip(after));
            let costs = rotated.map(|(index, candidate)| (index, candidate.cost()));
            return costs.min_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0, |(index, _)| index);
        }
        let first = modulo(call.random, count);
        let second = (first + 1 + modulo(call.random >> 32, count - 1)) % count;
        if candidates[second].cost() < candidates[first].cost() { second } else { first }
    }
}

impl Balancer for RoundRobin {
    fn pick(&self, call: CallKey, candidates: &[Candidate]) -> usize {
        let total: u64 = candidates.iter().map(|candidate| u64::from(candidate.weight)).sum();
        let mut place = call.ordinal % total.max(1);
        for (index, candidate) in candidates.iter().enumerate() {
            let weight = u64::from(candidate.weight);
            if place < weight {
                return index;
            }
            place -= weight;
        }
        0
    }
}

impl BalancerKind {
    /// The balancer of this kind.
    pub(crate) fn balancer(self) -> &'static dyn Balancer {
        match self {
            Self::PeakEwma => &PeakEwma,
            Self::RoundRobin => &RoundRobin,
        }
    }
}

fn modulo(number: u64, count: usize) -> usize {
    usize::try_from(number % count as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn candidate(index: usize, latency: f64, in_flight: u32, weight: u32) -> Candidate {
        Candidate { index, latency, in_flight, weight }
    }

    const KEY: CallKey = CallKey { ordinal: 0, random: 7 };

    #[test]
    fn the_cheapest_is_picked() {
        let candidates = [candidate(0, 0.1, 0, 1), candidate(1, 0.03, 1, 1), candidate(2, 0.03, 3, 1)];
        assert_eq!(PeakEwma.pick(KEY, &candidates), 1);
        let weighted = [candidate(0, 0.03, 0, 1), candidate(1, 0.03, 1, 10)];
        assert_eq!(PeakEwma.pick(KEY, &weighted), 1, "a heavy instance takes more");
    }

    #[test]
    fn equals_take_turns() {
        let candidates = [candidate(0, 0.03, 0, 1), candidate(1, 0.03, 0, 1), candidate(2, 0.03, 0, 1)];
        let picks: Vec<_> = (0..3).map(|ordinal| PeakEwma.pick(CallKey { ordinal, random: 0 }, &candidates)).collect();
        assert_eq!(picks, [0, 1, 2]);
    }

    #[test]
    fn round_robin_follows_the_weights() {
        let candidates = [candidate(0, 0.0, 0, 2), candidate(1, 0.0, 0, 1)];
        let picks: Vec<_> =
            (0..6).map(|ordinal| RoundRobin.pick(CallKey { ordinal, random: 0 }, &candidates)).collect();
        assert_eq!(picks, [0, 0, 1, 0, 0, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_peak_counts_at_once_and_fades() {
        let now = Instant::now();
        let mut ewma = Ewma::new(now);
        ewma.observe(FAILURE_PENALTY, now);
        assert!((ewma.value(now) - 5.0).abs() < 1e-9);
        let later = ewma.value(now + DECAY);
        assert!(later < 2.0 && later > 1.0, "{later}");
        assert!(ewma.value(now + 10 * DECAY) < 0.031);
    }

    #[tokio::test(start_paused = true)]
    async fn an_instance_that_fails_fast_is_not_fed() {
        let now = Instant::now();
        let (mut failing, mut good) = (Ewma::new(now), Ewma::new(now));
        failing.observe(FAILURE_PENALTY, now);
        good.observe(Duration::from_millis(80), now);
        let candidates = [candidate(0, failing.value(now), 0, 1), candidate(1, good.value(now), 8, 1)];
        assert_eq!(PeakEwma.pick(KEY, &candidates), 1);
    }

    proptest! {
        #[test]
        fn a_pick_is_always_one_of_the_candidates(
            costs in prop::collection::vec((0.0..10.0f64, 0..100u32, 1..1000u32), 1..40),
            ordinal: u64, random: u64,
        ) {
            let candidates: Vec<_> =
                costs.iter().enumerate().map(|(i, (l, f, w))| candidate(i, *l, *f, *w)).collect();
            let key = CallKey { ordinal, random };
            prop_assert!(PeakEwma.pick(key, &candidates) < candidates.len());
            prop_assert!(RoundRobin.pick(key, &candidates) < candidates.len());
        }
    }
}
