//! What happens when there is no more room. A test runs itself again as a process
//! that may write no file longer than so much: to SQLite that is a disk which
//! takes nothing more.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "copy/world.rs"]
#[allow(dead_code, reason = "it serves other tests, too")]
mod world;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use machina_core::ErrorKind;
use machina_store::{backup, restore};

use tokio::sync::Mutex;

use crate::world::{World, copy};

/// A process that one test starts has, until it is another program, the files open
/// that the other tests have: the locks on their stores too.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// Set for the process that has no room: the directory of the world.
const CRAMPED: &str = "MACHINA_TEST_CRAMPED";
/// How long a file may be there, in blocks of 512 bytes.
const BLOCKS: u32 = 300;

/// The directory, in the process that has no room.
fn cramped() -> Option<PathBuf> {
    std::env::var_os(CRAMPED).map(PathBuf::from)
}

/// Runs `test` in a process that has no room.
fn run_cramped(test: &str, directory: &Path) -> Output {
    // A shell, because the limit is inherited and a signal would end who hits it.
    let script = format!("trap '' XFSZ; ulimit -f {BLOCKS}; exec \"$0\" \"$@\"");
    let mut command = Command::new("sh");
    command.args(["-c", &script]).arg(std::env::current_exe().unwrap());
    command.args([test, "--exact", "--nocapture"]).env(CRAMPED, directory);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && said.contains("1 passed"), "{said}{}", String::from_utf8_lossy(&output.stderr));
    output
}

fn url(directory: &Path, name: &str) -> String {
    format!("sqlite:{}", directory.join(name).display())
}

#[tokio::test]
async fn a_copy_without_room_stops_and_goes_on_where_there_is_room() {
    if let Some(directory) = cramped() {
        let error = copy(&url(&directory, "from.db"), &url(&directory, "to.db"), false).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        return;
    }
    let _alone = ONE_AT_A_TIME.lock().await;
    let world = World::full().await;
    let whole = copy(&world.url("from.db"), &world.url("other.db"), false).await.unwrap();
    let length = std::fs::metadata(world.path("from.db")).unwrap().len();
    assert!(length > u64::from(BLOCKS) * 512 + 100_000, "there would be room: {length}");
    run_cramped("a_copy_without_room_stops_and_goes_on_where_there_is_room", &world.path(""));
    let copied = world.copy(false).await.unwrap();
    assert_eq!(copied.sha256, whole.sha256);
}

#[tokio::test]
async fn a_backup_without_room_leaves_nothing() {
    if let Some(directory) = cramped() {
        let error = backup(&url(&directory, "from.db"), &directory.join("backup.db")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        return;
    }
    let _alone = ONE_AT_A_TIME.lock().await;
    let world = World::full().await;
    run_cramped("a_backup_without_room_leaves_nothing", &world.path(""));
    assert_eq!(world.files(), ["from.db", "from.db.lock"]);
}

#[tokio::test]
async fn a_store_is_not_restored_without_room() {
    if let Some(directory) = cramped() {
        let error = restore(&url(&directory, "small.db"), &directory.join("backup.db"), None).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        return;
    }
    let _alone = ONE_AT_A_TIME.lock().await;
    let world = World::full().await;
    backup(&world.url("from.db"), &world.path("backup.db")).await.unwrap();
    world.with("small.db", async |_| ()).await;
    let before = std::fs::read(world.path("small.db")).unwrap();
    run_cramped("a_store_is_not_restored_without_room", &world.path(""));
    assert_eq!(std::fs::read(world.path("small.db")).unwrap(), before);
    assert_eq!(world.files(), ["backup.db", "from.db", "from.db.lock", "small.db", "small.db.lock"]);
}
