//! Removes journal entries in bites, each a transaction of its own: commits and
//! appends get their turn in between. What is to go is found out by readers.

use machina_core::{EntryKind, Result, Retention};
use sea_query::{Expr, ExprTrait, Func, Order, Query, SelectStatement};
use sqlx::{Connection, SqliteConnection, SqlitePool};

use super::statement::{database_error, execute, fetch, fetch_first, get, time};
use super::{acquire, settle};
use crate::places::{Place, place};

/// How many entries go at once: some tens of milliseconds.
const BITE: u64 = 2000;

/// Entries of which the oldest are to go.
struct Excess {
    entries: SelectStatement,
    number: u64,
}

/// Removes by age, then by number; returns how many went.
pub(super) async fn trim(
    writer: &SqlitePool,
    readers: &SqlitePool,
    kind: EntryKind,
    retention: Retention,
) -> Result<u64> {
    let place = place(kind);
    let mut old = ids(&place);
    old.and_where(Expr::col(place.at).lt(time(retention.before))).order_by(place.at, Order::Asc);
    let gone = remove(writer, &place, vec![Excess { entries: old, number: u64::MAX }]).await?;
    let mut connection = acquire(readers).await?;
    let found = if kind.is_per_instance() {
        of_instances(&mut connection, &place, retention.count_max).await
    } else {
        of_all(&mut connection, &place, retention.count_max).await
    };
    let excess = settle(connection, found)?;
    Ok(gone + remove(writer, &place, excess).await?)
}

fn ids(place: &Place) -> SelectStatement {
    let mut select = Query::select();
    select.column("id").from(place.table);
    if let Some(is_here) = place.is_here() {
        select.and_where(is_here);
    }
    select
}

/// What each instance has more than `count_max`.
async fn of_instances(connection: &mut SqliteConnection, place: &Place, count_max: u64) -> Result<Vec<Excess>> {
    let count_max = i64::try_from(count_max).unwrap_or(i64::MAX);
    let mut crowded = Query::select();
    crowded.column("instance_id").expr_as(Func::count(Expr::col("id")), "number").from(place.table);
    if let Some(is_here) = place.is_here() {
        crowded.and_where(is_here);
    }
    crowded.group_by_col("instance_id").and_having(Expr::from(Func::count(Expr::col("id"))).gt(count_max));
    let mut excess = Vec::new();
    for row in fetch(connection, &crowded).await? {
        let number: i64 = get(&row, "number")?;
        let mut entries = ids(place);
        entries.and_where(Expr::col("instance_id").is(get::<Option<String>>(&row, "instance_id")?));
        entries.order_by("id", Order::Asc);
        excess.push(Excess { entries, number: number.abs_diff(count_max) });
    }
    Ok(excess)
}

/// What there is more than `count_max` in all.
async fn of_all(connection: &mut SqliteConnection, place: &Place, count_max: u64) -> Result<Vec<Excess>> {
    let mut newest = ids(place);
    newest.order_by("id", Order::Desc).limit(1).offset(Ord::min(count_max, i64::MAX.unsigned_abs()));
    let Some(row) = fetch_first(connection, &newest).await? else { return Ok(Vec::new()) };
    let mut entries = ids(place);
    entries.and_where(Expr::col("id").lte(get::<i64>(&row, "id")?)).order_by("id", Order::Asc);
    Ok(vec![Excess { entries, number: u64::MAX }])
}

async fn remove(writer: &SqlitePool, place: &Place, mut excess: Vec<Excess>) -> Result<u64> {
    let mut gone = 0;
    while !excess.is_empty() {
        let mut connection = acquire(writer).await?;
        let bite = bite(&mut connection, place, &mut excess).await;
        gone += settle(connection, bite)?;
    }
    Ok(gone)
}

/// Removes at most [`BITE`] entries, and from `excess` what is done with.
async fn bite(connection: &mut SqliteConnection, place: &Place, excess: &mut Vec<Excess>) -> Result<u64> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(database_error)?;
    let mut gone = 0;
    while let Some(last) = excess.last_mut()
        && gone < BITE
    {
        let limit = Ord::min(last.number, BITE - gone);
        let mut delete = Query::delete();
        delete.from_table(place.table);
        delete.and_where(Expr::col("id").in_subquery(last.entries.clone().limit(limit).to_owned()));
        let removed = execute(&mut transaction, &delete).await?;
        gone += removed;
        last.number -= removed;
        if last.number == 0 || removed < limit {
            excess.pop();
        }
    }
    transaction.commit().await.map_err(database_error)?;
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use machina_core::{Batch, Entry, InstanceId, Journal, JournalQuery, Store, Timestamp, What};
    use tokio::time::{Instant, sleep};

    use super::*;
    use crate::sqlite::SqliteStore;

    fn sample(at: i64, instance: Option<InstanceId>, kind: EntryKind) -> Entry {
        let what = match kind {
            EntryKind::Sample => What::Sample { outcome: at.to_string(), response_time_ms: None, error: None },
            _ => What::Audit { principal: at.to_string(), action: "a".to_owned(), detail: serde_json::json!({}) },
        };
        Entry { at: Timestamp::from_second(at).unwrap(), service: None, instance, what }
    }

    async fn left(store: &SqliteStore, kind: EntryKind, instance: Option<InstanceId>) -> Vec<i64> {
        let query = JournalQuery { instance, limit: 100_000, ..JournalQuery::of(kind) };
        let entries = store.read(&query).await.unwrap().entries;
        entries.iter().filter(|entry| entry.instance == instance).map(|entry| entry.at.as_second()).rev().collect()
    }

    #[tokio::test]
    async fn more_than_a_bite_goes_and_the_newest_stay() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&directory.path().join("m.db")).await.unwrap();
        let (few, many) = (InstanceId::generate(), InstanceId::generate());
        let number = i64::try_from(BITE).unwrap() * 2 + 10;
        for kind in [EntryKind::Sample, EntryKind::Audit] {
            let of = |instance, last| (0..last).map(move |at| sample(at, instance, kind));
            let entries: Vec<Entry> = of(Some(few), 7).chain(of(None, 9)).chain(of(Some(many), number)).collect();
            store.append(&entries).await.unwrap();
        }
        let retention = Retention { before: Timestamp::from_second(3).unwrap(), count_max: 5 };
        let gone = Journal::trim(&store, EntryKind::Sample, retention).await.unwrap();
        assert_eq!(gone, (7 - 4) + (9 - 5) + (BITE * 2 + 10 - 5));
        assert_eq!(left(&store, EntryKind::Sample, Some(few)).await, [3, 4, 5, 6]);
        assert_eq!(left(&store, EntryKind::Sample, None).await, [4, 5, 6, 7, 8]);
        let newest: Vec<i64> = (number - 5..number).collect();
        assert_eq!(left(&store, EntryKind::Sample, Some(many)).await, newest);

        Journal::trim(&store, EntryKind::Audit, retention).await.unwrap();
        assert_eq!(left(&store, EntryKind::Audit, Some(many)).await, newest);
        assert_eq!(left(&store, EntryKind::Audit, Some(few)).await, [0_i64; 0]);
        assert_eq!(Journal::trim(&store, EntryKind::Audit, retention).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn commits_get_their_turn_between_bites() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&directory.path().join("m.db")).await.unwrap();
        let entries: Vec<Entry> = (0..30_000).map(|at| sample(at, None, EntryKind::Sample)).collect();
        store.append(&entries).await.unwrap();
        let trimmed = async {
            let all = Retention { before: Timestamp::MAX, count_max: 0 };
            assert_eq!(Journal::trim(&store, EntryKind::Sample, all).await.unwrap(), 30_000);
            Instant::now()
        };
        let committed = async {
            sleep(Duration::from_millis(5)).await;
            store.commit(&Batch::default()).await.unwrap();
            Instant::now()
        };
        let (trimmed, committed) = tokio::join!(trimmed, committed);
        assert!(committed < trimmed, "the commit waited for the end");
    }
}
