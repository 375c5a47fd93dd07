//! Whether so many instances fail at once that the fault is likelier Machina's own
//! (its network, its machine) than theirs, or it stood still. While that holds, no
//! soft failure takes an instance down; and at any time soft failures take down at
//! most one share of the instances within an interval (S7). Hard evidence is none of
//! its business.
//!
//! Bookkeeping only: knows no task, lock or clock.

use std::collections::{HashSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use crate::model::InstanceId;

/// Fewer than this never hold it: two that fail together are no sign of anything.
const FAILING_LEAST: usize = 3;

/// After so many intervals without more of them, those that fail are believed to
/// have failed, provided that Machina itself is sound.
const INTERVALS_MAX: u32 = 5;

/// Counts who begins to fail, and who was taken down for it.
#[derive(Debug)]
pub(crate) struct Preservation {
    interval: Duration,
    percentage: usize,
    /// Who began to fail within the last interval, in order, each of them once.
    began: VecDeque<(Instant, InstanceId)>,
    /// The same, to be looked up.
    recent: HashSet<InstanceId>,
    /// Who fails softly and was not taken down for it.
    failing: HashSet<InstanceId>,
    /// When instances were taken down softly within the last interval.
    ejections: VecDeque<Instant>,
    held_since: Option<Instant>,
    /// Machina itself stands still, or did a moment ago.
    still: bool,
}

impl Preservation {
    pub(crate) fn new(interval: Duration, percentage: u32) -> Self {
        Self {
            interval,
            percentage: percentage as usize,
            began: VecDeque::new(),
            recent: HashSet::new(),
            failing: HashSet::new(),
            ejections: VecDeque::new(),
            held_since: None,
            still: false,
        }
    }

    /// An instance that answered until now failed softly; `targets` are watched in all.
    pub(crate) fn fails(&mut self, instance: InstanceId, now: Instant, targets: usize) {
        self.forget_before(now);
        if self.recent.insert(instance) {
            self.began.push_back((now, instance));
        }
        self.failing.insert(instance);
        if self.exceeds(self.recent.len(), targets) {
            self.held_since.get_or_insert(now);
        }
    }

    /// Whether it holds because Machina itself stood still.
    pub(crate) const fn is_still(&self) -> bool {
        self.still
    }

    /// Whether Machina itself stands still, or did a moment ago: what fails meanwhile
    /// may have failed for that.
    pub(crate) fn stands_still(&mut self, still: bool, now: Instant) {
        self.still = still;
        if still {
            self.held_since.get_or_insert(now);
        }
    }

    /// It answers again, or it is known for certain what is the matter with it, or
    /// it is gone.
    pub(crate) fn settled(&mut self, instance: InstanceId) {
        self.failing.remove(&instance);
    }

    /// A soft failure took it down.
    pub(crate) fn ejected(&mut self, instance: InstanceId, now: Instant) {
        self.ejections.push_back(now);
        self.failing.remove(&instance);
    }

    /// Whether no soft failure may take one of `targets` instances down now.
    pub(crate) fn is_frozen(&mut self, now: Instant, targets: usize) -> bool {
        self.forget_before(now);
        self.held_since.is_some() || self.ejections.len() >= self.share(targets).max(1)
    }

    /// Whether it holds.
    pub(crate) fn holds(&self) -> bool {
        self.held_since.is_some()
    }

    /// How many fail and were not taken down for it.
    pub(crate) fn failing(&self) -> usize {
        self.failing.len()
    }

    /// Ends it where it is over; `sound` says whether nothing is the matter with
    /// Machina itself.
    pub(crate) fn look(&mut self, now: Instant, targets: usize, sound: bool) {
        self.forget_before(now);
        let Some(since) = self.held_since else { return };
        let believed = sound && now.saturating_duration_since(since) >= self.interval * INTERVALS_MAX;
        let fails = self.exceeds(self.failing.len(), targets);
        if !self.still && !self.exceeds(self.recent.len(), targets) && (!fails || believed) {
            self.held_since = None;
        }
    }

    fn share(&self, targets: usize) -> usize {
        targets * self.percentage / 100
    }

    fn exceeds(&self, failing: usize, targets: usize) -> bool {
        failing >= FAILING_LEAST && failing * 100 > self.percentage * targets
    }

    fn forget_before(&mut self, now: Instant) {
        let is_old = |at: Instant| now.saturating_duration_since(at) >= self.interval;
        while let Some((_, instance)) = self.began.front().copied().filter(|(at, _)| is_old(*at)) {
            self.began.pop_front();
            self.recent.remove(&instance);
        }
        while self.ejections.front().is_some_and(|at| is_old(*at)) {
            self.ejections.pop_front();
        }
    }
}

#[cfg(test)]
#[path = "preservation_tests.rs"]
mod tests;
