//! Removes journal entries, by age and then by number, a bite at a time. Of
//! several replicas that would, one does.

use machina_core::{EntryKind, Result, Retention};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::error::database_error;
use super::statement::{get, time};
use crate::places::{Place, place};

/// How many entries go at once.
const BITE: u32 = 20_000;

/// Held for one bite; whoever does not get it leaves the work to who has it.
const LOCK: &str =
    "SELECT pg_try_advisory_xact_lock(hashtext('machina trim'), hashtext(current_schema() || $1)) AS mine";

/// Removes entries; returns how many went.
pub(super) async fn trim(connection: &mut PgConnection, kind: EntryKind, retention: Retention) -> Result<u64> {
    let place = place(kind);
    let mut gone = 0;
    for sql in [old(&place), excess(&place, kind.is_per_instance())] {
        while let Some(bite) = bite(connection, &place, &sql, retention).await? {
            gone += bite;
            if bite < u64::from(BITE) {
                break;
            }
        }
    }
    Ok(gone)
}

/// The ids of a bite of what is older than `$1`.
fn old(place: &Place) -> String {
    let (Place { table, at, .. }, and_kind) = (place, and_kind(place));
    format!(
        "DELETE FROM {table} WHERE id IN (SELECT id FROM {table} WHERE {at} < $1::timestamptz AND $2 >= 0{and_kind} \
         ORDER BY {at} LIMIT {BITE}){and_kind}"
    )
}

/// The ids of a bite of what is beyond the newest `$2`, of each instance or in all.
fn excess(place: &Place, per_instance: bool) -> String {
    let (table, and_kind) = (place.table, and_kind(place));
    let partition = if per_instance { "PARTITION BY instance_id " } else { "" };
    format!(
        "DELETE FROM {table} WHERE id IN (SELECT id FROM ( \
             SELECT id, row_number() OVER ({partition}ORDER BY id DESC) AS place FROM {table} \
             WHERE $1::timestamptz IS NOT NULL{and_kind}) AS numbered WHERE place > $2 LIMIT {BITE}){and_kind}"
    )
}

fn and_kind(place: &Place) -> String {
    place.kind.map(|kind| format!(" AND kind = '{kind}'")).unwrap_or_default()
}

/// How many went, or that another is at it.
async fn bite(connection: &mut PgConnection, place: &Place, sql: &str, retention: Retention) -> Result<Option<u64>> {
    let mut transaction = connection.begin().await.map_err(database_error)?;
    sqlx::query("SET LOCAL statement_timeout = '5min'").execute(&mut *transaction).await.map_err(database_error)?;
    let row = sqlx::query(LOCK).bind(place.table).fetch_one(&mut *transaction).await.map_err(database_error)?;
    if !get::<bool>(&row, "mine")? {
        return Ok(None);
    }
    let count_max = i64::try_from(retention.count_max).unwrap_or(i64::MAX);
    let delete = sqlx::query(AssertSqlSafe(sql.to_owned())).bind(time(retention.before)).bind(count_max);
    let gone = delete.execute(&mut *transaction).await.map_err(database_error)?.rows_affected();
    transaction.commit().await.map_err(database_error)?;
    Ok(Some(gone))
}
