//! Tells a host of the older era that the tools have changed: once for changes
//! that come together, and not at all when the host would see the same list.

use std::sync::Arc;
use std::time::Duration;

use machina_core::{Event, EventKind, EventStream, Next, Registry, Scoped};
use serde_json::json;
use tokio::sync::mpsc::WeakSender;

use super::flat::{FlatTable, FlatTables};
use super::gateway::{Offer, Outgoing};
use super::rpc;

/// How long changes are gathered before the host is told.
const TOGETHER: Duration = Duration::from_millis(100);

/// The changes of the tools that one host sees.
#[derive(Debug)]
pub(super) struct Changes {
    events: EventStream,
    scoped: Scoped,
    offer: Arc<Offer>,
}

impl Changes {
    /// Those from now on; `None` where tools never change, or where the
    /// principal is not told of changes.
    pub(super) async fn begin(scoped: &Scoped, offer: &Arc<Offer>) -> Option<Self> {
        offer.tables()?;
        let events = scoped.watch(None).await.ok()?;
        Some(Self { events, scoped: scoped.clone(), offer: Arc::clone(offer) })
    }

    /// The list that a host can have read by now.
    pub(super) fn known(&self) -> Option<Arc<FlatTable>> {
        self.offer.tables().map(|tables| tables.of(&self.scoped))
    }

    /// Tells a host that knows `known` of every other list, until it is gone.
    pub(super) async fn tell(self, known: Arc<FlatTable>, outbox: WeakSender<Outgoing>) {
        let Self { mut events, scoped, offer } = self;
        let Some(tables) = offer.tables() else { return };
        let mut told = known;
        loop {
            if !concerns_tools(&events.next().await) {
                continue;
            }
            tokio::time::sleep(TOGETHER).await;
            while events.try_next().is_some() {}
            let Some(newer) = changed(tables, &scoped, &told) else { continue };
            told = newer;
            let text = rpc::notification("notifications/tools/list_changed", &json!({}));
            let Some(outbox) = outbox.upgrade() else { return };
            if outbox.send(Outgoing::Notification(text)).await.is_err() {
                return;
            }
        }
    }
}

fn changed(tables: &FlatTables, scoped: &Scoped, told: &FlatTable) -> Option<Arc<FlatTable>> {
    Some(tables.of(scoped)).filter(|newer| !newer.same_as(told))
}

fn concerns_tools(next: &Next) -> bool {
    match next {
        Next::Event(event) => !matches!(**event, Event { kind: EventKind::HealthChanged { .. }, .. }),
        Next::Resync => true,
    }
}
