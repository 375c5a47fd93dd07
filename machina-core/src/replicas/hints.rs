//! Hints among replicas: one that saw an instance fail tells the one that looks after
//! it, which then need not wait for its next probe. A hint may be lost, and nothing
//! rests on it.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use crate::core::Core;
use crate::model::InstanceId;

/// How many instances may wait to be told of; further ones are not.
const WAITING_MAX: usize = 1_000;
/// How often the others are told: what is seen meanwhile is told together.
const EVERY: Duration = Duration::from_secs(1);
/// How long the store may take to carry a hint, which is of no use later.
const PATIENCE: Duration = Duration::from_secs(5);

/// What the others are to be told of.
#[derive(Debug, Default)]
pub(super) struct Told {
    waiting: Mutex<HashSet<InstanceId>>,
    added: Notify,
}

impl Told {
    fn add(&self, instance: InstanceId) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() < WAITING_MAX && waiting.insert(instance) {
            self.added.notify_one();
        }
    }

    /// All that waits, as soon as there is something.
    async fn take(&self) -> Vec<InstanceId> {
        loop {
            let waiting = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
            if !waiting.is_empty() {
                return waiting.into_iter().collect();
            }
            self.added.notified().await;
        }
    }
}

impl Core {
    /// Something happened to an instance: it is probed now, here or by the replica that
    /// looks after it.
    pub(crate) fn hint(&self, instance: InstanceId) {
        if self.replicas.owns(instance) {
            self.monitor.hint(instance);
        } else {
            self.replicas.told.add(instance);
        }
    }

    /// Tells the other replicas what was seen here.
    pub(crate) async fn hint_others(self: Arc<Self>) {
        let Some(leases) = self.replicas.leases() else { return };
        loop {
            let instances = self.replicas.told.take().await;
            match timeout(PATIENCE, leases.hint(&instances)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "other replicas were not told of instances that failed"),
                Err(_) => tracing::debug!("other replicas were not told in time of instances that failed"),
            }
            sleep(EVERY).await;
        }
    }

    /// Looks at what other replicas saw fail.
    pub(crate) async fn take_hints(self: Arc<Self>) {
        let Some(leases) = self.replicas.leases() else { return };
        loop {
            match leases.hinted().await {
                Ok(instances) => instances.into_iter().for_each(|instance| self.follow_hint(instance)),
                Err(error) => {
                    tracing::debug!(%error, "hints of other replicas cannot be waited for");
                    sleep(EVERY).await;
                }
            }
        }
    }

    fn follow_hint(&self, instance: InstanceId) {
        let view = self.view();
        let Some((_, seen)) = view.owner(instance).and_then(|service| service.instance(instance)) else { return };
        if self.replicas.owns(instance) && seen.cell.is_unprobed_for(EVERY) {
            self.monitor.hint(instance);
        }
    }
}
