//! The one bridge from statements to the driver: values go as parameters, whole
//! tables of them as one JSON array, and come back by name. No SQL text with
//! values in it passes here.

use machina_core::{Result, Timestamp};
use sea_query::PostgresQueryBuilder;
use sea_query_sqlx::{SqlxBinder, SqlxValues};
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::{AssertSqlSafe, Decode, PgConnection, Postgres, Row as _, Type};

use super::error::database_error;
use crate::record::columns_by;
pub(super) use crate::record::{get_json, get_parsed, get_revision, json, revision_value, unreadable};

/// How long the JSON of the rows of one statement may be; a single row may be longer.
const ROWS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A column of time as text that [`get_parsed`] reads.
macro_rules! utc {
    ($column:literal) => {
        concat!("to_char(", $column, " AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
    };
}
pub(super) use utc;

/// Every row that a statement finds that was built with sea-query.
pub(super) async fn fetch(connection: &mut PgConnection, statement: &impl SqlxBinder) -> Result<Vec<PgRow>> {
    let (sql, values) = build(statement);
    sqlx::query_with(sql, values).fetch_all(connection).await.map_err(database_error)
}

fn build(statement: &impl SqlxBinder) -> (AssertSqlSafe<String>, SqlxValues) {
    let (sql, values) = statement.build_sqlx(PostgresQueryBuilder);
    (AssertSqlSafe(sql), values)
}

/// Every row that `sql` finds.
pub(super) async fn fetch_all(connection: &mut PgConnection, sql: &'static str) -> Result<Vec<PgRow>> {
    sqlx::query(sql).fetch_all(connection).await.map_err(database_error)
}

/// Every row that `sql` finds whose one parameter is a list of texts.
pub(super) async fn fetch_listed(
    connection: &mut PgConnection,
    sql: &'static str,
    list: &[String],
) -> Result<Vec<PgRow>> {
    sqlx::query(sql).bind(list).fetch_all(connection).await.map_err(database_error)
}

/// Runs `sql` whose one parameter is a list of texts.
pub(super) async fn execute_listed(connection: &mut PgConnection, sql: &'static str, list: &[String]) -> Result<()> {
    sqlx::query(sql).bind(list).execute(connection).await.map_err(database_error).map(drop)
}

/// Rows as JSON arrays, each for one statement.
pub(super) struct Rows(Vec<String>);

/// Makes rows of records.
pub(super) fn as_rows<R: Serialize>(records: impl IntoIterator<Item = Result<R>>) -> Result<Rows> {
    let mut arrays: Vec<String> = Vec::new();
    for record in records {
        let row = without_nul(json(&record?)?);
        match arrays.last_mut().filter(|array| array.len() + row.len() <= ROWS_BYTES_MAX) {
            Some(array) => {
                array.push(',');
                array.push_str(&row);
            }
            None => arrays.push(format!("[{row}")),
        }
    }
    arrays.iter_mut().for_each(|array| array.push(']'));
    Ok(Rows(arrays))
}

/// Runs `sql`, whose one parameter is a JSON array of rows, as often as it takes
/// for all of `rows`; what it returns.
pub(super) async fn with_rows(connection: &mut PgConnection, sql: &'static str, rows: Rows) -> Result<Vec<PgRow>> {
    let mut found = Vec::new();
    for array in rows.0 {
        found.extend(sqlx::query(sql).bind(array).fetch_all(&mut *connection).await.map_err(database_error)?);
    }
    Ok(found)
}

/// JSON text with U+FFFD in the place of NUL, which no text of PostgreSQL can hold.
/// JSON within a string of it keeps its own.
fn without_nul(json: String) -> String {
    const NUL: &str = "\\u0000";
    if !json.contains(NUL) {
        return json;
    }
    let mut clean = String::with_capacity(json.len());
    let mut rest = json.as_str();
    while let Some(at) = rest.find('\\') {
        // An escape is two bytes long, or six; both begin and end with characters of ASCII.
        let (before, escape) = rest.split_at(at);
        clean.push_str(before);
        let end = if escape.starts_with(NUL) { NUL.len() } else { 2 };
        clean.push_str(if end == 2 { &escape[..2] } else { "\\ufffd" });
        rest = &escape[end..];
    }
    clean.push_str(rest);
    clean
}

/// The value of a column.
pub(super) fn get<'r, T: Decode<'r, Postgres> + Type<Postgres>>(row: &'r PgRow, column: &str) -> Result<T> {
    row.try_get(column).map_err(database_error)
}

columns_by!(PgRow, get);

/// A time as PostgreSQL and JSON take it.
pub(super) fn time(at: Timestamp) -> String {
    format!("{at:.6}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nul_goes_from_texts_and_stays_in_json_within_them() {
        let inner = json(&"a\0b").unwrap();
        let outer = json(&["a\0b\\u0000\"\0", &inner, "\\"]).unwrap();
        let read: Vec<String> = serde_json::from_str(&without_nul(outer)).unwrap();
        assert_eq!(read, ["a\u{fffd}b\\u0000\"\u{fffd}", &inner, "\\"]);
    }
}
