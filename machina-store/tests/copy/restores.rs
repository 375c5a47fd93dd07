//! Backups that become the store again.

use std::path::Path;

use machina_core::{Batch, Change, ErrorKind, Revision};
use machina_store::{Restored, backup, restore};

use crate::world::{SCHEMA_4, SERVICES, World, service};

/// A full store with a backup, and one more service since.
async fn with_backup() -> (World, String) {
    let world = World::full().await;
    let made = backup(&world.url("from.db"), &world.path("backup.db")).await.unwrap();
    let new = Change::PutService(service(SERVICES).0.into());
    let batch = Batch { changes: vec![new], ..Batch::default() };
    world.with("from.db", async |backend| backend.store.commit(&batch).await.unwrap()).await;
    (world, made.sha256)
}

async fn restored(world: &World, expected: Option<&str>) -> machina_core::Result<Restored> {
    restore(&world.url("from.db"), &world.path("backup.db"), expected).await
}

/// Nothing came of it: the store is what it was.
async fn assert_refused(world: &World, expected: Option<&str>, kind: ErrorKind, says: &str) {
    let before = world.kept("from.db").await;
    let error = restored(world, expected).await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.message().contains(says), "{error}");
    assert_eq!(world.kept("from.db").await, before);
    assert!(
        !world.files().iter().any(|name| name.contains("partial") || name.contains("before")),
        "{:?}",
        world.files()
    );
}

#[tokio::test]
async fn a_backup_becomes_the_store_and_the_one_before_stays() {
    let (world, sha256) = with_backup().await;
    let before = world.kept("from.db").await;
    let restored = restored(&world, Some(&sha256.to_uppercase())).await.unwrap();
    assert_eq!((restored.content.services, &restored.sha256), (SERVICES as u64, &sha256));
    let now = world.kept("from.db").await;
    let backup = world.kept("backup.db").await;
    assert_eq!(now.clone().at(Revision(1)), backup.clone().at(Revision(1)));

    // Above both: whoever followed the store sees that it is another.
    assert_eq!(now.image.revision, before.image.revision.next());
    assert!(now.image.revision > backup.image.revision);
    assert_eq!(restored.content.revision, now.image.revision);

    let kept = restored.kept.unwrap();
    let name = kept.file_name().unwrap().to_str().unwrap();
    assert!(name.starts_with("from.db.before-"), "{name}");
    assert_eq!(world.kept(name).await, before);
}

#[tokio::test]
async fn a_store_that_is_not_there_is_made() {
    let (world, _) = with_backup().await;
    let made = restore(&world.url("deep/new.db"), &world.path("backup.db"), None).await.unwrap();
    assert_eq!(made.kept, None);
    assert_eq!(world.kept("deep/new.db").await.image.services.len(), SERVICES);
}

#[tokio::test]
async fn a_damaged_store_is_replaced_and_kept() {
    let (world, _) = with_backup().await;
    let mut bytes = std::fs::read(world.path("from.db")).unwrap();
    bytes[100..].fill(0x5a);
    std::fs::write(world.path("from.db"), &bytes).unwrap();
    std::fs::write(world.path("from.db-wal"), "left over").unwrap();
    let restored = restored(&world, None).await.unwrap();
    assert_eq!(std::fs::read(restored.kept.unwrap()).unwrap(), bytes);
    let now = world.kept("from.db").await;
    assert_eq!(now.image.services.len(), SERVICES);
    assert!(now.image.revision.0 > 1_000_000, "how far the one before was is not known");
}

#[tokio::test]
async fn a_store_in_use_is_left_alone() {
    let (world, _) = with_backup().await;
    let serving = world.open("from.db").await;
    let error = restored(&world, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.message().contains("is open in this process already"), "{error}");
    assert_eq!(serving.store.load().await.unwrap().services.len(), SERVICES + 1);
    serving.store.close().await.unwrap();
}

#[tokio::test]
async fn another_file_than_expected_is_refused() {
    let (world, _) = with_backup().await;
    assert_refused(&world, Some("00"), ErrorKind::Invalid, "is not the backup that is meant").await;
}

#[tokio::test]
async fn what_is_no_backup_is_refused() {
    let (world, _) = with_backup().await;
    let damaged = |from: usize| {
        let mut bytes = std::fs::read(world.path("backup.db")).unwrap();
        bytes[from..].fill(0x5a);
        bytes
    };
    let (whole, damaged) = (std::fs::read(world.path("backup.db")).unwrap(), damaged(8192));
    let put = |bytes: &[u8]| std::fs::write(world.path("backup.db"), bytes).unwrap();

    put(&damaged);
    assert_refused(&world, None, ErrorKind::Internal, "malformed").await;
    put(&whole[..whole.len() / 2]);
    assert_refused(&world, None, ErrorKind::Internal, "malformed").await;
    put(b"");
    assert_refused(&world, None, ErrorKind::Invalid, "backup.db` is no store of Machina").await;
    put("This is not a database. ".repeat(200).as_bytes());
    assert_refused(&world, None, ErrorKind::Invalid, "backup.db` is not a SQLite database").await;
    std::fs::remove_file(world.path("backup.db")).unwrap();
    assert_refused(&world, None, ErrorKind::Invalid, "backup.db` cannot be read").await;
    world.tamper("backup.db", "CREATE TABLE bookmarks (url TEXT)").await;
    assert_refused(&world, None, ErrorKind::Invalid, "backup.db` is no store of Machina").await;

    put(&whole);
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (999, 'from the future', 1, x'00', 0)";
    world.tamper("backup.db", newer).await;
    assert_refused(&world, None, ErrorKind::Unsupported, "was written by a newer Machina").await;
}

#[tokio::test]
async fn a_backup_of_an_older_schema_is_brought_up_to_date() {
    let (world, _) = with_backup().await;
    world.tamper("backup.db", SCHEMA_4).await;
    restored(&world, None).await.unwrap();
    assert_eq!(world.kept("from.db").await.image.services.len(), SERVICES);
}

#[tokio::test]
async fn only_a_sqlite_store_is_restored_and_not_from_itself() {
    let (world, _) = with_backup().await;
    let error = restore("memory:", &world.path("backup.db"), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    let itself: &Path = &world.path("from.db");
    let error = restore(&world.url("from.db"), itself, None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.message().contains("is the store itself"), "{error}");
}
