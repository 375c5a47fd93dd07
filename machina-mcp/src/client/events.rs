//! What a session has to say of its own accord: that its lists changed, and
//! that it is over. A flood of changes is one change.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use machina_core::{Error, Notice};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};

/// The shortest and the longest time between two notices of a change. Some servers
/// announce one each time that they are listed, and are listed at each notice.
const GAPS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(60));
/// How many notices in a row are given after the shortest time: a server whose lists
/// do change, several times within a few seconds, is no such server.
const PROMPT_NOTICES: u32 = 8;
/// How long a server must announce nothing to be believed at once again.
const QUIET: Duration = Duration::from_secs(60);

/// The shortest time after which a list is taken to be out of date, whatever the
/// server says.
const FRESH_MIN: Duration = Duration::from_secs(30);

/// How often notices of a change are given: after the first few, the gap doubles
/// with each one, until the server was quiet.
#[derive(Debug, Default)]
struct Pace {
    gap: Duration,
    /// Notices since the server was quiet.
    count: u32,
    announced: Option<Instant>,
    noticed: Option<Instant>,
}

impl Pace {
    fn announce(&mut self, now: Instant) {
        // An announcement that follows a notice may be the echo of being listed.
        if self.announced.max(self.noticed).is_none_or(|last| now.duration_since(last) >= QUIET) {
            (self.gap, self.count) = (Duration::ZERO, 0);
        }
        self.announced = Some(now);
    }

    fn notice(&mut self, now: Instant) {
        self.count = self.count.saturating_add(1);
        let gap = if self.count < PROMPT_NOTICES { GAPS.0 } else { self.gap * 2 };
        self.gap = gap.clamp(GAPS.0, GAPS.1);
        self.noticed = Some(now);
    }

    /// When the next notice may be given.
    fn next(&self) -> Option<Instant> {
        Some(self.noticed? + self.gap)
    }
}

/// The notices of one session.
#[derive(Debug)]
pub(crate) struct Events {
    changed: Notify,
    /// When a list is out of date that the server gave a time.
    stale: watch::Sender<Option<Instant>>,
    pace: Mutex<Pace>,
    closed: watch::Sender<Option<Error>>,
}

impl Events {
    pub(crate) fn new() -> Self {
        Self {
            changed: Notify::new(),
            stale: watch::Sender::new(None),
            pace: Mutex::default(),
            closed: watch::Sender::new(None),
        }
    }

    /// The definitions may have changed.
    pub(crate) fn change(&self) {
        self.pace().announce(Instant::now());
        self.changed.notify_one();
    }

    /// The lists are read anew.
    pub(crate) fn listing(&self) {
        self.stale.send_replace(None);
    }

    /// A list was read that holds for so long, as the server says.
    pub(crate) fn fresh_for(&self, time: Duration) {
        let until = Instant::now() + time.max(FRESH_MIN);
        self.stale.send_modify(|stale| *stale = Some(stale.map_or(until, |stale| stale.min(until))));
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
        let next = self.pace().next();
        if let Some(next) = next {
            sleep_until(next).await;
        }
        tokio::select! {
            () = self.changed.notified() => {}
            () = self.next_stale() => {}
        }
        self.pace().notice(Instant::now());
    }

    /// Waits until a list is out of date; told once for all of them.
    async fn next_stale(&self) {
        let mut stale = self.stale.subscribe();
        loop {
            let until = *stale.borrow_and_update();
            tokio::select! {
                () = async { match until {
                    Some(until) => sleep_until(until).await,
                    None => std::future::pending().await,
                } } => break,
                _ = stale.changed() => {}
            }
        }
        self.listing();
    }

    fn pace(&self) -> MutexGuard<'_, Pace> {
        self.pace.lock().unwrap_or_else(PoisonError::into_inner)
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
        assert!(timeout(GAPS.0 / 2, events.next()).await.is_err());
        assert!(matches!(events.next().await, Notice::DefinitionsChanged));
        assert!(timeout(GAPS.0 * 4, events.next()).await.is_err());
    }

    #[tokio::test(start_paused = true)]
    async fn a_list_is_out_of_date_when_the_time_is_over_that_the_server_gave_it() {
        let events = Events::new();
        let begun = Instant::now();
        events.fresh_for(Duration::from_secs(90));
        events.fresh_for(Duration::from_millis(1));
        events.fresh_for(Duration::from_secs(600));
        assert!(matches!(events.next().await, Notice::DefinitionsChanged));
        assert_eq!(begun.elapsed(), FRESH_MIN, "the list that holds for the shortest time counts, within reason");
        assert!(timeout(QUIET * 60, events.next()).await.is_err(), "all lists are read again then");
        events.fresh_for(Duration::from_secs(90));
        events.change();
        assert!(timeout(GAPS.0 * 2, events.next()).await.is_ok(), "what is announced comes first");
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_announces_a_change_each_time_it_is_listed_is_listed_ever_more_rarely() {
        let events = Events::new();
        events.change();
        let begun = Instant::now();
        let mut notices = Vec::new();
        while begun.elapsed() < Duration::from_secs(600) {
            assert!(matches!(events.next().await, Notice::DefinitionsChanged));
            notices.push(begun.elapsed().as_millis());
            // Being listed takes a while, and is announced as a change.
            tokio::time::sleep(Duration::from_millis(100)).await;
            events.change();
        }
        assert_eq!(notices[..8], [0, 500, 1_000, 1_500, 2_000, 2_500, 3_000, 3_500]);
        assert_eq!(notices[8..12], [4_500, 6_500, 10_500, 18_500]);
        assert_eq!(notices[notices.len() - 1] - notices[notices.len() - 2], 60_000);
        assert!(notices.len() < 30, "{notices:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn after_a_quiet_minute_a_change_is_believed_at_once_again() {
        let events = Events::new();
        for _ in 0..16 {
            events.change();
            events.next().await;
        }
        events.change();
        assert!(timeout(Duration::from_secs(30), events.next()).await.is_err(), "the gap has grown");
        events.next().await;
        tokio::time::sleep(QUIET).await;
        for gap in [Duration::ZERO, GAPS.0] {
            let asked = Instant::now();
            events.change();
            events.next().await;
            assert_eq!(asked.elapsed(), gap);
        }
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
