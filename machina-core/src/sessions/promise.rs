//! An outcome that one task brings about and many wait for, who are woken in the
//! order in which they came: a `watch` channel wakes them in any order.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::{CancellationToken, DropGuard};

/// What is waited for.
#[derive(Debug)]
pub(super) struct Promise<T>(Arc<Shared<T>>);

#[derive(Debug)]
struct Shared<T> {
    outcome: OnceLock<T>,
    over: CancellationToken,
}

/// Who is to bring it about. Dropped without, it leaves a broken promise.
#[derive(Debug)]
pub(super) struct Promiser<T> {
    promise: Promise<T>,
    _over: DropGuard,
}

impl<T> Clone for Promise<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: Clone> Promise<T> {
    pub(super) fn new() -> (Promiser<T>, Self) {
        let over = CancellationToken::new();
        let promise = Self(Arc::new(Shared { outcome: OnceLock::new(), over: over.clone() }));
        (Promiser { promise: promise.clone(), _over: over.drop_guard() }, promise)
    }

    /// Waits for the outcome; `None` when nobody will bring it about any more.
    pub(super) async fn kept(&self) -> Option<T> {
        self.0.over.cancelled().await;
        self.0.outcome.get().cloned()
    }

    /// Whether nobody will bring it about any more.
    pub(super) fn is_broken(&self) -> bool {
        self.0.over.is_cancelled() && self.0.outcome.get().is_none()
    }

    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl<T> Promiser<T> {
    /// Tells everyone who waits.
    pub(super) fn keep(self, outcome: T) {
        // It is the only one who can, and is gone with it.
        let _ = self.promise.0.outcome.set(outcome);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::tasks::Tasks;

    #[tokio::test]
    async fn all_are_told_in_the_order_in_which_they_came() {
        let (promiser, promise) = Promise::new();
        let (tasks, told) = (Tasks::new(), Arc::new(Mutex::new(Vec::new())));
        for number in 0..20 {
            let (promise, told) = (promise.clone(), Arc::clone(&told));
            tasks.spawn("wait", async move {
                let outcome = promise.kept().await;
                told.lock().unwrap().push((number, outcome));
            });
        }
        tokio::task::yield_now().await;
        assert!(!promise.is_broken());
        promiser.keep("done");
        tasks.finish(std::time::Duration::from_secs(5)).await;
        let wanted: Vec<_> = (0..20).map(|number| (number, Some("done"))).collect();
        assert_eq!(*told.lock().unwrap(), wanted);
        assert!(!promise.is_broken() && promise.is(&promise.clone()));
    }

    #[tokio::test]
    async fn a_broken_promise_is_known() {
        let (promiser, promise) = Promise::<u8>::new();
        drop(promiser);
        assert!(promise.is_broken() && promise.kept().await.is_none());
        assert!(!promise.is(&Promise::new().1));
    }
}
