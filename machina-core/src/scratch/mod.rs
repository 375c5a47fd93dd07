//! What replicas share to be quick or fair, and may lose at any moment: counts of
//! calls, and answers that are kept for a while. Refuses whatever must not be
//! lost; that is the store's.

mod memory;
mod rate;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::Serialize;

pub use memory::MemoryScratch;
pub use rate::{Admission, Rate};

/// A place for counts and kept answers, shared by the replicas that know it.
///
/// It never fails: one that cannot be asked, or does not answer within
/// milliseconds, says `None`, and Machina goes on with what it knows by itself.
///
/// # Behaviour
/// Each point is a test in `machina_core::testing`:
/// * `what_is_kept_is_found`: byte for byte, and nothing under another key.
/// * `what_is_kept_anew_replaces_what_was`: with its own time.
/// * `what_is_kept_goes_after_its_time`: and not before.
/// * `a_rate_lets_a_burst_pass`: as many at once as it says, and no more.
/// * `a_refused_call_is_told_when_to_come_back`: and is let pass then.
/// * `rates_are_counted_by_key`: one that is used up leaves the others alone.
/// * `a_lowered_rate_holds_at_once`: what was counted under another rate does not bind longer than this one would.
#[async_trait]
pub trait Scratch: fmt::Debug + Send + Sync + 'static {
    /// Counts one call under `key`, unless `rate` is used up.
    async fn take(&self, key: &str, rate: Rate) -> Option<Admission>;

    /// What is kept under `key`.
    async fn get(&self, key: &str) -> Option<Arc<[u8]>>;

    /// Keeps `value` under `key` for at most `time`.
    async fn put(&self, key: &str, value: &[u8], time: Duration);

    /// Whether it can be asked now; `None` where it is never out of reach.
    fn standing(&self) -> Option<ScratchStanding> {
        None
    }
}

/// Whether what replicas share beside their store can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScratchStanding {
    /// Whether there is a connection. Without one, every replica counts and keeps
    /// answers by itself, and hears of changes by asking the store.
    pub connected: bool,
    /// Since when that is so.
    pub since: Timestamp,
}

/// What this process counts and keeps by itself, and what it shares with others.
#[derive(Debug, Default)]
pub(crate) struct Scratches {
    own: MemoryScratch,
    shared: Option<Arc<dyn Scratch>>,
}

impl Scratches {
    pub(crate) fn new(shared: Option<Arc<dyn Scratch>>) -> Self {
        Self { own: MemoryScratch::new(), shared }
    }

    /// Whether the others can be asked; `None` where nothing is shared.
    pub(crate) fn standing(&self) -> Option<ScratchStanding> {
        self.shared.as_ref()?.standing()
    }

    /// Counts one call under `key`: among all replicas where they can be asked.
    pub(crate) async fn take(&self, key: &str, rate: Rate) -> Admission {
        if let Some(shared) = &self.shared
            && let Some(admission) = shared.take(key, rate).await
        {
            return admission;
        }
        self.own.count(key, rate)
    }

    /// What this process keeps under `key`.
    pub(crate) fn own(&self, key: &str) -> Option<Arc<[u8]>> {
        self.own.find(key)
    }

    /// What others may have kept under `key`.
    pub(crate) async fn shared(&self, key: &str) -> Option<Arc<[u8]>> {
        self.shared.as_ref()?.get(key).await
    }

    /// Keeps `value` here.
    pub(crate) fn keep_own(&self, key: &str, value: Arc<[u8]>, time: Duration) {
        self.own.keep(key, value, time);
    }

    /// Keeps `value` for the others.
    pub(crate) async fn keep_shared(&self, key: &str, value: &[u8], time: Duration) {
        if let Some(shared) = &self.shared {
            shared.put(key, value, time).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: Rate = Rate { per_minute: 60, burst: 2 };

    /// What is lost to everyone.
    #[derive(Debug)]
    struct Gone;

    #[async_trait]
    impl Scratch for Gone {
        async fn take(&self, _: &str, _: Rate) -> Option<Admission> {
            None
        }
        async fn get(&self, _: &str) -> Option<Arc<[u8]>> {
            None
        }
        async fn put(&self, _: &str, _: &[u8], _: Duration) {}
    }

    async fn passed(scratches: &Scratches, calls: usize) -> usize {
        let mut passed = 0;
        for _ in 0..calls {
            passed += usize::from(scratches.take("k", TWO).await == Admission::Now);
        }
        passed
    }

    #[tokio::test(start_paused = true)]
    async fn two_that_share_have_one_count() {
        let shared: Arc<dyn Scratch> = Arc::new(MemoryScratch::new());
        let (one, other) = (Scratches::new(Some(Arc::clone(&shared))), Scratches::new(Some(shared)));
        assert_eq!((passed(&one, 1).await, passed(&other, 3).await, passed(&one, 1).await), (1, 1, 0));
    }

    #[tokio::test(start_paused = true)]
    async fn without_the_others_it_counts_by_itself() {
        let scratches = Scratches::new(Some(Arc::new(Gone)));
        assert_eq!(passed(&scratches, 5).await, 2);
        assert_eq!(passed(&Scratches::default(), 5).await, 2);
    }
}
