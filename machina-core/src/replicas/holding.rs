//! Renews the leases of this process, and has the instances watched that it looks
//! after: taken over without a herd, given up without a gap.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{Instant, timeout};

use super::{Replicas, Shared};
use crate::core::Core;
use crate::error::{Error, Result};
use crate::health::Command;
use crate::shards::{ShardLease, shard_of};

/// After a lease of another replica should have run out, everyone waits up to so
/// much longer before looking, so that not all of them look at once.
const SPREAD: Duration = Duration::from_millis(250);

/// What the loop has done so far.
#[derive(Debug, Default)]
struct Progress {
    /// The shards whose instances are watched.
    watched: BTreeSet<ShardLease>,
    /// The shards that were held when the store last answered.
    held: BTreeSet<ShardLease>,
    /// The leases were renewed at least once.
    begun: bool,
}

impl Core {
    /// Holds this process's share of the shards; runs until cancelled. Where the
    /// store is not shared there is nothing to hold.
    pub(crate) async fn hold_shards(self: Arc<Self>) {
        let Some(shared) = &self.replicas.shared else { return };
        let mut progress = Progress::default();
        self.watch_all(|instance| self.replicas.is_own(instance)).await;
        loop {
            let wait = match self.renew(shared, &mut progress).await {
                Ok(wait) => {
                    if !std::mem::replace(&mut progress.begun, true) && self.replicas.is_alone() {
                        let core = Arc::clone(&self);
                        let words = async move { core.recorder.record_all(core.first_words()).await };
                        self.tasks.spawn("say what is known", words);
                    }
                    wait
                }
                Err(error) => {
                    tracing::warn!(%error, "the leases of this replica were not renewed");
                    self.stop_in_time(shared, &mut progress).await;
                    self.config.replicas.retry_after()
                }
            };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = shared.doubted.notified() => {}
            }
        }
    }

    /// Renews once; returns when to do so again.
    async fn renew(&self, shared: &Shared, progress: &mut Progress) -> Result<Duration> {
        let settings = &self.config.replicas;
        let (begun, ttl) = (Instant::now(), settings.lease_ttl);
        let asked = timeout(settings.patience(), shared.leases.hold(shared.id, ttl)).await;
        let held = asked.unwrap_or_else(|_| Err(Error::unavailable("the store did not answer in time")))?;
        let now: BTreeSet<ShardLease> = held.shards.iter().copied().collect();
        let gained = now.difference(&progress.watched).next().is_some();
        let lost: BTreeSet<ShardLease> = progress.held.difference(&now).copied().collect();
        if gained || !lost.is_empty() {
            // What the one before wrote counts for whoever comes after.
            self.read_on().await?;
        }
        // The answer may have come too late.
        self.stop_in_time(shared, progress).await;
        if !lost.is_empty() {
            // Of what was lost nothing counts, also where it was claimed anew already.
            let kept: Vec<ShardLease> = now.intersection(&progress.held).copied().collect();
            shared.renewed(&held, &kept, begun, ttl);
            self.give_up(&lost).await;
        }
        shared.renewed(&held, &held.shards, begun, ttl);
        progress.watched.retain(|lease| now.contains(lease));
        self.take_over(&now, &mut progress.watched).await;
        progress.held = now;
        let wait = held.next_expiry.map(|expiry| expiry + SPREAD.mul_f64(self.random.unit()));
        Ok(wait.map_or(settings.renew_interval, |wait| wait.min(settings.renew_interval)))
    }

    /// Watches nothing any more when the leases have not been renewed for too long.
    async fn stop_in_time(&self, shared: &Shared, progress: &mut Progress) {
        if shared.lease_lapsed() && !progress.watched.is_empty() {
            tracing::warn!("nothing is looked after from here until the leases can be renewed");
            progress.watched.clear();
            self.unwatch(|_| true).await;
        }
    }

    async fn unwatch(&self, of: impl Fn(u16) -> bool) {
        let view = self.view();
        for (instance, _) in view.services().flat_map(|service| service.instances()) {
            if of(shard_of(instance.id)) && !self.replicas.is_own(instance.id) {
                self.monitor.tell(Command::Unwatch(instance.id)).await;
                self.guard.forget(instance.id);
            }
        }
    }

    /// Leaves the instances of shards alone that another has, or had, or soon will.
    async fn give_up(&self, lost: &BTreeSet<ShardLease>) {
        let gone: BTreeSet<u16> = lost.iter().map(|lease| lease.shard).collect();
        tracing::info!(shards = gone.len(), "other replicas look after these shards from now on");
        self.unwatch(|shard| gone.contains(&shard)).await;
        self.forget_unshared(&gone);
    }

    /// Watches the instances of shards that were not watched so far.
    async fn take_over(&self, now: &BTreeSet<ShardLease>, watched: &mut BTreeSet<ShardLease>) {
        let new: BTreeSet<u16> = now.difference(watched).map(|lease| lease.shard).collect();
        if new.is_empty() {
            return;
        }
        tracing::info!(shards = new.len(), "this replica looks after these shards from now on");
        self.watch_all(|instance| new.contains(&shard_of(instance)) && !self.replicas.is_own(instance)).await;
        watched.clone_from(now);
    }

    /// Tells the others what they do not know yet and lets go of everything: they
    /// go on at once.
    pub(crate) async fn retire(&self) {
        let Some(shared) = &self.replicas.shared else { return };
        let patience = self.config.replicas.patience();
        let told = timeout(patience, self.tell_others()).await;
        // Who joined since the last renewal goes on, and is to be known of.
        if let Ok(Ok(held)) = timeout(patience, shared.leases.hold(shared.id, self.config.replicas.lease_ttl)).await {
            shared.count.store(held.replicas, Ordering::Relaxed);
        }
        let released = timeout(patience, shared.leases.release(shared.id)).await;
        if told.is_err() || !matches!(released, Ok(Ok(()))) {
            tracing::warn!("the other replicas were not told that this one ends: they will notice");
        }
    }
}

impl Shared {
    fn lease_lapsed(&self) -> bool {
        Instant::now() >= self.held.load().until
    }
}

impl Replicas {
    /// How many shards are held now, how many replicas there were last, and how
    /// many writes were refused because a lease was gone.
    pub(super) fn counts(&self) -> Option<(u32, u32, u64)> {
        let shared = self.shared.as_ref()?;
        let held = shared.held.load();
        let shards = held.epochs.iter().flatten().count();
        let shards = if shared.lease_lapsed() { 0 } else { u32::try_from(shards).unwrap_or(u32::MAX) };
        Some((shards, shared.count.load(Ordering::Relaxed), shared.refused.load(Ordering::Relaxed)))
    }
}
