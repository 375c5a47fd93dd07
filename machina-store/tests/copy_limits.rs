//! What happens when there is no more room, to a store and to copies of it. A test
//! runs itself again as a process that may write no file longer than so much: to
//! SQLite that is a disk which takes nothing more.

#![cfg(unix)]
#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "copy/world.rs"]
#[allow(dead_code, reason = "it serves other tests, too")]
mod world;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::time::Duration;

use machina_core::testing::SimConnector;
use machina_core::testing::registry_suite::{call, service, settle};
use machina_core::{CallOptions, EntryKind, ErrorKind, JournalQuery, Machina, Mutation, Status};
use machina_store::{backup, restore};
use serde_json::json;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};

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
    run_limited(test, directory, &format!("ulimit -f {BLOCKS};"))
}

/// Runs `test` in a process with limits, none of which ends it.
fn run_limited(test: &str, directory: &Path, limits: &str) -> Output {
    // A shell, because limits are inherited and a signal would end who hits this one.
    let script = format!("trap '' XFSZ; {limits} exec \"$0\" \"$@\"");
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

/// How many calls are made while there is no room.
#[cfg(target_os = "linux")]
const CALLS_WITHOUT_ROOM: usize = 20;

/// How long files of this process may become from now on.
#[cfg(target_os = "linux")]
fn limit_files(bytes: &str) {
    let process = std::process::id().to_string();
    let set = Command::new("prlimit").args(["--pid", &process, &format!("--fsize={bytes}:")]).status();
    assert!(set.unwrap().success(), "prlimit is part of util-linux");
}

/// Registers, calls, and looks up while the disk is full, and after that.
#[cfg(target_os = "linux")]
async fn use_a_registry_without_room(directory: &Path) {
    let sim = SimConnector::seeded(5);
    let backend = machina_store::open(&url(directory, "live.db")).await.unwrap();
    let journal = Arc::clone(&backend.journal);
    let machina = Machina::builder().backend(backend).connector(Arc::new(sim.clone())).open().await.unwrap();
    machina.apply(vec![Mutation::Put(service("a", &[&sim.instance("a")]))]).await.unwrap();
    settle(&machina, "a", Status::Healthy).await;

    limit_files("4096");
    let register = || machina.apply(vec![Mutation::Put(service("b", &[&sim.instance("b")]))]);
    for _ in 0..3 {
        let error = register().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.message().contains("the store cannot be used now"), "{error}");
    }
    assert!(machina.get("b").is_none() && machina.get("a").is_some());
    for number in 0..CALLS_WITHOUT_ROOM {
        machina.call(&call("a", "echo", json!({"text": number.to_string()})), &CallOptions::default()).await.unwrap();
    }

    limit_files("unlimited");
    register().await.unwrap();
    let calls = JournalQuery { limit: 1000, ..JournalQuery::of(EntryKind::Call) };
    let end = Instant::now() + Duration::from_secs(60);
    while journal.read(&calls).await.unwrap().entries.len() < CALLS_WITHOUT_ROOM {
        assert!(Instant::now() < end, "the calls did not come into the journal");
        sleep(Duration::from_millis(20)).await;
    }
    machina.close().await;
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_without_room_refuses_changes_serves_and_goes_on_by_itself() {
    if let Some(directory) = cramped() {
        return use_a_registry_without_room(&directory).await;
    }
    let _alone = ONE_AT_A_TIME.lock().await;
    let world = World::empty();
    let test = "a_registry_without_room_refuses_changes_serves_and_goes_on_by_itself";
    run_limited(test, &world.path(""), "");
    let kept = world.kept("live.db").await;
    let names: Vec<_> = kept.image.services.iter().map(|service| service.name().as_str().to_owned()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
    let calls = kept.entries.iter().filter(|entry| entry.what.kind() == EntryKind::Call).count();
    assert_eq!(calls, CALLS_WITHOUT_ROOM, "each call is in the journal once");
    let made = |name: &str| {
        kept.entries
            .iter()
            .filter(|entry| {
                entry.what.kind() == EntryKind::Audit
                    && entry.service.as_ref().is_some_and(|service| service.as_str() == name)
            })
            .count()
    };
    assert_eq!((made("a"), made("b")), (1, 1), "what was refused is in no audit entry");
}
