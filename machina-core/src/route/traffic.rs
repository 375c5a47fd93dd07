//! What the calls of one service share: how many may be repeated or sent twice,
//! and who waits for an instance with room, or for one to come back.
//!
//! While nobody waits, a call meets no lock here. Whoever waits is woken in the
//! order of arrival: the first that finds no instance for itself passes the turn
//! on, so nobody stands in the way of others, and nobody who comes later is first.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio::time::Instant;

use super::budget::RetryBudget;
use super::hedging::HedgeAllowance;
use super::limits::Line;

/// What the calls of one service share.
#[derive(Debug)]
pub(crate) struct Traffic {
    pub(super) budget: RetryBudget,
    pub(super) hedges: HedgeAllowance,
    line: Mutex<Line<Arc<Notify>>>,
    /// How many are in the line.
    waiting: AtomicU32,
    /// How many wait for an instance to come back.
    held: AtomicU32,
    changed: Notify,
}

impl Default for Traffic {
    fn default() -> Self {
        Self {
            budget: RetryBudget::new(Instant::now()),
            hedges: HedgeAllowance::default(),
            line: Mutex::default(),
            waiting: AtomicU32::new(0),
            held: AtomicU32::new(0),
            changed: Notify::new(),
        }
    }
}

impl Traffic {
    fn line(&self) -> MutexGuard<'_, Line<Arc<Notify>>> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many calls wait for an instance with room.
    pub(super) fn waiting(&self) -> u32 {
        self.waiting.load(Ordering::SeqCst)
    }

    /// Joins the line, unless `most` wait already.
    pub(super) fn join(&self, most: u32) -> Option<Place<'_>> {
        let turn = Arc::new(Notify::new());
        let mut line = self.line();
        let number = line.join(most, Arc::clone(&turn))?;
        self.waiting.fetch_add(1, Ordering::SeqCst);
        if let Some(first) = line.first() {
            // There may be room that those in front cannot use.
            first.notify_one();
        }
        Some(Place { traffic: self, number, turn })
    }

    /// There is room at an instance that had none.
    pub(super) fn freed(&self) {
        if self.waiting.load(Ordering::SeqCst) > 0
            && let Some(first) = self.line().first()
        {
            first.notify_one();
        }
    }

    /// The health of an instance is another one.
    pub(crate) fn health_changed(&self) {
        self.changed.notify_waiters();
        self.freed();
    }

    /// Counts a call that waits for an instance to come back, unless `most` do.
    pub(super) fn hold(&self, most: u32) -> Option<Held<'_>> {
        let one_more = |count: u32| (count < most).then_some(count + 1);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, one_more).ok().map(|_| Held(self))
    }
}

/// A place in the line, until it is dropped.
#[derive(Debug)]
pub(super) struct Place<'a> {
    traffic: &'a Traffic,
    number: u64,
    turn: Arc<Notify>,
}

impl Place<'_> {
    /// Waits until it is this one's turn to look for room.
    pub(super) async fn turn(&self) {
        self.turn.notified().await;
    }

    /// Found none: the next one may look.
    pub(super) fn pass(&self) {
        if let Some(next) = self.traffic.line().after(self.number) {
            next.notify_one();
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut line = self.traffic.line();
        line.leave(self.number);
        self.traffic.waiting.fetch_sub(1, Ordering::SeqCst);
        // It may have been this one's turn, and there may be more room.
        if let Some(next) = line.after(self.number) {
            next.notify_one();
        }
    }
}

/// A call that waits for an instance to come back, until it is dropped.
#[derive(Debug)]
pub(super) struct Held<'a>(&'a Traffic);

impl Held<'_> {
    /// Completes when the health of an instance changes from now on.
    pub(super) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.0.changed.notified()
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn has_turn(place: &Place<'_>) -> bool {
        tokio::time::timeout(Duration::from_millis(1), place.turn()).await.is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_turn_goes_from_the_first_to_the_next() {
        let traffic = Traffic::default();
        let (one, two, three) = (traffic.join(3).unwrap(), traffic.join(3).unwrap(), traffic.join(3).unwrap());
        assert!(traffic.join(3).is_none(), "the line is full");
        assert!(has_turn(&one).await && !has_turn(&two).await);
        one.pass();
        assert!(has_turn(&two).await && !has_turn(&three).await);
        traffic.freed();
        assert!(has_turn(&one).await);
        drop(one);
        assert!(has_turn(&two).await && !has_turn(&three).await);
        drop(two);
        assert!(has_turn(&three).await);
        assert_eq!(traffic.waiting(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_without_using_its_turn_gives_it_on() {
        let traffic = Traffic::default();
        let (one, two) = (traffic.join(9).unwrap(), traffic.join(9).unwrap());
        assert!(has_turn(&one).await);
        traffic.freed();
        drop(one);
        assert!(has_turn(&two).await);
    }

    #[tokio::test(start_paused = true)]
    async fn few_may_wait_for_an_instance_to_come_back() {
        let traffic = Traffic::default();
        let (one, two) = (traffic.hold(2).unwrap(), traffic.hold(2).unwrap());
        assert!(traffic.hold(2).is_none());
        let changed = one.changed();
        traffic.health_changed();
        changed.await;
        drop((one, two));
        assert!(traffic.hold(1).is_some());
    }
}
