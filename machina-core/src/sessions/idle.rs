//! Processes that nobody calls are stopped; those that are to be kept warm stay.

use std::sync::Arc;
use std::time::Duration;

use super::Sessions;
use crate::core::Core;
use crate::model::InstanceId;

/// How often processes are looked at: the shortest time after which one may be
/// idle.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Core {
    /// Stops processes that were not called for as long as their service says;
    /// runs until cancelled.
    pub(crate) async fn stop_idle(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let view = self.view();
            self.sessions.stop_idle(|instance| {
                let service = view.owner(instance)?;
                (!service.keeps_warm(instance)).then_some(service.session.idle_timeout)
            });
        }
    }
}

impl Sessions {
    /// Stops the processes that were not called for as long as `idle` says.
    fn stop_idle(&self, idle: impl Fn(InstanceId) -> Option<Duration>) {
        let taken = self.inner.slots().take_idle(idle);
        for (instance, slot) in taken {
            tracing::debug!(%instance, "stopping an idle child process");
            self.inner.clear(Some(slot), Duration::ZERO);
        }
    }
}
