//! What a copy holds, and how it goes on after an interruption.

use std::sync::atomic::{AtomicU32, Ordering};

use machina_core::testing::answered_call;
use machina_core::{Batch, Change, ErrorKind, ReplyProgress};
use machina_store::{CopyOptions, CopyPart, CopyProgress, Count};
use tokio::sync::Notify;

use crate::world::{CALLS, CONFIGURATIONS, SERVICES, World, claim, entry, service};

#[tokio::test]
async fn everything_is_copied_and_nothing_is_changed() {
    let world = World::full().await;
    let before = std::fs::read(world.path("from.db")).unwrap();
    let copied = world.copy(false).await.unwrap();
    assert_eq!(std::fs::read(world.path("from.db")).unwrap(), before, "the source was changed");
    assert_eq!(copied.services, Count { total: SERVICES as u64, before: 0 });
    assert_eq!(copied.definitions.total, SERVICES as u64);
    assert_eq!((copied.groups.total, copied.replies.total), (7, 3));
    assert_eq!(copied.entries.total, (CALLS + SERVICES + 3 * 40) as u64);
    assert_eq!(copied.configurations, Count { total: CONFIGURATIONS as u64, before: 0 });
    assert_eq!(copied.left_out, [""; 0]);
    assert_eq!(copied.sha256.len(), 64);

    let (from, mut to) = (world.kept("from.db").await, world.kept("to.db").await);
    assert_eq!(to.image.revision, copied.revision);
    assert_eq!(to.replies.iter().filter(|one| one.progress == ReplyProgress::Interrupted).count(), 1);
    to.replies.clone_from(&from.replies);
    assert_eq!(to.at(from.image.revision), from.clone().at(from.image.revision));
    assert_eq!(world.files(), ["from.db", "from.db.lock", "to.db", "to.db.lock"]);
}

#[tokio::test]
async fn a_second_copy_changes_nothing() {
    let world = World::full().await;
    let first = world.copy(false).await.unwrap();
    let second = world.copy(false).await.unwrap();
    assert_eq!((&second.sha256, second.revision), (&first.sha256, first.revision));
    let counts = [second.services, second.definitions, second.groups, second.entries, second.replies];
    for count in counts.into_iter().chain([second.configurations]) {
        assert_eq!(count.before, count.total);
    }
}

#[tokio::test]
async fn what_came_since_is_added_by_the_next_copy() {
    let world = World::full().await;
    let first = world.copy(false).await.unwrap();
    world
        .with("from.db", async |backend| {
            let call = machina_core::What::Audit {
                principal: "bob".to_owned(),
                action: "update".to_owned(),
                detail: serde_json::Value::Null,
            };
            backend.journal.append(&[entry(1, call.clone()), entry(2, call)]).await.unwrap();
            let new = Change::PutService(service(SERVICES).0.into());
            backend.store.commit(&Batch { changes: vec![new], ..Batch::default() }).await.unwrap();
            backend.replies.begin(&claim("new")).await.unwrap();
        })
        .await;
    let second = world.copy(false).await.unwrap();
    assert_ne!(second.sha256, first.sha256);
    assert_eq!(second.entries, Count { total: first.entries.total + 2, before: first.entries.total });
    assert_eq!(second.services, Count { total: SERVICES as u64 + 1, before: SERVICES as u64 });
    let before = CONFIGURATIONS as u64;
    assert_eq!(second.configurations, Count { total: before + 1, before });
    assert_eq!(second.replies, Count { total: 4, before: 3 });
}

/// Gives a copy up when it has told of `steps` steps; says whether it was.
async fn interrupted(world: &World, steps: u32) -> bool {
    let (told, enough) = (AtomicU32::new(0), Notify::new());
    let progress = |_: CopyProgress| {
        if told.fetch_add(1, Ordering::Relaxed) + 1 == steps {
            enough.notify_one();
        }
    };
    let (from, to) = (world.url("from.db"), world.url("to.db"));
    let copying = machina_store::copy(&from, &to, CopyOptions { replace: false, progress: &progress });
    tokio::select! {
        biased;
        () = enough.notified() => true,
        copied = copying => {
            copied.unwrap();
            false
        }
    }
}

#[tokio::test]
async fn an_interrupted_copy_goes_on_wherever_it_stopped() {
    let world = World::full().await;
    let whole = world.copy(false).await.unwrap();
    let mut steps = 1;
    loop {
        for file in ["to.db", "to.db.lock"] {
            std::fs::remove_file(world.path(file)).unwrap();
        }
        if !interrupted(&world, steps).await {
            break;
        }
        let copied = world.copy(false).await.unwrap();
        assert_eq!(copied.sha256, whole.sha256, "after {steps} steps");
        steps += 3;
    }
    assert!(steps > 12, "there were only {steps} steps");
}

#[tokio::test]
async fn many_small_pieces_make_the_whole() {
    let world = World::full().await;
    let mut rounds = 0;
    while interrupted(&world, 14 + rounds).await {
        rounds += 1;
    }
    assert!(rounds > 0, "it was never interrupted");
    let copied = world.copy(false).await.unwrap();
    assert_eq!(copied.entries.before, copied.entries.total);
}

#[tokio::test]
async fn a_store_that_a_server_uses_is_copied_as_of_one_moment() {
    let world = World::full().await;
    let serving = world.open("from.db").await;
    let copied = world.copy(false).await.unwrap();
    assert_eq!(copied.services.total, SERVICES as u64);
    let new = Change::PutService(service(SERVICES).0.into());
    serving.store.commit(&Batch { changes: vec![new], ..Batch::default() }).await.unwrap();
    assert_eq!(world.copy(false).await.unwrap().services.total, SERVICES as u64 + 1);
    serving.store.close().await.unwrap();
}

#[tokio::test]
async fn progress_is_told_part_by_part() {
    let world = World::full().await;
    let told = std::sync::Mutex::new(Vec::new());
    let progress = |progress: CopyProgress| told.lock().unwrap().push(progress);
    let (from, to) = (world.url("from.db"), world.url("to.db"));
    machina_store::copy(&from, &to, CopyOptions { replace: false, progress: &progress }).await.unwrap();
    let told = told.into_inner().unwrap();
    assert!(told.is_sorted_by_key(|told| told.part), "{told:?}");
    for part in [CopyPart::Services, CopyPart::Entries, CopyPart::Replies] {
        let last = told.iter().rfind(|told| told.part == part).unwrap();
        assert_eq!(last.done, last.total, "{part:?}");
    }
}

#[tokio::test]
async fn a_copy_of_an_empty_store_is_empty() {
    let world = World::empty();
    world.with("from.db", async |_| ()).await;
    let copied = world.copy(false).await.unwrap();
    assert_eq!((copied.services.total, copied.entries.total), (0, 0));
    assert_eq!(world.kept("to.db").await.entries, []);
}

#[tokio::test]
async fn what_has_expired_is_not_copied() {
    let world = World::empty();
    world
        .with("from.db", async |backend| {
            let mut old = claim("old");
            old.until = old.at + std::time::Duration::from_millis(1);
            backend.replies.begin(&old).await.unwrap();
        })
        .await;
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    assert_eq!(world.copy(false).await.unwrap().replies.total, 0);
    assert_eq!(world.kept("to.db").await.replies, []);
}

#[tokio::test]
async fn other_content_is_refused_and_kept() {
    let world = World::full().await;
    world.copy(false).await.unwrap();
    let call = |number| entry(number, answered_call("other", "bob"));
    let changes = async |name: &str, changes: Vec<Change>| {
        let batch = Batch { changes, ..Batch::default() };
        world.with(name, async |backend| backend.store.commit(&batch).await.unwrap()).await;
    };
    let refused = async |says: &str| {
        let before = world.kept("to.db").await;
        let error = world.copy(false).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
        assert!(error.message().contains(says) && error.message().contains("--replace"), "{error}");
        assert_eq!(world.kept("to.db").await, before, "a refused copy changed the target");
        let expected = world.kept("from.db").await;
        let copied = world.copy(true).await.unwrap();
        let replaced = world.kept("to.db").await;
        assert_eq!(replaced.entries, expected.entries);
        assert_eq!(replaced.image.services.len() as u64, copied.services.total);
        assert_eq!(world.copy(false).await.unwrap().sha256, copied.sha256);
    };

    changes("to.db", vec![Change::PutService(service(77).0.into())]).await;
    refused("service `s77`").await;

    let mut image = world.kept("from.db").await.image;
    let (one, two) = (image.services.remove(0), image.services.remove(0));
    let mut changed = machina_core::Service::clone(&one);
    changed.spec.env.insert("TOKEN".to_owned(), machina_core::Sensitive::secret("another"));
    changes("to.db", vec![Change::PutService(changed.into())]).await;
    refused(&format!("service `{}`", one.name())).await;

    let mut published = machina_core::Definitions::clone(&image.definitions[&two.spec.instances[0].id]);
    published.tools.pop();
    let (service, instance, definitions) = (two.id, two.spec.instances[0].id, published.into());
    changes("to.db", vec![Change::PutDefinitions { service, instance, definitions }]).await;
    refused(&format!("service `{}`", two.name())).await;

    // Of two services that swap their names, neither is in the way of the other.
    let named = |service: &machina_core::Service, name: &str| {
        let mut service = service.clone();
        service.spec.name = name.parse().unwrap();
        Change::PutService(service.into())
    };
    let (a, b) = (one.name().as_str(), two.name().as_str());
    changes("to.db", vec![named(&one, "other"), named(&two, a), named(&one, b)]).await;
    refused("service `").await;

    changes("from.db", vec![Change::DeleteGroup("g1".parse().unwrap())]).await;
    refused("group `g1`").await;

    world.with("to.db", async |backend| backend.journal.append(&[call(1)]).await.unwrap()).await;
    refused("kind call").await;
    world.with("from.db", async |backend| backend.journal.append(&[call(1)]).await.unwrap()).await;
    world.with("to.db", async |backend| backend.journal.append(&[call(2)]).await.unwrap()).await;
    refused("kind call").await;

    world.with("to.db", async |backend| backend.replies.begin(&claim("other")).await.unwrap()).await;
    refused("idempotency key").await;
}
