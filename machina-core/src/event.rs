//! What changed, as a typed stream: bounded, and replayable from a revision.
//!
//! Every event has a sequence number of this process and the revision at which
//! it was published. A reader that falls behind the ring is told to resync; it
//! is never sent a gap without notice.

use std::collections::VecDeque;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use uuid::Uuid;

use crate::clock;
use crate::error::{Error, Result};
use crate::health::{HealthState, Reason};
use crate::model::{GroupName, InstanceId, Revision, ServiceName};

/// One change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Event {
    /// Its place in this process's stream; strictly increasing.
    pub sequence: u64,
    /// The revision at which it was published.
    pub revision: Revision,
    /// When.
    pub at: Timestamp,
    /// The service concerned; none for what happens to a group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// What happened.
    #[serde(flatten)]
    pub kind: EventKind,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
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
    /// An instance has gone down so often of late that it counts as flapping.
    FlappingBegan {
        /// The instance.
        instance: InstanceId,
        /// How often it went down within `health_policy.flap_window`.
        downs: u32,
    },
    /// An instance that was flapping has not gone down for a while.
    FlappingEnded {
        /// The instance.
        instance: InstanceId,
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
        /// Its prompts are others than before.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        prompts: bool,
        /// Its resources or resource templates are others than before.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        resources: bool,
    },
    /// So many instances fail at once that the fault is taken to be Machina's own,
    /// and soft failures take none of them down; or that is over.
    SelfPreservation {
        /// Whether it began.
        active: bool,
        /// How many instances fail.
        failing: usize,
        /// Of how many.
        targets: usize,
        /// What was seen, for people.
        message: String,
    },
    /// The group was made, or its declaration changed.
    GroupChanged {
        /// The group.
        group: GroupName,
    },
    /// The group was removed.
    GroupRemoved {
        /// The group.
        group: GroupName,
    },
}

impl EventKind {
    /// Whether it is about the health of an instance, which changes without a new
    /// revision.
    #[must_use]
    pub const fn is_of_health(&self) -> bool {
        matches!(
            self,
            Self::HealthChanged { .. }
                | Self::FlappingBegan { .. }
                | Self::FlappingEnded { .. }
                | Self::SelfPreservation { .. }
        )
    }
}

/// What a reader of the stream gets next.
#[derive(Debug, Clone, PartialEq)]
pub enum Next {
    /// The next event.
    Event(Arc<Event>),
    /// The reader is too far behind: read the state again and go on from here.
    Resync,
}

/// A place in the stream of one process, written `<revision>.<sequence>.<stream>`.
/// The revision alone would not do: several events have one revision, and each
/// process counts its events anew.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventCursor {
    /// The revision up to which the reader has been told.
    pub revision: Revision,
    sequence: u64,
    stream: u64,
}

impl fmt::Display for EventCursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{:x}", self.revision, self.sequence, self.stream)
    }
}

impl FromStr for EventCursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let mut parts = text.split('.');
        let mut part = |radix| parts.next().and_then(|part| u64::from_str_radix(part, radix).ok());
        match (part(10), part(10), part(16), part(10)) {
            (Some(revision), Some(sequence), Some(stream), None) if text.matches('.').count() == 2 => {
                Ok(Self { revision: Revision(revision), sequence, stream })
            }
            _ => Err(Error::invalid("must be the id of an event, such as 7.42.1f3a")),
        }
    }
}

#[derive(Debug)]
struct Ring {
    events: VecDeque<Arc<Event>>,
    next: u64,
    /// The revision at which the stream began: what happened before is not in it.
    floor: Revision,
    /// The highest revision of an event so far.
    revision: Revision,
}

/// The stream of one process.
#[derive(Debug)]
pub(crate) struct Events {
    ring: Mutex<Ring>,
    capacity: usize,
    newest: watch::Sender<u64>,
    /// Tells this stream from those of other processes.
    stream: u64,
}

impl Events {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            ring: Mutex::new(Ring {
                events: VecDeque::new(),
                next: 1,
                floor: Revision::ZERO,
                revision: Revision::ZERO,
            }),
            capacity: capacity.max(1),
            newest: watch::Sender::new(0),
            stream: Uuid::now_v7().as_u64_pair().1 & 0xffff_ffff,
        }
    }

    /// What tells this stream from those of other processes.
    pub(crate) const fn stream(&self) -> u64 {
        self.stream
    }

    /// The stream begins at this revision.
    pub(crate) fn begin(&self, revision: Revision) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        (ring.floor, ring.revision) = (revision, revision);
    }

    /// What readers saw so far is of another past than what they see from this
    /// revision on: each of them is told to resync.
    pub(crate) fn restart(&self, revision: Revision) {
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        ring.events.clear();
        ring.next += 1;
        (ring.floor, ring.revision) = (revision, revision);
        self.newest.send_replace(ring.next - 1);
    }

    pub(crate) fn publish(&self, revision: Revision, service: Option<ServiceName>, kind: EventKind) {
        let at = clock::now();
        let mut ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let sequence = ring.next;
        ring.next += 1;
        ring.revision = ring.revision.max(revision);
        if ring.events.len() == self.capacity {
            ring.events.pop_front();
        }
        ring.events.push_back(Arc::new(Event { sequence, revision, at, service, kind }));
        self.newest.send_replace(sequence);
    }

    /// A reader of everything published from now on.
    pub(crate) fn subscribe(self: &Arc<Self>) -> EventStream {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        self.reader(ring.next, ring.revision)
    }

    /// A reader of everything that someone who has read the registry at this
    /// revision does not know. Health changes without a new revision, so changes
    /// of it at that revision are told, perhaps again.
    pub(crate) fn subscribe_since(self: &Arc<Self>, revision: Revision) -> EventStream {
        let ring = self.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let unknown = |event: &&Arc<Event>| {
            event.revision > revision || (event.revision == revision && event.kind.is_of_health())
        };
        let next = ring.events.iter().find(unknown).map_or(ring.next, |event| event.sequence);
        // Older events have been dropped: whether one of them counted cannot be known.
        let dropped = ring.events.front().is_some_and(|oldest| oldest.sequence > 1 && oldest.sequence == next);
        let foreign = revision < ring.floor;
        self.reader(if dropped || foreign { 0 } else { next }, revision)
    }

    /// A reader that goes on where another one stopped.
    pub(crate) fn subscribe_after(self: &Arc<Self>, cursor: &EventCursor) -> EventStream {
        let known = cursor.stream == self.stream;
        self.reader(if known { cursor.sequence.saturating_add(1) } else { 0 }, cursor.revision)
    }

    /// A reader that knows another registry, and is told to resync.
    pub(crate) fn subscribe_anew(self: &Arc<Self>) -> EventStream {
        self.reader(0, Revision::ZERO)
    }

    fn reader(self: &Arc<Self>, next: u64, revision: Revision) -> EventStream {
        let source = Source::Here { events: Arc::clone(self), newest: self.newest.subscribe(), next };
        EventStream { source, revision, cursor: None }
    }
}

/// A reader of events. One in the process of the registry has no queue of its
/// own: a slow reader costs nothing.
#[derive(Debug)]
pub struct EventStream {
    source: Source,
    /// The revision up to which the reader has been told.
    revision: Revision,
    /// Where the feed of a registry elsewhere stands.
    cursor: Option<EventCursor>,
}

#[derive(Debug)]
enum Source {
    Here { events: Arc<Events>, newest: watch::Receiver<u64>, next: u64 },
    Elsewhere(mpsc::Receiver<(Next, Option<EventCursor>)>),
}

/// The end of a stream that the events of a registry elsewhere are put into.
#[derive(Debug)]
pub struct EventFeed(mpsc::Sender<(Next, Option<EventCursor>)>);

impl EventFeed {
    /// Hands on what the reader gets next, and where it then stands, when there
    /// is room; `false` when nobody reads any more.
    pub async fn send(&self, next: Next, cursor: Option<EventCursor>) -> bool {
        self.0.send((next, cursor)).await.is_ok()
    }

    /// Resolves when nobody reads any more.
    pub async fn closed(&self) {
        self.0.closed().await;
    }
}

impl EventStream {
    /// A stream of the events of a registry elsewhere, with a queue of `capacity`,
    /// and where they are put in.
    ///
    /// # Panics
    /// When `capacity` is zero.
    #[must_use]
    pub fn fed(capacity: usize) -> (EventFeed, Self) {
        let (feed, events) = mpsc::channel(capacity);
        (EventFeed(feed), Self { source: Source::Elsewhere(events), revision: Revision::ZERO, cursor: None })
    }

    /// Where the reader stands: a stream from there goes on without gap and
    /// repetition. `None` where that cannot be said, because the reader is about
    /// to be told to resync or has not been told anything by a registry elsewhere.
    #[must_use]
    pub fn cursor(&self) -> Option<EventCursor> {
        match &self.source {
            Source::Here { events, next, .. } => {
                let (sequence, stream) = (next.checked_sub(1)?, events.stream);
                Some(EventCursor { revision: self.revision, sequence, stream })
            }
            Source::Elsewhere(_) => self.cursor.clone(),
        }
    }

    /// Waits for the next event. May be dropped and called again.
    pub async fn next(&mut self) -> Next {
        loop {
            if let Some(next) = self.try_next() {
                return next;
            }
            match &mut self.source {
                // The sender lives in `events`, so this waits for a publication.
                Source::Here { newest, .. } => drop(newest.changed().await),
                Source::Elsewhere(events) => match events.recv().await {
                    Some(fed) => return self.take(fed),
                    // The feed is gone for good: nothing more will happen.
                    None => std::future::pending().await,
                },
            }
        }
    }

    /// The next event, if there is one already.
    pub fn try_next(&mut self) -> Option<Next> {
        let (events, newest, next) = match &mut self.source {
            Source::Here { events, newest, next } => (events, newest, next),
            Source::Elsewhere(fed) => {
                let fed = fed.try_recv().ok()?;
                return Some(self.take(fed));
            }
        };
        newest.borrow_and_update();
        let ring = events.ring.lock().unwrap_or_else(PoisonError::into_inner);
        let oldest = ring.next - ring.events.len() as u64;
        if *next < oldest || *next > ring.next {
            *next = ring.next;
            self.revision = ring.revision;
            return Some(Next::Resync);
        }
        let index = usize::try_from(*next - oldest).unwrap_or(usize::MAX);
        let event = ring.events.get(index).map(Arc::clone)?;
        *next += 1;
        self.revision = self.revision.max(event.revision);
        Some(Next::Event(event))
    }

    fn take(&mut self, (next, cursor): (Next, Option<EventCursor>)) -> Next {
        self.cursor = cursor;
        next
    }
}

#[cfg(test)]
#[path = "event_tests.rs"]
mod tests;
