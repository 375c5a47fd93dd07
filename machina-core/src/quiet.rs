//! A future that is woken by its own doing is polled again on the spot.
//!
//! Parts of a future talk to each other through channels and connections, and
//! wake "the other side", which is themselves. The runtime answers each such wake
//! by queueing the task and waking another thread for it: system calls and a
//! change of the processor, several times for every call that is carried.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// How often a future is polled on the spot before others get their turn.
const TURNS_MAX: usize = 32;

/// Awaits `future`, and keeps the wakes that it gives to itself from the runtime.
pub async fn quietly<F: Future>(future: F) -> F::Output {
    let inner = Arc::new(Inner::default());
    let waker = Waker::from(Arc::clone(&inner));
    let mut future = pin!(future);
    std::future::poll_fn(move |cx| inner.poll(&waker, future.as_mut(), cx)).await
}

/// Who is woken in the end, and what has been asked meanwhile.
#[derive(Debug, Default)]
struct Inner {
    outer: Mutex<Option<Waker>>,
    polling: AtomicBool,
    woken: AtomicBool,
}

impl Inner {
    fn poll<F: Future>(&self, waker: &Waker, mut future: Pin<&mut F>, cx: &mut Context<'_>) -> Poll<F::Output> {
        self.remember(cx.waker());
        self.polling.store(true, Ordering::SeqCst);
        for _ in 0..TURNS_MAX {
            self.woken.store(false, Ordering::SeqCst);
            let polled = future.as_mut().poll(&mut Context::from_waker(waker));
            if polled.is_ready() || !self.woken.load(Ordering::SeqCst) {
                self.polling.store(false, Ordering::SeqCst);
                // A wake from elsewhere may have come between the two looks.
                if polled.is_pending() && self.woken.load(Ordering::SeqCst) {
                    cx.waker().wake_by_ref();
                }
                return polled;
            }
        }
        self.polling.store(false, Ordering::SeqCst);
        cx.waker().wake_by_ref();
        Poll::Pending
    }

    fn remember(&self, waker: &Waker) {
        let mut outer = self.outer.lock().unwrap_or_else(PoisonError::into_inner);
        match &mut *outer {
            Some(known) => known.clone_from(waker),
            None => *outer = Some(waker.clone()),
        }
    }
}

impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.woken.store(true, Ordering::SeqCst);
        if !self.polling.load(Ordering::SeqCst) {
            let outer = self.outer.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(outer) = outer {
                outer.wake();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::sync::atomic::AtomicUsize;
    use std::time::Duration;

    use tokio::sync::mpsc;

    use super::*;

    #[derive(Default)]
    struct Counted(AtomicUsize);

    impl Wake for Counted {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// Resolves when it has woken itself so often.
    fn restless(times: usize) -> impl Future<Output = ()> {
        let mut left = times;
        poll_fn(move |cx| {
            if left == 0 {
                return Poll::Ready(());
            }
            left -= 1;
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    }

    fn polled_once(future: impl Future<Output = ()>) -> (bool, usize) {
        let count = Arc::new(Counted::default());
        let waker = Waker::from(Arc::clone(&count));
        let ready = pin!(quietly(future)).poll(&mut Context::from_waker(&waker)).is_ready();
        (ready, count.0.load(Ordering::SeqCst))
    }

    #[test]
    fn its_own_wakes_do_not_reach_the_runtime() {
        assert_eq!(polled_once(restless(3)), (true, 0));
        assert_eq!(polled_once(std::future::pending()), (false, 0));
    }

    #[test]
    fn others_get_their_turn_though_it_never_rests() {
        assert_eq!(polled_once(restless(TURNS_MAX * 2)), (false, 1));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn no_wake_from_elsewhere_is_lost() {
        let tasks = crate::Tasks::new();
        for _ in 0..2_000 {
            let (sender, mut receiver) = mpsc::channel(1);
            tasks.spawn("send", async move { sender.send(()).await.expect("is received") });
            let received = tokio::time::timeout(Duration::from_secs(10), quietly(receiver.recv())).await;
            assert_eq!(received.unwrap(), Some(()));
        }
    }
}
