//! The one bridge from statements, built with sea-query, to the driver, and
//! from its errors to ours. No SQL text with values in it passes here.

use machina_core::{Error, Result, Timestamp};
use sea_query::{InsertStatement, Query, SqliteQueryBuilder, Value};
use sea_query_sqlx::{SqlxBinder, SqlxValues};
use sqlx::sqlite::SqliteRow;
use sqlx::{AssertSqlSafe, Decode, Row, Sqlite, SqliteConnection, Type};

use crate::record::columns_by;
pub(super) use crate::record::{get_json, get_parsed, get_revision, json, unreadable};

/// The columns of a row and their values.
pub(super) type Columns<const N: usize> = [(&'static str, Value); N];

fn build(statement: &impl SqlxBinder) -> (AssertSqlSafe<String>, SqlxValues) {
    let (sql, values) = statement.build_sqlx(SqliteQueryBuilder);
    (AssertSqlSafe(sql), values)
}

/// Runs `statement` and returns how many rows it changed.
pub(super) async fn execute(connection: &mut SqliteConnection, statement: &impl SqlxBinder) -> Result<u64> {
    let (sql, values) = build(statement);
    let done = sqlx::query_with(sql, values).execute(connection).await;
    Ok(done.map_err(database_error)?.rows_affected())
}

/// Every row that `statement` finds.
pub(super) async fn fetch(connection: &mut SqliteConnection, statement: &impl SqlxBinder) -> Result<Vec<SqliteRow>> {
    let (sql, values) = build(statement);
    sqlx::query_with(sql, values).fetch_all(connection).await.map_err(database_error)
}

/// The first row that `statement` finds.
pub(super) async fn fetch_first(
    connection: &mut SqliteConnection,
    statement: &impl SqlxBinder,
) -> Result<Option<SqliteRow>> {
    let (sql, values) = build(statement);
    sqlx::query_with(sql, values).fetch_optional(connection).await.map_err(database_error)
}

/// A statement that inserts one row.
pub(super) fn insert<const N: usize>(table: &'static str, columns: Columns<N>) -> InsertStatement {
    let mut statement = Query::insert();
    statement.into_table(table).columns(columns.each_ref().map(|(name, _)| *name));
    statement.values_panic(columns.map(|(_, value)| value.into()));
    statement
}

/// The value of a column.
pub(super) fn get<'r, T: Decode<'r, Sqlite> + Type<Sqlite>>(row: &'r SqliteRow, column: &str) -> Result<T> {
    row.try_get(column).map_err(database_error)
}

columns_by!(SqliteRow, get);

/// A time as text that sorts by time.
pub(super) fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}

/// What an error of the driver means here.
pub(super) fn database_error(error: sqlx::Error) -> Error {
    let Some(database) = error.as_database_error() else {
        return match error {
            sqlx::Error::PoolClosed => Error::unavailable("the store is closed"),
            sqlx::Error::PoolTimedOut => Error::unavailable("the store is busy: no connection became free in time"),
            other => Error::internal("the store failed").caused_by(other),
        };
    };
    let message = database.message();
    let code = database.code().and_then(|code| code.parse::<u32>().ok()).unwrap_or_default();
    let ours = match code & 0xff {
        // SQLITE_CONSTRAINT
        19 if database.is_unique_violation() || database.is_foreign_key_violation() => {
            Error::conflict(format!("the store refused the change: {message}"))
        }
        // SQLITE_BUSY, _LOCKED, _READONLY, _IOERR, _FULL, _CANTOPEN
        5 | 6 | 8 | 10 | 13 | 14 => Error::unavailable(format!("the store cannot be used now: {message}")),
        // SQLITE_NOTADB
        26 => Error::invalid("is not a SQLite database"),
        // SQLITE_CORRUPT and the rest
        _ => Error::internal(format!("the store failed: {message}")),
    };
    ours.caused_by(error)
}
