//! How a session is opened: by one task, for all who wait for it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::slots::{Open, Opening, Place, Slot};
use super::{Inner, closing};
use crate::connect::{Connector, Session, Target};
use crate::error::{Error, Result};
use crate::health::{Observation, ProbeOutcome};

/// How much longer than its target allows a connector may take, to end what it
/// began and to say why it failed.
const CONNECTOR_GRACE: Duration = Duration::from_secs(5);

pub(super) enum Found {
    Open(Arc<dyn Session>),
    Opening(Opening),
}

/// A session that was just opened, with the place of its process.
type Begun = (Arc<dyn Session>, Option<Place>);

impl Inner {
    /// The session that is open or being opened, or the beginning of one, if that
    /// may begin now.
    pub(super) fn find_or_begin(self: &Arc<Self>, target: &Target, in_use: bool) -> Result<Found> {
        let id = target.instance.id;
        let mut slots = self.slots();
        if !slots.admits(id) {
            return Err(closing());
        }
        if let Some(open) = slots.open(id) {
            if in_use {
                open.used = Instant::now();
            }
            return Ok(Found::Open(Arc::clone(&open.session)));
        }
        if let Some(opening) = slots.opening(id) {
            return Ok(Found::Opening(opening));
        }
        if let Some(lapsed) = slots.take_lapsed(id, self.random.unit()) {
            self.close_later(lapsed.session, lapsed.place, Duration::ZERO);
        }
        if let Some(error) = slots.held_back(id) {
            return Err(error);
        }
        let endpoint = &target.instance.endpoint;
        let connector = self.connectors.iter().find(|connector| connector.handles(endpoint)).cloned();
        let connector = connector.ok_or_else(|| {
            Error::unsupported(format!("this build has no connector for `{}` endpoints", endpoint.kind()))
        })?;
        let place = slots.process(id).map(|process| Arc::clone(&process.place));
        let (opened, opening) = Opening::new();
        let cancelled = CancellationToken::new();
        slots.put(id, Slot::Opening { opening: opening.clone(), cancelled: cancelled.clone() });
        drop(slots);
        let (inner, target, receiver) = (Arc::clone(self), target.clone(), opening.clone());
        self.transitions.spawn("open session", async move {
            let begun = tokio::select! {
                biased;
                () = cancelled.cancelled() => Err(closing()),
                begun = inner.begin(&*connector, &target, place) => begun,
            };
            opened.keep(inner.settle(&target, &receiver, begun).await);
        });
        Ok(Found::Opening(opening))
    }

    /// Connects, when the process before is gone.
    async fn begin(&self, connector: &dyn Connector, target: &Target, place: Option<Arc<Semaphore>>) -> Result<Begun> {
        let place = match place {
            Some(place) => Some(vacated(place, target.timeout).await?),
            None => None,
        };
        Ok((self.connect(connector, target).await?, place))
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
        begun: Result<Begun>,
    ) -> Result<Arc<dyn Session>> {
        let id = target.instance.id;
        let unwanted = {
            let mut slots = self.slots();
            let ours = slots.take_opening(id, opening);
            match begun {
                Ok((session, place)) if ours => {
                    let discarded = Arc::new(AtomicBool::new(false));
                    slots.ready(id);
                    let (open, used) = (Arc::clone(&session), Instant::now());
                    slots.put(id, Slot::Open(Open { session: open, used, place, discarded: Arc::clone(&discarded) }));
                    drop(slots);
                    self.watch(id, Arc::clone(&session), discarded);
                    return Ok(session);
                }
                Ok(unwanted) => unwanted,
                Err(error) => {
                    if ours && says_that_it_failed(&error) {
                        slots.ended(id, self.random.unit(), Some(error.clone()));
                    }
                    return Err(error);
                }
            }
        };
        unwanted.0.close().await;
        Err(closing())
    }
}

/// Whether it is the instance that could not be started, and no fault of ours.
fn says_that_it_failed(error: &Error) -> bool {
    matches!(Observation::of_failed_probe(error).outcome, ProbeOutcome::Fail { .. })
}

/// The place of the process before, when it is gone.
pub(super) async fn vacated(place: Arc<Semaphore>, patience: Duration) -> Result<Place> {
    let waited = tokio::time::timeout(patience, place.acquire_owned()).await;
    waited.ok().and_then(std::result::Result::ok).ok_or_else(|| {
        Error::unavailable(format!("the process that is to be replaced has not ended within {patience:?}"))
    })
}
