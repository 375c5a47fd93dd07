//! The only place that spawns: every task has a name, is tracked, and ends when
//! its group is closed. Refuses to detach.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::runtime::Handle;
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
    pub fn spawn<F>(&self, name: &'static str, future: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        start(name, self.tracked(future))
    }

    /// The future itself, to be awaited where it is: no other task takes part. If
    /// it is dropped before its end, it goes on as a task of the group.
    pub fn attached<F>(&self, name: &'static str, future: F) -> Attached
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Attached { name, rest: Some(Box::pin(self.tracked(future))) }
    }

    fn tracked<F: Future<Output = ()> + Send + 'static>(
        &self,
        future: F,
    ) -> impl Future<Output = ()> + Send + 'static + use<F> {
        let cancelled = self.cancelled.clone();
        self.tracker.track_future(async move {
            tokio::select! {
                biased;
                () = cancelled.cancelled() => {}
                () = future => {}
            }
        })
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

#[allow(clippy::disallowed_methods, reason = "this is the one place that spawns")]
fn start(name: &'static str, future: impl Future<Output = ()> + Send + 'static) -> JoinHandle<()> {
    tokio::spawn(future.instrument(tracing::debug_span!("task", name)))
}

/// What [`Tasks::attached`] returns.
pub struct Attached {
    name: &'static str,
    rest: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Future for Attached {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        // Taken out, so that nothing goes on of what panics here.
        let Some(mut rest) = self.rest.take() else { return Poll::Ready(()) };
        let polled = rest.as_mut().poll(cx);
        self.rest = polled.is_pending().then_some(rest);
        polled
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // Without a runtime there is nothing that it could go on in.
        if let Some(rest) = self.rest.take()
            && Handle::try_current().is_ok()
        {
            drop(start(self.name, rest));
        }
    }
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Attached").field("name", &self.name).field("over", &self.rest.is_none()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    fn slow(done: &Arc<AtomicBool>) -> impl Future<Output = ()> + use<> {
        let done = Arc::clone(done);
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            done.store(true, Ordering::SeqCst);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_dropped_half_way_goes_on_as_a_task() {
        let (tasks, done) = (Tasks::new(), Arc::default());
        let attached = tasks.attached("slow", slow(&done));
        assert!(tokio::time::timeout(Duration::from_millis(10), attached).await.is_err());
        assert!(tasks.finish(Duration::from_secs(5)).await && done.load(Ordering::SeqCst));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_attached_ends_with_its_group() {
        let (tasks, done) = (Tasks::new(), Arc::default());
        let attached = tasks.attached("slow", slow(&done));
        tasks.cancel();
        attached.await;
        assert!(!done.load(Ordering::SeqCst));
        assert!(tasks.close(Duration::from_secs(1)).await);
    }
}
