//! A SQLite store in one more file: whole, as of one moment, and checked before
//! it has its name. It refuses to overwrite anything, and to be read wrong: what
//! is damaged, foreign or too new is no backup.

mod restore;
mod snapshot;

use std::fs::File;
use std::path::{Path, PathBuf};

use machina_core::{EntryKind, Error, Result, Revision};
use serde::Serialize;
use sha2::{Digest, Sha256};
use sqlx::{AssertSqlSafe, Connection, SqliteConnection};
use tempfile::NamedTempFile;

pub use self::restore::restore;
pub(crate) use self::snapshot::snapshot;

use crate::address::Address;

use super::connect::{existing, options};
use super::load;
use super::statement::database_error;
use crate::places::place;

/// A backup, as it was checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Backup {
    /// The SHA-256 of the file, in hex: what `sha256sum` says.
    pub sha256: String,
    /// How long the file is.
    pub bytes: u64,
    /// What is in it.
    pub content: Content,
}

/// How much a SQLite file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Content {
    /// The revision that it stands at.
    pub revision: Revision,
    /// How many services.
    pub services: u64,
    /// How many tools, counted at each instance.
    pub tools: u64,
    /// How many groups.
    pub groups: u64,
    /// How many entries of the journal.
    pub entries: u64,
}

/// A store that was restored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// The SHA-256 of the backup.
    pub sha256: String,
    /// What is in the store now. Its revision is above that of the backup and that
    /// of the store before, so that whoever follows the store reads it anew.
    pub content: Content,
    /// Where the file is now that was the store before, if there was one.
    pub kept: Option<PathBuf>,
}

/// Writes the SQLite store at the address `url` to the new file `into`, as of one
/// moment, also while a server uses the store. The file has its name when it is
/// whole, checked and on the disk, and belongs to the owner alone: there are
/// secrets in it.
///
/// # Errors
/// * [`Invalid`](machina_core::ErrorKind::Invalid) when there is no such store, or
///   `into` is there already or cannot be made.
/// * [`Unsupported`](machina_core::ErrorKind::Unsupported) for a store of another
///   kind, and one that a newer Machina wrote.
/// * [`Unavailable`](machina_core::ErrorKind::Unavailable) when the disk is full.
/// * [`Internal`](machina_core::ErrorKind::Internal) when the store is damaged.
pub async fn backup(url: &str, into: &Path) -> Result<Backup> {
    let path = sqlite_path(url)?;
    if into.symlink_metadata().is_ok() {
        return Err(not_a_place(into, "is there already: a backup overwrites nothing"));
    }
    let made = beside(into)?;
    snapshot(&path, made.path()).await?;
    let content = verify(made.path()).await?;
    let (sha256, bytes) = digest(made.path())?;
    keep(made, into)?;
    Ok(Backup { sha256, bytes, content })
}

/// The file of the store at `url`.
fn sqlite_path(url: &str) -> Result<PathBuf> {
    match Address::parse(url)? {
        Address::Sqlite(path) => Ok(path),
        _ => Err(Error::unsupported("only a SQLite store is kept in one file: others have tools of their own")),
    }
}

/// Gives a finished file its name, for good.
fn keep(made: NamedTempFile, into: &Path) -> Result<()> {
    let cannot = |error: &std::io::Error| not_a_place(into, &format!("cannot be written: {error}"));
    made.as_file().sync_all().map_err(|error| cannot(&error))?;
    made.persist_noclobber(into).map_err(|error| cannot(&error.error))?;
    sync_directory(into)
}

/// A file for the owner alone in the directory of `path`, gone when dropped.
fn beside(path: &Path) -> Result<NamedTempFile> {
    let directory = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    let made = tempfile::Builder::new().prefix(".machina-").suffix(".partial").tempfile_in(directory);
    made.map_err(|error| not_a_place(directory, &format!("cannot be written: {error}")))
}

fn sync_directory(path: &Path) -> Result<()> {
    let directory = path.parent().filter(|parent| *parent != Path::new("")).unwrap_or(Path::new("."));
    if cfg!(unix) {
        let synced = File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(|error| not_a_place(directory, &format!("cannot be made durable: {error}")))?;
    }
    Ok(())
}

/// The SHA-256 and the length of a file.
fn digest(path: &Path) -> Result<(String, u64)> {
    let mut hasher = Sha256::new();
    let hashed = File::open(path).and_then(|mut file| std::io::copy(&mut file, &mut Hashing(&mut hasher)));
    let bytes = hashed.map_err(|error| not_a_place(path, &format!("cannot be read: {error}")))?;
    Ok((hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect(), bytes))
}

struct Hashing<'a>(&'a mut Sha256);

impl std::io::Write for Hashing<'_> {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Checks every page and reference of a file that nobody writes, and counts.
async fn verify(path: &Path) -> Result<Content> {
    let mut connection = existing(options(path).read_only(true), path).await?;
    check_integrity(&mut connection, path).await?;
    let content = content(&mut connection).await?;
    connection.close().await.map_err(database_error)?;
    Ok(content)
}

async fn check_integrity(connection: &mut SqliteConnection, path: &Path) -> Result<()> {
    let found: Vec<String> =
        sqlx::query_scalar("PRAGMA integrity_check(1)").fetch_all(&mut *connection).await.map_err(database_error)?;
    let dangling =
        sqlx::query("PRAGMA foreign_key_check").fetch_optional(&mut *connection).await.map_err(database_error)?;
    let path = path.display();
    match found.first().map(String::as_str) {
        Some("ok") if dangling.is_none() => Ok(()),
        Some("ok") | None => Err(Error::internal(format!("`{path}` is damaged: a record refers to one that is gone"))),
        Some(problem) => Err(Error::internal(format!("`{path}` is damaged: {problem}"))),
    }
}

async fn content(connection: &mut SqliteConnection) -> Result<Content> {
    let revision = load::revision(connection).await?;
    let mut tables: Vec<&str> = EntryKind::ALL.iter().map(|kind| place(*kind).table).collect();
    tables.dedup();
    let mut entries = 0;
    for table in tables {
        entries += count(connection, table).await?;
    }
    let services = count(connection, "services").await?;
    let tools = count(connection, "tools").await?;
    Ok(Content { revision, services, tools, groups: count(connection, "tool_groups").await?, entries })
}

/// How many rows a table has; none where the schema is older than the table.
async fn count(connection: &mut SqliteConnection, table: &'static str) -> Result<u64> {
    let known: bool = sqlx::query_scalar("SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1")
        .bind(table)
        .fetch_one(&mut *connection)
        .await
        .map_err(database_error)?;
    if !known {
        return Ok(0);
    }
    let sql = AssertSqlSafe(format!("SELECT count(*) FROM {table}"));
    let number: i64 = sqlx::query_scalar(sql).fetch_one(connection).await.map_err(database_error)?;
    Ok(number.unsigned_abs())
}

/// A file that was named besides the store is not what it is to be.
fn not_a_place(path: &Path, detail: &str) -> Error {
    Error::invalid_field("file", format!("`{}` {detail}", path.display()))
}
