//! The leases of shards, by the clock of the server. A claim never waits for
//! another's, and what a replica writes about a shard it writes while it has the
//! row of its lease: nobody can claim it in between. No advisory locks.

use std::collections::BTreeSet;
use std::time::Duration;

use machina_core::{Error, Held, Precondition, ReplicaId, Result, SHARDS, ShardLease};
use serde::Serialize;
use sqlx::{Connection, PgConnection};

use super::error::database_error;
use super::statement::{as_rows, get, with_rows};

/// Those whose time has run out, but for what another is just removing.
const FORGET: &str = "\
    DELETE FROM replica WHERE id IN ( \
        SELECT id FROM replica WHERE expires_at <= statement_timestamp() AND id <> $1::uuid FOR UPDATE SKIP LOCKED)";

const ENROL: &str = "\
    INSERT INTO replica (id, run, expires_at) \
    VALUES ($1::uuid, $2::uuid, statement_timestamp() + $3 * interval '1 millisecond') \
    ON CONFLICT (id) DO UPDATE SET run = EXCLUDED.run, expires_at = EXCLUDED.expires_at";

const COUNT: &str = "SELECT count(*) AS replicas FROM replica WHERE expires_at > statement_timestamp()";

/// In the order in which a commit takes them, so that neither waits for the other in turn.
const TAKE: &str = "SELECT FROM shard_lease WHERE replica = $1::uuid ORDER BY shard FOR UPDATE";

/// Renews the first `$3` of a replica, and lets go of the others.
const RENEW: &str = "\
    UPDATE shard_lease AS l SET \
        replica = CASE WHEN place <= $3 THEN l.replica END, \
        expires_at = CASE WHEN place <= $3 THEN statement_timestamp() + $2 * interval '1 millisecond' \
                     ELSE '-infinity' END \
    FROM (SELECT shard, row_number() OVER (ORDER BY shard) AS place FROM shard_lease WHERE replica = $1::uuid) AS mine \
    WHERE l.shard = mine.shard AND l.replica = $1::uuid \
    RETURNING place <= $3 AS kept";

const CLAIM: &str = "\
    UPDATE shard_lease AS l SET replica = $1::uuid, epoch = l.epoch + 1, \
        expires_at = statement_timestamp() + $2 * interval '1 millisecond' \
    FROM (SELECT shard FROM shard_lease WHERE replica IS NULL OR expires_at <= statement_timestamp() \
          ORDER BY shard LIMIT $3 FOR UPDATE SKIP LOCKED) AS free \
    WHERE l.shard = free.shard";

const HELD: &str = "SELECT shard, epoch FROM shard_lease WHERE replica = $1::uuid ORDER BY shard";

const NEXT_EXPIRY: &str = "\
    SELECT (extract(epoch FROM min(expires_at) - statement_timestamp()) * 1000)::bigint AS ms \
    FROM shard_lease WHERE replica <> $1::uuid";

/// Renews, lets go and claims for a replica; it is alive as this `run` of the store.
pub(super) async fn hold(connection: &mut PgConnection, replica: ReplicaId, run: &str, ttl: Duration) -> Result<Held> {
    let id = replica.to_string();
    let ttl_ms = i64::try_from(ttl.as_millis()).unwrap_or(i64::MAX);
    let mut transaction = connection.begin().await.map_err(database_error)?;
    sqlx::query(FORGET).bind(&id).execute(&mut *transaction).await.map_err(database_error)?;
    sqlx::query(ENROL).bind(&id).bind(run).bind(ttl_ms).execute(&mut *transaction).await.map_err(database_error)?;
    let row = sqlx::query(COUNT).fetch_one(&mut *transaction).await.map_err(database_error)?;
    let replicas: i64 = get(&row, "replicas")?;
    let share = i64::from(SHARDS.div_ceil(u16::try_from(replicas.max(1)).unwrap_or(SHARDS)));
    sqlx::query(TAKE).bind(&id).execute(&mut *transaction).await.map_err(database_error)?;
    let renew = sqlx::query(RENEW).bind(&id).bind(ttl_ms).bind(share);
    let mut room = share;
    for row in renew.fetch_all(&mut *transaction).await.map_err(database_error)? {
        room -= i64::from(get::<bool>(&row, "kept")?);
    }
    if room > 0 {
        let claim = sqlx::query(CLAIM).bind(&id).bind(ttl_ms).bind(room);
        claim.execute(&mut *transaction).await.map_err(database_error)?;
    }
    let shards = held(&mut transaction, &id).await?;
    let next = sqlx::query(NEXT_EXPIRY).bind(&id).fetch_one(&mut *transaction).await.map_err(database_error)?;
    let next_ms: Option<i64> = get(&next, "ms")?;
    transaction.commit().await.map_err(database_error)?;
    Ok(Held {
        shards,
        replicas: u32::try_from(replicas).unwrap_or(u32::MAX),
        next_expiry: next_ms.map(|ms| Duration::from_millis(u64::try_from(ms).unwrap_or(0))),
    })
}

async fn held(connection: &mut PgConnection, replica: &str) -> Result<Vec<ShardLease>> {
    let rows = sqlx::query(HELD).bind(replica).fetch_all(connection).await.map_err(database_error)?;
    let lease = |row| {
        let (shard, epoch): (i16, i64) = (get(row, "shard")?, get(row, "epoch")?);
        let (Ok(shard), Ok(epoch)) = (u16::try_from(shard), u64::try_from(epoch)) else {
            return Err(Error::internal("the database holds an unreadable lease"));
        };
        Ok(ShardLease { shard, epoch })
    };
    rows.iter().map(lease).collect()
}

/// Lets go of everything that a replica holds.
pub(super) async fn release(connection: &mut PgConnection, replica: ReplicaId) -> Result<()> {
    let id = replica.to_string();
    let free = "UPDATE shard_lease SET replica = NULL, expires_at = '-infinity' WHERE replica = $1::uuid";
    let mut transaction = connection.begin().await.map_err(database_error)?;
    // In the order of `hold`, which is also that in which a restoring locks them.
    for sql in ["DELETE FROM replica WHERE id = $1::uuid", free] {
        sqlx::query(sql).bind(&id).execute(&mut *transaction).await.map_err(database_error)?;
    }
    transaction.commit().await.map_err(database_error)
}

#[derive(Serialize)]
struct HoldsRow {
    shard: u16,
    replica: String,
    epoch: u64,
}

/// Takes the rows of the leases, so that they stay as they are until the end of
/// the transaction; the time that counts is that at which they are got.
const HOLDS: &str = "\
    SELECT l.shard FROM shard_lease AS l \
    JOIN json_to_recordset($1::json) AS r (shard smallint, replica uuid, epoch bigint) \
        ON r.shard = l.shard AND r.replica = l.replica AND r.epoch = l.epoch \
    WHERE l.expires_at > clock_timestamp() ORDER BY l.shard FOR SHARE OF l";

/// Every shard that the preconditions name is held as they say.
pub(super) async fn check(connection: &mut PgConnection, preconditions: &[Precondition]) -> Result<()> {
    let mut wanted = BTreeSet::new();
    for precondition in preconditions {
        if let Precondition::Holds { shard, replica, epoch } = precondition {
            wanted.insert((*shard, *replica, *epoch));
        }
    }
    if wanted.is_empty() {
        return Ok(());
    }
    let rows = wanted
        .iter()
        .map(|(shard, replica, epoch)| Ok(HoldsRow { shard: *shard, replica: replica.to_string(), epoch: *epoch }));
    let held: Vec<i16> = with_rows(connection, HOLDS, as_rows(rows)?)
        .await?
        .iter()
        .map(|row| get(row, "shard"))
        .collect::<Result<_>>()?;
    let lost = wanted.iter().find(|(shard, ..)| !held.contains(&i16::try_from(*shard).unwrap_or(-1)));
    match lost {
        None if held.len() == wanted.len() => Ok(()),
        Some((shard, replica, epoch)) => {
            Err(Error::conflict(format!("replica {replica} does not hold shard {shard} at epoch {epoch}")))
        }
        None => Err(Error::conflict("a shard cannot be held by two replicas, or at two epochs")),
    }
}
