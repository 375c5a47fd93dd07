//! How a Machina stands to what it depends on: its store, its journal, and what
//! replicas share beside them.

use std::time::Duration;

use crate::error::{Error, Result};
use crate::machina::Machina;
use crate::replicas::StoreStanding;
use crate::scratch::ScratchStanding;

/// How long the store may take to answer before the registry is not ready.
const STORE_PATIENCE: Duration = Duration::from_secs(2);

impl Machina {
    /// How what readers see stands to the store.
    #[must_use]
    pub fn standing(&self) -> StoreStanding {
        self.system().core.standing()
    }

    /// Whether what replicas share beside their store can be asked; `None` where
    /// nothing is shared.
    #[must_use]
    pub fn scratch_standing(&self) -> Option<ScratchStanding> {
        self.system().core.scratches.standing()
    }

    /// Whether it can serve: the store answers, and nobody has closed it. One of
    /// several replicas goes on serving what it knows though the store does not
    /// answer: see [`Machina::standing`].
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable), saying why not.
    pub async fn ready(&self) -> Result<()> {
        let core = &self.system().core;
        if core.monitor_tasks.is_cancelled() {
            return Err(Error::unavailable("the registry is closing"));
        }
        if core.replicas.is_shared() {
            return Ok(());
        }
        let asked = core.store.changes(core.view.load().revision());
        match tokio::time::timeout(STORE_PATIENCE, asked).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Error::unavailable(format!("the store fails: {}", error.message())).caused_by(error)),
            Err(_) => Err(Error::unavailable(format!("the store did not answer within {STORE_PATIENCE:?}"))),
        }
    }

    /// How many journal entries were dropped because the store was too slow.
    #[must_use]
    pub fn dropped_journal_entries(&self) -> u64 {
        self.system().core.recorder.dropped()
    }
}
