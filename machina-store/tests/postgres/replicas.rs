//! Several stores on one database.

use std::time::Duration;

use machina_core::{
    Begun, Change, Changes, Claim, Entry, EntryKind, ErrorKind, InstanceId, JournalQuery, Keep, ReplicaId, Reply,
    ReplyKey, ReplyProgress, Retention, Revision, Timestamp, What,
};
use tokio::time::{Instant, timeout};

use super::making::{batch, plain, put};
use super::schema::Schema;
use super::server::OwnPostgres;

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn nobody_misses_a_commit_of_many_writers() {
    const WRITERS: u64 = 6;
    const EACH: u64 = 25;
    let schema = Schema::new();
    let mut writers = Vec::new();
    for _ in 0..WRITERS {
        writers.push(schema.open().await.store);
    }
    let reader = schema.open().await.store;
    let write = async |index: usize| {
        for number in 0..EACH {
            writers[index].commit(&batch([put(&plain(&format!("s{index}-{number}")))])).await.unwrap();
        }
    };
    let follow = async {
        let (mut seen, mut at) = (Vec::new(), Revision::ZERO);
        while at.0 < WRITERS * EACH {
            let Changes::Tail(tail) = reader.changes(at).await.unwrap() else { panic!("it is all there") };
            at = tail.last().map_or(at, |(revision, _)| *revision);
            seen.extend(tail.into_iter().map(|(revision, _)| revision.0));
        }
        seen
    };
    let (seen, ..) = tokio::join!(follow, write(0), write(1), write(2), write(3), write(4), write(5));
    assert_eq!(seen, (1..=WRITERS * EACH).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_commit_wakes_the_others_and_not_oneself() {
    // A server of its own: those who share a database hear of each other's commits, whatever their schemas are.
    let own = OwnPostgres::start();
    let open = async || machina_store::open(&own.url()).await.unwrap().store;
    let (a, b, nothing) = (open().await, open().await, batch([]));
    for store in [&a, &b] {
        timeout(LONG, store.changed()).await.unwrap().unwrap();
    }
    let (woken, committed) = tokio::join!(timeout(LONG, b.changed()), a.commit(&nothing));
    assert!(woken.unwrap().is_ok() && committed.is_ok());
    assert!(timeout(Duration::from_millis(300), a.changed()).await.is_err(), "it was woken by itself");

    let url = own.url();
    let cut = ["SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ILIKE 'LISTEN%' AND pid IN \
               (SELECT pid FROM pg_stat_activity WHERE application_name = 'machina')"];
    let (woken, ()) = tokio::join!(timeout(LONG, b.changed()), Schema::run_at(&url, &cut));
    // That announcements may have been lost is a reason to look.
    assert!(woken.is_ok());
    drop(timeout(Duration::from_millis(1500), b.changed()).await);
    let (woken, committed) = tokio::join!(timeout(LONG, b.changed()), a.commit(&nothing));
    assert!(woken.unwrap().is_ok() && committed.is_ok());
}

#[tokio::test]
async fn another_generation_is_a_reload_and_no_base_for_changes() {
    let schema = Schema::new();
    let store = schema.open().await.store;
    store.commit(&batch([put(&plain("a"))])).await.unwrap();
    for replaced in [
        "UPDATE meta SET generation = gen_random_uuid()",
        // What restoring a dump does: another table with the same in it.
        "ALTER TABLE meta RENAME TO old; CREATE TABLE meta (LIKE old INCLUDING ALL); \
         INSERT INTO meta SELECT * FROM old; DROP TABLE old",
    ] {
        let revision = store.load().await.unwrap().revision;
        assert_eq!(store.changes(revision).await.unwrap(), Changes::Tail(Vec::new()));
        schema.run(replaced).await;
        assert_eq!(store.changes(revision).await.unwrap(), Changes::Reload);
        let error = store.commit(&batch([put(&plain("b"))])).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Conflict && error.message().contains("was replaced"), "{error}");
        assert_eq!(store.load().await.unwrap().revision, revision);
        assert_eq!(store.commit(&batch([])).await.unwrap(), revision.next());
    }
    schema.run("UPDATE meta SET revision = 1").await;
    assert_eq!(store.changes(Revision(3)).await.unwrap(), Changes::Reload);
}

#[tokio::test]
async fn the_tail_is_bounded_in_bytes() {
    let schema = Schema::new();
    let store = schema.open().await.store;
    let mut a = plain("a");
    a.spec.metadata.insert("text".to_owned(), "x".repeat(5_000_000).into());
    for _ in 0..15 {
        store.commit(&batch([put(&a)])).await.unwrap();
    }
    assert_eq!(store.changes(Revision::ZERO).await.unwrap(), Changes::Reload);
    assert!(matches!(store.changes(Revision(5)).await.unwrap(), Changes::Tail(tail) if tail.len() == 10));
    let kept: u64 = schema.row("SELECT sum(length(body::text)) FROM changes").await.parse().unwrap();
    assert!(kept <= 64 * 1024 * 1024, "{kept}");
}

fn claim() -> Claim {
    let key = ReplyKey { tenant: "acme".to_owned(), principal: "alice".to_owned(), key: "k".to_owned() };
    let at = Timestamp::from_second(1_750_000_000).unwrap();
    Claim { key, request: "hash".to_owned(), at, until: at + Duration::from_secs(1000) }
}

#[tokio::test]
async fn what_another_replica_does_is_running_while_it_lives() {
    let schema = Schema::new();
    let (a, b) = (schema.open().await, schema.open().await);
    let progress = async || match b.replies.begin(&claim()).await.unwrap() {
        Begun::Known { progress, .. } => progress,
        Begun::New => panic!("it is forgotten"),
    };
    let (replica, leases) = (ReplicaId::generate(), a.leases.as_ref().unwrap());
    leases.hold(replica, LONG).await.unwrap();
    assert_eq!(a.replies.begin(&claim()).await.unwrap(), Begun::New);
    assert_eq!(progress().await, ReplyProgress::Running);
    leases.hold(replica, Duration::from_millis(300)).await.unwrap();
    tokio::time::sleep(Duration::from_millis(400)).await;
    assert_eq!(progress().await, ReplyProgress::Interrupted);
    let reply = Reply { status: 201, headers: Vec::new(), body: b"x".to_vec() };
    a.replies.finish(&claim().key, &reply, Keep::Whole).await.unwrap();
    assert_eq!(progress().await, ReplyProgress::Answered(reply));
}

#[tokio::test]
async fn answers_are_bounded_in_number_and_in_bytes() {
    let schema = Schema::new();
    let replies = schema.open().await.replies;
    replies.begin(&claim()).await.unwrap();
    let rest = "now(), now() + interval '1 day'";
    let sql = format!(
        "INSERT INTO replies (tenant, principal, key, request, run, begun_at, expires_at, status, bytes, body) \
        SELECT '', 'x', i::text, 'r', gen_random_uuid(), {rest}, 200, 2700, '' FROM generate_series(1, 99999) AS i"
    );
    schema.run(&sql).await;
    let mut next = claim();
    next.key.key = "next".to_owned();
    let error = replies.begin(&next).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Overloaded);
    assert!(error.message().starts_with("100000 idempotency keys"), "{error}");
    let reply = Reply { status: 200, headers: Vec::new(), body: vec![0; 10] };
    replies.finish(&claim().key, &reply, Keep::Whole).await.unwrap();
    let kept: u64 = schema.row("SELECT sum(bytes) FROM replies").await.parse().unwrap();
    assert!((260_000_000..=268_435_456).contains(&kept), "{kept}");
    assert_eq!(schema.row("SELECT count(*), count(status) FROM replies").await, "100000|100000");
}

#[tokio::test]
async fn of_those_who_would_trim_one_does() {
    let schema = Schema::new();
    let journal = schema.open().await.journal;
    let instance = Some(InstanceId::generate());
    let what = || What::Sample { outcome: "pass".to_owned(), response_time_ms: None, error: None };
    let entries: Vec<_> = (0..45_000)
        .map(|at| Entry { at: Timestamp::from_second(at).unwrap(), service: None, instance, what: what() })
        .collect();
    journal.append(&entries).await.unwrap();
    let retention = Retention { before: Timestamp::from_second(100).unwrap(), count_max: 40 };
    let mut other = schema.connection().await;
    let lock =
        "BEGIN; SELECT pg_advisory_xact_lock(hashtext('machina trim'), hashtext(current_schema() || 'health_checks'))";
    sqlx::raw_sql(lock).execute(&mut other).await.unwrap();
    assert_eq!(journal.trim(EntryKind::Sample, retention).await.unwrap(), 0);
    sqlx::raw_sql("ROLLBACK").execute(&mut other).await.unwrap();
    assert_eq!(journal.trim(EntryKind::Sample, retention).await.unwrap(), 45_000 - 40);
    let left = journal.read(&JournalQuery::of(EntryKind::Sample)).await.unwrap().entries;
    assert_eq!((left.len(), left[39].at.as_second()), (40, 44_960));
}

#[tokio::test]
async fn a_lease_is_not_taken_while_its_holder_writes() {
    let schema = Schema::new();
    let (a, b) = (schema.open().await, schema.open().await);
    let (first, second) = (ReplicaId::generate(), ReplicaId::generate());
    let held = a.leases.as_ref().unwrap().hold(first, Duration::from_millis(500)).await.unwrap().shards[0];
    // As the holder does in its commit, and is stopped then.
    let mut writing = schema.connection().await;
    sqlx::raw_sql("BEGIN; SELECT FROM shard_lease WHERE shard = 0 FOR SHARE").execute(&mut writing).await.unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    let claimed = b.leases.as_ref().unwrap().hold(second, LONG).await.unwrap();
    assert_eq!((claimed.replicas, claimed.shards.len(), claimed.shards[0].shard), (1, 255, 1));
    sqlx::raw_sql("COMMIT").execute(&mut writing).await.unwrap();
    let claimed = b.leases.as_ref().unwrap().hold(second, LONG).await.unwrap();
    assert_eq!((claimed.shards[0].shard, claimed.shards[0].epoch), (0, held.epoch + 1));
}

#[tokio::test]
async fn definitions_of_a_later_version_hide_no_other() {
    let schema = Schema::new();
    let store = schema.open().await.store;
    let a = super::making::service("a");
    store.commit(&batch([put(&a), super::making::put_tools(&a, 0, 3)])).await.unwrap();
    schema.run("UPDATE tools SET definition = '{\"name\": \"t1\"}' WHERE name = 't1'").await;
    let image = store.load().await.unwrap();
    let definitions = &image.definitions[&a.spec.instances[0].id];
    assert_eq!(definitions.tools.iter().map(|tool| tool.name().as_str()).collect::<Vec<_>>(), ["t0", "t2"]);
    assert_eq!(definitions.rejected[0].name.as_deref(), Some("t1"));
    let Changes::Tail(tail) = store.changes(Revision::ZERO).await.unwrap() else { panic!("it is all there") };
    assert!(matches!(&tail[1].1, Change::PutDefinitions { definitions, .. } if definitions.tools.len() == 3));
}

#[test]
fn a_store_may_outlive_its_runtime() {
    let schema = Schema::new();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let backend = runtime.block_on(async {
        let backend = schema.open().await;
        timeout(LONG, backend.store.changed()).await.unwrap().unwrap();
        backend
    });
    drop(runtime);
    drop(backend);
}

#[tokio::test]
async fn many_services_are_made_and_loaded_quickly() {
    const SERVICES: usize = 2000;
    let schema = Schema::new();
    let store = schema.open().await.store;
    let services: Vec<_> = (0..SERVICES).map(|index| super::making::service(&format!("s{index}"))).collect();
    let started = Instant::now();
    for some in services.chunks(500) {
        store.commit(&batch(some.iter().map(put))).await.unwrap();
    }
    let made = started.elapsed();
    for some in services.chunks(500) {
        store.commit(&batch(some.iter().map(|service| super::making::put_tools(service, 0, 5)))).await.unwrap();
    }
    let published = started.elapsed() - made;
    let image = store.load().await.unwrap();
    let loaded = started.elapsed() - made - published;
    assert_eq!((image.services.len(), image.definitions.len()), (SERVICES, SERVICES));
    eprintln!(
        "{SERVICES} services x 2 instances: made in {made:?}, {} tools in {published:?}, loaded in {loaded:?}",
        SERVICES * 5
    );
    assert!(made.as_secs() < 30, "unoptimised and on a busy machine it takes 3 s: {made:?}");
}
