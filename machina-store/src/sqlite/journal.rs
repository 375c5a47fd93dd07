//! The journal: appended to, read newest first, trimmed; never changed.

use machina_core::{Entry, EntryKind, Error, JournalPage, JournalQuery, Result, Retention, What};
use sea_query::{
    Asterisk, Expr, ExprTrait, Func, InsertStatement, Order, OverStatement, Query, SelectStatement, WindowStatement,
};
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, SqliteConnection};

use super::statement::{
    database_error, execute, fetch, get, get_json, get_parsed, insert as insert_into, json, time, unreadable,
};

/// Where entries of a kind are: the table, its column of time, and the word
/// that tells kinds that share a table apart.
struct Place {
    table: &'static str,
    at: &'static str,
    kind: Option<&'static str>,
}

const fn place(kind: EntryKind) -> Place {
    match kind {
        EntryKind::Transition => Place { table: "health_checks", at: "checked_at", kind: Some("transition") },
        EntryKind::Sample => Place { table: "health_checks", at: "checked_at", kind: Some("sample") },
        EntryKind::Call => Place { table: "calls", at: "executed_at", kind: None },
        EntryKind::Audit => Place { table: "audit", at: "at", kind: None },
    }
}

impl Place {
    fn is_here(&self) -> Option<Expr> {
        self.kind.map(|kind| Expr::col("kind").eq(kind))
    }
}

/// Appends entries, all or none.
pub(super) async fn append(connection: &mut SqliteConnection, entries: &[Entry]) -> Result<()> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(database_error)?;
    insert(&mut transaction, entries).await?;
    transaction.commit().await.map_err(database_error)
}

/// Appends entries within a transaction.
pub(super) async fn insert(connection: &mut SqliteConnection, entries: &[Entry]) -> Result<()> {
    for entry in entries {
        execute(connection, &insertion(entry)?).await?;
    }
    Ok(())
}

fn insertion(entry: &Entry) -> Result<InsertStatement> {
    let service = ("service", entry.service.as_ref().map(|name| name.as_str()).into());
    let instance = ("instance_id", entry.instance.map(|id| id.to_string()).into());
    let place = place(entry.what.kind());
    let at = (place.at, time(entry.at).into());
    let kind = ("kind", place.kind.into());
    Ok(match &entry.what {
        What::Transition { from, to, reason } => insert_into(
            place.table,
            [
                kind,
                service,
                instance,
                at,
                ("status", to.as_str().into()),
                ("state_before", from.as_str().into()),
                ("reason", reason.as_str().into()),
            ],
        ),
        What::Sample { outcome, response_time_ms, error } => insert_into(
            place.table,
            [
                kind,
                service,
                instance,
                at,
                ("status", outcome.as_str().into()),
                ("response_time_ms", (*response_time_ms).into()),
                ("error_message", error.clone().into()),
            ],
        ),
        What::Call { tool, principal, duration_ms, attempts, success, error } => insert_into(
            place.table,
            [
                service,
                instance,
                at,
                ("tool", tool.as_str().into()),
                ("principal", principal.as_str().into()),
                ("duration_ms", (*duration_ms).into()),
                ("attempts", (*attempts).into()),
                ("success", (*success).into()),
                ("error", error.clone().into()),
            ],
        ),
        What::Audit { principal, action, detail } => insert_into(
            place.table,
            [
                service,
                instance,
                at,
                ("principal", principal.as_str().into()),
                ("action", action.as_str().into()),
                ("detail", json(detail)?.into()),
            ],
        ),
        _ => return Err(Error::unsupported("this store does not know this kind of journal entry")),
    })
}

/// Reads one page.
pub(super) async fn read(connection: &mut SqliteConnection, query: &JournalQuery) -> Result<JournalPage> {
    let mut rows = fetch(connection, &selection(query)).await?;
    let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|row| get(row, "id")).transpose()?;
    let entries = rows.iter().map(|row| entry(query.kind, row)).collect::<Result<_>>()?;
    Ok(JournalPage { entries, next })
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
        EntryKind::Call => What::Call {
            tool: get(row, "tool")?,
            principal: get(row, "principal")?,
            duration_ms: get(row, "duration_ms")?,
            attempts: get(row, "attempts")?,
            success: get(row, "success")?,
            error: get(row, "error")?,
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

/// Removes entries by age, then by number.
pub(super) async fn trim(connection: &mut SqliteConnection, kind: EntryKind, retention: Retention) -> Result<u64> {
    let place = place(kind);
    let mut old = Query::delete();
    old.from_table(place.table).and_where(Expr::col(place.at).lt(time(retention.before)));
    let mut excess = Query::delete();
    excess.from_table(place.table).and_where(Expr::col("id").in_subquery(surplus(&place, kind, retention.count_max)));
    if let Some(is_here) = place.is_here() {
        old.and_where(is_here);
    }
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(database_error)?;
    let gone = execute(&mut transaction, &old).await? + execute(&mut transaction, &excess).await?;
    transaction.commit().await.map_err(database_error)?;
    Ok(gone)
}

/// The ids of all but the newest `count_max` entries, counted per instance where
/// entries are kept per instance.
fn surplus(place: &Place, kind: EntryKind, count_max: u64) -> SelectStatement {
    let mut newest_first = WindowStatement::new();
    if matches!(kind, EntryKind::Transition | EntryKind::Sample) {
        newest_first.partition_by("instance_id");
    }
    newest_first.order_by("id", Order::Desc);
    let mut numbered = Query::select();
    numbered.column("id").expr_window_as(Func::cust("row_number"), newest_first, "place").from(place.table);
    if let Some(is_here) = place.is_here() {
        numbered.and_where(is_here);
    }
    let count_max = i64::try_from(count_max).unwrap_or(i64::MAX);
    let mut select = Query::select();
    select.column("id").from_subquery(numbered, "numbered").and_where(Expr::col("place").gt(count_max));
    select
}
