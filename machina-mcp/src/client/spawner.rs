//! The one thread that starts processes. A child that is to die with its parent dies with the *thread* that started
//! it, and the threads of a runtime come and go; this one lives as long as the process. Refuses to end: what panics
//! on it is caught.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;

use machina_core::{Error, Phase, Result};
use tokio::sync::oneshot;

/// How many starts may wait.
const QUEUE_MAX: usize = 1_024;

type Job = Box<dyn FnOnce() + Send>;

static QUEUE: Mutex<Option<SyncSender<Job>>> = Mutex::new(None);

/// Does `work` on the thread that starts processes. If the future is dropped before its turn, nothing is done.
///
/// # Errors
/// [`Unreachable`](machina_core::ErrorKind::Unreachable) if too many wait already, or the system has no thread left.
pub(super) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (reply, answer) = oneshot::channel();
    let job = move || {
        if !reply.is_closed() {
            // Whoever asked may be gone by now; what came of it is dropped then.
            let _ = reply.send(work());
        }
    };
    enqueue(Box::new(job))?;
    answer.await.map_err(|_| Error::internal("starting a process panicked"))
}

/// The same for a thread of one's own, which is blocked meanwhile.
///
/// # Errors
/// As [`run`].
pub(super) fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T> {
    let (reply, answer) = sync_channel(1);
    enqueue(Box::new(move || _ = reply.send(work())))?;
    answer.recv().map_err(|_| Error::internal("starting a process panicked"))
}

fn enqueue(job: Job) -> Result<()> {
    let mut queue = QUEUE.lock().unwrap_or_else(PoisonError::into_inner);
    let queue = match &*queue {
        Some(queue) => queue,
        None => queue.insert(begin()?),
    };
    queue.try_send(job).map_err(|error| match error {
        TrySendError::Full(_) => not_sent(format!("{QUEUE_MAX} processes are waiting to be started already")),
        TrySendError::Disconnected(_) => Error::internal("the thread that starts processes is gone"),
    })
}

fn begin() -> Result<SyncSender<Job>> {
    let (sender, jobs) = sync_channel(QUEUE_MAX);
    let thread = Builder::new().name("machina-spawn".to_owned()).spawn(move || work_off(&jobs));
    thread.map_err(|error| not_sent(format!("no thread to start processes from: {error}")))?;
    Ok(sender)
}

fn work_off(jobs: &Receiver<Job>) {
    for job in jobs {
        if catch_unwind(AssertUnwindSafe(job)).is_err() {
            tracing::error!("starting a process panicked");
        }
    }
}

fn not_sent(message: String) -> Error {
    Error::unreachable(message).at(Phase::NotSent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::thread::{ThreadId, current};

    fn thread_of_jobs() -> ThreadId {
        run_blocking(|| current().id()).unwrap()
    }

    #[tokio::test]
    async fn everything_runs_on_one_thread_that_survives_a_panic() {
        let first = run(|| current().id()).await.unwrap();
        let error = run::<()>(|| panic!("on purpose")).await.unwrap_err();
        assert!(error.message().contains("panicked"), "{error}");
        assert_eq!(run(|| current().id()).await.unwrap(), first);
        assert_eq!(tokio::task::spawn_blocking(thread_of_jobs).await.unwrap(), first);
        assert_ne!(current().id(), first);
    }

    #[tokio::test]
    async fn what_nobody_waits_for_any_more_is_not_done() {
        let (go, wait) = sync_channel::<()>(0);
        let mut blocked = Box::pin(run(move || wait.recv()));
        let (told, done) = sync_channel(1);
        let mut abandoned = Box::pin(run(move || told.send(())));
        // Both are queued, the second one behind the first.
        assert!(futures_util::poll!(&mut blocked).is_pending());
        assert!(futures_util::poll!(&mut abandoned).is_pending());
        drop(abandoned);
        go.send(()).unwrap();
        blocked.await.unwrap().unwrap();
        thread_of_jobs();
        assert!(done.try_recv().is_err());
    }
}
