//! What cannot be copied, and what is said of it.

use machina_core::{ErrorKind, Result};
use machina_store::Copied;

use crate::world::{SCHEMA_4, World, copy};

#[track_caller]
fn assert_refused(copied: Result<Copied>, kind: ErrorKind, says: &str) {
    let error = copied.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.message().contains(says), "{error}");
}

#[tokio::test]
async fn addresses_that_are_none_are_named() {
    let world = World::full().await;
    let from = world.url("from.db");
    assert_refused(copy("mysql://u:hunter2@h/d", &from, false).await, ErrorKind::Invalid, "from: must be");
    assert_refused(copy(&from, "nonsense", false).await, ErrorKind::Invalid, "to: must be");
    let error = copy(&from, "mysql://u:hunter2@h/d", false).await.unwrap_err();
    assert!(!error.to_string().contains("hunter2"), "{error}");
    // What it says is only what can be copied.
    let elsewhere = "follow+http://u:hunter2@machina.example";
    let is_none = "must be `sqlite:PATH` or `postgres://…`, and `follow+http:` is none of these";
    let says = |field: &str| format!("{field}: {is_none}");
    assert_refused(copy(elsewhere, &world.url("to.db"), false).await, ErrorKind::Invalid, &says("from"));
    assert_refused(copy(&from, elsewhere, false).await, ErrorKind::Invalid, &says("to"));
    assert_eq!(world.files(), ["from.db", "from.db.lock"]);
}

#[tokio::test]
async fn stores_in_memory_are_refused() {
    let world = World::full().await;
    assert_refused(copy("memory:", &world.url("to.db"), false).await, ErrorKind::Unsupported, "`from` must be");
    assert_refused(copy(&world.url("from.db"), "memory:", false).await, ErrorKind::Unsupported, "`to` must be");
    for url in ["sqlite::memory:", "sqlite://:memory:", "memory:x"] {
        assert_refused(copy(url, &world.url("to.db"), false).await, ErrorKind::Unsupported, "`from` must be");
    }
    assert_eq!(world.files(), ["from.db", "from.db.lock"]);
}

#[tokio::test]
async fn a_store_is_not_copied_to_itself() {
    let world = World::full().await;
    let says = "is the store that is copied";
    assert_refused(copy(&world.url("from.db"), &world.url("from.db"), true).await, ErrorKind::Invalid, says);
    let round = format!("sqlite://{}", world.path(".").join("from.db").display());
    assert_refused(copy(&world.url("from.db"), &round, true).await, ErrorKind::Invalid, says);
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(world.path("from.db"), world.path("link.db")).unwrap();
        std::fs::hard_link(world.path("from.db"), world.path("hard.db")).unwrap();
        for other in ["link.db", "hard.db"] {
            assert_refused(copy(&world.url("from.db"), &world.url(other), true).await, ErrorKind::Invalid, says);
        }
    }
}

#[tokio::test]
async fn a_store_that_is_not_there_is_not_made() {
    let world = World::empty();
    let copied = copy(&world.url("typo.db"), &world.url("to.db"), false).await;
    assert_refused(copied, ErrorKind::Invalid, "typo.db` cannot be read");
    assert_eq!(world.files(), [""; 0]);
    std::fs::create_dir(world.path("typo.db")).unwrap();
    let copied = copy(&world.url("typo.db"), &world.url("to.db"), false).await;
    assert_refused(copied, ErrorKind::Invalid, "must be a file");
}

#[tokio::test]
async fn what_is_no_store_is_not_copied() {
    let world = World::empty();
    world.tamper("from.db", "CREATE TABLE bookmarks (url TEXT)").await;
    assert_refused(world.copy(false).await, ErrorKind::Invalid, "from.db` is no store of Machina");
    std::fs::write(world.path("from.db"), "This is not a database. ".repeat(200)).unwrap();
    assert_refused(world.copy(false).await, ErrorKind::Invalid, "from.db` is not a SQLite database");
    std::fs::write(world.path("from.db"), "").unwrap();
    assert_refused(world.copy(false).await, ErrorKind::Invalid, "from.db` is no store of Machina");
}

#[tokio::test]
async fn newer_schemas_are_refused_at_both_ends() {
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (999, 'from the future', 1, x'00', 0)";
    let world = World::full().await;
    world.tamper("from.db", newer).await;
    assert_refused(world.copy(false).await, ErrorKind::Unsupported, "from.db` was written by a newer Machina");
    let world = World::full().await;
    world.with("to.db", async |_| ()).await;
    world.tamper("to.db", newer).await;
    assert_refused(world.copy(false).await, ErrorKind::Unsupported, "to.db` was written by a newer Machina");
}

#[tokio::test]
async fn an_older_schema_is_copied_and_stays_as_it_is() {
    let world = World::full().await;
    world.tamper("from.db", SCHEMA_4).await;
    let before = std::fs::read(world.path("from.db")).unwrap();
    world.copy(false).await.unwrap();
    assert_eq!(std::fs::read(world.path("from.db")).unwrap(), before);
}

#[tokio::test]
async fn a_damaged_store_is_refused() {
    let world = World::full().await;
    let mut bytes = std::fs::read(world.path("from.db")).unwrap();
    bytes[8192..].fill(0x5a);
    std::fs::write(world.path("from.db"), &bytes).unwrap();
    assert_refused(world.copy(false).await, ErrorKind::Internal, "malformed");
}

#[tokio::test]
async fn a_target_that_is_in_use_or_read_only_is_refused() {
    let world = World::full().await;
    let using = world.open("to.db").await;
    assert_refused(world.copy(true).await, ErrorKind::Unavailable, "to.db` is open in this process already");
    using.store.close().await.unwrap();
    let mut permissions = std::fs::metadata(world.path("to.db")).unwrap().permissions();
    permissions.set_readonly(true);
    std::fs::set_permissions(world.path("to.db"), permissions).unwrap();
    assert_refused(world.copy(true).await, ErrorKind::Invalid, "to.db` cannot be written");
}

#[cfg(unix)]
#[tokio::test]
async fn a_directory_that_takes_no_files_can_be_read() {
    let world = World::full().await;
    // Where SQLite would put its bookkeeping it cannot.
    std::os::unix::fs::symlink(world.path("nowhere/shm"), world.path("from.db-shm")).unwrap();
    world.copy(false).await.unwrap();
    std::fs::write(world.path("from.db-wal"), "pending").unwrap();
    std::fs::remove_file(world.path("to.db")).unwrap();
    assert_refused(world.copy(false).await, ErrorKind::Unavailable, "from.db` cannot be opened");
}
