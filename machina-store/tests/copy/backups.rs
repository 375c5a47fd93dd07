//! Backups: whole, checked, and beside a server that writes.

use std::path::Path;

use machina_core::{Batch, Change, ErrorKind};
use machina_store::backup;

use crate::world::{CALLS, SERVICES, World, service};

async fn assert_refused(world: &World, into: &Path, kind: ErrorKind, says: &str) {
    let error = backup(&world.url("from.db"), into).await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.message().contains(says), "{error}");
}

#[tokio::test]
async fn a_backup_is_the_whole_store_in_one_private_file() {
    let world = World::full().await;
    let before = std::fs::read(world.path("from.db")).unwrap();
    let made = backup(&world.url("from.db"), &world.path("backup.db")).await.unwrap();
    assert_eq!(std::fs::read(world.path("from.db")).unwrap(), before);
    assert_eq!((made.content.services, made.content.tools), (SERVICES as u64, 5 * SERVICES as u64));
    assert_eq!((made.content.groups, made.content.entries), (7, (CALLS + SERVICES + 3 * 40) as u64));
    assert_eq!(made.bytes, std::fs::metadata(world.path("backup.db")).unwrap().len());
    assert_eq!(world.files(), ["backup.db", "from.db", "from.db.lock"]);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = std::fs::metadata(world.path("backup.db")).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "there are secrets in it");
    }
    assert_eq!(world.kept("backup.db").await, world.kept("from.db").await);
}

#[tokio::test]
async fn a_server_goes_on_writing_meanwhile() {
    let world = World::full().await;
    let serving = world.open("from.db").await;
    let before = serving.store.load().await.unwrap().revision.0 - SERVICES as u64;
    let mut committed = 0;
    for round in 0..10 {
        let into = world.path(&format!("backup-{round}.db"));
        let url = world.url("from.db");
        let mut backing_up = Box::pin(backup(&url, &into));
        let made = loop {
            // One that is given up may have been committed all the same.
            committed += 1;
            let new = Change::PutService(service(SERVICES + committed).0.into());
            let batch = Batch { changes: vec![new], ..Batch::default() };
            tokio::select! {
                made = &mut backing_up => break made.unwrap(),
                committed = serving.store.commit(&batch) => drop(committed.unwrap()),
            }
        };
        let least = SERVICES as u64;
        assert!((least..=least + committed as u64).contains(&made.content.services), "{made:?}");
        // Whole batches only: each made one service and one revision.
        assert_eq!(made.content.revision.0 - before, made.content.services, "{made:?}");
    }
    assert!(committed > 10, "nothing was committed meanwhile");
    serving.store.close().await.unwrap();
}

#[tokio::test]
async fn a_backup_overwrites_nothing() {
    let world = World::full().await;
    std::fs::write(world.path("backup.db"), "mine").unwrap();
    assert_refused(&world, &world.path("backup.db"), ErrorKind::Invalid, "is there already").await;
    assert_refused(&world, &world.path("from.db"), ErrorKind::Invalid, "is there already").await;
    assert_eq!(std::fs::read(world.path("backup.db")).unwrap(), b"mine");
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(world.path("nowhere"), world.path("link.db")).unwrap();
        assert_refused(&world, &world.path("link.db"), ErrorKind::Invalid, "is there already").await;
    }
}

#[tokio::test]
async fn a_backup_needs_its_directory() {
    let world = World::full().await;
    assert_refused(&world, &world.path("new/backup.db"), ErrorKind::Invalid, "file: `").await;
    assert_refused(&world, &world.path("from.db/backup.db"), ErrorKind::Invalid, "cannot be written").await;
}

#[tokio::test]
async fn only_sqlite_stores_that_are_there_are_backed_up() {
    let world = World::empty();
    assert_refused(&world, &world.path("backup.db"), ErrorKind::Invalid, "from.db` cannot be read").await;
    let error = backup("memory:", &world.path("backup.db")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert_eq!(world.files(), [""; 0]);
}

#[tokio::test]
async fn a_damaged_store_gives_no_backup() {
    let world = World::full().await;
    // A reference to a record that is gone is damage, too.
    world.tamper("from.db", "PRAGMA foreign_keys = off; DELETE FROM services WHERE name = 's3'").await;
    assert_refused(&world, &world.path("backup.db"), ErrorKind::Internal, "refers to one that is gone").await;
    assert_eq!(world.files(), ["from.db", "from.db.lock"]);
}
