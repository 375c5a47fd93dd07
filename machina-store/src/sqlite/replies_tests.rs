//! What the suites of groups and replies cannot see: the tables, the limits, and
//! what a process that ended left behind.

use std::sync::Arc;
use std::time::Duration;

use machina_core::{
    Batch, Begun, Change, Claim, ErrorKind, Group, GroupSpec, Keep, Replies, Reply, ReplyKey, ReplyProgress, Store,
    Timestamp,
};
use serde_json::json;
use sqlx::Row;
use tempfile::TempDir;

use super::SqliteStore;
use crate::remembered::Limits;

async fn limited(entries_max: i64, bytes_max: i64) -> (TempDir, SqliteStore) {
    let directory = tempfile::tempdir().unwrap();
    let mut store = SqliteStore::open(&directory.path().join("machina.db")).await.unwrap();
    store.reply_limits = Limits { entries_max, bytes_max };
    (directory, store)
}

fn claim(key: &str) -> Claim {
    let key = ReplyKey { tenant: "acme".to_owned(), principal: "alice".to_owned(), key: key.to_owned() };
    let at = Timestamp::UNIX_EPOCH;
    Claim { key, request: "hash".to_owned(), at, until: at + Duration::from_secs(10) }
}

fn reply(bytes: usize) -> Reply {
    Reply { status: 201, headers: vec![("etag".to_owned(), "\"1\"".to_owned())], body: vec![b'x'; bytes] }
}

async fn answered(store: &SqliteStore, key: &str, bytes: usize) {
    assert_eq!(store.begin(&claim(key)).await.unwrap(), Begun::New);
    store.finish(&claim(key).key, &reply(bytes), Keep::Whole).await.unwrap();
}

async fn progress(store: &SqliteStore, key: &str) -> ReplyProgress {
    match store.begin(&claim(key)).await.unwrap() {
        Begun::Known { progress, .. } => progress,
        Begun::New => panic!("{key} is forgotten"),
    }
}

/// The first row of `sql` as text, columns joined by `|`.
async fn row(store: &SqliteStore, sql: &'static str) -> String {
    let row = sqlx::query(sql).fetch_one(&store.writer).await.unwrap();
    let cell = |index| row.get_unchecked::<Option<String>, _>(index).unwrap_or_default();
    (0..row.len()).map(cell).collect::<Vec<_>>().join("|")
}

#[tokio::test]
async fn what_a_process_began_and_did_not_finish_is_interrupted_for_the_next() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("machina.db");
    let first = SqliteStore::open(&path).await.unwrap();
    answered(&first, "done", 3).await;
    first.begin(&claim("begun")).await.unwrap();
    assert_eq!(progress(&first, "begun").await, ReplyProgress::Running);
    first.close().await.unwrap();

    let second = SqliteStore::open(&path).await.unwrap();
    assert_eq!(progress(&second, "done").await, ReplyProgress::Answered(reply(3)));
    assert_eq!(progress(&second, "begun").await, ReplyProgress::Interrupted);
    second.begin(&claim("new")).await.unwrap();
    assert_eq!(progress(&second, "new").await, ReplyProgress::Running);
}

#[tokio::test]
async fn where_there_is_no_room_a_request_is_refused() {
    let (_directory, store) = limited(2, 1000).await;
    for key in ["a", "b"] {
        store.begin(&claim(key)).await.unwrap();
    }
    let refused = store.begin(&claim("c")).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    assert!(refused.context().retry_after_ms.is_some());
    store.forget(&claim("a").key).await.unwrap();
    assert_eq!(store.begin(&claim("c")).await.unwrap(), Begun::New);
    assert_eq!(progress(&store, "b").await, ReplyProgress::Running);
}

#[tokio::test]
async fn the_oldest_answers_make_room_and_leave_their_status() {
    let (_directory, store) = limited(1000, 4000).await;
    for number in 0..250 {
        answered(&store, &number.to_string(), 20).await;
    }
    assert_eq!(progress(&store, "0").await, ReplyProgress::NotKept(201));
    assert_eq!(progress(&store, "249").await, ReplyProgress::Answered(reply(20)));
    let kept: i64 = row(&store, "SELECT sum(bytes) FROM replies").await.parse().unwrap();
    assert!((1..=4000).contains(&kept), "{kept}");
    assert_eq!(row(&store, "SELECT count(*) FROM replies").await, "250");
}

#[tokio::test]
async fn the_tables_speak_for_themselves() {
    let (_directory, store) = limited(10, 1000).await;
    let record = json!({"name": "g", "title": "G", "tenant": "acme", "mode": "meta", "prefix": "on_collision",
        "members": [{"service": "x/a", "tools": ["b*"]}, {"service": "c"}]});
    let group = Group::new(GroupSpec::from_value(record).unwrap(), Timestamp::UNIX_EPOCH, "alice");
    let batch = Batch { changes: vec![Change::PutGroup(Arc::new(group))], ..Batch::default() };
    store.commit(&batch).await.unwrap();
    answered(&store, "k", 2).await;
    for (sql, expected) in [
        (
            "SELECT name, title, description, tenant, mode, prefix, revision, created_at, updated_by FROM tool_groups",
            "g|G||acme|meta|on_collision|1|1970-01-01T00:00:00.000Z|alice",
        ),
        (
            "SELECT group_concat(service || ':' || coalesce(tools, 'all'), ' ') FROM tool_group_members",
            "x/a:[\"b*\"] c:all",
        ),
        (
            "SELECT tenant, principal, key, request, begun_at, expires_at, status, headers, body FROM replies",
            "acme|alice|k|hash|1970-01-01T00:00:00.000Z|1970-01-01T00:00:10.000Z|201|[[\"etag\",\"\\\"1\\\"\"]]|xx",
        ),
    ] {
        assert_eq!(row(&store, sql).await, expected, "{sql}");
    }
}
