//! What the world does to a server and to the way to it: nothing is lost silently,
//! and what was said to be committed is there.

use std::time::Duration;

use machina_core::{Batch, EntryKind, ErrorKind, JournalQuery, Revision, Store};
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _};
use tokio::time::Instant;

use super::making::{audit, batch, plain, put, put_tools, service};
use super::schema::{Schema, server};
use super::server::{OwnPostgres, Way};

async fn assert_unavailable(store: &dyn Store, changes: &Batch, says: &str) {
    let error = store.commit(changes).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.message().contains(says), "{error}");
}

/// The server says so itself, with the code it has for it, in the middle of a commit.
#[tokio::test]
async fn a_full_disk_leaves_nothing_half_written() {
    let schema = Schema::new();
    let backend = schema.open().await;
    let (store, a) = (&*backend.store, service("a"));
    store.commit(&batch([put(&a)])).await.unwrap();
    let before = store.load().await.unwrap();
    schema
        .run(
            "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
                RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$; \
                CREATE TRIGGER full_disk BEFORE INSERT ON audit EXECUTE FUNCTION full_disk()",
        )
        .await;
    let mut large = batch([put_tools(&a, 0, 50), put(&service("b"))]);
    large.entries.push(audit());
    assert_unavailable(store, &large, "the disk of the PostgreSQL server is full").await;
    assert_eq!(store.load().await.unwrap(), before);
    assert_eq!(backend.journal.read(&JournalQuery::of(EntryKind::Audit)).await.unwrap().entries, []);
    schema.run("DROP TRIGGER full_disk ON audit").await;
    assert_eq!(store.commit(&large).await.unwrap(), Revision(2));
}

/// Waits until the server has heard whether it is to be read-only. Whoever connects
/// then has heard it last.
async fn is_soon_read_only(url: &str, word: &str) {
    let options: PgConnectOptions = url.parse().unwrap();
    let agrees = async {
        loop {
            let mut connection = options.connect().await.unwrap();
            let show = sqlx::query_scalar("SHOW default_transaction_read_only");
            let said: String = show.fetch_one(&mut connection).await.unwrap();
            connection.close().await.unwrap();
            if said == word {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), agrees).await.expect("it reads its configuration again");
}

#[tokio::test]
async fn a_server_that_takes_no_changes_still_serves_those_who_read() {
    let own = OwnPostgres::start();
    let url = own.url();
    let store = machina_store::open(&url).await.unwrap().store;
    store.commit(&batch([put(&plain("a"))])).await.unwrap();
    let read_only = async |word: &str| {
        let sql = format!("ALTER SYSTEM SET default_transaction_read_only = {word}");
        Schema::run_at(&url, &[&sql, "SELECT pg_reload_conf()"]).await;
        is_soon_read_only(&url, word).await;
    };
    read_only("on").await;
    assert_unavailable(&*store, &batch([put(&plain("b"))]), "takes no changes now (it is read-only, or a standby)")
        .await;
    assert_eq!(store.load().await.unwrap().services.len(), 1);
    let reopened = machina_store::open(&url).await.unwrap().store;
    assert_eq!(reopened.load().await.unwrap().services.len(), 1);
    read_only("off").await;
    assert_eq!(store.commit(&batch([put(&plain("b"))])).await.unwrap(), Revision(2));
}

#[tokio::test]
async fn a_server_that_was_killed_comes_back_with_everything_acknowledged() {
    let mut own = OwnPostgres::start();
    let store = machina_store::open(&format!("{}?connect_timeout=1s", own.url())).await.unwrap().store;
    for number in 0..20 {
        store.commit(&batch([put(&plain(&format!("s{number}")))])).await.unwrap();
    }
    own.order("kill");
    let begun = Instant::now();
    assert_unavailable(&*store, &batch([put(&plain("lost"))]), "PostgreSQL server").await;
    assert!(begun.elapsed() < Duration::from_secs(8), "{:?}", begun.elapsed());
    assert_eq!(store.load().await.unwrap_err().kind(), ErrorKind::Unavailable);
    own.order("start");
    let image = store.load().await.unwrap();
    assert_eq!((image.revision, image.services.len()), (Revision(20), 20));
    assert_eq!(store.commit(&batch([put(&plain("next"))])).await.unwrap(), Revision(21));
}

#[tokio::test]
async fn a_server_that_is_silent_is_not_waited_for_for_ever() {
    let mut own = OwnPostgres::start();
    let url = format!("{}?connect_timeout=1s&statement_timeout=1s", own.url());
    let store = machina_store::open(&url).await.unwrap().store;
    store.commit(&batch([put(&plain("a"))])).await.unwrap();
    own.order("pause");
    let begun = Instant::now();
    assert_unavailable(&*store, &batch([put(&plain("b"))]), "PostgreSQL server").await;
    assert!(begun.elapsed() < Duration::from_secs(14), "{:?}", begun.elapsed());
    own.order("resume");
    assert_eq!(store.commit(&batch([put(&plain("c"))])).await.unwrap(), Revision(2));
    assert_eq!(store.load().await.unwrap().services.len(), 2);
}

/// Another who holds the counter and does nothing.
#[tokio::test]
async fn a_store_that_is_busy_says_so() {
    let schema = Schema::new();
    let url = format!("{}&lock_timeout=1s", schema.url());
    let store = machina_store::open(&url).await.unwrap().store;
    let mut connection = schema.connection().await;
    sqlx::raw_sql("BEGIN; UPDATE meta SET revision = revision").execute(&mut connection).await.unwrap();
    assert_unavailable(&*store, &batch([put(&plain("a"))]), "the store is busy").await;
    sqlx::raw_sql("ROLLBACK").execute(&mut connection).await.unwrap();
    assert_eq!(store.commit(&batch([put(&plain("a"))])).await.unwrap(), Revision(1));
}

/// What the server itself gives up, when its time is over.
#[tokio::test]
async fn a_statement_that_takes_too_long_is_given_up() {
    let schema = Schema::new();
    let url = format!("{}&statement_timeout=1s&lock_timeout=60s", schema.url());
    let backend = machina_store::open(&url).await.unwrap();
    let (store, mut changes) = (&*backend.store, batch([put(&plain("a"))]));
    changes.entries.push(audit());
    let mut holding = schema.connection().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE meta").execute(&mut holding).await.unwrap();
    assert_unavailable(store, &changes, "did not finish in time: canceling statement due to statement timeout").await;
    let error = store.changes(Revision::ZERO).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Unavailable && error.message().contains("did not finish in time"), "{error}");
    assert_eq!(schema.row(WAITING).await, "0", "somebody still waits");
    sqlx::raw_sql("ROLLBACK").execute(&mut holding).await.unwrap();
    assert_eq!(store.load().await.unwrap().services.len(), 0);
    assert_eq!(backend.journal.read(&JournalQuery::of(EntryKind::Audit)).await.unwrap().entries, []);
    assert_eq!(store.commit(&changes).await.unwrap(), Revision(1));
}

/// Who waits for the counter.
const WAITING: &str = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'meta'::regclass";

/// Each connection is busy, and more is asked for.
#[tokio::test]
async fn whoever_gets_no_connection_is_told_and_nothing_is_lost() {
    let schema = Schema::new();
    let limits = "connections_max=2&connect_timeout=3s&statement_timeout=60s&lock_timeout=60s";
    let backend = machina_store::open(&format!("{}&{limits}", schema.url())).await.unwrap();
    let store = &*backend.store;
    let mut holding = schema.connection().await;
    sqlx::raw_sql("BEGIN; LOCK TABLE meta").execute(&mut holding).await.unwrap();
    let (a, b, c) = (batch([put(&plain("a"))]), batch([put(&plain("b"))]), batch([put(&plain("c"))]));
    let others = async {
        while schema.row(WAITING).await != "2" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let entries = [audit()];
        let says = "or all connections to it are busy (`connections_max`)";
        let ((), appended) = tokio::join!(assert_unavailable(store, &c, says), backend.journal.append(&entries));
        let error = appended.unwrap_err();
        assert!(error.kind() == ErrorKind::Unavailable && error.message().contains(says), "{error}");
        sqlx::raw_sql("ROLLBACK").execute(&mut holding).await.unwrap();
    };
    let (first, second, ()) = tokio::join!(store.commit(&a), store.commit(&b), others);
    let mut revisions = [first.unwrap(), second.unwrap()];
    revisions.sort();
    assert_eq!(revisions, [Revision(1), Revision(2)]);
    assert_eq!(store.commit(&c).await.unwrap(), Revision(3));
    backend.journal.append(&[audit()]).await.unwrap();
    assert_eq!(store.load().await.unwrap().services.len(), 3);
}

/// The connection is cut at every stage of a commit, also between the server's
/// commit and its word for it. What the store says of it is what is there.
#[tokio::test]
async fn a_commit_that_is_cut_off_is_whole_or_not_there() {
    let schema = Schema::new();
    let way = Way::to(&server()).await;
    let store = machina_store::open(&schema.at(&way.url(&server()))).await.unwrap().store;
    store.commit(&batch([put(&service("warm"))])).await.unwrap();
    let (mut expected, mut cut, mut settled) = (Revision(1), 0, 0);
    let mut attempt = async |bytes: usize| {
        let name = format!("s{:06}", expected.0 * 10_000 + bytes as u64);
        way.cut_after(bytes);
        let committed = store.commit(&batch([put(&service(&name))])).await;
        let was_cut = way.has_cut();
        way.cut_after(usize::MAX);
        let image = schema.open().await.store.load().await.unwrap();
        let there = image.services.iter().any(|service| service.name().as_str() == name);
        match &committed {
            Ok(revision) => {
                expected = expected.next();
                assert!(there && *revision == expected, "{revision} was committed and is not there");
                settled += u32::from(was_cut);
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
                assert!(!there, "the commit failed, and is there: {error}");
            }
        }
        assert_eq!(image.revision, expected);
        cut += u32::from(was_cut);
        was_cut
    };
    let mut bytes = 1;
    while attempt(bytes).await {
        bytes += 37;
    }
    // The server's word for its commit is 18 bytes, near the end.
    for bytes in (bytes.saturating_sub(75)..bytes).step_by(6) {
        attempt(bytes).await;
    }
    eprintln!("{cut} commits were cut off, {settled} of them after they were committed");
    assert!(cut > 10 && settled > 0, "{cut} were cut, {settled} settled");
}

#[tokio::test]
async fn a_commit_whose_caller_goes_away_is_whole_or_not_there() {
    let schema = Schema::new();
    let store = schema.open().await.store;
    let services: Vec<_> = (0..40).map(|index| service(&format!("s{index}"))).collect();
    let changes = batch(services.iter().map(put));
    let mut abandoned = 0;
    for patience in (0..60).step_by(3) {
        let before = store.load().await.unwrap().revision;
        abandoned +=
            u32::from(tokio::time::timeout(Duration::from_millis(patience), store.commit(&changes)).await.is_err());
        // Who was abandoned with the counter may still be about to commit.
        schema.run("SELECT FROM meta FOR SHARE").await;
        let after = store.load().await.unwrap();
        assert!(after.revision == before || after.revision == before.next(), "{before} became {}", after.revision);
        assert!(after.services.iter().all(|service| service.revision == after.revision), "half a batch is there");
    }
    assert!(abandoned > 0, "every commit ended in time");
    store.commit(&changes).await.unwrap();
}
