//! The timers: when each instance is due, and that there is one for each. An
//! instance that is watched has a timer, or waits for its turn, or is being
//! probed: one of the three, never two.
//!
//! Starts nothing and asks nobody: [`run`](super::monitor::run) does.

use std::collections::HashMap;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;

use super::monitor::Command;
use super::turns::{Limits, Place, Turns};
use crate::model::InstanceId;
use crate::random::Random;

/// When an instance is looked at again whose check found nothing, or panicked.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(30);

/// What a watched instance waits for.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Its time.
    Timer(Key),
    /// Its turn.
    Turn,
    /// The end of its probe, which has this number.
    Probe(u64),
}

#[derive(Debug)]
struct Watched {
    stage: Stage,
    /// Someone asked for the probe that is due: no earlier answer replaces it.
    asked: bool,
    /// Someone asked for a probe while one was under way.
    again: bool,
    /// It was never probed, so its next probe may come at any moment of the interval:
    /// those that were registered together do not stay together.
    first: bool,
}

/// A probe that is to be started now.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) instance: InstanceId,
    /// Whether someone asked for it.
    pub(super) asked: bool,
    number: u64,
    place: Place,
}

/// When what is due.
#[derive(Debug)]
pub(super) struct Schedule {
    queue: DelayQueue<InstanceId>,
    watched: HashMap<InstanceId, Watched>,
    turns: Turns,
    probes: u64,
    random: Arc<Random>,
}

impl Schedule {
    pub(super) fn new(limits: Limits, random: Arc<Random>) -> Self {
        let (queue, watched) = (DelayQueue::new(), HashMap::new());
        Self { queue, watched, turns: Turns::new(limits), probes: 0, random }
    }

    /// How many instances are watched.
    pub(super) fn len(&self) -> usize {
        self.watched.len()
    }

    /// The next instance whose time has come; waits for it.
    pub(super) fn poll_due(&mut self, cx: &mut Context<'_>) -> Poll<InstanceId> {
        match self.queue.poll_expired(cx) {
            Poll::Ready(Some(expired)) => Poll::Ready(expired.into_inner()),
            // Empty: whoever is watched next wakes it with a command.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }

    /// The time of an instance has come: it waits for its turn at `place`, or,
    /// when nobody knows it any more, for whoever is about to unwatch it.
    pub(super) fn due(&mut self, instance: InstanceId, place: Option<&Place>) {
        let Some(watched) = self.watched.get_mut(&instance) else { return };
        match place {
            Some(place) => {
                watched.stage = Stage::Turn;
                self.turns.wait(instance, place);
            }
            None => self.set_timer(instance, RETRY_AFTER),
        }
    }

    /// The next probe that may be started.
    pub(super) fn turn(&mut self) -> Option<Turn> {
        loop {
            let (instance, place) = self.turns.next()?;
            match self.watched.get_mut(&instance) {
                Some(watched) if matches!(watched.stage, Stage::Turn) => {
                    self.probes += 1;
                    watched.stage = Stage::Probe(self.probes);
                    let asked = std::mem::take(&mut watched.asked);
                    return Some(Turn { instance, asked, number: self.probes, place });
                }
                // It was unwatched while it waited.
                _ => self.turns.ended(&place),
            }
        }
    }

    /// Carries a command out; returns the instance that is due at once.
    pub(super) fn obey(&mut self, command: Command) -> Option<InstanceId> {
        match command {
            Command::Watch { instance, delay } => {
                if !self.watched.contains_key(&instance) {
                    let stage = Stage::Timer(self.queue.insert(instance, delay));
                    let first = delay.is_zero();
                    self.watched.insert(instance, Watched { stage, asked: false, again: false, first });
                }
                None
            }
            Command::Unwatch(instance) => {
                if let Some(Watched { stage: Stage::Timer(key), .. }) = self.watched.remove(&instance) {
                    self.queue.remove(&key);
                }
                None
            }
            Command::Probe(instance) => {
                let watched = self.watched.get_mut(&instance)?;
                match watched.stage {
                    Stage::Timer(key) => {
                        watched.asked = true;
                        self.queue.remove(&key);
                        Some(instance)
                    }
                    Stage::Turn => {
                        watched.asked = true;
                        None
                    }
                    Stage::Probe(_) => {
                        watched.again = true;
                        None
                    }
                }
            }
            Command::Within { instance, delay } => {
                // Without a timer it is about to be probed, and gets a new one afterwards.
                if let Some(Watched { stage: Stage::Timer(key), .. }) = self.watched.get(&instance)
                    && self.queue.deadline(key) > Instant::now() + delay
                {
                    self.queue.reset(key, delay);
                }
                None
            }
        }
    }

    /// A probe has ended, and the next one is due after `delay`, if it found the
    /// instance; returns the instance when it is due at once.
    pub(super) fn ended(&mut self, turn: &Turn, delay: Option<Duration>) -> Option<InstanceId> {
        self.turns.ended(&turn.place);
        let jitter = self.jitter();
        let watched = self.watched.get_mut(&turn.instance)?;
        // Otherwise it was unwatched and watched anew meanwhile.
        if !matches!(watched.stage, Stage::Probe(number) if number == turn.number) {
            return None;
        }
        if std::mem::take(&mut watched.again) {
            watched.asked = true;
            return Some(turn.instance);
        }
        let first = std::mem::take(&mut watched.first);
        let factor = if first { self.random.unit() } else { jitter };
        self.set_timer(turn.instance, delay.unwrap_or(RETRY_AFTER).mul_f64(factor));
        None
    }

    fn set_timer(&mut self, instance: InstanceId, delay: Duration) {
        if let Some(watched) = self.watched.get_mut(&instance) {
            watched.stage = Stage::Timer(self.queue.insert(instance, delay));
        }
    }

    /// A factor between 0.9 and 1: jitter only shortens, so bounds hold.
    fn jitter(&self) -> f64 {
        0.1f64.mul_add(self.random.unit(), 0.9)
    }
}

#[cfg(test)]
#[path = "schedule_tests.rs"]
mod tests;
