//! The journal: appended to and read newest first; never changed.

use machina_core::{Entry, EntryKind, Error, JournalPage, JournalQuery, Result, What};
use sea_query::{Expr, ExprTrait, Order, Query, SelectStatement};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use super::error::database_error;
use super::statement::{Rows, as_rows, fetch, get_json, json, time, with_rows};
use crate::places::{self, place};

/// Appends entries, all or none. Their rows are made before the transaction begins:
/// the server ends one that does nothing for some seconds.
pub(super) async fn append(connection: &mut PgConnection, entries: &[Entry]) -> Result<()> {
    let rows = rows(entries)?;
    let mut transaction = connection.begin().await.map_err(database_error)?;
    put(&mut transaction, rows).await?;
    transaction.commit().await.map_err(database_error)
}

/// The statement that inserts rows into each table; the order is that of the rows.
const INSERTIONS: [&str; 5] = [
    "INSERT INTO health_checks (service, instance_id, checked_at, kind, status, state_before, reason, \
         response_time_ms, error_message) \
     SELECT service, instance_id, checked_at, kind, status, state_before, reason, response_time_ms, error_message \
     FROM json_populate_recordset(NULL::health_checks, $1::json)",
    "INSERT INTO calls (service, instance_id, executed_at, tool, principal, duration_ms, attempts, success, error, \
         tried, arguments) \
     SELECT service, instance_id, executed_at, tool, principal, duration_ms, attempts, success, error, \
         (tried #>> '{}')::json, (arguments #>> '{}')::json \
     FROM json_populate_recordset(NULL::calls, $1::json)",
    "INSERT INTO audit (service, instance_id, at, principal, action, detail) \
     SELECT service, instance_id, at, principal, action, (detail #>> '{}')::json \
     FROM json_populate_recordset(NULL::audit, $1::json)",
    "INSERT INTO alerts (service, instance_id, at, channel, message, alert) \
     SELECT service, instance_id, at, channel, message, (alert #>> '{}')::json \
     FROM json_populate_recordset(NULL::alerts, $1::json)",
    "INSERT INTO health_rollups (service, instance_id, until, since, passes, failures, durations) \
     SELECT service, instance_id, until, since, passes, failures, durations \
     FROM json_populate_recordset(NULL::health_rollups, $1::json)",
];

/// Appends the few entries of a batch within its transaction.
pub(super) async fn insert(connection: &mut PgConnection, entries: &[Entry]) -> Result<()> {
    put(connection, rows(entries)?).await
}

/// The rows of each table.
fn rows(entries: &[Entry]) -> Result<Vec<Rows>> {
    let mut rows: [Vec<Value>; INSERTIONS.len()] = Default::default();
    for entry in entries {
        let (table, row) = row(entry)?;
        rows[table].push(row);
    }
    rows.into_iter().map(|rows| as_rows(rows.into_iter().map(Ok))).collect()
}

/// Those of one table by one statement, because a busy router writes thousands a second.
async fn put(connection: &mut PgConnection, rows: Vec<Rows>) -> Result<()> {
    for (rows, statement) in rows.into_iter().zip(INSERTIONS) {
        with_rows(connection, statement, rows).await?;
    }
    Ok(())
}

/// The index of the statement for an entry, and its row.
fn row(entry: &Entry) -> Result<(usize, Value)> {
    let (table, mut row) = match &entry.what {
        What::Transition { from, to, reason } => {
            (0, json!({"kind": "transition", "status": to, "state_before": from, "reason": reason}))
        }
        What::Sample { outcome, response_time_ms, error } => (
            0,
            json!({"kind": "sample", "status": outcome, "response_time_ms": response_time_ms, "error_message": error}),
        ),
        What::Call { tool, principal, duration_ms, attempts, success, error, tried, arguments } => {
            let arguments = arguments.as_ref().map(json).transpose()?;
            let row = json!({"tool": tool, "principal": principal, "duration_ms": duration_ms, "attempts": attempts,
                   "success": success, "error": error, "tried": json(tried)?, "arguments": arguments});
            (1, row)
        }
        What::Audit { principal, action, detail } => {
            (2, json!({"principal": principal, "action": action, "detail": json(detail)?}))
        }
        What::Alert { channel, message, alert } => {
            (3, json!({"channel": channel, "message": message, "alert": json(alert)?}))
        }
        What::Rollup { since, passes, failures, durations } => {
            (4, json!({"since": time(*since), "passes": passes, "failures": failures, "durations": durations}))
        }
        _ => return Err(Error::unsupported("this store does not know this kind of journal entry")),
    };
    row["service"] = json!(entry.service);
    row["instance_id"] = json!(entry.instance);
    row[place(entry.what.kind()).at] = time(entry.at).into();
    Ok((table, row))
}

/// An entry of each kind as JSON, as it is read.
const fn object(kind: EntryKind) -> &'static str {
    match kind {
        EntryKind::Transition => {
            "json_build_object('kind', 'transition', 'at', checked_at, 'service', service, 'instance', instance_id, \
             'from', state_before, 'to', status, 'reason', reason)::text"
        }
        EntryKind::Sample => {
            "json_build_object('kind', 'sample', 'at', checked_at, 'service', service, 'instance', instance_id, \
             'outcome', status, 'response_time_ms', response_time_ms, 'error', error_message)::text"
        }
        EntryKind::Rollup => {
            "json_build_object('kind', 'rollup', 'at', until, 'service', service, 'instance', instance_id, \
             'since', since, 'passes', passes, 'failures', failures, 'durations', durations)::text"
        }
        EntryKind::Call => {
            "json_build_object('kind', 'call', 'at', executed_at, 'service', service, 'instance', instance_id, \
             'tool', tool, 'principal', principal, 'duration_ms', duration_ms, 'attempts', attempts, \
             'success', success, 'error', error, 'tried', tried, 'arguments', arguments)::text"
        }
        EntryKind::Alert => {
            "json_build_object('kind', 'alert', 'at', at, 'service', service, 'instance', instance_id, \
             'channel', channel, 'message', message, 'alert', alert)::text"
        }
        EntryKind::Audit => {
            "json_build_object('kind', 'audit', 'at', at, 'service', service, 'instance', instance_id, \
             'principal', principal, 'action', action, 'detail', detail)::text"
        }
    }
}

/// Reads one page.
pub(super) async fn read(connection: &mut PgConnection, query: &JournalQuery) -> Result<JournalPage> {
    let rows = fetch(connection, &selection(query)).await?;
    places::page(rows, query.limit, |row| get_json(row, "entry"))
}

/// One row more than asked for tells whether there are more.
fn selection(query: &JournalQuery) -> SelectStatement {
    let place = place(query.kind);
    let conditions = [
        place.is_here(),
        query.service.as_ref().map(|name| Expr::col("service").eq(name.as_str())),
        query.instance.map(|id| Expr::col("instance_id").eq(Expr::val(id.to_string()).cast_as("uuid"))),
        query.since.map(|since| Expr::col(place.at).gte(Expr::val(time(since)).cast_as("timestamptz"))),
        query.before.map(|before| Expr::col("id").lt(before)),
    ];
    let mut select = Query::select();
    select.column("id").expr_as(Expr::cust(object(query.kind)), "entry").from(place.table);
    select.order_by("id", Order::Desc).limit(u64::from(query.limit) + 1);
    for condition in conditions.into_iter().flatten() {
        select.and_where(condition);
    }
    select
}
