//! As on SQLite, the journal stays within what is stated, its index too: entries that are
//! kept for months are among the samples, and keep no room that samples have left.

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection, Row as _};

use super::probes::{INSTANCES, PROBES_BETWEEN, Probes};
use super::server::OwnPostgres;

const REMOVALS: u64 = 12;
/// From which removal on the index is no longer to grow.
const GROWN: u64 = 4;
/// How many samples come between two transitions: fewer than a page of an index holds.
const SAMPLES_BETWEEN: usize = 250;
/// How long a sample is in the database, with its indexes.
const BYTES_OF_SAMPLE: u64 = 600;

/// How large the table of the journal is with its indexes, and the index by number alone.
async fn sizes(connection: &mut PgConnection) -> (u64, u64) {
    let sql = "SELECT pg_total_relation_size('health_checks'), pg_relation_size('health_checks_pkey')";
    let row = sqlx::query(sql).fetch_one(connection).await.unwrap();
    (row.get::<i64, _>(0).try_into().unwrap(), row.get::<i64, _>(1).try_into().unwrap())
}

#[tokio::test]
async fn the_journal_and_its_index_stay_within_their_stated_size() {
    // A server of its own: nobody else's transactions keep what was removed.
    let own = OwnPostgres::start();
    let journal = machina_store::open(&own.url()).await.unwrap().journal;
    let mut connection = own.url().parse::<PgConnectOptions>().unwrap().connect().await.unwrap();
    let (mut probes, mut most, mut index) = (Probes::new(), 0, Vec::new());
    for _ in 0..REMOVALS {
        for _ in 0..PROBES_BETWEEN {
            for some in probes.round().chunks(SAMPLES_BETWEEN) {
                journal.append(&[some, &[probes.transition()]].concat()).await.unwrap();
            }
        }
        let (all, of_index) = sizes(&mut connection).await;
        most = most.max(all);
        index.push(of_index);
        probes.remove_old(&*journal).await;
        // The server does so by itself in the ten minutes that this leaves out.
        sqlx::raw_sql("VACUUM health_checks").execute(&mut connection).await.unwrap();
    }
    connection.close().await.unwrap();
    let kept = Probes::kept(&*journal).await;
    let made = INSTANCES * PROBES_BETWEEN * REMOVALS;
    let stated = Probes::at_once() * BYTES_OF_SAMPLE + 1024 * 1024;
    eprintln!("{made} probes: {kept} samples kept, {most} bytes at most; stated: {stated}; the index: {index:?}");
    assert!(most <= stated, "{most} bytes are more than {stated}");
    let (grown, last) = (index[usize::try_from(GROWN).unwrap() - 1], *index.last().unwrap());
    assert!(last <= grown + grown / 4, "the index grows on, from {grown} bytes to {last}");
}
