//! What the world does to a server and to the way to it: nothing is lost silently,
//! and what was said to be committed is there.

use std::time::Duration;

use machina_core::{Batch, EntryKind, ErrorKind, JournalQuery, Revision, Store};
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

#[tokio::test]
async fn a_server_that_takes_no_changes_still_serves_those_who_read() {
    let own = OwnPostgres::start();
    let url = own.url();
    let store = machina_store::open(&url).await.unwrap().store;
    store.commit(&batch([put(&plain("a"))])).await.unwrap();
    let read_only = |on: bool| {
        let url = url.clone();
        async move {
            let sql = format!("ALTER SYSTEM SET default_transaction_read_only = {on}");
            Schema::run_at(&url, &[&sql, "SELECT pg_reload_conf()"]).await;
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    read_only(true).await;
    assert_unavailable(&*store, &batch([put(&plain("b"))]), "takes no changes now (it is read-only, or a standby)")
        .await;
    assert_eq!(store.load().await.unwrap().services.len(), 1);
    let reopened = machina_store::open(&url).await.unwrap().store;
    assert_eq!(reopened.load().await.unwrap().services.len(), 1);
    read_only(false).await;
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
        let after = store.load().await.unwrap();
        assert!(after.revision == before || after.revision == before.next(), "{before} became {}", after.revision);
        assert!(after.services.iter().all(|service| service.revision == after.revision), "half a batch is there");
    }
    assert!(abandoned > 0, "every commit ended in time");
    store.commit(&changes).await.unwrap();
}
