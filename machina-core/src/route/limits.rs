//! How many calls may wait for an instance with room, how long, and who is next.
//! Pure: who is woken, and how, is `traffic.rs`.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::model::RoutingParameters;

/// Those who wait, in the order in which they came.
#[derive(Debug)]
pub(crate) struct Line<T> {
    places: VecDeque<(u64, T)>,
    next: u64,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Self { places: VecDeque::new(), next: 0 }
    }
}

impl<T> Line<T> {
    /// Joins at the end; `None` when `most` wait already.
    pub(crate) fn join(&mut self, most: u32, who: T) -> Option<u64> {
        if self.places.len() >= most as usize {
            return None;
        }
        let place = self.next;
        self.next += 1;
        self.places.push_back((place, who));
        Some(place)
    }

    /// Leaves the line, from wherever in it.
    pub(crate) fn leave(&mut self, place: u64) {
        if let Ok(index) = self.find(place) {
            self.places.remove(index);
        }
    }

    /// Who came first.
    pub(crate) fn first(&self) -> Option<&T> {
        self.places.front().map(|(_, who)| who)
    }

    /// Who came next after `place`, which need not be in the line any more.
    pub(crate) fn after(&self, place: u64) -> Option<&T> {
        let index = self.find(place).map_or_else(|index| index, |index| index + 1);
        self.places.get(index).map(|(_, who)| who)
    }

    fn find(&self, place: u64) -> Result<usize, usize> {
        self.places.binary_search_by_key(&place, |(place, _)| *place)
    }
}

/// How long a call may wait that must have ended by `deadline`.
pub(crate) fn longest_wait(parameters: &RoutingParameters, now: Instant, deadline: Instant) -> Duration {
    parameters.queue_timeout.min(deadline.saturating_duration_since(now) / 2)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_call_waits_no_longer_than_half_its_time() {
        let (parameters, now) = (RoutingParameters::default(), Instant::now());
        let wait = |millis| longest_wait(&parameters, now, now + Duration::from_millis(millis));
        assert_eq!(wait(60_000), Duration::from_secs(1));
        assert_eq!(wait(500), Duration::from_millis(250));
        assert_eq!(longest_wait(&parameters, now + Duration::from_secs(1), now), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn the_line_is_bounded_and_keeps_its_order(
            steps in prop::collection::vec((0..3_u8, 0..20_usize), 1..200), most in 0..10_u32,
        ) {
            let (mut line, mut model) = (Line::default(), Vec::new());
            let mut everyone = 0;
            for (what, which) in steps {
                match what {
                    0 => {
                        let place = line.join(most, everyone);
                        prop_assert_eq!(place.is_some(), model.len() < most as usize);
                        model.extend(place.map(|place| (place, everyone)));
                        everyone += 1;
                    }
                    1 if which < model.len() => {
                        let (place, who) = model.remove(which);
                        line.leave(place);
                        line.leave(place);
                        let after = model.iter().map(|(_, who)| who).find(|other| **other > who);
                        prop_assert_eq!(line.after(place), after);
                    }
                    _ => {
                        let after = model.get(which).and_then(|(place, _)| line.after(*place));
                        prop_assert_eq!(after, model.get(which + 1).map(|(_, who)| who));
                    }
                }
                prop_assert_eq!(line.first(), model.first().map(|(_, who)| who));
            }
        }
    }
}
