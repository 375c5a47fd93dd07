//! When each instance is probed. One timer per instance, no batches and no
//! barrier: an instance that does not answer never delays another.
//!
//! Decides when, never what an observation means: that is
//! [`step`](super::state::step) alone.

use std::collections::{HashMap, HashSet};
use std::future::poll_fn;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::time::DelayQueue;
use tokio_util::time::delay_queue::Key;

use crate::connect::Notice;
use crate::model::InstanceId;
use crate::tasks::Tasks;

/// A notice of the session with an instance.
pub(crate) type InstanceNotice = (InstanceId, Notice);

/// How many commands and notices may wait for the monitor.
const QUEUE_MAX: usize = 4096;

/// When an instance is looked at again whose check found nothing, or panicked.
const RETRY_AFTER: Duration = Duration::from_secs(30);

/// What the monitor is told.
#[derive(Debug)]
pub(crate) enum Command {
    /// Probe this instance after `delay`, and from then on.
    Watch { instance: InstanceId, delay: Duration },
    /// Probe it now: something happened to it.
    Probe(InstanceId),
    /// Probe it within `delay` at the latest: it is in another state than when
    /// its timer was set.
    Within { instance: InstanceId, delay: Duration },
    /// Stop probing it.
    Unwatch(InstanceId),
    /// A probe has ended; the next one is due after `delay`, if it found the instance.
    Done { instance: InstanceId, delay: Option<Duration> },
}

/// What the monitor needs of the core.
#[async_trait::async_trait]
pub(crate) trait Patient: Send + Sync + 'static {
    /// Probes the instance, records what was seen, and returns when the next
    /// probe is due; `None` when the instance is gone.
    async fn check(&self, instance: InstanceId) -> Option<Duration>;

    /// Takes note of what a session said of its own accord.
    async fn notice(&self, instance: InstanceId, notice: Notice);
}

/// A handle to the scheduler.
#[derive(Debug, Clone)]
pub(crate) struct Monitor {
    commands: mpsc::Sender<Command>,
}

impl Monitor {
    /// A handle, and the queue that [`run`] reads.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(QUEUE_MAX);
        (Self { commands }, receiver)
    }

    /// A queue for notices of sessions.
    pub(crate) fn notices() -> (mpsc::Sender<InstanceNotice>, mpsc::Receiver<InstanceNotice>) {
        mpsc::channel(QUEUE_MAX)
    }

    pub(crate) async fn tell(&self, command: Command) {
        // The receiver lives as long as the registry: an error means it is closing.
        let _ = self.commands.send(command).await;
    }

    /// Asks for a probe now, if the queue has room: a hint from a hot path.
    pub(crate) fn hint(&self, instance: InstanceId) {
        let _ = self.commands.try_send(Command::Probe(instance));
    }

    /// Asks for a probe within `delay` at the latest, if the queue has room.
    pub(crate) fn within(&self, instance: InstanceId, delay: Duration) {
        let _ = self.commands.try_send(Command::Within { instance, delay });
    }
}

/// The scheduler's own state.
struct Schedule {
    queue: DelayQueue<InstanceId>,
    /// The pending timer of each watched instance; none while it is probed.
    timers: HashMap<InstanceId, Option<Key>>,
    /// Instances to be probed again as soon as their probe has ended.
    again: HashSet<InstanceId>,
    random: RandomState,
    drawn: u64,
}

/// Runs the schedule until cancelled.
pub(crate) async fn run(
    patient: Arc<dyn Patient>,
    handle: Monitor,
    mut commands: mpsc::Receiver<Command>,
    mut notices: mpsc::Receiver<InstanceNotice>,
    probes_max: u32,
    tasks: Tasks,
) {
    let permits = Arc::new(Semaphore::new(probes_max as usize));
    let mut schedule = Schedule {
        queue: DelayQueue::new(),
        timers: HashMap::new(),
        again: HashSet::new(),
        random: RandomState::new(),
        drawn: 0,
    };
    loop {
        let due = tokio::select! {
            command = commands.recv() => match command {
                Some(command) => schedule.obey(command),
                None => return,
            },
            Some((instance, notice)) = notices.recv() => {
                let patient = Arc::clone(&patient);
                tasks.spawn("take notice", async move { patient.notice(instance, notice).await });
                None
            }
            Some(expired) = poll_fn(|cx| schedule.queue.poll_expired(cx)), if !schedule.queue.is_empty() => {
                Some(expired.into_inner())
            }
        };
        let Some(instance) = due else { continue };
        schedule.timers.insert(instance, None);
        let (patient, handle, permits) = (Arc::clone(&patient), handle.clone(), Arc::clone(&permits));
        let checks = tasks.clone();
        tasks.spawn("probe", async move {
            let permit = permits.acquire_owned().await;
            let (done, delay) = oneshot::channel();
            let check = async move {
                let _ = done.send(patient.check(instance).await);
            };
            drop(checks.spawn("check", check));
            // Without an answer the check panicked: its instance is still looked after.
            let delay = delay.await.unwrap_or(Some(RETRY_AFTER));
            drop(permit);
            handle.tell(Command::Done { instance, delay }).await;
        });
    }
}

impl Schedule {
    /// Carries a command out; returns the instance that is due at once.
    fn obey(&mut self, command: Command) -> Option<InstanceId> {
        match command {
            Command::Watch { instance, delay } => {
                if !self.timers.contains_key(&instance) {
                    self.set_timer(instance, delay);
                }
                None
            }
            Command::Unwatch(instance) => {
                self.again.remove(&instance);
                if let Some(Some(key)) = self.timers.remove(&instance) {
                    self.queue.remove(&key);
                }
                None
            }
            Command::Probe(instance) => match self.timers.get(&instance)? {
                Some(key) => {
                    self.queue.remove(key);
                    Some(instance)
                }
                None => {
                    self.again.insert(instance);
                    None
                }
            },
            Command::Within { instance, delay } => {
                // Without a timer it is being probed, and gets a new one afterwards.
                let later = self.timers.get(&instance).copied().flatten();
                if let Some(key) = later.filter(|key| self.queue.deadline(key) > Instant::now() + delay) {
                    self.queue.reset(&key, delay);
                }
                None
            }
            Command::Done { instance, delay } => self.done(instance, delay),
        }
    }

    fn done(&mut self, instance: InstanceId, delay: Option<Duration>) -> Option<InstanceId> {
        let again = self.again.remove(&instance);
        // A pending timer means it was unwatched and watched anew meanwhile.
        let watched = self.timers.get(&instance)?;
        if watched.is_some() {
            return None;
        }
        if again {
            return Some(instance);
        }
        // An instance that the check did not find is about to be unwatched.
        let jittered = delay.unwrap_or(RETRY_AFTER).mul_f64(self.jitter());
        self.set_timer(instance, jittered);
        None
    }

    fn set_timer(&mut self, instance: InstanceId, delay: Duration) {
        let key = self.queue.insert(instance, delay);
        self.timers.insert(instance, Some(key));
    }

    /// A factor between 0.9 and 1: jitter only shortens, so bounds hold.
    fn jitter(&mut self) -> f64 {
        self.drawn += 1;
        let draw = u32::try_from(self.random.hash_one(self.drawn) >> 32).unwrap_or(0);
        0.9 + 0.1 * f64::from(draw) / f64::from(u32::MAX)
    }
}

#[cfg(test)]
#[path = "monitor_tests.rs"]
mod tests;
