//! Connections and the schema. It refuses files of other programs and schemas
//! that it does not know.

use std::path::Path;
use std::time::Duration;

use machina_core::{Error, ErrorKind, Result};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, SqliteConnection, SqlitePool};

use super::file::unusable;
use super::statement::database_error;
use crate::migrations;

/// What `PRAGMA application_id` says in a file of Machina: "MCHN".
const APPLICATION_ID: i64 = 0x4D43_484E;

/// How many snapshots may be read at once.
const READERS_MAX: u32 = 4;

/// Every migration, in order; the version is the number in the file's name.
const MIGRATIONS: [(i64, &str, &str); 7] = [
    (1, "initial", include_str!("../../migrations/0001_initial.sql")),
    (2, "groups and replies", include_str!("../../migrations/0002_groups_and_replies.sql")),
    (3, "leases and reasons", include_str!("../../migrations/0003_leases_and_reasons.sql")),
    (4, "alerts", include_str!("../../migrations/0004_alerts.sql")),
    (5, "rollups", include_str!("../../migrations/0005_rollups.sql")),
    (6, "journal indexes", include_str!("../../migrations/0006_journal_indexes.sql")),
    (7, "attempts", include_str!("../../migrations/0007_attempts.sql")),
];

/// How every connection to the file at `path` begins.
pub(super) fn options(path: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(path)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
        .disable_statement_logging()
}

/// Looks at the file without changing it.
pub(super) async fn inspect(path: &Path) -> Result<()> {
    let unreadable = |error| unreadable(path, error);
    let mut connection = options(path).connect().await.map_err(unreadable)?;
    let id = application_id(&mut connection).await.map_err(unreadable)?;
    let tables: i64 = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema")
        .fetch_one(&mut connection)
        .await
        .map_err(unreadable)?;
    connection.close().await.map_err(database_error)?;
    if id == APPLICATION_ID || (id == 0 && tables == 0) {
        Ok(())
    } else {
        Err(unusable(path, "is a database of another program"))
    }
}

async fn application_id(connection: &mut SqliteConnection) -> sqlx::Result<i64> {
    sqlx::query_scalar("PRAGMA application_id").fetch_one(connection).await
}

/// A connection to a store that is there already; it is not brought up to date.
pub(super) async fn existing(options: SqliteConnectOptions, path: &Path) -> Result<SqliteConnection> {
    let unreadable = |error| unreadable(path, error);
    let mut connection = options.connect().await.map_err(unreadable)?;
    if application_id(&mut connection).await.map_err(unreadable)? != APPLICATION_ID {
        return Err(unusable(path, "is no store of Machina"));
    }
    let latest = "SELECT max(version) FROM _sqlx_migrations";
    let schema: i64 = sqlx::query_scalar(latest).fetch_one(&mut connection).await.map_err(unreadable)?;
    if usize::try_from(schema).is_ok_and(|schema| schema > MIGRATIONS.len()) {
        return Err(migrations::too_new(&path.display().to_string(), schema, &MIGRATIONS));
    }
    Ok(connection)
}

/// Whatever is wrong at this point, the message names the file.
fn unreadable(path: &Path, error: sqlx::Error) -> Error {
    let error = database_error(error);
    if error.kind() == ErrorKind::Invalid {
        return unusable(path, error.message()).caused_by(error);
    }
    Error::new(error.kind(), format!("`{}` cannot be opened: {}", path.display(), error.message())).caused_by(error)
}

/// The one connection that writes.
///
/// `synchronous = FULL` syncs the log at every commit: with `NORMAL` a commit
/// that was acknowledged could be gone after a loss of power.
pub(super) async fn writer(path: &Path) -> Result<SqlitePool> {
    let options = options(path).journal_mode(SqliteJournalMode::Wal).synchronous(SqliteSynchronous::Full);
    pool(1).connect_with(options).await.map_err(database_error)
}

/// Connections that cannot write, made when needed.
pub(super) fn readers(path: &Path) -> SqlitePool {
    pool(READERS_MAX).connect_lazy_with(options(path).pragma("query_only", "on"))
}

fn pool(connections_max: u32) -> SqlitePoolOptions {
    SqlitePoolOptions::new()
        .max_connections(connections_max)
        .max_lifetime(None)
        .idle_timeout(None)
        .test_before_acquire(false)
}

/// Brings the schema up to date. The file is marked as ours before there is
/// anything in it, so that one whose making was interrupted is known again.
pub(super) async fn migrate(writer: &SqlitePool, path: &Path) -> Result<()> {
    let mark = AssertSqlSafe(format!("PRAGMA application_id = {APPLICATION_ID}"));
    sqlx::query(mark).execute(writer).await.map_err(database_error)?;
    let migrated = migrations::migrator(&MIGRATIONS).run(writer).await;
    migrations::settle(migrated, &path.display().to_string(), &MIGRATIONS, database_error)
}
