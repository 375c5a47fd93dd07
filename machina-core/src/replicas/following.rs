//! Follows what others commit to the store. What wakes it is only a hint: it looks
//! every second in any case, and where the store cannot say what came between, it
//! reads everything anew.

use std::collections::{BTreeMap, HashSet};
use std::future::{Future, poll_fn};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::MutexGuard;
use tokio::time::{Instant, timeout};

use super::{ReplicaStanding, StoreStanding};
use crate::clock;
use crate::core::Core;
use crate::error::{Error, Result};
use crate::model::{InstanceId, ServiceId};
use crate::store::{Changes, Image};
use crate::view::Delta;

/// How often the store is asked though nothing is known to have changed, give or
/// take a fifth.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// How long the store may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long it may take to say everything.
const LOAD_PATIENCE: Duration = Duration::from_secs(60);

/// How well the store is followed.
#[derive(Debug)]
pub(crate) struct Freshness {
    latest: Mutex<Latest>,
}

#[derive(Debug, Clone)]
struct Latest {
    /// When the view was last known to be the latest.
    as_of: Instant,
    at: jiff::Timestamp,
    error: Option<String>,
}

impl Freshness {
    pub(crate) fn new() -> Self {
        Self { latest: Mutex::new(Latest { as_of: Instant::now(), at: clock::now(), error: None }) }
    }

    fn latest(&self) -> std::sync::MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether all is in view that had been committed by then.
    fn covers(&self, moment: Instant) -> bool {
        self.latest().as_of >= moment
    }

    /// The store said, when it was asked at `begun`, that this is all.
    pub(crate) fn is_current(&self, begun: Instant) {
        let mut latest = self.latest();
        if begun > latest.as_of {
            let at = clock::now().checked_sub(begun.elapsed()).unwrap_or(latest.at);
            *latest = Latest { as_of: begun, at, error: None };
        }
        latest.error = None;
    }

    /// The store did not answer; says whether it did before.
    fn failed(&self, error: &Error) -> bool {
        self.latest().error.replace(error.message().to_owned()).is_none()
    }
}

impl Core {
    /// Follows what others commit to the store; runs until cancelled.
    pub(crate) async fn follow(self: Arc<Self>) {
        loop {
            let mut changed = self.store.changed();
            // From here on no wake-up is missed: it waits for one before it looks.
            let hinted = poll_fn(|cx| Poll::Ready(changed.as_mut().poll(cx))).await;
            if let Err(error) = self.look().await
                && self.freshness.failed(&error)
            {
                tracing::warn!(%error, "the store could not be followed");
            }
            let poll = self.poll_interval();
            match hinted {
                Poll::Ready(Ok(())) => {}
                Poll::Ready(Err(_)) => tokio::time::sleep(poll).await,
                // A hint that fails is none: the poll comes in any case.
                Poll::Pending => {
                    let deadline = Instant::now() + poll;
                    if let Ok(Err(_)) = tokio::time::timeout_at(deadline, changed).await {
                        tokio::time::sleep_until(deadline).await;
                    }
                }
            }
        }
    }

    /// Not all replicas at once. Alone, nothing is left to chance.
    fn poll_interval(&self) -> Duration {
        if self.replicas.is_shared() { POLL_EVERY.mul_f64(0.4f64.mul_add(self.random.unit(), 0.8)) } else { POLL_EVERY }
    }

    /// Looks for what others have committed. What is committed here waits only
    /// while there is something to read.
    async fn look(&self) -> Result<()> {
        let begun = Instant::now();
        let after = self.view.load().revision();
        match within(PATIENCE, self.store.changes(after)).await? {
            Changes::Tail(tail) if tail.is_empty() => self.freshness.is_current(begun),
            _ => self.read_on().await?,
        }
        Ok(())
    }

    /// Waits for its turn to commit, with all in view that others have committed so
    /// far: what is planned now is planned on that.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) when the store does not answer.
    pub(crate) async fn turn_to_commit(&self) -> Result<MutexGuard<'_, ()>> {
        let arrived = Instant::now();
        let committing = self.wait_for_turn().await?;
        self.be_current_since(arrived).await?;
        Ok(committing)
    }

    /// Waits for its turn to commit.
    pub(crate) async fn wait_for_turn(&self) -> Result<MutexGuard<'_, ()>> {
        if !self.replicas.is_shared() {
            return Ok(self.committing.lock().await);
        }
        timeout(PATIENCE, self.committing.lock()).await.map_err(|_| late(PATIENCE))
    }

    /// Has all in view that others had committed by then. The caller holds `committing`.
    pub(crate) async fn be_current_since(&self, arrived: Instant) -> Result<()> {
        // Whoever waits in line need not ask what the one before has found out.
        if self.replicas.is_shared() && !self.freshness.covers(arrived) {
            self.catch_up().await?;
        }
        Ok(())
    }

    /// Reads what others have committed.
    pub(crate) async fn read_on(&self) -> Result<()> {
        let _committing = timeout(PATIENCE, self.committing.lock()).await.map_err(|_| late(PATIENCE))?;
        self.catch_up().await
    }

    /// Reads what others have committed since the current view. The caller holds
    /// `committing`.
    pub(crate) async fn catch_up(&self) -> Result<()> {
        let begun = Instant::now();
        let after = self.view.load().revision();
        match within(PATIENCE, self.store.changes(after)).await? {
            Changes::Tail(tail) => {
                let mut tail = tail.into_iter().peekable();
                while let Some((revision, change)) = tail.next() {
                    let mut deltas = vec![Delta::of(change)];
                    while let Some((_, change)) = tail.next_if(|(next, _)| *next == revision) {
                        deltas.push(Delta::of(change));
                    }
                    self.publish(revision, &deltas).await;
                }
            }
            Changes::Reload => {
                // On both sides, so that no follower takes a part of one for a part of the other.
                self.generation.fetch_add(1, Ordering::AcqRel);
                self.reload(&within(LOAD_PATIENCE, self.store.load()).await?).await;
                self.generation.fetch_add(1, Ordering::AcqRel);
            }
        }
        self.freshness.is_current(begun);
        Ok(())
    }

    /// Shows readers the whole of what the store holds, whatever they saw before:
    /// it may be older, when a backup was restored.
    async fn reload(&self, image: &Image) {
        let before = self.view.load().revision();
        tracing::info!(%before, now = %image.revision, "everything is read anew from the store");
        if image.revision < before {
            self.events.restart(image.revision);
        }
        let deltas = self.replacing(image);
        self.publish(image.revision, &deltas).await;
        self.recall_heartbeats(&image.heartbeats);
    }

    /// Makes the first view out of what the store holds. Nothing happened, so
    /// there are no events.
    pub(crate) fn restore(&self, image: &Image) {
        let deltas = self.replacing(image);
        self.admit(&deltas);
        let (_, view) = self.swap(Some(image.revision), &deltas);
        self.events.begin(image.revision);
        self.recall_health(&deltas);
        for service in view.services() {
            self.keep_leases(service);
            self.index_tools(None, Some(service));
        }
    }

    /// Takes over, without a word, what the store remembers of the health of
    /// instances.
    fn recall_health(&self, deltas: &[Delta]) {
        let view = self.view();
        let mut known = Vec::new();
        for delta in deltas {
            if let Delta::Reported { service, instance, health } = delta
                && let Some((_, seen)) = view.by_id(*service).and_then(|one| one.instance(*instance))
            {
                seen.cell.tell(health);
                known.push(Delta::Health { service: *service, instance: *instance });
            }
        }
        self.swap(None, &known);
    }

    /// The changes that turn the current view into `image`.
    fn replacing(&self, image: &Image) -> Vec<Delta> {
        let view = self.view();
        let kept: HashSet<_> = image.services.iter().map(|service| service.id).collect();
        let gone = view.services().map(|view| view.service().id).filter(|id| !kept.contains(id)).map(Delta::Delete);
        let mut deltas: Vec<Delta> = gone.collect();
        let dropped = view.groups().filter(|known| !image.groups.iter().any(|group| group.name() == known.name()));
        deltas.extend(dropped.map(|group| Delta::DeleteGroup(group.name().clone())));
        let changed = image.groups.iter().filter(|group| view.group(group.name().as_str()) != Some(group));
        deltas.extend(changed.cloned().map(Delta::PutGroup));
        let mut owners: BTreeMap<InstanceId, ServiceId> = BTreeMap::new();
        for service in &image.services {
            let known = view.by_id(service.id);
            if known.is_none_or(|known| known.service() != service) {
                deltas.push(Delta::Put(Arc::clone(service)));
            }
            for instance in &service.spec.instances {
                let (service, instance) = (service.id, instance.id);
                owners.insert(instance, service);
                let Some(definitions) = image.definitions.get(&instance) else { continue };
                let seen = known.and_then(|known| known.instance(instance)?.1.definitions.as_ref());
                if seen != Some(definitions) {
                    deltas.push(Delta::Definitions { service, instance, definitions: Arc::clone(definitions) });
                }
            }
        }
        deltas.extend(Self::reported(image, &owners));
        deltas
    }

    /// How what readers see stands to the store.
    pub(crate) fn standing(&self) -> StoreStanding {
        let latest = self.freshness.latest().clone();
        let lag = latest.as_of.elapsed();
        let replica = self.replicas.counts().map(|(shards, replicas, refused_writes)| ReplicaStanding {
            id: self.replicas.id(),
            replicas,
            shards,
            refused_writes,
        });
        StoreStanding {
            revision: self.view.load().revision(),
            as_of: latest.at,
            lag_ms: u64::try_from(lag.as_millis()).unwrap_or(u64::MAX),
            stale: lag > self.config.replicas.stale_after,
            error: latest.error,
            replica,
        }
    }
}

async fn within<T>(patience: Duration, answer: impl Future<Output = Result<T>>) -> Result<T> {
    timeout(patience, answer).await.unwrap_or_else(|_| Err(late(patience)))
}

fn late(patience: Duration) -> Error {
    Error::unavailable(format!("the store did not answer within {patience:?}"))
}
