//! What is known of the session with each instance, under one lock: which is
//! open, which is being opened, and which process may be started. Knows no task.

use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::is_busy;
use super::promise::Promise;
use crate::connect::Session;
use crate::error::{Error, Phase, Result};
use crate::health::Restarts;
use crate::model::{InstanceId, SessionParameters};

pub(super) type Opening = Promise<Result<Arc<dyn Session>>>;

/// The place of the one process that an instance may have; free again when the
/// process is gone.
pub(super) type Place = OwnedSemaphorePermit;

#[derive(Debug)]
pub(super) enum Slot {
    Opening { opening: Opening, cancelled: CancellationToken },
    Open(Open),
}

/// An open session.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) session: Arc<dyn Session>,
    /// When it was last used for a call.
    pub(super) used: Instant,
    /// Of a process.
    pub(super) place: Option<Place>,
    /// Whether it was taken out of use on purpose.
    pub(super) discarded: Arc<AtomicBool>,
}

/// What is known of the process of an instance, whether it runs or not.
#[derive(Debug)]
pub(super) struct Process {
    pub(super) parameters: SessionParameters,
    pub(super) restarts: Restarts,
    /// Why it ended last.
    why: Option<Error>,
    pub(super) place: Arc<Semaphore>,
}

#[derive(Debug, Default)]
pub(super) struct Slots {
    by_instance: HashMap<InstanceId, Slot>,
    /// The instances that may be reached, with their process if they are one.
    admitted: HashMap<InstanceId, Option<Box<Process>>>,
    /// The places of processes that may not be reached any more and are not gone yet.
    leaving: HashMap<InstanceId, Weak<Semaphore>>,
    closed: bool,
}

impl Slots {
    pub(super) fn admit(&mut self, id: InstanceId, parameters: Option<SessionParameters>) {
        let Some(parameters) = parameters else {
            self.admitted.entry(id).or_default();
            return;
        };
        if let Some(Some(process)) = self.admitted.get_mut(&id) {
            process.parameters = parameters;
            return;
        }
        let place = self.leaving.remove(&id).and_then(|place| place.upgrade());
        let place = place.unwrap_or_else(|| Arc::new(Semaphore::new(1)));
        let process = Process { parameters, restarts: Restarts::default(), why: None, place };
        self.admitted.insert(id, Some(Box::new(process)));
    }

    /// Nothing is known of the instance any more but that its process, if it has
    /// one, is not gone yet. Returns what was in its slot.
    pub(super) fn dismiss(&mut self, id: InstanceId) -> Option<Slot> {
        if let Some(Some(process)) = self.admitted.remove(&id) {
            self.leaving.retain(|_, place| place.strong_count() > 0);
            self.leaving.insert(id, Arc::downgrade(&process.place));
        }
        self.by_instance.remove(&id)
    }

    /// Whether sessions with the instance may be opened.
    pub(super) fn admits(&self, id: InstanceId) -> bool {
        !self.closed && self.admitted.contains_key(&id)
    }

    /// The open session with an instance.
    pub(super) fn open(&mut self, id: InstanceId) -> Option<&mut Open> {
        match self.by_instance.get_mut(&id) {
            Some(Slot::Open(open)) if !open.session.is_closed() => Some(open),
            _ => None,
        }
    }

    pub(super) fn open_count(&self) -> usize {
        self.by_instance.values().filter(|slot| matches!(slot, Slot::Open(_))).count()
    }

    pub(super) fn process(&mut self, id: InstanceId) -> Option<&mut Process> {
        self.admitted.get_mut(&id)?.as_deref_mut()
    }

    /// The opening that is under way. Its other end is gone only if its task panicked.
    pub(super) fn opening(&self, id: InstanceId) -> Option<Opening> {
        match self.by_instance.get(&id) {
            Some(Slot::Opening { opening, .. }) if !opening.is_broken() => Some(opening.clone()),
            _ => None,
        }
    }

    pub(super) fn put(&mut self, id: InstanceId, slot: Slot) {
        self.by_instance.insert(id, slot);
    }

    /// Empties the slot if it holds this opening; says whether it did.
    pub(super) fn take_opening(&mut self, id: InstanceId, opening: &Opening) -> bool {
        let ours = matches!(self.by_instance.get(&id), Some(Slot::Opening { opening: o, .. }) if o.is(opening));
        if ours {
            self.by_instance.remove(&id);
        }
        ours
    }

    /// Empties the slot if it holds this session.
    pub(super) fn take(&mut self, id: InstanceId, session: &Arc<dyn Session>) -> Option<Slot> {
        match self.by_instance.get(&id) {
            Some(Slot::Open(open)) if Arc::ptr_eq(&open.session, session) => self.by_instance.remove(&id),
            _ => None,
        }
    }

    /// Empties the slot if it holds an open session.
    pub(super) fn take_open(&mut self, id: InstanceId) -> Option<Open> {
        self.open(id)?;
        match self.by_instance.remove(&id) {
            Some(Slot::Open(open)) => Some(open),
            _ => None,
        }
    }

    /// Empties the slot of a session that turns out to be over; its process, if it
    /// is one, has ended.
    pub(super) fn take_lapsed(&mut self, id: InstanceId, chance: f64) -> Option<Open> {
        let lapsed = matches!(self.by_instance.get(&id), Some(Slot::Open(open)) if open.session.is_closed());
        match lapsed.then(|| self.by_instance.remove(&id))?? {
            Slot::Open(open) => {
                self.ended(id, chance, None);
                Some(open)
            }
            Slot::Opening { .. } => None,
        }
    }

    /// The session said that it is over.
    pub(super) fn lapse(
        &mut self,
        id: InstanceId,
        session: &Arc<dyn Session>,
        chance: f64,
        why: &Error,
    ) -> Option<Slot> {
        let slot = self.take(id, session);
        if slot.is_some() {
            self.ended(id, chance, Some(why.clone()));
        }
        slot
    }

    /// The process of an instance is ready, if it is one.
    pub(super) fn ready(&mut self, id: InstanceId) {
        if let Some(process) = self.process(id) {
            process.restarts.ready(Instant::now());
        }
    }

    /// The process of an instance was stopped on purpose, if it is one.
    pub(super) fn stopped(&mut self, id: InstanceId) {
        if let Some(process) = self.process(id) {
            process.restarts.stopped(Instant::now(), &process.parameters);
        }
    }

    /// The process of an instance ended, or did not get ready, if it is one.
    pub(super) fn ended(&mut self, id: InstanceId, chance: f64, why: Option<Error>) {
        if let Some(process) = self.process(id) {
            process.restarts.ended(Instant::now(), chance, &process.parameters);
            process.why = why;
        }
    }

    /// Why the process of an instance must not be started yet.
    pub(super) fn held_back(&mut self, id: InstanceId) -> Option<Error> {
        let process = self.process(id)?;
        let wait = process.restarts.wait(Instant::now())?;
        let why = process.why.as_ref();
        let message = why.map_or("the process ended", Error::message);
        let tail = why.and_then(|why| why.context().stderr_tail.clone());
        let error = Error::unavailable(format!("{message}; it is started again in {wait:.1?}"));
        Some(error.at(Phase::NotSent).retry_after(wait).with(|context| context.stderr_tail = tail))
    }

    /// Empties the slots of processes that were not called for as long as `idle`
    /// says; those for which it says nothing stay.
    pub(super) fn take_idle(&mut self, idle: impl Fn(InstanceId) -> Option<Duration>) -> Vec<(InstanceId, Slot)> {
        let now = Instant::now();
        let is_idle = |id: InstanceId, slot: &Slot| match slot {
            Slot::Open(open) if open.place.is_some() && !is_busy(&open.session) => {
                idle(id).is_some_and(|idle| now.saturating_duration_since(open.used) >= idle)
            }
            _ => false,
        };
        let taken: Vec<_> = self.by_instance.extract_if(|id, slot| is_idle(*id, slot)).collect();
        for (id, _) in &taken {
            self.stopped(*id);
        }
        taken
    }

    /// Empties every slot and admits nothing any more.
    pub(super) fn close(&mut self) -> Vec<Slot> {
        self.closed = true;
        self.by_instance.drain().map(|(_, slot)| slot).collect()
    }
}
