//! The store for several replicas: one PostgreSQL database, any number of
//! processes. Commits follow each other by one row of counters; what was committed
//! is read back by revision, and announcements only wake. It trusts no clock but
//! the server's, and shows no password.

mod address;
mod commit;
mod configs;
mod connect;
mod definitions;
mod error;
mod groups;
mod health;
mod hints;
mod journal;
mod leases;
mod listen;
mod load;
mod migrate;
mod replies;
mod services;
mod statement;
mod tail;
mod trim;
mod version;

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use machina_core::{
    Batch, Begun, Changes, Claim, Entry, EntryKind, Error, ErrorKind, Held, Image, InstanceId, Journal, JournalPage,
    JournalQuery, Keep, Leases, Remembered, ReplicaId, Replies, Reply, ReplyKey, Result, Retention, Revision, Store,
    Timestamp,
};
use sqlx::pool::PoolConnection;
use sqlx::{Connection, PgPool, Postgres};

pub(crate) use self::address::PostgresAddress;
use self::commit::{Ending, Writer};
use self::error::{database_error, within};
use self::listen::Wakes;
use crate::remembered::Limits;

/// How long more than the server's own limit an answer is waited for.
const GRACE: Duration = Duration::from_secs(5);

/// How long all of an image, or a trim, may take.
const LONG: Duration = Duration::from_secs(300);

/// A PostgreSQL database.
#[derive(Debug)]
pub(crate) struct PostgresStore {
    pool: PgPool,
    wakes: Wakes,
    /// How long a piece of work may take before its connection is given up.
    patience: Duration,
    /// Which content was loaded last.
    generation: Mutex<String>,
    /// Tells this opening of the database from others.
    run: String,
    reply_limits: Limits,
}

impl PostgresStore {
    /// Opens the database at `address`, and makes its tables if they are not there.
    pub(crate) async fn open(address: &PostgresAddress) -> Result<Self> {
        let mut connection = connect::first(address).await?;
        migrate::migrate(&mut connection, address).await?;
        let generation = load::generation(&mut connection).await?;
        connection.close().await.map_err(database_error)?;
        tracing::debug!(place = address.place(), "opened the store");
        let run = InstanceId::generate().to_string();
        Ok(Self {
            pool: connect::pool(address),
            wakes: Wakes::new(connect::listening(address), run.clone()),
            patience: address.statement_timeout + GRACE,
            generation: Mutex::new(generation),
            run,
            reply_limits: Limits::default(),
        })
    }

    /// Checks that the tables are there, without making them.
    pub(crate) async fn check_made(address: &PostgresAddress) -> Result<()> {
        let mut connection = connect::first(address).await?;
        if !migrate::is_made(&mut connection).await? {
            return Err(Error::invalid_field("store", format!("`{}` is no store of Machina", address.place())));
        }
        connection.close().await.map_err(database_error)
    }

    async fn acquire(&self) -> Result<PoolConnection<Postgres>> {
        self.pool.acquire().await.map_err(database_error)
    }

    fn generation(&self) -> String {
        self.generation.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Finds out what came of a batch when its end was asked for and no answer came.
    async fn settle_ending(&self, ending: &Ending, lost: Error) -> Result<Revision> {
        let asked = async {
            let mut connection = self.acquire().await?;
            let outcome = commit::outcome(&mut connection, ending).await;
            settle(connection, outcome)
        };
        match within(self.patience, asked).await {
            Ok(Some(true)) => Ok(ending.revision),
            Ok(Some(false)) => Err(Error::unavailable(format!("nothing was changed: {}", lost.message()))),
            Ok(None) | Err(_) => Err(Error::unavailable(format!(
                "it is not known whether revision {} was committed: {}",
                ending.revision,
                lost.message()
            ))),
        }
    }
}

/// Passes on what came of the use of a connection. After a failure that is no
/// conflict the connection is not used again: nobody knows how far it came.
fn settle<T>(mut connection: PoolConnection<Postgres>, result: Result<T>) -> Result<T> {
    if result.as_ref().is_err_and(|error| error.kind() != ErrorKind::Conflict) {
        connection.close_on_drop();
    }
    result
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for PostgresStore {
    async fn load(&self) -> Result<Image> {
        let mut connection = self.acquire().await?;
        let loaded = within(LONG, load::load(&mut connection)).await;
        let (image, generation) = settle(connection, loaded)?;
        *self.generation.lock().unwrap_or_else(PoisonError::into_inner) = generation;
        Ok(image)
    }

    async fn commit(&self, batch: &Batch) -> Result<Revision> {
        let generation = self.generation();
        let writer = Writer { run: &self.run, generation: &generation };
        let mut ending = None;
        let mut connection = self.acquire().await?;
        let committed = within(self.patience, commit::commit(&mut connection, batch, writer, &mut ending)).await;
        match (settle(connection, committed), ending) {
            (Err(lost), Some(ending)) => self.settle_ending(&ending, lost).await,
            (committed, _) => committed,
        }
    }

    async fn changes(&self, after: Revision) -> Result<Changes> {
        let generation = self.generation();
        let mut connection = self.acquire().await?;
        let changes = within(self.patience, tail::read(&mut connection, after, &generation)).await;
        settle(connection, changes)
    }

    async fn changed(&self) -> Result<()> {
        self.wakes.changed().await
    }

    async fn close(&self) -> Result<()> {
        self.wakes.close().await;
        self.pool.close().await;
        Ok(())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Journal for PostgresStore {
    async fn append(&self, entries: &[Entry]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut connection = self.acquire().await?;
        let appended = within(self.patience, journal::append(&mut connection, entries)).await;
        settle(connection, appended)
    }

    async fn read(&self, query: &JournalQuery) -> Result<JournalPage> {
        let mut connection = self.acquire().await?;
        let page = within(self.patience, journal::read(&mut connection, query)).await;
        settle(connection, page)
    }

    async fn trim(&self, kind: EntryKind, retention: Retention) -> Result<u64> {
        let mut connection = self.acquire().await?;
        let gone = within(LONG, trim::trim(&mut connection, kind, retention)).await;
        settle(connection, gone)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Replies for PostgresStore {
    async fn begin(&self, claim: &Claim) -> Result<Begun> {
        let mut connection = self.acquire().await?;
        let begun = within(self.patience, replies::begin(&mut connection, claim, &self.run, self.reply_limits)).await;
        settle(connection, begun)
    }

    async fn finish(&self, key: &ReplyKey, reply: &Reply, keep: Keep) -> Result<()> {
        let mut connection = self.acquire().await?;
        let finished =
            within(self.patience, replies::finish(&mut connection, key, reply, keep, self.reply_limits)).await;
        settle(connection, finished)
    }

    async fn forget(&self, key: &ReplyKey) -> Result<()> {
        let mut connection = self.acquire().await?;
        let forgotten = within(self.patience, replies::forget(&mut connection, key)).await;
        settle(connection, forgotten)
    }

    async fn trim(&self, now: Timestamp) -> Result<u64> {
        let mut connection = self.acquire().await?;
        let gone = within(self.patience, replies::trim(&mut connection, now)).await;
        settle(connection, gone)
    }

    async fn list(&self, after: Option<&ReplyKey>, limit: u32) -> Result<Vec<Remembered>> {
        let mut connection = self.acquire().await?;
        let listed = within(self.patience, replies::list(&mut connection, after, limit, &self.run)).await;
        settle(connection, listed)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Leases for PostgresStore {
    async fn hold(&self, replica: ReplicaId, ttl: Duration) -> Result<Held> {
        let mut connection = self.acquire().await?;
        let held = within(self.patience, leases::hold(&mut connection, replica, &self.run, ttl)).await;
        settle(connection, held)
    }

    async fn release(&self, replica: ReplicaId) -> Result<()> {
        let mut connection = self.acquire().await?;
        let released = within(self.patience, leases::release(&mut connection, replica)).await;
        settle(connection, released)
    }

    async fn hint(&self, instances: &[InstanceId]) -> Result<()> {
        let mut connection = self.acquire().await?;
        let hinted = within(self.patience, hints::give(&mut connection, instances)).await;
        settle(connection, hinted)
    }

    async fn hinted(&self) -> Result<Vec<InstanceId>> {
        Ok(self.wakes.hinted().await)
    }
}
