//! One shared session per instance: opened once however many callers wait for
//! it, closed when idle, closed when the instance is gone.
//!
//! Opening runs in a task of its own, so a caller that gives up does not undo
//! it for the others. Only instances that are admitted are opened: whoever still
//! holds an old view cannot bring back what is gone. A process that ended is
//! started again when [`Restarts`](crate::health::Restarts) says so, whoever
//! asks, and never before the one before it is gone.

mod idle;
mod opening;
mod promise;
mod slots;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;

use self::opening::Found;
use self::slots::{Place, Slot, Slots};
use crate::connect::{Connector, Era, Notice, Session, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::health::CrashLoop;
use crate::model::{Endpoint, HealthEndpoint, InstanceId, SessionParameters};
use crate::random::Random;
use crate::tasks::Tasks;
use crate::view::{InstanceView, ServiceView};

/// How often a session that is to be closed is looked at for calls in flight.
const BUSY_POLL: Duration = Duration::from_millis(50);

/// A session, and whether it was open before it was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Opened {
    pub(crate) session: Arc<dyn Session>,
    pub(crate) reused: bool,
}

/// The sessions of one registry.
#[derive(Debug, Clone)]
pub(crate) struct Sessions {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    connectors: Vec<Arc<dyn Connector>>,
    slots: Mutex<Slots>,
    notices: mpsc::Sender<(InstanceId, Notice)>,
    /// What listens to sessions; ends when they do.
    tasks: Tasks,
    /// What opens and closes sessions; waited for at the end.
    transitions: Tasks,
    close_timeout: Duration,
    random: Arc<Random>,
}

/// What a connector needs to know to reach the instance at `index`.
pub(crate) fn target(view: &ServiceView, index: usize, seen: &InstanceView) -> Option<Target> {
    let service = view.service();
    let instance = service.spec.instances.get(index)?;
    let stdio = matches!(instance.endpoint, Endpoint::Stdio(_));
    let (known, session) = (seen.definitions.as_ref(), &view.session);
    let timeout = match (stdio, known.is_some()) {
        (true, false) => seen.cell.parameters().startup_grace.max(session.start_timeout),
        (true, true) => session.start_timeout,
        (false, _) => session.connect_timeout,
    };
    Some(Target {
        service: service.name().clone(),
        instance: instance.clone(),
        env: service.spec.env.clone(),
        era: known.map(|definitions| Era::of(&definitions.protocol_version)),
        timeout,
        reach: view.reach(instance),
    })
}

impl Sessions {
    /// Sessions that report what happens to them on `notices`.
    pub(crate) fn new(
        connectors: Vec<Arc<dyn Connector>>,
        close_timeout: Duration,
        random: Arc<Random>,
        notices: mpsc::Sender<(InstanceId, Notice)>,
        tasks: Tasks,
    ) -> Self {
        let (slots, transitions) = (Mutex::default(), Tasks::new());
        Self { inner: Arc::new(Inner { connectors, slots, notices, tasks, transitions, close_timeout, random }) }
    }

    /// Lets sessions with these instances be opened; with `parameters` where it is
    /// a process.
    pub(crate) fn admit(&self, instances: impl IntoIterator<Item = (InstanceId, Option<SessionParameters>)>) {
        let mut slots = self.inner.slots();
        for (instance, parameters) in instances {
            slots.admit(instance, parameters);
        }
    }

    /// Lets no more sessions with an instance be opened, and closes the one that
    /// there is when its calls have ended, at the latest after `patience`.
    pub(crate) fn dismiss(&self, instance: InstanceId, patience: Duration) {
        let slot = self.inner.slots().dismiss(instance);
        self.inner.clear(slot, patience);
    }

    /// The session with the target's instance for a call, opened if there is none.
    ///
    /// # Errors
    /// Whatever [`Connector::connect`] says; [`Unsupported`](crate::ErrorKind::Unsupported)
    /// when no connector handles the endpoint; [`Unavailable`](crate::ErrorKind::Unavailable)
    /// when the instance or the registry is going away, and while a process that
    /// ended is not to be started yet (`retry_after_ms` then says for how long).
    pub(crate) async fn open(&self, target: &Target) -> Result<Opened> {
        self.opened(target, true).await
    }

    /// The session with `instance` for a call, if one is open: what nearly every
    /// call needs, at the cost of a look.
    pub(crate) fn current(&self, instance: InstanceId) -> Option<Arc<dyn Session>> {
        let mut slots = self.inner.slots();
        let open = slots.open(instance)?;
        open.used = Instant::now();
        Some(Arc::clone(&open.session))
    }

    /// The same for a probe, which does not count as use.
    pub(crate) async fn open_to_probe(&self, target: &Target) -> Result<Opened> {
        self.opened(target, false).await
    }

    /// Looks once at what a service declares to be looked at besides MCP, through
    /// the connector of the instance, or through another one if that cannot.
    ///
    /// # Errors
    /// Whatever [`Connector::check`] says; [`Unsupported`](crate::ErrorKind::Unsupported)
    /// when no connector can look at it.
    pub(crate) async fn check(&self, target: &Target, endpoint: &HealthEndpoint, expected: &[u16]) -> Result<()> {
        let own = |connector: &&Arc<dyn Connector>| connector.handles(&target.instance.endpoint);
        let (own, others): (Vec<_>, Vec<_>) = self.inner.connectors.iter().partition(own);
        let mut unsupported = Error::unsupported("there is no connector");
        for connector in own.into_iter().chain(others) {
            match connector.check(target, endpoint, expected).await {
                Err(error) if error.kind() == ErrorKind::Unsupported => unsupported = error,
                looked => return looked,
            }
        }
        Err(unsupported)
    }

    async fn opened(&self, target: &Target, in_use: bool) -> Result<Opened> {
        let opening = match self.inner.find_or_begin(target, in_use)? {
            Found::Open(session) => return Ok(Opened { session, reused: true }),
            Found::Opening(opening) => opening,
        };
        let opened = opening.kept().await.unwrap_or_else(|| Err(closing()));
        opened.map(|session| Opened { session, reused: false })
    }

    /// How many sessions are open.
    pub(crate) fn open_count(&self) -> usize {
        self.inner.slots().open_count()
    }

    /// The session that is open now, without counting as use.
    pub(crate) fn peek(&self, instance: InstanceId) -> Option<Arc<dyn Session>> {
        self.inner.slots().open(instance).map(|open| Arc::clone(&open.session))
    }

    /// How long the process of an instance must not be started yet; `None` when
    /// it may be, runs, or there is none.
    pub(crate) fn restart_wait(&self, instance: InstanceId) -> Option<Duration> {
        self.inner.slots().process(instance)?.restarts.wait(Instant::now())
    }

    /// Whether the process of an instance ended so often that it is only started
    /// now and then, and does not run.
    pub(crate) fn crash_loop(&self, instance: InstanceId) -> Option<CrashLoop> {
        let mut slots = self.inner.slots();
        let process = slots.process(instance)?;
        process.restarts.crash_loop(&process.parameters)
    }

    /// Takes `session` out of use, if it still is the one in use: the next call
    /// or probe opens another. It is closed when its calls have ended, at the
    /// latest after `patience`.
    pub(crate) fn retire(&self, instance: InstanceId, session: &Arc<dyn Session>, patience: Duration) {
        let slot = {
            let mut slots = self.inner.slots();
            let slot = slots.take(instance, session);
            if slot.is_some() {
                slots.stopped(instance);
            }
            slot
        };
        self.inner.clear(slot, patience);
    }

    /// Ends the process of an instance that is there and does not answer; for its
    /// next start that counts as if it had ended by itself. Returns what it wrote
    /// to stderr; `None` when none is running.
    pub(crate) fn give_up(&self, instance: InstanceId) -> Option<String> {
        let (open, tail) = {
            let mut slots = self.inner.slots();
            let open = slots.take_open(instance)?;
            let tail = open.session.stderr_tail();
            let error = Error::unreachable("the process did not answer and was ended");
            let error = error.with(|context| context.stderr_tail = Some(tail.clone()));
            slots.ended(instance, self.inner.random.unit(), Some(error));
            (open, tail)
        };
        open.discarded.store(true, Ordering::Relaxed);
        let (session, place) = (open.session, open.place);
        self.inner.transitions.spawn("kill session", async move {
            session.kill().await;
            drop(place);
        });
        Some(tail)
    }

    /// Closes every session, and returns when nothing of them is left or the
    /// configured time has passed. None can be opened afterwards.
    pub(crate) async fn close(&self) {
        let slots = self.inner.slots().close();
        for slot in slots {
            self.inner.clear(Some(slot), Duration::ZERO);
        }
        let patience = self.inner.close_timeout;
        if !self.inner.transitions.finish(patience).await {
            tracing::warn!(?patience, "some sessions did not close in time and were dropped");
        }
    }
}

impl Inner {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does away with what was in a slot, on purpose: its end is no news.
    fn clear(&self, slot: Option<Slot>, patience: Duration) {
        match slot {
            Some(Slot::Open(open)) => {
                open.discarded.store(true, Ordering::Relaxed);
                self.close_later(open.session, open.place, patience);
            }
            Some(Slot::Opening { cancelled, .. }) => cancelled.cancel(),
            None => {}
        }
    }

    /// Closes a session that no slot holds any more, when its calls have ended.
    fn close_later(&self, session: Arc<dyn Session>, place: Option<Place>, patience: Duration) {
        let until = Instant::now() + patience;
        self.transitions.spawn("close session", async move {
            while is_busy(&session) && Instant::now() < until {
                tokio::time::sleep(BUSY_POLL).await;
            }
            session.close().await;
            drop(place);
        });
    }

    /// Passes the notices of a session on until it is over.
    fn watch(self: &Arc<Self>, id: InstanceId, session: Arc<dyn Session>, discarded: Arc<AtomicBool>) {
        let inner = Arc::clone(self);
        self.tasks.spawn("watch session", async move {
            loop {
                let notice = session.notice().await;
                let Notice::Closed(error) = &notice else {
                    if inner.notices.send((id, notice)).await.is_err() {
                        return;
                    }
                    continue;
                };
                let taken = inner.slots().lapse(id, &session, inner.random.unit(), error);
                if !discarded.load(Ordering::Relaxed) {
                    // Without a reader the registry is closing, or nobody looks after instances.
                    let _ = inner.notices.send((id, notice)).await;
                }
                session.close().await;
                drop(taken);
                return;
            }
        });
    }
}

/// Whether someone waits for an answer: callers hold the session meanwhile,
/// beside its slot (or the task that retires it) and its watcher.
fn is_busy(session: &Arc<dyn Session>) -> bool {
    Arc::strong_count(session) > 2
}

fn closing() -> Error {
    Error::unavailable("the session was closed because the registry or the instance is going away")
}

#[cfg(test)]
mod tests;

#[cfg(test)]
mod place_tests;
