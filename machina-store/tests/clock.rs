//! The clock of the machine is set back or forward by an hour while a store is in
//! use: what it keeps stays in its order, and is neither lost nor kept for ever. The
//! leases of replicas go by the clock of the database and are tested elsewhere.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::time::Duration;

use machina_core::{
    Backend, Begun, Claim, Entry, EntryKind, JournalConfig, JournalQuery, Keep, MemoryStore, Reply, ReplyKey,
    ReplyProgress, Timestamp, What,
};

const HOUR: Duration = Duration::from_secs(3600);
const NOON: i64 = 1_750_000_000;

fn noon() -> Timestamp {
    Timestamp::from_second(NOON).unwrap()
}

fn audit(action: &str, at: Timestamp) -> Entry {
    let what =
        What::Audit { principal: "alice".to_owned(), action: action.to_owned(), detail: serde_json::Value::Null };
    Entry { at, service: None, instance: None, what }
}

fn sample(at: Timestamp) -> Entry {
    let what = What::Sample { outcome: "pass".to_owned(), response_time_ms: None, error: None };
    Entry { at, service: None, instance: None, what }
}

async fn actions(backend: &Backend) -> Vec<String> {
    let page = backend.journal.read(&JournalQuery { limit: 100, ..JournalQuery::of(EntryKind::Audit) }).await.unwrap();
    let action = |entry: Entry| match entry.what {
        What::Audit { action, .. } => action,
        other => panic!("{other:?}"),
    };
    page.entries.into_iter().map(action).collect()
}

/// Entries are in the order in which they were written, whatever their times say.
async fn the_journal_keeps_its_order(backend: &Backend) {
    for (action, at) in [("one", noon()), ("two", noon() - HOUR), ("three", noon() + HOUR), ("four", noon())] {
        backend.journal.append(&[audit(action, at)]).await.unwrap();
    }
    assert_eq!(actions(backend).await, ["four", "three", "two", "one"]);
    let since = JournalQuery { since: Some(noon()), limit: 100, ..JournalQuery::of(EntryKind::Audit) };
    assert_eq!(backend.journal.read(&since).await.unwrap().entries.len(), 3, "what says an earlier time is left out");
}

/// An hour is little of what is kept for a day and of what is kept for 90: old
/// entries go an hour early or late, others stay.
async fn retention_is_wrong_by_the_hour_and_no_more(backend: &Backend) {
    let config = JournalConfig::default();
    let old = noon() - config.keep_samples;
    let times = [old - HOUR * 2, old - HOUR / 2, old + HOUR / 2, old + HOUR * 2, noon()];
    backend.journal.append(&times.map(sample)).await.unwrap();
    let mut left = Vec::new();
    for now in [noon() - HOUR, noon(), noon() + HOUR, noon()] {
        for kind in [EntryKind::Sample, EntryKind::Audit] {
            backend.journal.trim(kind, config.retention(kind, 1, now)).await.unwrap();
        }
        let query = JournalQuery { limit: 100, ..JournalQuery::of(EntryKind::Sample) };
        left.push(backend.journal.read(&query).await.unwrap().entries.len());
    }
    assert_eq!(left, [4, 3, 2, 2]);
    assert_eq!(actions(backend).await.len(), 4, "the audit is kept for 90 days");
}

/// An answer is found while its time lasts by the clock as it is now: an hour longer
/// or shorter than it should, and work is never done twice because of a step back.
async fn kept_answers_last_an_hour_longer_or_shorter(backend: &Backend) {
    let key = ReplyKey { tenant: "acme".to_owned(), principal: "alice".to_owned(), key: "k".to_owned() };
    let claim = |at: Timestamp| Claim { key: key.clone(), request: "r".to_owned(), at, until: at + HOUR * 24 };
    assert_eq!(backend.replies.begin(&claim(noon())).await.unwrap(), Begun::New);
    let reply = Reply { status: 201, headers: Vec::new(), body: b"done".to_vec() };
    backend.replies.finish(&key, &reply, Keep::Whole).await.unwrap();
    for at in [noon() - HOUR, noon() + HOUR, noon() + HOUR * 23] {
        let begun = backend.replies.begin(&claim(at)).await.unwrap();
        assert!(
            matches!(&begun, Begun::Known { progress: ReplyProgress::Answered(found), .. } if *found == reply),
            "{at}: {begun:?}"
        );
        assert_eq!(backend.replies.trim(at).await.unwrap(), 0, "{at}");
    }
    assert_eq!(backend.replies.begin(&claim(noon() + HOUR * 25)).await.unwrap(), Begun::New, "its time is over");
}

async fn all(backend: Backend) {
    the_journal_keeps_its_order(&backend).await;
    retention_is_wrong_by_the_hour_and_no_more(&backend).await;
    kept_answers_last_an_hour_longer_or_shorter(&backend).await;
    backend.store.close().await.unwrap();
}

#[tokio::test]
async fn a_clock_that_steps_by_an_hour_loses_nothing_in_memory() {
    all(Backend::of(MemoryStore::new())).await;
}

#[tokio::test]
async fn a_clock_that_steps_by_an_hour_loses_nothing_in_sqlite() {
    let directory = tempfile::tempdir().unwrap();
    all(machina_store::open(&format!("sqlite:{}", directory.path().join("m.db").display())).await.unwrap()).await;
}

#[cfg(feature = "postgres")]
mod postgres {
    #[path = "schema.rs"]
    #[allow(dead_code, reason = "it serves other tests, too")]
    mod schema;

    #[tokio::test]
    async fn a_clock_that_steps_by_an_hour_loses_nothing_in_postgres() {
        let schema = schema::Schema::new();
        super::all(schema.open().await).await;
    }
}
