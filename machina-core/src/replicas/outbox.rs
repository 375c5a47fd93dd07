//! What the other replicas are still to be told: whose health is another than the
//! store has, and who was heard of. Kept by instance, so that it never has more
//! than there are instances, however long the store does not answer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::model::InstanceId;

/// What waits to be written; takes nothing where nobody else reads the store.
#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: Option<Mutex<Waiting>>,
    filled: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    health: BTreeSet<InstanceId>,
    /// Whose health could not be written, for now.
    later: BTreeSet<InstanceId>,
    heartbeats: BTreeMap<InstanceId, Timestamp>,
}

impl Outbox {
    pub(super) fn new(shared: bool) -> Self {
        Self { waiting: shared.then(Mutex::default), filled: Notify::new() }
    }

    fn waiting(&self) -> Option<MutexGuard<'_, Waiting>> {
        self.waiting.as_ref().map(|waiting| waiting.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The health of an instance is another one: its cell has it.
    pub(crate) fn changed(&self, instance: InstanceId) {
        if let Some(mut waiting) = self.waiting() {
            waiting.health.insert(instance);
            self.filled.notify_one();
        }
    }

    /// The health of an instance cannot be written now: it waits for [`Outbox::again`].
    pub(super) fn later(&self, instance: InstanceId) {
        if let Some(mut waiting) = self.waiting() {
            waiting.later.insert(instance);
        }
    }

    /// What could not be written is to be tried again.
    pub(super) fn again(&self) {
        if let Some(mut waiting) = self.waiting()
            && !waiting.later.is_empty()
        {
            let later = std::mem::take(&mut waiting.later);
            waiting.health.extend(later);
            self.filled.notify_one();
        }
    }

    /// A heartbeat of an instance came.
    pub(crate) fn heard(&self, instance: InstanceId, at: Timestamp) {
        if let Some(mut waiting) = self.waiting() {
            let latest = waiting.heartbeats.entry(instance).or_insert(at);
            *latest = at.max(*latest);
        }
    }

    /// Waits until the health of an instance is to be written.
    pub(super) async fn filled(&self) {
        while self.waiting().is_none_or(|waiting| waiting.health.is_empty()) {
            self.filled.notified().await;
        }
    }

    /// Takes out up to `most` instances whose health is to be written.
    pub(super) fn take_health(&self, most: usize) -> Vec<InstanceId> {
        let Some(mut waiting) = self.waiting() else { return Vec::new() };
        std::iter::from_fn(|| waiting.health.pop_first()).take(most).collect()
    }

    /// Takes out up to `most` heartbeats.
    pub(super) fn take_heartbeats(&self, most: usize) -> Vec<(InstanceId, Timestamp)> {
        let Some(mut waiting) = self.waiting() else { return Vec::new() };
        std::iter::from_fn(|| waiting.heartbeats.pop_first()).take(most).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[tokio::test]
    async fn of_each_instance_the_latest_waits() {
        let outbox = Outbox::new(true);
        let (i, j) = (InstanceId::generate(), InstanceId::generate());
        for instance in [i, j, i] {
            outbox.changed(instance);
        }
        outbox.filled().await;
        for second in [3, 5, 4] {
            outbox.heard(i, at(second));
        }
        assert_eq!(outbox.take_health(1).len(), 1);
        outbox.filled().await;
        assert_eq!((outbox.take_health(9).len(), outbox.take_health(9).len()), (1, 0));
        assert_eq!((outbox.take_heartbeats(9), outbox.take_heartbeats(9)), (vec![(i, at(5))], vec![]));
    }

    #[tokio::test]
    async fn what_could_not_be_written_waits_until_it_is_tried_again() {
        let outbox = Outbox::new(true);
        let (i, j) = (InstanceId::generate(), InstanceId::generate());
        outbox.changed(i);
        outbox.take_health(9).into_iter().for_each(|taken| outbox.later(taken));
        assert!(outbox.take_health(9).is_empty());
        outbox.changed(j);
        outbox.again();
        outbox.filled().await;
        assert_eq!(outbox.take_health(9).into_iter().collect::<BTreeSet<_>>(), BTreeSet::from([i, j]));
        outbox.again();
        assert!(outbox.take_health(9).is_empty(), "each is tried again once");
    }

    #[tokio::test]
    async fn alone_nothing_waits() {
        let outbox = Outbox::new(false);
        outbox.changed(InstanceId::generate());
        outbox.later(InstanceId::generate());
        outbox.again();
        outbox.heard(InstanceId::generate(), at(1));
        assert!(outbox.take_health(9).is_empty() && outbox.take_heartbeats(9).is_empty());
    }
}
