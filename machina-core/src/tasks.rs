//! The only place that spawns: every task has a name, is tracked, and ends when
//! its group is closed. Refuses to detach.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;

/// A group of background tasks that are cancelled and awaited together.
#[derive(Debug, Clone, Default)]
pub struct Tasks {
    tracker: TaskTracker,
    cancelled: CancellationToken,
}

impl Tasks {
    /// An empty group.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Runs `future` until it ends or the group is cancelled: the future is
    /// dropped at its next `.await`.
    ///
    /// # Panics
    /// When called outside a tokio runtime.
    #[allow(clippy::disallowed_methods, reason = "this is the one place that spawns")]
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let cancelled = self.cancelled.clone();
        let tracked = self.tracker.track_future(async move {
            tokio::select! {
                biased;
                () = cancelled.cancelled() => {}
                () = future => {}
            }
        });
        tokio::spawn(tracked.instrument(tracing::debug_span!("task", name)))
    }

    /// Whether the group was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.is_cancelled()
    }

    /// Resolves when the group is cancelled.
    pub async fn cancelled(&self) {
        self.cancelled.cancelled().await;
    }

    /// Waits up to `patience` for every task to end by itself, then cancels those
    /// that are left; says whether none was.
    pub async fn finish(&self, patience: Duration) -> bool {
        self.tracker.close();
        let finished = tokio::time::timeout(patience, self.tracker.wait()).await.is_ok();
        self.cancelled.cancel();
        finished
    }

    /// Cancels every task of the group without waiting for them.
    pub fn cancel(&self) {
        self.cancelled.cancel();
    }

    /// Cancels every task and waits up to `patience` for them to end; says
    /// whether they did.
    pub async fn close(&self, patience: Duration) -> bool {
        self.cancelled.cancel();
        self.tracker.close();
        tokio::time::timeout(patience, self.tracker.wait()).await.is_ok()
    }
}
