//! When each instance is probed. One timer per instance, no batches and no
//! barrier: an instance that does not answer never delays another.
//!
//! Decides when, never what an observation means: that is
//! [`step`](super::state::step) alone.

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::schedule::{RETRY_AFTER, Schedule, Turn};
use super::turns::{Limits, Place};
use crate::connect::Notice;
use crate::model::InstanceId;
use crate::random::Random;
use crate::tasks::Tasks;

/// A notice of the session with an instance.
pub(crate) type InstanceNotice = (InstanceId, Notice);

/// How many commands and notices may wait for the monitor.
const QUEUE_MAX: usize = 4096;

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
}

/// What the monitor needs of the core.
#[async_trait::async_trait]
pub(crate) trait Patient: Send + Sync + 'static {
    /// Where a probe of the instance goes; `None` when the instance is gone.
    fn place(&self, instance: InstanceId) -> Option<Place>;

    /// Probes the instance, records what was seen, and returns when the next
    /// probe is due; `None` when the instance is gone. Unless it was `asked` for,
    /// an answer to a call may have replaced the probe.
    async fn check(&self, instance: InstanceId, asked: bool) -> Option<Duration>;

    /// Takes note of what a session said of its own accord.
    async fn notice(&self, instance: InstanceId, notice: Notice);
}

/// A handle to the scheduler.
#[derive(Debug, Clone)]
pub(crate) struct Monitor {
    commands: mpsc::Sender<Command>,
    watched: Arc<AtomicUsize>,
}

impl Monitor {
    /// A handle, and the queue that [`run`] reads.
    pub(crate) fn new() -> (Self, mpsc::Receiver<Command>) {
        let (commands, receiver) = mpsc::channel(QUEUE_MAX);
        (Self { commands, watched: Arc::default() }, receiver)
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

    /// How many instances are watched.
    pub(crate) fn watched(&self) -> usize {
        self.watched.load(Ordering::Relaxed)
    }
}

/// What comes in from outside.
pub(crate) struct Inbox {
    pub(crate) commands: mpsc::Receiver<Command>,
    pub(crate) notices: mpsc::Receiver<InstanceNotice>,
}

/// A probe that has ended, and when the next one is due.
type Ended = (Turn, Option<Duration>);

/// Runs the schedule until cancelled.
pub(crate) async fn run(
    patient: Arc<dyn Patient>,
    handle: Monitor,
    mut inbox: Inbox,
    limits: Limits,
    random: Arc<Random>,
    tasks: Tasks,
) {
    let mut schedule = Schedule::new(limits, random);
    // Each probe that runs has a place in it: none ever waits.
    let (ended, mut endings) = mpsc::channel::<Ended>(limits.all as usize);
    loop {
        let due = tokio::select! {
            // The same order in every run. A probe ends and a time comes once for each turn, of
            // which there are so many at most: none of them starves the others.
            biased;
            Some((turn, delay)) = endings.recv() => schedule.ended(&turn, delay),
            instance = poll_fn(|cx| schedule.poll_due(cx)) => Some(instance),
            command = inbox.commands.recv() => match command {
                Some(command) => schedule.obey(command),
                None => return,
            },
            Some((instance, notice)) = inbox.notices.recv() => {
                let patient = Arc::clone(&patient);
                tasks.spawn("take notice", async move { patient.notice(instance, notice).await });
                None
            }
        };
        if let Some(instance) = due {
            schedule.due(instance, patient.place(instance).as_ref());
        }
        handle.watched.store(schedule.len(), Ordering::Relaxed);
        while let Some(turn) = schedule.turn() {
            tasks.spawn("probe", probe(Arc::clone(&patient), turn, ended.clone(), tasks.clone()));
        }
    }
}

/// Carries one probe out and says when the next one is due, whatever happens.
async fn probe(patient: Arc<dyn Patient>, turn: Turn, ended: mpsc::Sender<Ended>, tasks: Tasks) {
    let (done, delay) = oneshot::channel();
    let (instance, asked) = (turn.instance, turn.asked);
    let check = async move {
        let _ = done.send(patient.check(instance, asked).await);
    };
    drop(tasks.spawn("check", check));
    // Without an answer the check panicked: its instance is still looked after.
    let delay = delay.await.unwrap_or(Some(RETRY_AFTER));
    // Whoever reads it is gone only when the registry is closing.
    let _ = ended.send((turn, delay)).await;
}

#[cfg(test)]
#[path = "monitor_tests.rs"]
mod tests;
