//! Groups in a store.

use std::sync::Arc;

use serde_json::{Value, json};

use super::fixtures::{delete, name, put, service, time};
use super::{assert_conflict, commit, commit_if, load};
use crate::error::ErrorKind;
use crate::model::{Group, GroupName, GroupSpec, Revision};
use crate::store::{Batch, Change, Changes, Precondition, Store};

fn group(record: Value) -> Group {
    let spec = GroupSpec::from_value(record).expect("the group is valid");
    let mut group = Group::new(spec, time(1), "alice");
    group.updated_at = time(2);
    group
}

fn plain(name: &str) -> Group {
    group(json!({ "name": name }))
}

fn put_group(group: &Group) -> Change {
    Change::PutGroup(Arc::new(group.clone()))
}

fn group_name(text: &str) -> GroupName {
    GroupName::new(text).expect("the name is valid")
}

/// A group that was committed is loaded as it was, and its last state counts.
pub async fn groups_are_kept(store: &dyn Store) {
    let full = group(json!({
        "name": "full", "title": "Full", "description": "Ünïcode \"quoted\"\n", "tenant": "acme", "mode": "meta",
        "members": [{"service": "io.github.user/z", "tools": ["b*", "a", "*"]}, {"service": "missing"}],
        "prefix": "on_collision"}));
    let first = commit(store, [put_group(&full), put_group(&plain("other")), put(&service("a"))]).await;
    let image = load(store).await;
    assert_eq!(image.groups, [Arc::new(full.at_revision(first)), Arc::new(plain("other").at_revision(first))]);
    assert!(image.groups[0].selects(&name("io.github.user/z"), "anything"));

    let mut changed = group(json!({"name": "full", "members": [{"service": "b"}]}));
    changed.updated_by = "bob".to_owned();
    let second = commit(store, [put_group(&changed)]).await;
    let image = load(store).await;
    assert_eq!(image.groups, [Arc::new(changed.at_revision(second)), Arc::new(plain("other").at_revision(first))]);
    assert_eq!(image.services[0].revision, first, "a group is no change of a service");
}

/// [`Precondition::GroupAbsent`] of an existing name is a conflict.
pub async fn a_group_is_made_once(store: &dyn Store) {
    let absent = || Precondition::GroupAbsent(group_name("a"));
    commit(store, [put(&service("a"))]).await;
    commit_if(store, absent(), put_group(&plain("a"))).await.expect("a service of the name does not matter");
    let before = load(store).await;
    let refused = commit_if(store, absent(), put_group(&plain("a"))).await.expect_err("the name is taken");
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    assert_eq!(load(store).await, before);
    commit_if(store, Precondition::Absent(name("b")), put_group(&plain("b"))).await.expect("no service has the name");
}

/// [`Precondition::GroupAtRevision`] of an older revision is a conflict.
pub async fn a_stale_group_is_a_conflict(store: &dyn Store) {
    let first = commit(store, [put_group(&plain("a"))]).await;
    commit(store, [put_group(&plain("b"))]).await;
    let at = |revision| Precondition::GroupAtRevision(group_name("a"), revision);
    let second = commit_if(store, at(first), put_group(&plain("a"))).await.expect("another group does not matter");
    let stale = commit_if(store, at(first), put_group(&plain("a"))).await.expect_err("the revision is stale");
    assert_eq!(stale.kind(), ErrorKind::Conflict);
    let goes = Change::DeleteGroup(group_name("a"));
    commit_if(store, at(second), goes.clone()).await.expect("the revision is current");
    let gone = commit_if(store, at(second), goes).await.expect_err("the group is gone");
    assert_eq!(gone.kind(), ErrorKind::Conflict);
}

/// A deleted group is gone, and its name is free again.
pub async fn a_deleted_group_is_gone(store: &dyn Store) {
    let whole = group(json!({"name": "a", "members": [{"service": "x"}, {"service": "y"}]}));
    commit(store, [put_group(&whole)]).await;
    let taken = vec![Change::DeleteGroup(group_name("a")), put(&service("s")), put(&service("s"))];
    assert_conflict(store, taken).await;
    commit(store, [Change::DeleteGroup(group_name("a"))]).await;
    assert!(load(store).await.groups.is_empty());
    let again = plain("a");
    let batch = Batch {
        preconditions: vec![Precondition::GroupAbsent(group_name("a"))],
        changes: vec![put_group(&again)],
        entries: Vec::new(),
    };
    let revision = store.commit(&batch).await.expect("the name is free again");
    assert_eq!(load(store).await.groups, [Arc::new(again.at_revision(revision))]);
}

/// Changes of groups are in the tail, with the revision of their batch.
pub async fn groups_are_among_the_changes(store: &dyn Store) {
    let mut a = service("a");
    a.revision = commit(store, [put(&a), put_group(&plain("g"))]).await;
    commit(store, [Change::DeleteGroup(group_name("g")), delete(&a)]).await;
    let expected = vec![
        (Revision(1), put(&a)),
        (Revision(1), put_group(&plain("g").at_revision(Revision(1)))),
        (Revision(2), Change::DeleteGroup(group_name("g"))),
        (Revision(2), delete(&a)),
    ];
    assert_eq!(store.changes(Revision::ZERO).await.expect("changes are read"), Changes::Tail(expected));
}
