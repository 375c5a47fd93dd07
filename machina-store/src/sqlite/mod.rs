//! The embedded store: one SQLite file, one process, one writer.
//!
//! Commits are serialised by a pool of one connection; readers have their own
//! and see a snapshot. The tables are made for people with `sqlite3` as much as
//! for Machina. It refuses to share the file with a second process.

mod backup;
mod commit;
mod configs;
mod connect;
mod definitions;
mod file;
mod groups;
mod journal;
mod load;
mod replies;
mod statement;
mod trim;

use std::future;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use machina_core::{
    Batch, Begun, ChangeLog, Changes, Claim, Entry, EntryKind, ErrorKind, Image, InstanceId, Journal, JournalPage,
    JournalQuery, Keep, Remembered, Replies, Reply, ReplyKey, Result, Retention, Revision, Store, Timestamp,
};
use sqlx::pool::PoolConnection;
use sqlx::{Sqlite, SqlitePool};

pub(crate) use self::backup::snapshot;
pub use self::backup::{Backup, Content, Restored, backup, restore};
use self::file::FileLock;
use self::statement::database_error;
use crate::remembered::Limits;

/// A SQLite file.
#[derive(Debug)]
pub(crate) struct SqliteStore {
    writer: SqlitePool,
    readers: SqlitePool,
    log: Mutex<ChangeLog>,
    lock: Mutex<Option<FileLock>>,
    /// Tells this opening of the file from those before it.
    run: String,
    reply_limits: Limits,
}

impl SqliteStore {
    /// Opens the file at `path`, or makes it.
    pub(crate) async fn open(path: &Path) -> Result<Self> {
        let (path, lock) = file::prepare(path)?;
        connect::inspect(&path).await?;
        let writer = connect::writer(&path).await?;
        connect::migrate(&writer, &path).await?;
        let readers = connect::readers(&path);
        let revision = load::revision(&mut *acquire(&writer).await?).await?;
        let log = ChangeLog::new(revision, ChangeLog::CHANGES_MAX);
        tracing::debug!(path = %path.display(), %revision, "opened the store");
        let (log, lock) = (Mutex::new(log), Mutex::new(Some(lock)));
        let run = InstanceId::generate().to_string();
        Ok(Self { writer, readers, log, lock, run, reply_limits: Limits::default() })
    }
}

async fn acquire(pool: &SqlitePool) -> Result<PoolConnection<Sqlite>> {
    pool.acquire().await.map_err(database_error)
}

/// Passes on what came of a transaction. After a failure that is no conflict,
/// the connection is not used again: SQLite may have rolled back by itself (when
/// the disk is full), and the driver would wait for an end that has been.
fn settle<T>(mut connection: PoolConnection<Sqlite>, result: Result<T>) -> Result<T> {
    if result.as_ref().is_err_and(|error| error.kind() != ErrorKind::Conflict) {
        connection.close_on_drop();
    }
    result
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for SqliteStore {
    async fn load(&self) -> Result<Image> {
        let mut connection = acquire(&self.readers).await?;
        let image = load::load(&mut connection).await;
        settle(connection, image)
    }

    /// The log is written while the connection is held, so in the order of the commits.
    async fn commit(&self, batch: &Batch) -> Result<Revision> {
        let mut connection = acquire(&self.writer).await?;
        let committed = commit::commit(&mut connection, batch).await.map(|(revision, changes)| {
            self.log.lock().unwrap_or_else(PoisonError::into_inner).record(revision, changes);
            revision
        });
        settle(connection, committed)
    }

    /// A commit whose caller went away before the log was written is in the
    /// file and not in the log: then the answer is to reload.
    async fn changes(&self, after: Revision) -> Result<Changes> {
        let (latest, changes) = {
            let log = self.log.lock().unwrap_or_else(PoisonError::into_inner);
            (log.latest(), log.after(after))
        };
        let mut connection = acquire(&self.readers).await?;
        let committed = load::revision(&mut connection).await;
        let committed = settle(connection, committed)?;
        Ok(if committed == latest { changes } else { Changes::Reload })
    }

    /// No one else can commit to this file.
    async fn changed(&self) -> Result<()> {
        future::pending().await
    }

    async fn close(&self) -> Result<()> {
        self.readers.close().await;
        self.writer.close().await;
        self.lock.lock().unwrap_or_else(PoisonError::into_inner).take();
        Ok(())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Journal for SqliteStore {
    async fn append(&self, entries: &[Entry]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut connection = acquire(&self.writer).await?;
        let appended = journal::append(&mut connection, entries).await;
        settle(connection, appended)
    }

    async fn read(&self, query: &JournalQuery) -> Result<JournalPage> {
        let mut connection = acquire(&self.readers).await?;
        let page = journal::read(&mut connection, query).await;
        settle(connection, page)
    }

    async fn trim(&self, kind: EntryKind, retention: Retention) -> Result<u64> {
        trim::trim(&self.writer, &self.readers, kind, retention).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Replies for SqliteStore {
    async fn begin(&self, claim: &Claim) -> Result<Begun> {
        let mut connection = acquire(&self.writer).await?;
        let begun = replies::begin(&mut connection, claim, &self.run, self.reply_limits).await;
        settle(connection, begun)
    }

    async fn finish(&self, key: &ReplyKey, reply: &Reply, keep: Keep) -> Result<()> {
        let mut connection = acquire(&self.writer).await?;
        let finished = replies::finish(&mut connection, key, reply, keep, self.reply_limits).await;
        settle(connection, finished)
    }

    async fn forget(&self, key: &ReplyKey) -> Result<()> {
        let mut connection = acquire(&self.writer).await?;
        let forgotten = replies::forget(&mut connection, key).await;
        settle(connection, forgotten)
    }

    async fn trim(&self, now: Timestamp) -> Result<u64> {
        let mut connection = acquire(&self.writer).await?;
        let gone = replies::trim(&mut connection, now).await;
        settle(connection, gone)
    }

    async fn list(&self, after: Option<&ReplyKey>, limit: u32) -> Result<Vec<Remembered>> {
        let mut connection = acquire(&self.readers).await?;
        let listed = replies::list(&mut connection, after, limit, &self.run).await;
        settle(connection, listed)
    }
}

#[cfg(test)]
mod replies_tests;
#[cfg(test)]
mod tests;
