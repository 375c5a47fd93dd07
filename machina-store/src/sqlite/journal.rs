//! The journal: appended to and read newest first; never changed.

use machina_core::{Entry, EntryKind, Error, JournalPage, JournalQuery, Result, What};
use sea_query::{Asterisk, Expr, ExprTrait, Order, Query, SelectStatement};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, SqliteConnection};

use super::statement::{database_error, fetch, get, get_json, get_parsed, json, time, unreadable};
use crate::places::{self, place};

/// Appends entries, all or none.
pub(super) async fn append(connection: &mut SqliteConnection, entries: &[Entry]) -> Result<()> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(database_error)?;
    insert(&mut transaction, entries).await?;
    transaction.commit().await.map_err(database_error)
}

/// Appends entries within a transaction: those of one table by one statement,
/// because a busy router writes thousands a second.
pub(super) async fn insert(connection: &mut SqliteConnection, entries: &[Entry]) -> Result<()> {
    let mut rows: [Vec<Value>; INSERTIONS.len()] = Default::default();
    for entry in entries {
        let (table, row) = row(entry)?;
        rows[table as usize].push(row);
    }
    for (rows, statement) in rows.iter().zip(INSERTIONS).filter(|(rows, _)| !rows.is_empty()) {
        let done = sqlx::query(statement).bind(json(rows)?).execute(&mut *connection).await;
        done.map_err(database_error)?;
    }
    Ok(())
}

/// The tables that entries go into.
#[derive(Clone, Copy)]
enum Table {
    HealthChecks,
    Calls,
    Audit,
    Alerts,
    HealthRollups,
}

/// The statement that inserts rows into each [`Table`], given as a JSON array of arrays.
const INSERTIONS: [&str; 5] = [
    "INSERT INTO health_checks (service, instance_id, checked_at, kind, status, state_before, reason, \
         response_time_ms, error_message) \
     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, \
         value ->> 8 FROM json_each(?1) ORDER BY key",
    "INSERT INTO calls (service, instance_id, executed_at, tool, principal, duration_ms, attempts, success, error, \
         tried, arguments) \
     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6, value ->> 7, \
         value ->> 8, value ->> 9, value ->> 10 FROM json_each(?1) ORDER BY key",
    "INSERT INTO audit (service, instance_id, at, principal, action, detail) \
     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 FROM json_each(?1) ORDER BY key",
    "INSERT INTO alerts (service, instance_id, at, channel, message, alert) \
     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5 FROM json_each(?1) ORDER BY key",
    "INSERT INTO health_rollups (service, instance_id, until, since, passes, failures, durations) \
     SELECT value ->> 0, value ->> 1, value ->> 2, value ->> 3, value ->> 4, value ->> 5, value ->> 6 \
     FROM json_each(?1) ORDER BY key",
];

/// The table that an entry goes into, and its columns.
fn row(entry: &Entry) -> Result<(Table, Value)> {
    let (service, instance, at) = (&entry.service, &entry.instance, time(entry.at));
    Ok(match &entry.what {
        What::Transition { from, to, reason } => {
            (Table::HealthChecks, json!([service, instance, at, "transition", to, from, reason, null, null]))
        }
        What::Sample { outcome, response_time_ms, error } => (
            Table::HealthChecks,
            json!([service, instance, at, "sample", outcome, null, null, response_time_ms, error]),
        ),
        What::Rollup { since, passes, failures, durations } => {
            (Table::HealthRollups, json!([service, instance, at, time(*since), passes, failures, json(durations)?]))
        }
        What::Call { tool, principal, duration_ms, attempts, success, error, tried, arguments } => {
            let arguments = arguments.as_ref().map(json).transpose()?;
            let tried = json(tried)?;
            let row = json!([
                service,
                instance,
                at,
                tool,
                principal,
                duration_ms,
                attempts,
                success,
                error,
                tried,
                arguments
            ]);
            (Table::Calls, row)
        }
        What::Alert { channel, message, alert } => {
            (Table::Alerts, json!([service, instance, at, channel, message, json(alert)?]))
        }
        // As text: what is read from a nested value by position would be JSON again.
        What::Audit { principal, action, detail } => {
            (Table::Audit, json!([service, instance, at, principal, action, json(detail)?]))
        }
        _ => return Err(Error::unsupported("this store does not know this kind of journal entry")),
    })
}

/// Reads one page.
pub(super) async fn read(connection: &mut SqliteConnection, query: &JournalQuery) -> Result<JournalPage> {
    let rows = fetch(connection, &selection(query)).await?;
    places::page(rows, query.limit, |row| entry(query.kind, row))
}

/// One row more than asked for tells whether there are more.
fn selection(query: &JournalQuery) -> SelectStatement {
    let place = place(query.kind);
    let conditions = [
        place.is_here(),
        query.service.as_ref().map(|name| Expr::col("service").eq(name.as_str())),
        query.instance.map(|id| Expr::col("instance_id").eq(id.to_string())),
        query.since.map(|since| Expr::col(place.at).gte(time(since))),
        query.before.map(|before| Expr::col("id").lt(before)),
    ];
    let mut select = Query::select();
    select.column(Asterisk).from(place.table).order_by("id", Order::Desc).limit(u64::from(query.limit) + 1);
    for condition in conditions.into_iter().flatten() {
        select.and_where(condition);
    }
    select
}

fn entry(kind: EntryKind, row: &SqliteRow) -> Result<Entry> {
    let what = match kind {
        EntryKind::Transition => {
            What::Transition { from: get(row, "state_before")?, to: get(row, "status")?, reason: get(row, "reason")? }
        }
        EntryKind::Sample => What::Sample {
            outcome: get(row, "status")?,
            response_time_ms: get(row, "response_time_ms")?,
            error: get(row, "error_message")?,
        },
        EntryKind::Rollup => What::Rollup {
            since: get_parsed(row, "since")?,
            passes: count(row, "passes")?,
            failures: count(row, "failures")?,
            durations: get_json(row, "durations")?,
        },
        EntryKind::Call => What::Call {
            tool: get(row, "tool")?,
            principal: get(row, "principal")?,
            duration_ms: get(row, "duration_ms")?,
            attempts: get(row, "attempts")?,
            success: get(row, "success")?,
            error: get(row, "error")?,
            tried: get_json(row, "tried")?,
            arguments: get::<Option<&str>>(row, "arguments")?.map(|_| get_json(row, "arguments")).transpose()?,
        },
        EntryKind::Alert => What::Alert {
            channel: get(row, "channel")?,
            message: serde_json::from_value(get::<&str>(row, "message")?.into())
                .map_err(|error| unreadable("message", error))?,
            alert: get_json(row, "alert")?,
        },
        EntryKind::Audit => What::Audit {
            principal: get(row, "principal")?,
            action: get(row, "action")?,
            detail: get_json(row, "detail")?,
        },
    };
    let service = get::<Option<&str>>(row, "service")?.map(str::parse).transpose();
    let instance = get::<Option<&str>>(row, "instance_id")?.map(str::parse).transpose();
    Ok(Entry {
        at: get_parsed(row, place(kind).at)?,
        service: service.map_err(|error| unreadable("service", error))?,
        instance: instance.map_err(|error| unreadable("instance_id", error))?,
        what,
    })
}

fn count(row: &SqliteRow, column: &str) -> Result<u64> {
    let count: i64 = get(row, column)?;
    u64::try_from(count).map_err(|error| unreadable(column, error))
}

#[cfg(test)]
mod tests {
    use machina_core::{InstanceId, Timestamp};
    use sea_query::SqliteQueryBuilder;
    use sqlx::{AssertSqlSafe, Row};

    use super::super::SqliteStore;
    use super::*;

    /// How SQLite goes about a query.
    async fn plan(store: &SqliteStore, query: &JournalQuery) -> String {
        let explain = format!("EXPLAIN QUERY PLAN {}", selection(query).to_string(SqliteQueryBuilder));
        let rows = sqlx::query(AssertSqlSafe(explain)).fetch_all(&store.writer).await.unwrap();
        rows.iter().map(|row| row.get::<String, _>("detail")).collect::<Vec<_>>().join("; ")
    }

    #[tokio::test]
    async fn a_page_is_found_without_sorting_what_is_on_no_page() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&directory.path().join("m.db")).await.unwrap();
        for kind in EntryKind::ALL {
            let newest = JournalQuery { limit: 50, ..JournalQuery::of(*kind) };
            let of_service = JournalQuery { service: Some("a".parse().unwrap()), ..newest.clone() };
            let of_instance = JournalQuery { instance: Some(InstanceId::generate()), ..newest.clone() };
            for (query, index) in [(newest, ""), (of_service, "_by_service"), (of_instance, "_by_instance")] {
                let further = JournalQuery { before: Some(7), ..query.clone() };
                for query in [query, further] {
                    let plan = plan(&store, &query).await;
                    assert!(plan.contains(index) && !plan.contains("TEMP B-TREE"), "{query:?}: {plan}");
                }
            }
        }
        let since = JournalQuery { since: Some(Timestamp::UNIX_EPOCH), ..JournalQuery::of(EntryKind::Sample) };
        let plan = plan(&store, &since).await;
        assert!(plan.contains("health_checks_by_"), "{plan}");
    }
}
