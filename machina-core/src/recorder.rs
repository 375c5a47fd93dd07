//! Writes journal entries off the hot path: a bounded queue, batches, and a
//! count of what had to be dropped. Audit entries do not pass through here: they
//! are committed with the change that they record. It refuses to wait for a slow
//! store at the cost of who records, and to give up entries that the store would
//! take later.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::{mpsc, watch};

use crate::clock;
use crate::config::JournalConfig;
use crate::core::Core;
use crate::error::{ErrorKind, Result};
use crate::store::{Entry, EntryKind, Journal, Retention};

/// How many entries are appended at once.
const BATCH_MAX: usize = 1000;

/// How long entries gather after a batch was written that was not full.
const GATHER: Duration = Duration::from_millis(50);

/// How long to wait before a batch is tried again for which the store was away:
/// at first, and at most.
const PAUSE_LEAST: Duration = Duration::from_millis(100);
const PAUSE_MOST: Duration = Duration::from_secs(5);

/// How often old entries are removed.
const TRIM_EVERY: Duration = Duration::from_secs(600);

/// How many samples an instance keeps, however many instances there are.
const SAMPLES_LEAST: u64 = 20;

impl JournalConfig {
    /// Which entries of a kind are kept at `now`, where there are so many instances.
    #[must_use]
    pub fn retention(&self, kind: EntryKind, instances: u64, now: Timestamp) -> Retention {
        let (keep, count_max) = match kind {
            EntryKind::Sample => (self.keep_samples, self.entries_max.min(self.samples_each(instances))),
            _ => (self.keep, self.entries_max),
        };
        Retention { before: now.checked_sub(keep).unwrap_or(Timestamp::MIN), count_max }
    }

    fn samples_each(&self, instances: u64) -> u64 {
        (self.samples_max / instances.max(1)).max(SAMPLES_LEAST)
    }
}

/// The end of the queue that entries go into.
#[derive(Debug)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Entry>,
    /// How many entries of one origin may be in the queue at once.
    share: usize,
    queued: AtomicU64,
    dropped: Arc<AtomicU64>,
    written: watch::Receiver<u64>,
}

/// The end of the queue that entries come out of.
#[derive(Debug)]
pub(crate) struct Queue {
    entries: mpsc::Receiver<Entry>,
    dropped: Arc<AtomicU64>,
    written: watch::Sender<u64>,
}

impl Recorder {
    /// A recorder, and the other end of its queue.
    pub(crate) fn new(config: &JournalConfig) -> (Self, Queue) {
        let (queue, entries) = mpsc::channel(config.queue_max as usize);
        let (written, progress) = watch::channel(0);
        let dropped = Arc::new(AtomicU64::new(0));
        let share = (config.queue_max as usize / 4).clamp(1, BATCH_MAX);
        let recorder =
            Self { queue, share, queued: AtomicU64::new(0), dropped: Arc::clone(&dropped), written: progress };
        (recorder, Queue { entries, dropped, written })
    }

    /// Queues an entry; drops and counts it when the queue is full.
    pub(crate) fn record(&self, entry: Entry) {
        let counter = if self.queue.try_send(entry).is_ok() { &self.queued } else { &*self.dropped };
        counter.fetch_add(1, Ordering::AcqRel);
    }

    /// Queues many entries, a part at a time, for as long as that takes: none is
    /// dropped, and what others record meanwhile finds room. Each is asked for when
    /// its turn has come.
    pub(crate) async fn record_all(&self, entries: impl IntoIterator<Item = Entry, IntoIter: Send> + Send) {
        for (place, entry) in entries.into_iter().enumerate() {
            if place % self.share == 0 {
                self.catch_up().await;
            }
            // The other end goes only after this one.
            if self.queue.send(entry).await.is_ok() {
                self.queued.fetch_add(1, Ordering::AcqRel);
            }
        }
        self.catch_up().await;
    }

    /// How many entries were dropped so far: for which the queue had no room, or
    /// which the journal does not take.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Queues the last entries, and waits until all have been written; at most `patience`.
    pub(crate) async fn finish(&self, entries: Vec<Entry>, patience: Duration) {
        if tokio::time::timeout(patience, self.record_all(entries)).await.is_err() {
            tracing::warn!("some journal entries were not written in time");
        }
    }

    /// Waits until what was queued by now has been written.
    async fn catch_up(&self) {
        let queued = self.queued.load(Ordering::Acquire);
        // It ends with an error when nothing will be written any more.
        let _ = self.written.clone().wait_for(|written| *written >= queued).await;
    }
}

/// Appends what is queued until the recorder is gone.
pub(crate) async fn write(mut queue: Queue, journal: Arc<dyn Journal>) {
    let mut batch = Vec::new();
    while queue.entries.recv_many(&mut batch, BATCH_MAX).await > 0 {
        let lost = append(&*journal, &batch).await;
        queue.dropped.fetch_add(lost, Ordering::AcqRel);
        queue.written.send_modify(|written| *written += batch.len() as u64);
        let more = batch.len() == BATCH_MAX;
        batch.clear();
        if !more {
            tokio::time::sleep(GATHER).await;
        }
    }
}

/// Appends a batch, in halves where the journal does not take all of it, so that
/// one bad entry costs no other; returns how many it did not take.
async fn append(journal: &dyn Journal, batch: &[Entry]) -> u64 {
    let (mut lost, mut parts) = (0, vec![batch]);
    while let Some(part) = parts.pop() {
        let Err(error) = append_patiently(journal, part).await else { continue };
        if let [entry] = part {
            tracing::error!(%error, kind = ?entry.what.kind(), "a journal entry was lost");
            lost += 1;
        } else {
            let (first, second) = part.split_at(part.len() / 2);
            parts.extend([second, first]);
        }
    }
    lost
}

/// Tries again for as long as the store is away: meanwhile the queue fills.
async fn append_patiently(journal: &dyn Journal, entries: &[Entry]) -> Result<()> {
    let mut pause = PAUSE_LEAST;
    loop {
        match journal.append(entries).await {
            Err(error) if is_away(error.kind()) => {
                if pause == PAUSE_LEAST {
                    tracing::warn!(%error, entries = entries.len(), "journal entries wait for the store");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSE_MOST);
            }
            appended => return appended,
        }
    }
}

const fn is_away(kind: ErrorKind) -> bool {
    use ErrorKind::{Lost, Overloaded, Timeout, Unavailable, Unreachable};
    matches!(kind, Unavailable | Unreachable | Timeout | Lost | Overloaded)
}

/// Removes old entries from time to time; runs until cancelled.
pub(crate) async fn trim(core: Arc<Core>) {
    loop {
        let instances: usize = core.view().services().map(|service| service.instances().count()).sum();
        for kind in EntryKind::ALL {
            let retention = core.config.journal.retention(*kind, instances as u64, clock::now());
            if let Err(error) = core.journal.trim(*kind, retention).await {
                tracing::error!(%error, ?kind, "old journal entries were not removed");
            }
        }
        tokio::time::sleep(TRIM_EVERY).await;
    }
}

#[cfg(test)]
#[path = "recorder_tests.rs"]
mod tests;
