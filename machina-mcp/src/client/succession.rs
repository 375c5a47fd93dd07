//! One process per instance at a time: the next one starts when the one before is reaped, for both may want the same
//! port, lock or file.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use machina_core::InstanceId;
use tokio::sync::watch;

/// The processes of one connector, by instance.
#[derive(Debug, Default)]
pub(super) struct Succession(Mutex<HashMap<InstanceId, watch::Receiver<bool>>>);

impl Succession {
    /// Waits until the process that `instance` had has ended, if it had one.
    pub(super) async fn turn(&self, instance: InstanceId) {
        let before = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&instance).cloned();
        if let Some(mut ended) = before {
            // An error means that whoever watched it is gone, and the process with it.
            let _ = ended.wait_for(|ended| *ended).await;
        }
    }

    /// `instance` has a process, which has ended when `ended` is true.
    pub(super) fn enter(&self, instance: InstanceId, ended: watch::Receiver<bool>) {
        let mut processes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        processes.retain(|_, ended| !*ended.borrow() && ended.has_changed().is_ok());
        processes.insert(instance, ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[tokio::test]
    async fn the_next_one_waits_for_the_one_before_and_for_no_other() {
        let (succession, instance) = (Succession::default(), InstanceId::generate());
        succession.turn(instance).await;
        let (ended, watched) = watch::channel(false);
        succession.enter(instance, watched);
        succession.turn(InstanceId::generate()).await;
        assert!(succession.turn(instance).now_or_never().is_none());
        ended.send_replace(true);
        succession.turn(instance).await;
    }

    #[tokio::test]
    async fn what_has_ended_is_forgotten() {
        let succession = Succession::default();
        for index in 0..100 {
            let (ended, watched) = watch::channel(false);
            succession.enter(InstanceId::generate(), watched);
            if index % 2 == 0 {
                ended.send_replace(true);
            }
        }
        assert_eq!(succession.0.lock().unwrap().len(), 1);
    }
}
