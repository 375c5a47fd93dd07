//! What was answered to requests with an idempotency key, on the disk before the
//! work begins. It refuses to forget an answer to make room: bodies go first, and
//! then further requests are refused.

use std::time::Duration;

use machina_core::{Begun, Claim, Error, Keep, Remembered, Reply, ReplyKey, ReplyProgress, Result, Timestamp};
use sea_query::{Expr, ExprTrait, Func, OnConflict, Order, Query, SimpleExpr};
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, SqliteConnection};

use super::statement::{
    database_error, execute, fetch, fetch_first, get, get_json, get_parsed, insert, json, time, unreadable,
};

/// How many requests are remembered, and how many bytes their answers have.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) entries_max: i64,
    pub(super) bytes_max: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries_max: 100_000, bytes_max: 256 * 1024 * 1024 }
    }
}

/// How many answers give way at once when bytes are short.
const DROPPED_AT_ONCE: u64 = 100;

/// Takes the key of `claim` for this `run` of the process, if it is free.
pub(super) async fn begin(
    connection: &mut SqliteConnection,
    claim: &Claim,
    run: &str,
    limits: Limits,
) -> Result<Begun> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(database_error)?;
    let mut stale = Query::delete();
    stale.from_table("replies").and_where(is(&claim.key)).and_where(Expr::col("expires_at").lte(time(claim.at)));
    execute(&mut transaction, &stale).await?;
    let key = &claim.key;
    let columns = [
        ("tenant", key.tenant.as_str().into()),
        ("principal", key.principal.as_str().into()),
        ("key", key.key.as_str().into()),
        ("request", claim.request.as_str().into()),
        ("run", run.into()),
        ("begun_at", time(claim.at).into()),
        ("expires_at", time(claim.until).into()),
    ];
    let mut take = insert("replies", columns);
    take.on_conflict(OnConflict::columns(["tenant", "principal", "key"]).do_nothing().to_owned());
    let begun = if execute(&mut transaction, &take).await? == 1 {
        if count(&mut transaction).await? > limits.entries_max {
            // The transaction is rolled back when it is dropped.
            return Err(no_room(limits.entries_max));
        }
        Begun::New
    } else {
        known(&mut transaction, key, run).await?
    };
    transaction.commit().await.map_err(database_error)?;
    Ok(begun)
}

fn no_room(entries_max: i64) -> Error {
    let message = format!("{entries_max} idempotency keys are remembered, which is as many as can be");
    Error::overloaded(message).retry_after(Duration::from_secs(60))
}

fn is(key: &ReplyKey) -> SimpleExpr {
    let (tenant, principal) = (Expr::col("tenant").eq(&*key.tenant), Expr::col("principal").eq(&*key.principal));
    tenant.and(principal).and(Expr::col("key").eq(&*key.key))
}

async fn count(connection: &mut SqliteConnection) -> Result<i64> {
    let mut select = Query::select();
    select.expr_as(Func::count(Expr::col("id")), "number").from("replies");
    let row = fetch_first(connection, &select).await?;
    row.map_or(Ok(0), |row| get(&row, "number"))
}

async fn known(connection: &mut SqliteConnection, key: &ReplyKey, run: &str) -> Result<Begun> {
    let mut select = Query::select();
    select.columns(["request", "run", "status", "headers", "body"]).from("replies").and_where(is(key));
    let row = fetch_first(connection, &select).await?;
    let row = row.ok_or_else(|| unreadable("key", "there is none"))?;
    Ok(Begun::Known { request: get(&row, "request")?, progress: progress(&row, run)? })
}

fn progress(row: &SqliteRow, run: &str) -> Result<ReplyProgress> {
    let Some(status) = get::<Option<i64>>(row, "status")? else {
        let ours = get::<&str>(row, "run")? == run;
        return Ok(if ours { ReplyProgress::Running } else { ReplyProgress::Interrupted });
    };
    let status = u16::try_from(status).map_err(|error| unreadable("status", error))?;
    Ok(match get::<Option<Vec<u8>>>(row, "body")? {
        Some(body) => ReplyProgress::Answered(Reply { status, headers: get_json(row, "headers")?, body }),
        None => ReplyProgress::NotKept(status),
    })
}

/// What is remembered under the keys after this one; SQLite compares text byte by byte.
pub(super) async fn list(
    connection: &mut SqliteConnection,
    after: Option<&ReplyKey>,
    limit: u32,
    run: &str,
) -> Result<Vec<Remembered>> {
    let mut select = Query::select();
    select.columns(["tenant", "principal", "key", "request", "begun_at", "expires_at", "run"]);
    select.columns(["status", "headers", "body"]).from("replies").limit(limit.into());
    for column in ["tenant", "principal", "key"] {
        select.order_by(column, Order::Asc);
    }
    if let Some(ReplyKey { tenant, principal, key }) = after {
        let columns = Expr::tuple(["tenant", "principal", "key"].map(Expr::col));
        select.and_where(columns.gt(Expr::tuple([tenant, principal, key].map(|part| Expr::val(part.as_str())))));
    }
    let rows = fetch(connection, &select).await?;
    rows.iter().map(|row| Ok(Remembered { claim: claim(row)?, progress: progress(row, run)? })).collect()
}

fn claim(row: &SqliteRow) -> Result<Claim> {
    let key = ReplyKey { tenant: get(row, "tenant")?, principal: get(row, "principal")?, key: get(row, "key")? };
    let (at, until) = (get_parsed(row, "begun_at")?, get_parsed(row, "expires_at")?);
    Ok(Claim { key, request: get(row, "request")?, at, until })
}

/// Keeps the answer to what was begun under `key`; bytes come from older answers.
pub(super) async fn finish(
    connection: &mut SqliteConnection,
    key: &ReplyKey,
    reply: &Reply,
    keep: Keep,
    limits: Limits,
) -> Result<()> {
    let whole = keep == Keep::Whole;
    let headers = json(&reply.headers)?;
    let bytes = i64::try_from(reply.body.len() + headers.len()).unwrap_or(i64::MAX);
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(database_error)?;
    let mut update = Query::update();
    update
        .table("replies")
        .values([
            ("status", reply.status.into()),
            ("headers", whole.then_some(headers).into()),
            ("body", whole.then(|| reply.body.clone()).into()),
            ("bytes", if whole { bytes } else { 0 }.into()),
        ])
        .and_where(is(key))
        .and_where(Expr::col("status").is_null());
    execute(&mut transaction, &update).await?;
    while bytes_kept(&mut transaction).await? > limits.bytes_max && drop_oldest(&mut transaction).await? > 0 {}
    transaction.commit().await.map_err(database_error)
}

async fn bytes_kept(connection: &mut SqliteConnection) -> Result<i64> {
    let mut select = Query::select();
    select.expr_as(Func::coalesce([Func::sum(Expr::col("bytes")).into(), Expr::val(0)]), "number").from("replies");
    let row = fetch_first(connection, &select).await?;
    row.map_or(Ok(0), |row| get(&row, "number"))
}

/// Drops the oldest answers but for their status.
async fn drop_oldest(connection: &mut SqliteConnection) -> Result<u64> {
    let mut oldest = Query::select();
    oldest.column("id").from("replies").and_where(Expr::col("bytes").gt(0));
    let rows = fetch(connection, oldest.order_by("id", Order::Asc).limit(DROPPED_AT_ONCE)).await?;
    let Some(last) = rows.last() else { return Ok(0) };
    let mut update = Query::update();
    update
        .table("replies")
        .values([("headers", None::<String>.into()), ("body", None::<Vec<u8>>.into()), ("bytes", 0.into())])
        .and_where(Expr::col("id").lte(get::<i64>(last, "id")?))
        .and_where(Expr::col("bytes").gt(0));
    execute(connection, &update).await
}

/// Frees `key`.
pub(super) async fn forget(connection: &mut SqliteConnection, key: &ReplyKey) -> Result<()> {
    let mut delete = Query::delete();
    delete.from_table("replies").and_where(is(key));
    execute(connection, &delete).await.map(drop)
}

/// Removes what has expired.
pub(super) async fn trim(connection: &mut SqliteConnection, now: Timestamp) -> Result<u64> {
    let mut delete = Query::delete();
    delete.from_table("replies").and_where(Expr::col("expires_at").lte(time(now)));
    execute(connection, &delete).await
}
