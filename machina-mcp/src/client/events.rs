//! What a session has to say of its own accord: that its lists changed, and
//! that it is over. A flood of changes is one change.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use machina_core::{Error, Notice};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

/// The least time between two notices of a change: some servers announce one
/// each time that they are listed.
const CHANGE_INTERVAL: Duration = Duration::from_millis(500);

/// The notices of one session.
#[derive(Debug)]
pub(crate) struct Events {
    changed: Notify,
    last_change: Mutex<Option<Instant>>,
    closed: watch::Sender<Option<Error>>,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self { changed: Notify::new(), last_change: Mutex::default(), closed: watch::Sender::new(None) }
    }

    /// The definitions may have changed.
    pub(crate) fn change(&self) {
        self.changed.notify_one();
    }

    /// The session is over. The first reason stands.
    pub(crate) fn close(&self, reason: Error) {
        self.closed.send_if_modified(|closed| {
            let first = closed.is_none();
            if first {
                *closed = Some(reason);
            }
            first
        });
    }

    /// Why the session is over, if it is.
    pub(crate) fn closed(&self) -> Option<Error> {
        self.closed.borrow().clone()
    }

    /// Waits until the session is over.
    pub(crate) async fn until_closed(&self) -> Error {
        let mut closed = self.closed.subscribe();
        match closed.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_else(|| Error::internal("a session closed without a reason")),
            Err(_) => Error::internal("a session vanished"),
        }
    }

    /// Waits for the next notice.
    pub(crate) async fn next(&self) -> Notice {
        tokio::select! {
            biased;
            reason = self.until_closed() => Notice::Closed(reason),
            () = self.next_change() => Notice::DefinitionsChanged,
        }
    }

    async fn next_change(&self) {
        let last = *self.last_change.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(last) = last {
            sleep_until(last + CHANGE_INTERVAL).await;
        }
        self.changed.notified().await;
        *self.last_change.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_changes_is_one_notice_per_interval() {
        let events = Events::new();
        for _ in 0..1_000 {
            events.change();
        }
        assert!(matches!(events.next().await, Notice::DefinitionsChanged));
        events.change();
        assert!(timeout(CHANGE_INTERVAL / 2, events.next()).await.is_err());
        assert!(matches!(events.next().await, Notice::DefinitionsChanged));
        assert!(timeout(CHANGE_INTERVAL * 4, events.next()).await.is_err());
    }

    #[tokio::test]
    async fn the_first_reason_of_the_end_stands_and_is_told_again() {
        let events = Events::new();
        events.close(Error::lost("first"));
        events.close(Error::lost("second"));
        for _ in 0..2 {
            let Notice::Closed(reason) = events.next().await else { panic!("not closed") };
            assert_eq!(reason.message(), "first");
        }
    }
}
