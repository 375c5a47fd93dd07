//! What opening a SQLite file makes, and what it refuses.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use machina_core::{Backend, Batch, Change, ErrorKind, Result, Revision, Service, ServiceId, ServiceSpec, Timestamp};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;

/// Set for the second process of [`a_second_process_is_refused`]: the file to open.
const SECOND_PROCESS: &str = "MACHINA_TEST_SECOND_PROCESS";

async fn open(path: &Path) -> Result<Backend> {
    machina_store::open(&format!("sqlite:{}", path.display())).await
}

fn directory() -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap().join("machina.db");
    (directory, path)
}

fn put(name: &str) -> Batch {
    let service = Service {
        id: ServiceId::generate(),
        spec: ServiceSpec::new(name).unwrap(),
        revision: Revision::ZERO,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
        updated_by: "alice".to_owned(),
    };
    Batch { changes: vec![Change::PutService(Arc::new(service))], ..Batch::default() }
}

/// Makes a database and then changes it from outside with `sql`.
async fn tamper(path: &Path, sql: &'static str) {
    let mut connection = SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

async fn closed_store(path: &Path) {
    let backend = open(path).await.unwrap();
    backend.store.commit(&put("a")).await.unwrap();
    backend.store.close().await.unwrap();
}

/// Asserts that the file is refused with this kind, and that the message names it.
async fn assert_refused(path: &Path, kind: ErrorKind, says: &str) {
    let error = open(path).await.unwrap_err();
    assert_eq!(error.kind(), kind, "{error}");
    assert!(error.message().contains(says), "{error}");
    let name = path.file_name().unwrap().to_str().unwrap();
    assert!(error.message().contains(name), "{error}");
    if kind == ErrorKind::Invalid {
        assert_eq!(error.context().problems[0].field, "store");
    }
}

#[tokio::test]
async fn what_was_committed_is_there_after_reopening() {
    let (_directory, path) = directory();
    closed_store(&path).await;
    let backend = open(&path).await.unwrap();
    let image = backend.store.load().await.unwrap();
    assert_eq!((image.revision, image.services.len()), (Revision(1), 1));
    assert_eq!(backend.store.commit(&put("b")).await.unwrap(), Revision(2));
}

#[tokio::test]
async fn closing_leaves_the_database_in_one_file() {
    let (directory, path) = directory();
    closed_store(&path).await;
    let mut left: Vec<_> = fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["machina.db", "machina.db.lock"]);
}

#[cfg(unix)]
#[tokio::test]
async fn directories_and_files_are_made_for_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt;

    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("new/deep/machina.db");
    let backend = open(&path).await.unwrap();
    backend.store.commit(&put("a")).await.unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    for file in ["machina.db", "machina.db-wal", "machina.db-shm", "machina.db.lock"] {
        assert_eq!(mode(&path.with_file_name(file)), 0o600, "{file}");
    }
}

#[tokio::test]
async fn the_same_file_opens_once_in_a_process() {
    let (directory, path) = directory();
    let first = open(&path).await.unwrap();
    assert_refused(&path, ErrorKind::Unavailable, "is open in this process already").await;
    #[cfg(unix)]
    {
        let link = directory.path().join("link.db");
        std::os::unix::fs::symlink(&path, &link).unwrap();
        assert_eq!(open(&link).await.unwrap_err().kind(), ErrorKind::Unavailable);
    }
    first.store.close().await.unwrap();
    assert_eq!(first.store.commit(&put("a")).await.unwrap_err().message(), "the store is closed");
    let second = open(&path).await.unwrap();
    drop(second);
    open(&path).await.unwrap();
    drop(directory);
}

#[tokio::test]
async fn a_second_process_is_refused() {
    if let Some(path) = std::env::var_os(SECOND_PROCESS) {
        assert_refused(Path::new(&path), ErrorKind::Unavailable, "is open in process").await;
        let error = open(Path::new(&path)).await.unwrap_err();
        std::io::Write::write_all(&mut std::io::stdout(), format!("refused: {error}\n").as_bytes()).unwrap();
        return;
    }
    let (_directory, path) = directory();
    let _first = open(&path).await.unwrap();
    let second = Command::new(std::env::current_exe().unwrap())
        .args(["a_second_process_is_refused", "--exact", "--nocapture"])
        .env(SECOND_PROCESS, &path)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&second.stdout);
    let expected = format!(
        "refused: unavailable: `{}` is open in process {}; a SQLite store serves one process at a time",
        path.display(),
        std::process::id()
    );
    assert!(second.status.success() && said.contains(&expected), "{said}");
}

#[tokio::test]
async fn a_file_that_is_no_database_is_left_alone() {
    let (_directory, path) = directory();
    let text = "This is not a database. ".repeat(200);
    fs::write(&path, &text).unwrap();
    assert_refused(&path, ErrorKind::Invalid, "is not a SQLite database").await;
    assert_eq!(fs::read_to_string(&path).unwrap(), text);
}

#[tokio::test]
async fn a_database_of_another_program_is_left_alone() {
    let (_directory, path) = directory();
    tamper(&path, "CREATE TABLE bookmarks (url TEXT); INSERT INTO bookmarks VALUES ('x');").await;
    let before = fs::read(&path).unwrap();
    assert_refused(&path, ErrorKind::Invalid, "is a database of another program").await;
    assert_eq!(fs::read(&path).unwrap(), before);
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let (_directory, path) = directory();
    closed_store(&path).await;
    let newer = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time) \
                 VALUES (999, 'from the future', 1, x'00', 0)";
    tamper(&path, newer).await;
    assert_refused(&path, ErrorKind::Unsupported, "it has schema 999, and this one knows only up to 7").await;
}

#[tokio::test]
async fn an_older_schema_is_brought_up_to_date_with_what_is_in_it() {
    let (_directory, path) = directory();
    closed_store(&path).await;
    let older = "ALTER TABLE services DROP COLUMN admin_reason; ALTER TABLE instances DROP COLUMN admin_reason; \
                 ALTER TABLE instances DROP COLUMN lease_ttl_ms; DELETE FROM _sqlx_migrations WHERE version >= 3; \
                 DROP TABLE alerts; DROP TABLE health_rollups; DROP INDEX health_checks_by_kind; DROP INDEX audit_by_instance; \
                 DROP VIEW tool_executions; CREATE VIEW tool_executions AS SELECT id FROM calls; \
                 ALTER TABLE calls DROP COLUMN tried; ALTER TABLE calls DROP COLUMN arguments";
    tamper(&path, older).await;
    let backend = open(&path).await.unwrap();
    assert_eq!(backend.store.load().await.unwrap().services.len(), 1);
    backend.store.commit(&put("b")).await.unwrap();
}

#[tokio::test]
async fn a_schema_that_was_altered_is_refused() {
    let (_directory, path) = directory();
    closed_store(&path).await;
    tamper(&path, "UPDATE _sqlx_migrations SET checksum = x'00'").await;
    assert_refused(&path, ErrorKind::Internal, "cannot be brought up to date").await;
}

#[tokio::test]
async fn a_tool_that_cannot_be_told_from_the_next_is_refused() {
    let (_directory, path) = directory();
    closed_store(&path).await;
    // A name has no control characters, unless somebody else wrote it.
    let row = "PRAGMA foreign_keys = OFF; INSERT INTO tools \
        (instance_id, position, service_id, name, description, input_schema, tags, hash, definition) VALUES \
        ('01890000-0000-7000-8000-000000000001', 0, 's', 'a' || char(30) || 'b', '', '{}', '[]', 'h', '{}')";
    tamper(&path, row).await;
    let error = open(&path).await.unwrap().store.load().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
    assert!(error.message().contains("unreadable `tools`"), "{error}");
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    let (_directory, path) = directory();
    closed_store(&path).await;
    let mut bytes = fs::read(&path).unwrap();
    bytes[100..].fill(0x5a);
    fs::write(&path, &bytes).unwrap();
    assert_refused(&path, ErrorKind::Internal, "malformed").await;
}

#[tokio::test]
async fn a_read_only_file_is_refused() {
    let (_directory, path) = directory();
    closed_store(&path).await;
    let mut permissions = fs::metadata(&path).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&path, permissions).unwrap();
    assert_refused(&path, ErrorKind::Invalid, "cannot be written").await;
}

#[tokio::test]
async fn a_directory_is_refused() {
    let (directory, _) = directory();
    let path = directory.path().join("data");
    fs::create_dir(&path).unwrap();
    assert_refused(&path, ErrorKind::Invalid, "must be a file, is a directory").await;
}

#[tokio::test]
async fn a_path_below_a_file_is_refused() {
    let (directory, _) = directory();
    let file = directory.path().join("file");
    fs::write(&file, "").unwrap();
    let error = open(&file.join("machina.db")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.message().contains("is no directory and cannot be made one"), "{error}");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_directory_that_takes_no_files_is_refused() {
    assert_refused(Path::new("/proc/self/machina.db"), ErrorKind::Invalid, "cannot be written").await;
}

#[tokio::test]
async fn other_addresses_are_refused() {
    let error = machina_store::open("mysql://u:hunter2@db.example/machina").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert_eq!(
        error.message(),
        "store: must be `memory:`, `sqlite:PATH` or `postgres://…`, and `mysql:` is none of these"
    );
}
