//! One shared session per instance: opened once however many callers wait for
//! it, closed when idle, closed when the instance is gone.
//!
//! Opening runs in a task of its own, so a caller that gives up does not undo
//! it for the others. Only instances that are admitted are opened: whoever still
//! holds an old view cannot bring back what is gone.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::config::SessionsConfig;
use crate::connect::{Connector, Era, Notice, Session, Target};
use crate::error::{Error, Result};
use crate::model::{Endpoint, InstanceId};
use crate::tasks::Tasks;
use crate::view::{InstanceView, ServiceView};

/// How much longer than its target allows a connector may take, to end what it
/// began and to say why it failed.
const CONNECTOR_GRACE: Duration = Duration::from_secs(5);

/// How often a session that is to be closed is looked at for calls in flight.
const BUSY_POLL: Duration = Duration::from_millis(50);

type Opening = watch::Receiver<Option<Result<Arc<dyn Session>>>>;

#[derive(Debug)]
enum Slot {
    Opening { opening: Opening, cancelled: CancellationToken },
    Open { session: Arc<dyn Session>, used: Instant, stdio: bool },
}

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
    config: SessionsConfig,
}

#[derive(Debug, Default)]
struct Slots {
    by_instance: HashMap<InstanceId, Slot>,
    admitted: HashSet<InstanceId>,
    closed: bool,
}

/// What a connector needs to know to reach the instance at `index`.
pub(crate) fn target(view: &ServiceView, index: usize, seen: &InstanceView, config: &SessionsConfig) -> Option<Target> {
    let service = view.service();
    let instance = service.spec.instances.get(index)?;
    let stdio = matches!(instance.endpoint, Endpoint::Stdio(_));
    let known = seen.definitions.as_ref();
    let timeout = match (stdio, known.is_some()) {
        (true, false) => seen.cell.parameters().startup_grace.max(config.start_timeout),
        (true, true) => config.start_timeout,
        (false, _) => config.connect_timeout,
    };
    Some(Target {
        service: service.name().clone(),
        instance: instance.clone(),
        env: service.spec.env.clone(),
        era: known.map(|definitions| Era::of(&definitions.protocol_version)),
        timeout,
    })
}

impl Sessions {
    /// Sessions that report what happens to them on `notices`.
    pub(crate) fn new(
        connectors: Vec<Arc<dyn Connector>>,
        config: SessionsConfig,
        notices: mpsc::Sender<(InstanceId, Notice)>,
        tasks: Tasks,
    ) -> Self {
        let (slots, transitions) = (Mutex::default(), Tasks::new());
        Self { inner: Arc::new(Inner { connectors, slots, notices, tasks, transitions, config }) }
    }

    /// Lets sessions with these instances be opened.
    pub(crate) fn admit(&self, instances: impl IntoIterator<Item = InstanceId>) {
        self.inner.slots().admitted.extend(instances);
    }

    /// Lets no more sessions with an instance be opened, and closes the one that
    /// there is when its calls have ended, at the latest after `patience`.
    pub(crate) fn dismiss(&self, instance: InstanceId, patience: Duration) {
        let slot = {
            let mut slots = self.inner.slots();
            slots.admitted.remove(&instance);
            slots.by_instance.remove(&instance)
        };
        match slot {
            Some(Slot::Open { session, .. }) => self.inner.close_later(session, patience),
            Some(Slot::Opening { cancelled, .. }) => cancelled.cancel(),
            None => {}
        }
    }

    /// The session with the target's instance for a call, opened if there is none.
    ///
    /// # Errors
    /// Whatever [`Connector::connect`] says; [`Unsupported`](crate::ErrorKind::Unsupported)
    /// when no connector handles the endpoint; [`Unavailable`](crate::ErrorKind::Unavailable)
    /// when the instance or the registry is going away.
    pub(crate) async fn open(&self, target: &Target) -> Result<Opened> {
        self.opened(target, true).await
    }

    /// The session with `instance` for a call, if one is open: what nearly every
    /// call needs, at the cost of a look.
    pub(crate) fn current(&self, instance: InstanceId) -> Option<Arc<dyn Session>> {
        let mut slots = self.inner.slots();
        match slots.by_instance.get_mut(&instance) {
            Some(Slot::Open { session, used, .. }) if !session.is_closed() => {
                *used = Instant::now();
                Some(Arc::clone(session))
            }
            _ => None,
        }
    }

    /// The same for a probe, which does not count as use.
    pub(crate) async fn open_to_probe(&self, target: &Target) -> Result<Opened> {
        self.opened(target, false).await
    }

    async fn opened(&self, target: &Target, in_use: bool) -> Result<Opened> {
        let mut opening = match self.inner.find_or_begin(target, in_use)? {
            Found::Open(session) => return Ok(Opened { session, reused: true }),
            Found::Opening(opening) => opening,
        };
        let opened = opening.wait_for(Option::is_some).await;
        let opened = opened.map_err(|_| closing())?.clone().unwrap_or_else(|| Err(closing()));
        opened.map(|session| Opened { session, reused: false })
    }

    /// How many sessions are open.
    pub(crate) fn open_count(&self) -> usize {
        self.inner.slots().by_instance.values().filter(|slot| matches!(slot, Slot::Open { .. })).count()
    }

    /// The session that is open now, without counting as use.
    pub(crate) fn peek(&self, instance: InstanceId) -> Option<Arc<dyn Session>> {
        match self.inner.slots().by_instance.get(&instance) {
            Some(Slot::Open { session, .. }) if !session.is_closed() => Some(Arc::clone(session)),
            _ => None,
        }
    }

    /// Takes `session` out of use, if it still is the one in use: the next call
    /// or probe opens another. It is closed when its calls have ended, at the
    /// latest after `patience`.
    pub(crate) fn retire(&self, instance: InstanceId, session: &Arc<dyn Session>, patience: Duration) {
        if self.inner.forget(instance, session) {
            self.inner.close_later(Arc::clone(session), patience);
        }
    }

    /// Closes child processes that were not called for a while; runs until
    /// cancelled.
    pub(crate) async fn close_idle(&self) {
        let idle = self.inner.config.idle_timeout;
        let pause = (idle / 4).clamp(Duration::from_millis(250), Duration::from_secs(60));
        loop {
            tokio::time::sleep(pause).await;
            for (instance, session) in self.inner.take_idle(idle) {
                tracing::debug!(%instance, "stopping an idle child process");
                self.inner.close_later(session, Duration::ZERO);
            }
        }
    }

    /// Closes every session, and returns when nothing of them is left or the
    /// configured time has passed. None can be opened afterwards.
    pub(crate) async fn close(&self) {
        let slots = {
            let mut slots = self.inner.slots();
            slots.closed = true;
            std::mem::take(&mut slots.by_instance)
        };
        for slot in slots.into_values() {
            match slot {
                Slot::Open { session, .. } => self.inner.close_later(session, Duration::ZERO),
                Slot::Opening { cancelled, .. } => cancelled.cancel(),
            }
        }
        let patience = self.inner.config.close_timeout;
        if !self.inner.transitions.finish(patience).await {
            tracing::warn!(?patience, "some sessions did not close in time and were dropped");
        }
    }
}

enum Found {
    Open(Arc<dyn Session>),
    Opening(Opening),
}

impl Inner {
    fn slots(&self) -> MutexGuard<'_, Slots> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Closes a session that no slot holds any more, when its calls have ended.
    fn close_later(&self, session: Arc<dyn Session>, patience: Duration) {
        let until = Instant::now() + patience;
        self.transitions.spawn("close session", async move {
            while is_busy(&session) && Instant::now() < until {
                tokio::time::sleep(BUSY_POLL).await;
            }
            session.close().await;
        });
    }

    fn find_or_begin(self: &Arc<Self>, target: &Target, in_use: bool) -> Result<Found> {
        let id = target.instance.id;
        let mut slots = self.slots();
        if slots.closed || !slots.admitted.contains(&id) {
            return Err(closing());
        }
        match slots.by_instance.get_mut(&id) {
            Some(Slot::Open { session, used, .. }) if !session.is_closed() => {
                if in_use {
                    *used = Instant::now();
                }
                return Ok(Found::Open(Arc::clone(session)));
            }
            // The other end of an opening is gone only if its task panicked.
            Some(Slot::Opening { opening, .. }) if opening.has_changed().is_ok() => {
                return Ok(Found::Opening(opening.clone()));
            }
            Some(_) | None => {}
        }
        let endpoint = &target.instance.endpoint;
        let connector = self.connectors.iter().find(|connector| connector.handles(endpoint)).cloned();
        let connector = connector.ok_or_else(|| {
            Error::unsupported(format!("this build has no connector for `{}` endpoints", endpoint.kind()))
        })?;
        let (sender, opening) = watch::channel(None);
        let cancelled = CancellationToken::new();
        slots.by_instance.insert(id, Slot::Opening { opening: opening.clone(), cancelled: cancelled.clone() });
        let (inner, target, receiver) = (Arc::clone(self), target.clone(), opening.clone());
        self.transitions.spawn("open session", async move {
            let opened = tokio::select! {
                () = cancelled.cancelled() => Err(closing()),
                opened = inner.connect(&*connector, &target) => opened,
            };
            let opened = inner.settle(&target, &receiver, opened).await;
            sender.send_replace(Some(opened));
        });
        Ok(Found::Opening(opening))
    }

    /// Connects; a connector that does not keep to the time it was given is cut off.
    async fn connect(&self, connector: &dyn Connector, target: &Target) -> Result<Arc<dyn Session>> {
        let patience = target.timeout + CONNECTOR_GRACE;
        tokio::time::timeout(patience, connector.connect(target))
            .await
            .unwrap_or_else(|_| Err(Error::unreachable(format!("not ready within {:?}", target.timeout))))
    }

    /// Puts what came of opening into the slot; a session whose slot is gone is
    /// closed again.
    async fn settle(
        self: &Arc<Self>,
        target: &Target,
        opening: &Opening,
        opened: Result<Arc<dyn Session>>,
    ) -> Result<Arc<dyn Session>> {
        let id = target.instance.id;
        let stdio = matches!(target.instance.endpoint, Endpoint::Stdio(_));
        let kept = {
            let mut slots = self.slots();
            let ours =
                matches!(slots.by_instance.get(&id), Some(Slot::Opening { opening: o, .. }) if o.same_channel(opening));
            match &opened {
                Ok(session) if ours => {
                    let slot = Slot::Open { session: Arc::clone(session), used: Instant::now(), stdio };
                    slots.by_instance.insert(id, slot);
                }
                _ if ours => drop(slots.by_instance.remove(&id)),
                _ => {}
            }
            ours
        };
        match (opened, kept) {
            (Ok(session), true) => {
                self.watch(id, Arc::clone(&session));
                Ok(session)
            }
            (Ok(session), false) => {
                session.close().await;
                Err(closing())
            }
            (Err(error), _) => Err(error),
        }
    }

    /// Passes the notices of a session on until it is over.
    fn watch(self: &Arc<Self>, id: InstanceId, session: Arc<dyn Session>) {
        let inner = Arc::clone(self);
        self.tasks.spawn("watch session", async move {
            loop {
                let notice = session.notice().await;
                let over = matches!(notice, Notice::Closed(_));
                let ours = if over { inner.forget(id, &session) } else { true };
                if ours && inner.notices.send((id, notice)).await.is_err() {
                    return;
                }
                if over {
                    session.close().await;
                    return;
                }
            }
        });
    }

    /// Empties the slot of a session that is over; `false` when it was already
    /// discarded, so that its end is no news.
    fn forget(&self, id: InstanceId, session: &Arc<dyn Session>) -> bool {
        let mut slots = self.slots();
        let ours = matches!(slots.by_instance.get(&id), Some(Slot::Open { session: s, .. }) if Arc::ptr_eq(s, session));
        if ours {
            slots.by_instance.remove(&id);
        }
        ours
    }

    /// Takes the child processes out of use that were not called for `idle`.
    fn take_idle(&self, idle: Duration) -> Vec<(InstanceId, Arc<dyn Session>)> {
        let now = Instant::now();
        let is_idle = |slot: &Slot| match slot {
            Slot::Open { used, stdio: true, session } => {
                !is_busy(session) && now.saturating_duration_since(*used) >= idle
            }
            _ => false,
        };
        let taken = self.slots().by_instance.extract_if(|_, slot| is_idle(slot)).collect::<Vec<_>>();
        let open = taken.into_iter().filter_map(|(id, slot)| match slot {
            Slot::Open { session, .. } => Some((id, session)),
            Slot::Opening { .. } => None,
        });
        open.collect()
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
