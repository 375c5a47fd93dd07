//! Which of several eligible instances takes a call. Pure: no I/O, no lock, no
//! clock; time and randomness come in as arguments.

use std::fmt;

use crate::model::BalancerKind;

/// Up to this many candidates are all compared; of more, two random ones are
/// (the power of two choices, Mitzenmacher 2001).
const SCAN_MAX: usize = 16;

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
    /// The part of its weight that it gets while it starts slowly, up to 1.
    pub share: f64,
}

impl Candidate {
    /// An instance without calls.
    #[must_use]
    pub const fn new(index: usize, weight: u32) -> Self {
        Self { index, latency: 0.0, in_flight: 0, weight, share: 1.0 }
    }

    /// The expected cost of giving it one more call: latency × (calls in flight
    /// + 1) ÷ weight.
    #[must_use]
    pub fn cost(&self) -> f64 {
        self.latency * self.load()
    }

    /// The calls in flight with one more, by weight.
    fn load(&self) -> f64 {
        f64::from(self.in_flight + 1) / (f64::from(self.weight.max(1)) * self.share)
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

/// By chance, each as often as its weight says.
#[derive(Debug, Clone, Copy, Default)]
pub struct WeightedRandom;

/// The fewest calls in flight for its weight.
#[derive(Debug, Clone, Copy, Default)]
pub struct LeastOutstanding;

impl Balancer for PeakEwma {
    fn pick(&self, call: CallKey, candidates: &[Candidate]) -> usize {
        least(call, candidates, Candidate::cost)
    }
}

/// The candidate with the least cost: of all, or of two when there are many.
/// Equals take turns.
fn least(call: CallKey, candidates: &[Candidate], cost: impl Fn(&Candidate) -> f64) -> usize {
    let count = candidates.len();
    if count <= SCAN_MAX {
        let start = modulo(call.ordinal, count);
        let (after, before) = candidates.split_at(start);
        let rotated = (start..).zip(before).chain((0..).zip(after));
        let costs = rotated.map(|(index, candidate)| (index, cost(candidate)));
        return costs.min_by(|(_, a), (_, b)| a.total_cmp(b)).map_or(0, |(index, _)| index);
    }
    let first = modulo(call.random, count);
    let second = (first + 1 + modulo(call.random >> 32, count - 1)) % count;
    if cost(&candidates[second]) < cost(&candidates[first]) { second } else { first }
}

impl Balancer for RoundRobin {
    fn pick(&self, call: CallKey, candidates: &[Candidate]) -> usize {
        drawn(call.ordinal, call.random, candidates)
    }
}

impl Balancer for WeightedRandom {
    fn pick(&self, call: CallKey, candidates: &[Candidate]) -> usize {
        drawn(call.random, call.random.rotate_left(32), candidates)
    }
}

impl Balancer for LeastOutstanding {
    fn pick(&self, call: CallKey, candidates: &[Candidate]) -> usize {
        least(call, candidates, Candidate::load)
    }
}

impl BalancerKind {
    /// The balancer of this kind.
    pub(crate) fn balancer(self) -> &'static dyn Balancer {
        match self {
            Self::PeakEwma => &PeakEwma,
            Self::RoundRobin => &RoundRobin,
            Self::WeightedRandom => &WeightedRandom,
            Self::LeastOutstanding => &LeastOutstanding,
        }
    }
}

/// The candidate at the place `number` when each stands there as often as its
/// weight says. One that starts slowly leaves it to the next, as chance has it.
fn drawn(number: u64, chance: u64, candidates: &[Candidate]) -> usize {
    let total: u64 = candidates.iter().map(|candidate| u64::from(candidate.weight)).sum();
    let mut place = number % total.max(1);
    let holds = |candidate: &Candidate| {
        let here = place < u64::from(candidate.weight);
        place = place.saturating_sub(u64::from(candidate.weight));
        here
    };
    let first = candidates.iter().position(holds).unwrap_or(0);
    let takes =
        |step: &u32| candidates[(first + *step as usize) % candidates.len()].share > unit(chance.rotate_left(step * 7));
    let steps = 0..u32::try_from(candidates.len()).unwrap_or(u32::MAX);
    let step = steps.clone().find(takes).unwrap_or(0);
    (first + step as usize) % candidates.len()
}

/// A random number as one from 0 up to, and without, 1.
#[allow(clippy::cast_precision_loss, reason = "53 bits fit")]
pub(super) fn unit(random: u64) -> f64 {
    (random >> 11) as f64 / (1_u64 << 53) as f64
}

fn modulo(number: u64, count: usize) -> usize {
    usize::try_from(number % count as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::random::Random;

    fn candidate(index: usize, latency: f64, in_flight: u32, weight: u32) -> Candidate {
        Candidate { latency, in_flight, ..Candidate::new(index, weight) }
    }

    const KEY: CallKey = CallKey { ordinal: 0, random: 7 };

    /// How often each is picked in `calls` calls.
    fn counts(balancer: &dyn Balancer, candidates: &[Candidate], calls: u64) -> Vec<usize> {
        let random = Random::seeded(1);
        let mut counts = vec![0; candidates.len()];
        for ordinal in 0..calls {
            counts[balancer.pick(CallKey { ordinal, random: random.any() }, candidates)] += 1;
        }
        counts
    }

    #[test]
    fn the_cheapest_is_picked() {
        let candidates = [candidate(0, 0.1, 0, 1), candidate(1, 0.03, 1, 1), candidate(2, 0.03, 3, 1)];
        assert_eq!(PeakEwma.pick(KEY, &candidates), 1);
        let weighted = [candidate(0, 0.03, 0, 1), candidate(1, 0.03, 1, 10)];
        assert_eq!(PeakEwma.pick(KEY, &weighted), 1, "a heavy instance takes more");
        let slow_start = [candidate(0, 0.03, 2, 1), Candidate { share: 0.1, ..candidate(1, 0.03, 0, 1) }];
        assert_eq!(PeakEwma.pick(KEY, &slow_start), 0, "one that starts slowly takes less");
    }

    #[test]
    fn the_one_with_the_fewest_calls_for_its_weight_is_picked() {
        let candidates = [candidate(0, 0.001, 3, 1), candidate(1, 9.0, 2, 1), candidate(2, 0.001, 8, 2)];
        assert_eq!(LeastOutstanding.pick(KEY, &candidates), 1, "whatever its latency");
        let heavier = [candidate(0, 1.0, 2, 1), candidate(1, 1.0, 4, 2)];
        assert_eq!(LeastOutstanding.pick(KEY, &heavier), 1);
    }

    #[test]
    fn equals_take_turns() {
        let candidates = [candidate(0, 0.03, 0, 1), candidate(1, 0.03, 0, 1), candidate(2, 0.03, 0, 1)];
        for balancer in [&PeakEwma as &dyn Balancer, &LeastOutstanding] {
            let pick = |ordinal| balancer.pick(CallKey { ordinal, random: 0 }, &candidates);
            assert_eq!((0..3).map(pick).collect::<Vec<_>>(), [0, 1, 2]);
        }
    }

    #[test]
    fn round_robin_follows_the_weights() {
        let candidates = [candidate(0, 0.0, 0, 2), candidate(1, 0.0, 0, 1)];
        let pick = |ordinal| RoundRobin.pick(CallKey { ordinal, random: 0 }, &candidates);
        assert_eq!((0..6).map(pick).collect::<Vec<_>>(), [0, 0, 1, 0, 0, 1]);
    }

    #[test]
    fn chance_follows_the_weights() {
        let candidates = [candidate(0, 0.0, 0, 1), candidate(1, 9.0, 99, 3)];
        let counts = counts(&WeightedRandom, &candidates, 4000);
        assert!(counts[0].abs_diff(1000) < 100, "{counts:?}");
    }

    #[test]
    fn one_that_starts_slowly_gets_its_share_of_turns() {
        let mut candidates = [candidate(0, 0.0, 0, 1), candidate(1, 0.0, 0, 1), candidate(2, 0.0, 0, 1)];
        candidates[1].share = 0.1;
        for balancer in [&RoundRobin as &dyn Balancer, &WeightedRandom] {
            let counts = counts(balancer, &candidates, 3000);
            assert!(counts[1].abs_diff(100) < 40 && counts[0] > 900 && counts[2] > 900, "{counts:?}");
        }
    }

    #[test]
    fn of_many_two_random_ones_are_compared() {
        let candidates: Vec<_> =
            (0..40).map(|index| candidate(index, if index < 20 { 1.0 } else { 0.1 }, 0, 1)).collect();
        let counts = counts(&PeakEwma, &candidates, 4000);
        let cheap: usize = counts[20..].iter().sum();
        // Three of four pairs have a cheap one.
        assert!(cheap.abs_diff(3000) < 150 && counts.iter().all(|count| *count < 300), "{counts:?}");
    }

    proptest! {
        #[test]
        fn a_pick_is_always_one_of_the_candidates(
            costs in prop::collection::vec((0.0..10.0f64, 0..100u32, 1..1000u32, 0.1..1.0f64), 1..40),
            ordinal: u64, random: u64,
        ) {
            let one = |(index, (latency, in_flight, weight, share)): (usize, &(f64, u32, u32, f64))| {
                Candidate { share: *share, ..candidate(index, *latency, *in_flight, *weight) }
            };
            let candidates: Vec<_> = costs.iter().enumerate().map(one).collect();
            for balancer in [&PeakEwma as &dyn Balancer, &RoundRobin, &WeightedRandom, &LeastOutstanding] {
                let key = CallKey { ordinal, random };
                prop_assert!(balancer.pick(key, &candidates) < candidates.len());
            }
        }

        #[test]
        fn the_cheapest_of_few_is_found(
            costs in prop::collection::vec((0.0..10.0f64, 0..100u32, 1..1000u32), 1..16), ordinal: u64, random: u64,
        ) {
            let candidates: Vec<_> = costs.iter().enumerate().map(|(i, (l, f, w))| candidate(i, *l, *f, *w)).collect();
            let picked = candidates[PeakEwma.pick(CallKey { ordinal, random }, &candidates)].cost();
            prop_assert!(candidates.iter().all(|candidate| picked <= candidate.cost()));
        }
    }
}
