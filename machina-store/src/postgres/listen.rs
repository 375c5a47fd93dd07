//! Waiting for commits of others, and for what they hint at. An announcement may be
//! lost, and whoever waits looks by himself from time to time.

use std::time::Duration;

use machina_core::{Hints, InstanceId, Result};
use sqlx::PgPool;
use sqlx::postgres::PgListener;
use tokio::runtime::Handle;
use tokio::sync::Mutex;

use super::error::{database_error, within};
use super::hints;
use super::tail::CHANNEL;

/// How long silence is taken for the absence of commits, before the connection is looked at.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// How long the server may take to show that it is there.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

/// The least time between two failures, for whoever would ask again at once.
const PAUSE: Duration = Duration::from_secs(1);

/// The connection that announcements arrive on, made when somebody waits.
pub(super) struct Wakes {
    pool: PgPool,
    /// Who announces what we committed ourselves.
    run: String,
    listener: Mutex<Option<PgListener>>,
    /// What others hint at comes over the same connection.
    hints: Hints,
}

impl std::fmt::Debug for Wakes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Wakes").field("run", &self.run).finish_non_exhaustive()
    }
}

impl Wakes {
    pub(super) fn new(pool: PgPool, run: String) -> Self {
        Self { pool, run, listener: Mutex::new(None), hints: Hints::default() }
    }

    /// Waits until another may have committed.
    pub(super) async fn changed(&self) -> Result<()> {
        let mut listener = self.listener.lock().await;
        let woken = self.wait(&mut listener).await;
        if woken.is_err() {
            *listener = None;
            tokio::time::sleep(PAUSE).await;
        }
        woken
    }

    /// Waits for a hint.
    pub(super) async fn hinted(&self) -> Vec<InstanceId> {
        self.hints.next().await
    }

    async fn wait(&self, listener: &mut Option<PgListener>) -> Result<()> {
        let listener = match listener {
            Some(listener) => listener,
            None => {
                // What was committed before it listens, it was not told of.
                *listener = Some(self.listen().await?);
                return Ok(());
            }
        };
        loop {
            match tokio::time::timeout(SILENCE_MAX, listener.try_recv()).await {
                Ok(Ok(Some(announced))) if announced.channel() == hints::CHANNEL => {
                    self.hints.give(hints::read(announced.payload()));
                }
                Ok(Ok(Some(announced))) if announced.payload() == self.run => {}
                // The connection was lost, and announcements with it.
                Ok(Ok(Some(_) | None)) => return Ok(()),
                Ok(Err(error)) => return Err(database_error(error)),
                Err(_) => {
                    let look = async { sqlx::query("SELECT 1").execute(&mut *listener).await.map_err(database_error) };
                    within(ANSWER_TIMEOUT, look).await?;
                }
            }
        }
    }

    async fn listen(&self) -> Result<PgListener> {
        within(ANSWER_TIMEOUT, async {
            let mut listener = PgListener::connect_with(&self.pool).await.map_err(database_error)?;
            listener.listen_all([CHANNEL, hints::CHANNEL]).await.map_err(database_error)?;
            Ok(listener)
        })
        .await
    }

    /// Whoever waits is told that it is over; where nobody does, the connection is
    /// given back that the pool would wait for.
    pub(super) async fn close(&self) {
        if let Ok(mut listener) = self.listener.try_lock() {
            *listener = None;
        }
        self.pool.close().await;
    }
}

/// The driver ends a listener with a task of its own, which takes a runtime. Where
/// there is none any more, the connection ends with the process.
impl Drop for Wakes {
    fn drop(&mut self) {
        let listener = self.listener.get_mut().take();
        if Handle::try_current().is_err() {
            std::mem::forget(listener);
        }
    }
}
