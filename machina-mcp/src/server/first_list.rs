//! The first list of tools that a host on a pipe asks for. Machina has only just
//! been started then, and so have its services; a host that asks once would find
//! nothing. Waits a little, that once; every other list waits for nobody.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use machina_core::{Registry, ServiceView, StartPolicy, Status};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::audience::{Audience, in_use};

/// How long the first list waits at most.
const PATIENCE: Duration = Duration::from_secs(3);

/// Whether it was asked for yet.
#[derive(Debug, Default)]
pub(super) struct FirstList {
    asked: AtomicBool,
}

impl FirstList {
    /// Whether it is still to be asked for.
    pub(super) fn is_to_come(&self) -> bool {
        !self.asked.load(Ordering::Relaxed)
    }

    /// Waits, if this is the first time, until no service that `audience` sees is
    /// still starting of which nothing is known; not for long, and not once
    /// nobody wants the list any more.
    pub(super) async fn wait(&self, audience: &Audience, cancelled: &CancellationToken) {
        if self.asked.swap(true, Ordering::Relaxed) {
            return;
        }
        // Who may not hear of events need not wait for them.
        let Ok(mut events) = audience.scoped().watch(None).await else { return };
        let starting = async {
            while audience.services().iter().any(|view| is_starting(view)) {
                events.next().await;
            }
        };
        tokio::select! {
            _ = timeout(PATIENCE, starting) => {}
            () = cancelled.cancelled() => {}
        }
    }
}

fn is_starting(view: &ServiceView) -> bool {
    // It answers before it is known what it publishes.
    let comes = || !view.is_settled(StartPolicy::Lazy) || view.status() == Status::Healthy;
    in_use(view) && !view.has_definitions() && comes()
}
