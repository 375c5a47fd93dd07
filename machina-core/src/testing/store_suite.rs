//! How a store and a journal must behave: one function for each point of the
//! **Behaviour** lists of [`Store`] and [`Journal`]. [`store_suite!`](crate::store_suite)
//! makes a test of each. Every function expects a store that is still empty and
//! panics where the behaviour differs.

mod fixtures;
mod groups;

use std::sync::Arc;

use self::fixtures::{
    alert, audit, call, definitions, full_service, name, put_definitions, rollup, sample, transition,
};
pub(super) use self::fixtures::{delete, put, service, time, with_instances};
pub use self::groups::{
    a_deleted_group_is_gone, a_group_is_made_once, a_stale_group_is_a_conflict, groups_are_among_the_changes,
    groups_are_kept,
};
use crate::error::{ErrorKind, Result};
use crate::model::{Definitions, InstanceId, Revision, Service};
use crate::store::{
    Batch, Change, Changes, Entry, EntryKind, Image, Journal, JournalQuery, Precondition, Retention, Store,
};

/// Stamps one `#[tokio::test]` for each behaviour of a store and its journal.
///
/// The expression makes an empty [`Backend`](crate::Backend), or anything that
/// is `AsRef<Backend>` (to keep a temporary directory alive); it may `.await`.
/// The crate that uses the macro needs `tokio` with `macros` and `rt`.
///
/// ```
/// #[cfg(test)]
/// mod tests {
///     use machina_core::{Backend, MemoryStore};
///     machina_core::store_suite!(Backend::of(MemoryStore::new()));
/// }
/// ```
#[macro_export]
macro_rules! store_suite {
    ($make:expr) => {
        $crate::store_suite! { @store $make =>
            load_of_an_empty_store, commit_then_load, revisions_are_consecutive, commit_is_all_or_nothing,
            create_only, stale_revision_is_a_conflict, names_are_unique, rename_keeps_the_identity,
            delete_removes_definitions, removed_instance_loses_its_definitions, definitions_need_their_instance,
            instance_ids_are_unique, groups_are_kept, a_group_is_made_once, a_stale_group_is_a_conflict,
            a_deleted_group_is_gone, groups_are_among_the_changes, changes_after_a_revision, changes_too_old, concurrent_commits,
        }
        $crate::store_suite! { @journal $make => journal_reads_newest_first, journal_filters, journal_trims, }

        #[::tokio::test]
        async fn audit_is_in_the_batch() {
            let made = $make;
            let backend: &$crate::Backend = ::std::convert::AsRef::as_ref(&made);
            $crate::testing::store_suite::audit_is_in_the_batch(&*backend.store, &*backend.journal).await;
        }
    };
    (@$part:ident $make:expr => $($behaviour:ident,)*) => {
        $(
            #[::tokio::test]
            async fn $behaviour() {
                let made = $make;
                let backend: &$crate::Backend = ::std::convert::AsRef::as_ref(&made);
                $crate::testing::store_suite::$behaviour(&*backend.$part).await;
            }
        )*
    };
}

/// How many changes [`changes_too_old`] makes before it gives up.
const CHANGES_MAX: usize = 100_000;

async fn commit(store: &dyn Store, changes: impl IntoIterator<Item = Change>) -> Revision {
    let batch = Batch { changes: changes.into_iter().collect(), ..Batch::default() };
    store.commit(&batch).await.expect("the batch is committed")
}

async fn commit_if(store: &dyn Store, condition: Precondition, change: Change) -> Result<Revision> {
    store.commit(&Batch { preconditions: vec![condition], changes: vec![change], entries: Vec::new() }).await
}

async fn load(store: &dyn Store) -> Image {
    let mut image = store.load().await.expect("the image is loaded");
    image.services.sort_by_key(|service| service.id);
    image.groups.sort_by_key(|group| group.name().clone());
    image
}

/// Asserts that `changes` are refused as a conflict and leave no trace.
async fn assert_conflict(store: &dyn Store, changes: Vec<Change>) {
    let before = load(store).await;
    let refused = store.commit(&Batch { changes, ..Batch::default() }).await.expect_err("the batch is refused");
    assert_eq!(refused.kind(), ErrorKind::Conflict, "{refused}");
    assert_eq!(load(store).await, before);
}

/// An empty image at revision zero.
pub async fn load_of_an_empty_store(store: &dyn Store) {
    assert_eq!(load(store).await, Image::default());
}

/// What was committed is loaded, secrets and key order included.
pub async fn commit_then_load(store: &dyn Store) {
    let mut full = full_service();
    let instance = full.spec.instances[0].id;
    let published = definitions("a");
    let revision = commit(store, [put(&full), put_definitions(&full, instance, &published)]).await;
    full.revision = revision;

    let image = load(store).await;
    assert_eq!(image.revision, revision);
    assert_eq!(image.services, [Arc::new(full.clone())]);
    assert_eq!(image.services[0].spec.secrets(), full.spec.secrets());
    assert_eq!(full.spec.secrets().len(), 5, "the fixture has five secrets");
    let json = |service: &Service| serde_json::to_string(&service.spec).expect("a service is JSON");
    assert_eq!(json(&image.services[0]), json(&full));
    let json = |definitions: &Definitions| serde_json::to_string(definitions).expect("definitions are JSON");
    assert_eq!(json(&image.definitions[&instance]), json(&published));
    assert_eq!(image.definitions[&instance], published);
    assert_eq!(image.definitions.len(), 1);

    let newer = definitions("b");
    commit(store, [put_definitions(&full, instance, &newer)]).await;
    let image = load(store).await;
    assert_eq!(image.definitions[&instance], newer);
    assert_eq!(image.services[0].revision, revision, "definitions are no change of the service");
}

/// Each commit takes the next revision.
pub async fn revisions_are_consecutive(store: &dyn Store) {
    let (a, b) = (service("a"), service("b"));
    assert_eq!(commit(store, [put(&a)]).await, Revision(1));
    assert_eq!(commit(store, [put(&b), put(&a)]).await, Revision(2));
    assert_eq!(commit(store, []).await, Revision(3));
    let image = load(store).await;
    assert_eq!(image.revision, Revision(3));
    assert!(image.services.iter().all(|service| service.revision == Revision(2)), "{image:?}");
}

/// A failed precondition leaves everything as it was.
pub async fn commit_is_all_or_nothing(store: &dyn Store) {
    let a = with_instances("a", &[InstanceId::generate()]);
    commit(store, [put(&a), put_definitions(&a, a.spec.instances[0].id, &definitions("x"))]).await;
    let before = load(store).await;

    let preconditions = vec![Precondition::Exists(a.id), Precondition::Exists(service("b").id)];
    let batch = Batch { preconditions, changes: vec![put(&service("c")), delete(&a)], entries: vec![audit(1)] };
    assert_eq!(store.commit(&batch).await.expect_err("a precondition fails").kind(), ErrorKind::Conflict);
    assert_eq!(load(store).await, before);
    let taken = vec![put(&service("c")), delete(&a), put(&service("d")), put(&service("d"))];
    assert_conflict(store, taken).await;
    assert_eq!(commit(store, [put(&service("e"))]).await, before.revision.next());
}

/// [`Precondition::Absent`] of an existing name is a conflict.
pub async fn create_only(store: &dyn Store) {
    let a = service("a");
    let absent = || Precondition::Absent(name("a"));
    commit_if(store, absent(), put(&a)).await.expect("no service has the name");
    let refused = commit_if(store, absent(), put(&a)).await.expect_err("the name is taken");
    assert_eq!(refused.kind(), ErrorKind::Conflict);
    commit(store, [delete(&a)]).await;
    commit_if(store, absent(), put(&service("a"))).await.expect("the name is free again");
}

/// [`Precondition::AtRevision`] of an older revision is a conflict.
pub async fn stale_revision_is_a_conflict(store: &dyn Store) {
    let a = service("a");
    let first = commit(store, [put(&a)]).await;
    commit(store, [put(&service("b"))]).await;
    let at = |revision| Precondition::AtRevision(a.id, revision);
    let second = commit_if(store, at(first), put(&a)).await.expect("another service does not matter");
    let stale = commit_if(store, at(first), put(&a)).await.expect_err("the revision is stale");
    assert_eq!(stale.kind(), ErrorKind::Conflict);
    commit_if(store, at(second), delete(&a)).await.expect("the revision is current");
    let gone = commit_if(store, at(second), put(&a)).await.expect_err("the service is gone");
    assert_eq!(gone.kind(), ErrorKind::Conflict);
}

/// Two services of one name are a conflict, also within a batch.
pub async fn names_are_unique(store: &dyn Store) {
    let mut b = service("b");
    commit(store, [put(&service("a")), put(&b)]).await;
    assert_conflict(store, vec![put(&service("a"))]).await;
    assert_conflict(store, vec![put(&service("c")), put(&service("c"))]).await;
    b.spec.name = name("a");
    assert_conflict(store, vec![put(&b)]).await;
}

/// A service can change its name.
pub async fn rename_keeps_the_identity(store: &dyn Store) {
    let instance = InstanceId::generate();
    let mut a = with_instances("a", &[instance]);
    let published = definitions("x");
    commit(store, [put(&a), put_definitions(&a, instance, &published)]).await;
    a.spec.name = name("renamed");
    a.revision = commit(store, [put(&a)]).await;
    let image = load(store).await;
    assert_eq!(image.services, [Arc::new(a)]);
    assert_eq!(image.definitions.get(&instance), Some(&published));
    commit(store, [put(&service("a"))]).await;
}

/// Nothing of a deleted service remains.
pub async fn delete_removes_definitions(store: &dyn Store) {
    let instance = InstanceId::generate();
    let a = with_instances("a", &[instance]);
    commit(store, [put(&a), put_definitions(&a, instance, &definitions("x"))]).await;
    let deleted = commit(store, [delete(&a)]).await;
    assert_eq!(load(store).await, Image { revision: deleted, ..Image::default() });
    commit(store, [put(&a)]).await;
    assert!(load(store).await.definitions.is_empty(), "definitions of the deleted service came back");
}

/// Nothing of an instance that is no longer declared remains.
pub async fn removed_instance_loses_its_definitions(store: &dyn Store) {
    let (stays, goes) = (InstanceId::generate(), InstanceId::generate());
    let mut both = with_instances("a", &[stays, goes]);
    let published = definitions("x");
    commit(store, [put(&both), put_definitions(&both, stays, &published), put_definitions(&both, goes, &published)])
        .await;
    both.spec.instances.pop();
    commit(store, [put(&both)]).await;
    assert_eq!(load(store).await.definitions.into_keys().collect::<Vec<_>>(), [stays]);
}

/// Definitions of an undeclared instance are a conflict.
pub async fn definitions_need_their_instance(store: &dyn Store) {
    let instance = InstanceId::generate();
    let (a, b) = (with_instances("a", &[instance]), service("b"));
    commit(store, [put(&a), put(&b)]).await;
    let published = definitions("x");
    assert_conflict(store, vec![put_definitions(&a, InstanceId::generate(), &published)]).await;
    assert_conflict(store, vec![put_definitions(&b, instance, &published)]).await;
    assert_conflict(store, vec![delete(&a), put_definitions(&a, instance, &published)]).await;
}

/// Two services with one instance id are a conflict.
pub async fn instance_ids_are_unique(store: &dyn Store) {
    let instance = InstanceId::generate();
    let (mut a, b) = (with_instances("a", &[instance]), with_instances("b", &[instance]));
    commit(store, [put(&a)]).await;
    assert_conflict(store, vec![put(&b)]).await;
    a.spec.instances.clear();
    commit(store, [put(&a), put(&b)]).await;
}

/// The tail is complete and in order.
pub async fn changes_after_a_revision(store: &dyn Store) {
    let instance = InstanceId::generate();
    let mut a = with_instances("a", &[instance]);
    let definitions = put_definitions(&a, instance, &definitions("x"));
    a.revision = commit(store, [put(&a), definitions.clone()]).await;
    let mut renamed = Service { spec: a.spec.clone(), ..a.clone() };
    renamed.spec.name = name("b");
    renamed.revision = commit(store, [put(&renamed)]).await;
    commit(store, [delete(&renamed)]).await;

    let expected = [
        (Revision(1), put(&a)),
        (Revision(1), definitions),
        (Revision(2), put(&renamed)),
        (Revision(3), delete(&renamed)),
    ];
    for after in 0..=3 {
        let tail: Vec<_> = expected.iter().filter(|(revision, _)| revision.0 > after).cloned().collect();
        assert_eq!(store.changes(Revision(after)).await.expect("changes are read"), Changes::Tail(tail));
    }
    assert_eq!(store.changes(Revision(4)).await.expect("changes are read"), Changes::Reload);
}

/// A revision from before the oldest remembered one means reload.
pub async fn changes_too_old(store: &dyn Store) {
    let services: Vec<Service> = (0..500).map(|index| service(&format!("s{index}"))).collect();
    let mut last = Revision::ZERO;
    for _ in 0..CHANGES_MAX / services.len() {
        last = commit(store, services.iter().map(put)).await;
        if store.changes(Revision::ZERO).await.expect("changes are read") == Changes::Reload {
            break;
        }
    }
    assert_eq!(store.changes(Revision::ZERO).await.expect("changes are read"), Changes::Reload);
    assert_eq!(store.changes(last).await.expect("changes are read"), Changes::Tail(Vec::new()));
    assert_eq!(load(store).await.services.len(), services.len());
}

/// Of two writers with one precondition, one wins.
pub async fn concurrent_commits(store: &dyn Store) {
    for round in 0..10 {
        let text = format!("s{round}");
        let create = || commit_if(store, Precondition::Absent(name(&text)), put(&service(&text)));
        let (a, b, c) = tokio::join!(create(), create(), create());
        let lost: Vec<_> = [a, b, c].into_iter().filter_map(Result::err).map(|error| error.kind()).collect();
        assert_eq!(lost, [ErrorKind::Conflict; 2]);
    }
    assert_eq!(load(store).await.revision, Revision(10));
}

/// Everything that a query finds, page by page.
async fn read_all(journal: &dyn Journal, query: &JournalQuery) -> Vec<Entry> {
    let mut query = query.clone();
    let mut found = Vec::new();
    loop {
        let page = journal.read(&query).await.expect("the journal is read");
        assert!(page.entries.len() <= query.limit as usize, "a page is too long");
        found.extend(page.entries);
        let Some(next) = page.next else { return found };
        assert!(query.before.is_none_or(|before| next < before), "the cursor does not move");
        query.before = Some(next);
    }
}

async fn append(journal: &dyn Journal, entries: &[Entry]) {
    journal.append(entries).await.expect("the entries are appended");
}

/// Pages are complete, in order, without repetition.
pub async fn journal_reads_newest_first(journal: &dyn Journal) {
    let written = [transition(1), sample(2), call(3), audit(4)];
    append(journal, &written).await;
    for entry in &written {
        assert_eq!(read_all(journal, &JournalQuery::of(entry.what.kind())).await, std::slice::from_ref(entry));
    }
    let more: Vec<Entry> = (5..30).map(audit).collect();
    let (first, second) = more.split_at(10);
    append(journal, first).await;
    append(journal, &[]).await;
    append(journal, second).await;
    let newest_first: Vec<Entry> = (4..30).rev().map(audit).collect();
    for limit in [1, 7, 26, 100] {
        let query = JournalQuery { limit, ..JournalQuery::of(EntryKind::Audit) };
        assert_eq!(read_all(journal, &query).await, newest_first, "pages of {limit}");
    }
}

/// By kind, service, instance and time.
pub async fn journal_filters(journal: &dyn Journal) {
    let (i, j) = (InstanceId::generate(), InstanceId::generate());
    for make in [transition, sample, rollup, call, alert, audit] {
        let entry =
            |second, service: Option<&str>, instance| Entry { service: service.map(name), instance, ..make(second) };
        let written = [
            entry(1, Some("a"), Some(i)),
            entry(2, Some("a"), Some(j)),
            entry(3, Some("b"), None),
            entry(4, None, None),
        ];
        append(journal, &written).await;
        let all = JournalQuery::of(written[0].what.kind());
        let found = |query: JournalQuery| async move {
            read_all(journal, &query).await.iter().map(|entry| entry.at).collect::<Vec<_>>()
        };
        assert_eq!(found(all.clone()).await, [4, 3, 2, 1].map(time));
        assert_eq!(found(JournalQuery { service: Some(name("a")), limit: 1, ..all.clone() }).await, [2, 1].map(time));
        assert_eq!(found(JournalQuery { instance: Some(i), ..all.clone() }).await, [time(1)]);
        assert_eq!(found(JournalQuery { since: Some(time(3)), ..all.clone() }).await, [4, 3].map(time));
        let both = JournalQuery { service: Some(name("b")), instance: Some(i), ..all };
        assert_eq!(found(both).await, []);
    }
}

/// By age and by number, one kind at a time.
pub async fn journal_trims(journal: &dyn Journal) {
    let (i, j) = (InstanceId::generate(), InstanceId::generate());
    for make in [transition, sample, rollup, call, alert, audit] {
        let entry = |second, instance| Entry { instance: Some(instance), ..make(second) };
        let written: Vec<Entry> = (0..6).map(|second| entry(second, i)).chain([entry(6, j), entry(7, j)]).collect();
        append(journal, &written).await;
    }
    for kind in EntryKind::ALL {
        let left = || async {
            let entries = read_all(journal, &JournalQuery::of(*kind)).await;
            entries.iter().map(|entry| entry.at).collect::<Vec<_>>()
        };
        let trim = |before, count_max| journal.trim(*kind, Retention { before: time(before), count_max });
        assert_eq!(left().await, [7, 6, 5, 4, 3, 2, 1, 0].map(time), "{kind:?} before");
        assert_eq!(trim(2, 100).await.expect("the journal is trimmed"), 2);
        assert_eq!(left().await, [7, 6, 5, 4, 3, 2].map(time), "{kind:?} by age");
        assert_eq!(trim(0, 3).await.expect("the journal is trimmed"), if kind.is_per_instance() { 1 } else { 3 });
        let expected: &[i64] = if kind.is_per_instance() { &[7, 6, 5, 4, 3] } else { &[7, 6, 5] };
        assert_eq!(left().await, expected.iter().copied().map(time).collect::<Vec<_>>(), "{kind:?} by number");
        assert_eq!(trim(0, 3).await.expect("the journal is trimmed"), 0);
    }
}

/// Entries of a [`Batch`] are there exactly if it was committed.
pub async fn audit_is_in_the_batch(store: &dyn Store, journal: &dyn Journal) {
    let batch = |seconds: &[i64]| Batch {
        preconditions: vec![Precondition::Absent(name("a"))],
        changes: vec![put(&service("a"))],
        entries: seconds.iter().copied().map(audit).collect(),
    };
    store.commit(&batch(&[1, 2])).await.expect("the batch is committed");
    store.commit(&batch(&[3])).await.expect_err("the name is taken");
    assert_eq!(read_all(journal, &JournalQuery::of(EntryKind::Audit)).await, [audit(2), audit(1)]);
}
