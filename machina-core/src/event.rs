//! What changed, as a typed stream: bounded, and replayable from a revision.
//!
//! Every event has a sequence number of this process and the revision at which
//! it was published. A reader that falls behind the ring is told to resync; it
//! is never sent a gap without notice.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::clock;
use crate::health::{HealthState, Reason};
use crate::model::{InstanceId, Revision, ServiceName};

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Its place in this process's stream; strictly increasing.
    pub sequence: u64,
    /// The revision at which it was published.
    pub revision: Revision,
    /// When.
    pub at: Timestamp,
    /// The service concerned.
    pub service: ServiceName,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[non_exhaustive]
pub enum EventKind {
    /// The service was registered.
    ServiceRegistered,
    /// The declaration of the service changed.
    ServiceUpdated,
    /// The service was removed.
    ServiceDeregistered,
    /// The health of an instance changed.
    HealthChanged {
        /// The instance.
        instance: InstanceId,
        /// The state before.
        from: HealthState,
        /// The state now.
        to: HealthState,
        /// Why.
        reason: Reason,
    },
    /// An instance publishes something else than before.
    DefinitionsChanged {
        /// The instance.
        instance: InstanceId,
        /// Names of tools that are new.
        added: Vec<String>,
        /// Names of tools that are gone.
        removed: Vec<String>,
        /// Names of tools whose definition is another.
        changed: Vec<String>,
    },
}

/// What a reader of the stream gets next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// The next event.
    Event(Arc<Event>),
    /// The reader is too far behind: read the state again and go on from here.
    Resync,
}

#[derive(Debug)]
struct Ring {
    events: VecDeque<Arc<Event>>,
    next: u64,
}

/// The stream of one process.
#[derive(Debug)]
pub(crate) struct Events {
    ring: Mutex<Ring>,
    capacity: usize,
    newest: watch::Sender<u64>,
}

impl Events {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            ring: Mutex::new(Ring { events: VecDeque::new(), next: 1 }),
            capacity: capacity.max(1),
            newest: watch::Sender::new(0),
        }
    }

    pub(crate) fn publish(&self, revision: Revision, service: ServiceName, kind: EventKind) {
        let at = clock::now();
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let sequence = ring.next;
        ring.next += 1;
        if ring.events.len() == self.capacity {
            ring.events.pop_front();
        }
        ring.events.push_back(Arc::new(Event { sequence, revision, at, service, kind }));
        self.newest.send_replace(sequence);
    }

    /// A reader of everything published from now on.
    pub(crate) fn subscribe(self: &Arc<Self>) -> EventStream {
        let newest = self.newest.subscribe();
        let next = *newest.borrow() + 1;
        EventStream { events: Arc::clone(self), newest, next }
    }

    /// A reader of everything published after this revision.
    pub(crate) fn subscribe_since(self: &Arc<Self>, revision: Revision) -> EventStream {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let next = ring.events.iter().find(|event| event.revision > revision).map_or(ring.next, |event| event.sequence);
        // Older events have been dropped: whether one of them counted cannot be known.
        let dropped = ring.events.front().is_some_and(|oldest| oldest.sequence > 1 && oldest.sequence == next);
        drop(ring);
        let next = if dropped { 0 } else { next };
        EventStream { events: Arc::clone(self), newest: self.newest.subscribe(), next }
    }
}

/// A reader of events. Has no queue of its own: a slow reader costs nothing.
#[derive(Debug)]
pub struct EventStream {
    events: Arc<Events>,
    newest: watch::Receiver<u64>,
    next: u64,
}

impl EventStream {
    /// Waits for the next event.
    pub async fn next(&mut self) -> Next {
        loop {
            if let Some(next) = self.try_next() {
                return next;
            }
            // The sender lives in `self.events`, so this waits for a publication.
            let _ = self.newest.changed().await;
        }
    }

    /// The next event, if there is one already.
    pub fn try_next(&mut self) -> Option<Next> {
        self.newest.borrow_and_update();
        let ring = self.events.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = ring.next - ring.events.len() as u64;
        if self.next < oldest || self.next > ring.next {
            self.next = ring.next;
            return Some(Next::Resync);
        }
        let index = usize::try_from(self.next - oldest).unwrap_or(usize::MAX);
        let event = ring.events.get(index).map(Arc::clone)?;
        self.next += 1;
        Some(Next::Event(event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn publish(events: &Events, count: u64) {
        for revision in 1..=count {
            events.publish(Revision(revision), ServiceName::new("a").unwrap(), EventKind::ServiceUpdated);
        }
    }

    fn sequence(next: Option<Next>) -> Option<u64> {
        match next {
            Some(Next::Event(event)) => Some(event.sequence),
            _ => None,
        }
    }

    #[tokio::test]
    async fn a_reader_gets_each_event_once_and_in_order() {
        let events = Arc::new(Events::new(8));
        let mut reader = events.subscribe();
        publish(&events, 3);
        for expected in 1..=3 {
            assert_eq!(sequence(Some(reader.next().await)), Some(expected));
        }
        assert_eq!(reader.try_next(), None);
    }

    #[test]
    fn a_reader_that_fell_behind_is_told() {
        let events = Arc::new(Events::new(2));
        let mut reader = events.subscribe();
        publish(&events, 3);
        assert_eq!(reader.try_next(), Some(Next::Resync));
        publish(&events, 1);
        assert_eq!(sequence(reader.try_next()), Some(4));
    }

    #[test]
    fn replay_from_a_revision() {
        let events = Arc::new(Events::new(8));
        publish(&events, 5);
        assert_eq!(sequence(events.subscribe_since(Revision(3)).try_next()), Some(4));
        assert_eq!(events.subscribe_since(Revision(5)).try_next(), None);
    }

    #[test]
    fn replay_from_a_forgotten_revision_is_a_resync() {
        let events = Arc::new(Events::new(2));
        publish(&events, 5);
        assert_eq!(events.subscribe_since(Revision(1)).try_next(), Some(Next::Resync));
        assert_eq!(sequence(events.subscribe_since(Revision(4)).try_next()), Some(5));
    }
}
