//! Writes journal entries off the hot path: a bounded queue, batches, and a
//! count of what had to be dropped. Audit entries do not pass through here: they
//! are committed with the change that they record.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use crate::clock;
use crate::config::JournalConfig;
use crate::store::{Entry, EntryKind, Journal, Retention};

/// How many entries are appended at once.
const BATCH_MAX: usize = 500;

/// How long entries gather after a batch was written.
const GATHER: Duration = Duration::from_millis(50);

/// How often old entries are removed.
const TRIM_EVERY: Duration = Duration::from_secs(600);

/// The end of the queue that entries go into.
#[derive(Debug)]
pub(crate) struct Recorder {
    queue: mpsc::Sender<Entry>,
    queued: AtomicU64,
    dropped: AtomicU64,
    written: watch::Receiver<u64>,
}

/// The end of the queue that entries come out of.
#[derive(Debug)]
pub(crate) struct Queue {
    entries: mpsc::Receiver<Entry>,
    written: watch::Sender<u64>,
}

impl Recorder {
    /// A recorder, and the other end of its queue.
    pub(crate) fn new(config: &JournalConfig) -> (Self, Queue) {
        let (queue, entries) = mpsc::channel(config.queue_max as usize);
        let (written, progress) = watch::channel(0);
        let (queued, dropped) = (AtomicU64::new(0), AtomicU64::new(0));
        (Self { queue, queued, dropped, written: progress }, Queue { entries, written })
    }

    /// Queues an entry; drops and counts it when the queue is full.
    pub(crate) fn record(&self, entry: Entry) {
        let counter = if self.queue.try_send(entry).is_ok() { &self.queued } else { &self.dropped };
        counter.fetch_add(1, Ordering::AcqRel);
    }

    /// How many entries were dropped so far.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Waits until what was queued by now has been written, at most `patience`.
    pub(crate) async fn flush(&self, patience: Duration) {
        let queued = self.queued.load(Ordering::Acquire);
        let mut written = self.written.clone();
        if tokio::time::timeout(patience, written.wait_for(|written| *written >= queued)).await.is_err() {
            tracing::warn!("some journal entries were not written in time");
        }
    }
}

/// Appends what is queued until the recorder is gone.
pub(crate) async fn write(mut queue: Queue, journal: Arc<dyn Journal>) {
    let mut batch = Vec::new();
    while queue.entries.recv_many(&mut batch, BATCH_MAX).await > 0 {
        if let Err(error) = journal.append(&batch).await {
            tracing::error!(%error, entries = batch.len(), "journal entries were lost");
        }
        queue.written.send_modify(|written| *written += batch.len() as u64);
        batch.clear();
        tokio::time::sleep(GATHER).await;
    }
}

/// Removes old entries from time to time; runs until cancelled.
pub(crate) async fn trim(journal: Arc<dyn Journal>, config: JournalConfig) {
    loop {
        for kind in EntryKind::ALL {
            let keep = if *kind == EntryKind::Sample { config.keep_samples } else { config.keep };
            let before = clock::now().checked_sub(keep).unwrap_or(jiff::Timestamp::MIN);
            let retention = Retention { before, count_max: config.entries_max };
            if let Err(error) = journal.trim(*kind, retention).await {
                tracing::error!(%error, ?kind, "old journal entries were not removed");
            }
        }
        tokio::time::sleep(TRIM_EVERY).await;
    }
}
