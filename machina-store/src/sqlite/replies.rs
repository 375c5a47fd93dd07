//! What was answered to requests with an idempotency key, on the disk before the
//! work begins. It refuses to forget an answer to make room: bodies go first, and
//! then further requests are refused.

use machina_core::{Begun, Claim, Keep, Remembered, Reply, ReplyKey, Result, Timestamp};
use sea_query::{Expr, ExprTrait, Func, OnConflict, Order, Query, SimpleExpr};
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, SqliteConnection};

use super::statement::{database_error, execute, fetch, fetch_first, get, insert, time, unreadable};
use crate::remembered::{self, DROPPED_AT_ONCE, Kept, Limits};

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
            return Err(limits.no_room());
        }
        Begun::New
    } else {
        known(&mut transaction, key, run).await?
    };
    transaction.commit().await.map_err(database_error)?;
    Ok(begun)
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
    Ok(Begun::Known { request: get(&row, "request")?, progress: remembered::progress(&row, is_ours(&row, run)?)? })
}

/// Whether this opening of the file began it: then that is at it still.
fn is_ours(row: &SqliteRow, run: &str) -> Result<bool> {
    Ok(get::<&str>(row, "run")? == run)
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
    let one = |row| {
        Ok(Remembered { claim: remembered::claim(row)?, progress: remembered::progress(row, is_ours(row, run)?)? })
    };
    rows.iter().map(one).collect()
}

/// Keeps the answer to what was begun under `key`; bytes come from older answers.
pub(super) async fn finish(
    connection: &mut SqliteConnection,
    key: &ReplyKey,
    reply: &Reply,
    keep: Keep,
    limits: Limits,
) -> Result<()> {
    let kept = Kept::of(reply, keep)?;
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(database_error)?;
    let mut update = Query::update();
    update
        .table("replies")
        .values([
            ("status", kept.status.into()),
            ("headers", kept.headers.into()),
            ("body", kept.body.map(<[u8]>::to_vec).into()),
            ("bytes", kept.bytes.into()),
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
    let rows = fetch(connection, oldest.order_by("id", Order::Asc).limit(DROPPED_AT_ONCE.into())).await?;
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
