//! What was answered to requests with an idempotency key, committed before the
//! work begins, for every replica. It refuses to forget an answer to make room:
//! bodies go first, and then further requests are refused.

use machina_core::{Begun, Claim, Keep, Remembered, Reply, ReplyKey, Result, Timestamp};
use sqlx::{Connection, PgConnection};

use super::error::database_error;
use super::statement::{get, time};
use crate::remembered::{self, DROPPED_AT_ONCE, Kept, Limits};

const STALE: &str = "\
    DELETE FROM replies WHERE tenant = $1 AND principal = $2 AND key = $3 AND expires_at <= $4::timestamptz";

const TAKE: &str = "\
    INSERT INTO replies (tenant, principal, key, request, run, begun_at, expires_at) \
    VALUES ($1, $2, $3, $4, $5::uuid, $6::timestamptz, $7::timestamptz) \
    ON CONFLICT (tenant, principal, key) DO NOTHING";

/// Ids are not given twice, so there are not more rows than ids from the first to
/// the last; only where those are many are rows counted.
const COUNT: &str = "\
    SELECT CASE WHEN max(id) - min(id) < $1 THEN 0 ELSE (SELECT count(*) FROM replies) END AS number FROM replies";

/// A key is being worked on by the process that took it for as long as that is
/// alive: this one, or another replica whose time has not run out.
const KNOWN: &str = "\
    SELECT request, status::bigint, headers::text, body, run = $4::uuid OR EXISTS ( \
        SELECT FROM replica AS r WHERE r.run = replies.run AND r.expires_at > statement_timestamp()) AS alive \
    FROM replies WHERE tenant = $1 AND principal = $2 AND key = $3";

/// Takes the key of `claim` for this `run` of the store, if it is free.
pub(super) async fn begin(connection: &mut PgConnection, claim: &Claim, run: &str, limits: Limits) -> Result<Begun> {
    let ReplyKey { tenant, principal, key } = &claim.key;
    loop {
        let mut transaction = connection.begin().await.map_err(database_error)?;
        let stale = sqlx::query(STALE).bind(tenant).bind(principal).bind(key).bind(time(claim.at));
        stale.execute(&mut *transaction).await.map_err(database_error)?;
        let take = sqlx::query(TAKE).bind(tenant).bind(principal).bind(key).bind(&claim.request).bind(run);
        let take = take.bind(time(claim.at)).bind(time(claim.until));
        let begun = if take.execute(&mut *transaction).await.map_err(database_error)?.rows_affected() == 1 {
            let count = sqlx::query(COUNT).bind(limits.entries_max).fetch_one(&mut *transaction).await;
            if get::<i64>(&count.map_err(database_error)?, "number")? > limits.entries_max {
                // The transaction is rolled back when it is dropped.
                return Err(limits.no_room());
            }
            Some(Begun::New)
        } else {
            let known = sqlx::query(KNOWN).bind(tenant).bind(principal).bind(key).bind(run);
            let row = known.fetch_optional(&mut *transaction).await.map_err(database_error)?;
            row.map(|row| {
                let progress = remembered::progress(&row, get(&row, "alive")?)?;
                Ok(Begun::Known { request: get(&row, "request")?, progress })
            })
            .transpose()?
        };
        transaction.commit().await.map_err(database_error)?;
        // Whoever had it let it go in between: then it may be free.
        if let Some(begun) = begun {
            return Ok(begun);
        }
    }
}

const FINISH: &str = "\
    UPDATE replies SET status = $4, headers = $5::json, body = $6, bytes = $7 \
    WHERE tenant = $1 AND principal = $2 AND key = $3 AND status IS NULL";

const BYTES_KEPT: &str = "SELECT coalesce(sum(bytes), 0)::bigint AS number FROM replies WHERE bytes > 0";

/// Drops the oldest answers but for their status.
const DROP_OLDEST: &str = "\
    UPDATE replies SET headers = NULL, body = NULL, bytes = 0 \
    WHERE id IN (SELECT id FROM replies WHERE bytes > 0 ORDER BY id LIMIT $1)";

/// Keeps the answer to what was begun under `key`; bytes come from older answers.
pub(super) async fn finish(
    connection: &mut PgConnection,
    key: &ReplyKey,
    reply: &Reply,
    keep: Keep,
    limits: Limits,
) -> Result<()> {
    let kept = Kept::of(reply, keep)?;
    let finish = sqlx::query(FINISH)
        .bind(&key.tenant)
        .bind(&key.principal)
        .bind(&key.key)
        .bind(i32::from(kept.status))
        .bind(kept.headers)
        .bind(kept.body)
        .bind(kept.bytes);
    finish.execute(&mut *connection).await.map_err(database_error)?;
    while kept.bytes > 0 && bytes_kept(connection).await? > limits.bytes_max {
        let dropped = sqlx::query(DROP_OLDEST).bind(i64::from(DROPPED_AT_ONCE)).execute(&mut *connection).await;
        if dropped.map_err(database_error)?.rows_affected() == 0 {
            break;
        }
    }
    Ok(())
}

async fn bytes_kept(connection: &mut PgConnection) -> Result<i64> {
    get(&sqlx::query(BYTES_KEPT).fetch_one(connection).await.map_err(database_error)?, "number")
}

/// What is remembered under the keys after `$1`, `$2`, `$3`, or under all if `$4`.
const LIST: &str = "\
    SELECT tenant, principal, key, request, to_json(begun_at) #>> '{}' AS begun_at, \
        to_json(expires_at) #>> '{}' AS expires_at, status::bigint, headers::text, body, run = $5::uuid OR EXISTS ( \
        SELECT FROM replica AS r WHERE r.run = replies.run AND r.expires_at > statement_timestamp()) AS alive \
    FROM replies \
    WHERE $4 OR (tenant COLLATE \"C\", principal COLLATE \"C\", key COLLATE \"C\") > ($1, $2, $3) \
    ORDER BY tenant COLLATE \"C\", principal COLLATE \"C\", key COLLATE \"C\" LIMIT $6";

/// What is remembered under the keys after this one, byte by byte.
pub(super) async fn list(
    connection: &mut PgConnection,
    after: Option<&ReplyKey>,
    limit: u32,
    run: &str,
) -> Result<Vec<Remembered>> {
    let (tenant, principal, key) = after.map_or(("", "", ""), |key| (&key.tenant, &key.principal, &key.key));
    let list = sqlx::query(LIST).bind(tenant).bind(principal).bind(key).bind(after.is_none()).bind(run);
    let rows = list.bind(i64::from(limit)).fetch_all(connection).await.map_err(database_error)?;
    let one = |row| {
        Ok(Remembered { claim: remembered::claim(row)?, progress: remembered::progress(row, get(row, "alive")?)? })
    };
    rows.iter().map(one).collect()
}

/// Frees `key`.
pub(super) async fn forget(connection: &mut PgConnection, key: &ReplyKey) -> Result<()> {
    let delete = sqlx::query("DELETE FROM replies WHERE tenant = $1 AND principal = $2 AND key = $3");
    let delete = delete.bind(&key.tenant).bind(&key.principal).bind(&key.key);
    delete.execute(connection).await.map_err(database_error).map(drop)
}

/// Removes what has expired.
pub(super) async fn trim(connection: &mut PgConnection, now: Timestamp) -> Result<u64> {
    let delete = sqlx::query("DELETE FROM replies WHERE expires_at <= $1::timestamptz").bind(time(now));
    Ok(delete.execute(connection).await.map_err(database_error)?.rows_affected())
}
