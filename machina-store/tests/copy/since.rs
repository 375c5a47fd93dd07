//! Copied while a server uses it, and once more when it is stopped: what was changed,
//! removed and forgotten between the two is so in the target, without `--replace`. What
//! the target got by itself is not lost that way.

use std::sync::Arc;
use std::time::Duration;

use machina_core::testing::answered_call;
use machina_core::{
    Backend, Batch, Change, Config, Definitions, EntryKind, ErrorKind, GroupSpec, Machina, Retention, ServiceSpec,
    Timestamp,
};
use machina_store::Copied;
use serde_json::json;

use crate::histories::history;
use crate::world::{CALLS, World, copy, entry, kept};

const LONG: Duration = Duration::from_secs(3650 * 24 * 3600);

async fn machina(backend: &Backend) -> Machina {
    let mut config = Config::default();
    // What the world holds is old, and stays nevertheless.
    (config.journal.keep, config.journal.keep_samples) = (LONG, LONG);
    Machina::builder().config(config).backend(backend.clone()).without_monitor().open().await.unwrap()
}

fn call(number: usize) -> machina_core::Entry {
    entry(number, answered_call("other", "bob"))
}

/// A server for a while: a registry in front of a store.
async fn serve(world: &World, name: &str, work: impl AsyncFnOnce(&Machina, &Backend)) {
    let backend = world.open(name).await;
    let machina = machina(&backend).await;
    work(&machina, &backend).await;
    machina.close().await;
}

/// What a server does on a day: of everything something is changed, removed and made.
async fn a_day(machina: &Machina, backend: &Backend) {
    let system = machina.system();
    system.patch("s1", &json!({"title": "another", "config": {"a": 1}}), None).await.unwrap();
    system.patch("s2", &json!({"name": "renamed"}), None).await.unwrap();
    machina.deregister("s3").await.unwrap();
    machina.deregister("s4").await.unwrap();
    machina.register(ServiceSpec::new("s4").unwrap()).await.unwrap();
    machina.register(ServiceSpec::new("new").unwrap()).await.unwrap();
    system.put_group(GroupSpec::new("g1").unwrap(), None, false).await.unwrap();
    system.remove_group("g2", None).await.unwrap();
    publish(machina, backend, "s5").await;
    for (kind, count_max) in [(EntryKind::Call, 100), (EntryKind::Sample, 7)] {
        backend.journal.trim(kind, Retention { before: Timestamp::UNIX_EPOCH, count_max }).await.unwrap();
    }
    backend.journal.append(&[call(1), call(2)]).await.unwrap();
}

/// An instance publishes other tools.
async fn publish(machina: &Machina, backend: &Backend, name: &str) {
    let service = Arc::clone(machina.get(name).unwrap().service());
    let instance = service.spec.instances[0].id;
    let mut definitions = Definitions::clone(&backend.store.load().await.unwrap().definitions[&instance]);
    definitions.tools.pop();
    definitions.listed_at += Duration::from_secs(60);
    let change = Change::PutDefinitions { service: service.id, instance, definitions: definitions.into() };
    backend.store.commit(&Batch { changes: vec![change], ..Batch::default() }).await.unwrap();
}

/// Copies, lets a day pass, and copies again.
pub(crate) async fn assert_changes_follow(world: &World, to: &str) -> Copied {
    let begin = async |machina: &Machina, _: &Backend| {
        machina.register(ServiceSpec::new("first").unwrap()).await.unwrap();
    };
    serve(world, "from.db", begin).await;
    let from = world.url("from.db");
    copy(&from, to, false).await.unwrap();
    serve(world, "from.db", a_day).await;
    let second = copy(&from, to, false).await.unwrap();
    assert_eq!(second.services.total - second.services.before, 4, "s1, s2, s4 and the new one: {second:?}");
    assert_eq!(second.definitions.before + 3, second.definitions.total, "s1, s2 and s5: {second:?}");
    let expected = world.kept("from.db").await;
    let target = machina_store::open(to).await.unwrap();
    let found = kept(&target).await;
    target.store.close().await.unwrap();
    assert_eq!(found.entries.len(), expected.entries.len());
    assert_eq!(found.image.services.len(), expected.image.services.len());
    let third = copy(&from, to, false).await.unwrap();
    assert_eq!((&third.sha256, third.entries.before), (&second.sha256, second.entries.total));
    second
}

#[tokio::test]
async fn a_second_copy_brings_what_changed_since() {
    let world = World::full().await;
    let copied = assert_changes_follow(&world, &world.url("to.db")).await;
    let (from, to) = (world.kept("from.db").await, world.kept("to.db").await);
    assert_eq!(to.entries, from.entries);
    assert_eq!(to.at(copied.revision).image, from.at(copied.revision).image);
    assert_eq!(history(&world, "to.db").await, history(&world, "from.db").await);
    let fresh = copy(&world.url("from.db"), &world.url("fresh.db"), false).await.unwrap();
    assert_eq!(fresh.sha256, copied.sha256);
}

/// Whatever was done to the source, what was done to the target by itself is in the way.
async fn assert_kept_apart(says: &str, own: impl AsyncFnOnce(&Machina, &Backend)) {
    let world = World::full().await;
    world.copy(false).await.unwrap();
    serve(&world, "to.db", own).await;
    serve(&world, "from.db", a_day).await;
    let before = world.kept("to.db").await;
    let error = world.copy(false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.message().contains(says) && error.message().contains("--replace"), "{error}");
    assert_eq!(world.kept("to.db").await, before, "a refused copy changed the target");
    world.copy(true).await.unwrap();
}

#[tokio::test]
async fn what_the_target_got_by_itself_is_in_the_way() {
    let patch = async |machina: &Machina, _: &Backend| {
        machina.system().patch("s1", &json!({"title": "its own"}), None).await.unwrap();
    };
    assert_kept_apart("service `s1`", patch).await;
    let remove = async |machina: &Machina, _: &Backend| {
        machina.deregister("s3").await.unwrap();
    };
    assert_kept_apart("service `s1`", remove).await;
    let register = async |machina: &Machina, _: &Backend| {
        machina.register(ServiceSpec::new("own").unwrap()).await.unwrap();
    };
    assert_kept_apart("service `s1`", register).await;
    let serve_a_call = async |_: &Machina, backend: &Backend| backend.journal.append(&[call(3)]).await.unwrap();
    assert_kept_apart("kind call", serve_a_call).await;
    let publish = async |machina: &Machina, backend: &Backend| publish(machina, backend, "s7").await;
    assert_kept_apart("service `s7`", publish).await;
}

#[tokio::test]
async fn a_journal_of_which_nothing_is_left_is_in_the_way() {
    let world = World::full().await;
    let first = world.copy(false).await.unwrap();
    let forget = async |backend: &Backend| {
        let retention = Retention { before: Timestamp::UNIX_EPOCH, count_max: 1 };
        backend.journal.append(&[call(1)]).await.unwrap();
        assert_eq!(backend.journal.trim(EntryKind::Call, retention).await.unwrap(), CALLS as u64);
    };
    world.with("from.db", forget).await;
    let error = world.copy(false).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Conflict && error.message().contains("kind call"), "{error}");
    let replaced = world.copy(true).await.unwrap();
    assert_eq!(replaced.entries.total, first.entries.total - CALLS as u64 + 1);
}
