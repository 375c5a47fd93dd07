//! A backup becomes the store again. What was the store stays beside it under
//! another name, and until the last step it is the store.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use machina_core::{Error, Result, Revision};
use sea_query::Query;
use tempfile::NamedTempFile;

use super::super::file::{self, unusable};
use super::super::statement::execute;
use super::super::{acquire, connect, load};
use super::{Restored, beside, digest, not_a_place, snapshot, sqlite_path, sync_directory, verify};
use crate::record::revision_value;

/// How far the revision goes on where that of the store before cannot be read.
const UNKNOWN_REVISIONS: u64 = 1_000_000;

/// Makes the content of the file `backup` that of the SQLite store at the address
/// `url`, if that is the file with the SHA-256 `expected`. The store before is kept
/// beside it. If this fails, the store is as it was.
///
/// # Errors
/// * [`Invalid`](machina_core::ErrorKind::Invalid) when `backup` is not there, is
///   another file than expected, or no store of Machina.
/// * [`Unavailable`](machina_core::ErrorKind::Unavailable) while a server uses the
///   store, and when the disk is full.
/// * [`Unsupported`](machina_core::ErrorKind::Unsupported) for a store of another
///   kind, and a backup that a newer Machina wrote.
/// * [`Internal`](machina_core::ErrorKind::Internal) when the backup is damaged.
pub async fn restore(url: &str, backup: &Path, expected: Option<&str>) -> Result<Restored> {
    let path = sqlite_path(url)?;
    let (sha256, _) = digest(backup)?;
    if let Some(expected) = expected.filter(|expected| !expected.eq_ignore_ascii_case(&sha256)) {
        return Err(not_a_place(
            backup,
            &format!("is not the backup that is meant: its SHA-256 is {sha256}, not {expected}"),
        ));
    }
    let existed = path.metadata().is_ok_and(|metadata| metadata.len() > 0);
    let (path, _lock) = file::prepare(&path)?;
    if backup.canonicalize().is_ok_and(|backup| backup == path) {
        return Err(not_a_place(backup, "is the store itself"));
    }
    let made = beside(&path)?;
    snapshot(backup, made.path()).await?;
    verify(made.path()).await?;
    let before = if existed { fold(&path).await } else { Ok(Revision::ZERO) };
    raise(made.path(), before.as_ref().ok().copied()).await?;
    let content = verify(made.path()).await?;
    let kept = if existed { Some(set_aside(&path)?) } else { None };
    put_in_place(made, &path)?;
    Ok(Restored { sha256, content, kept })
}

/// Brings everything that was committed into the file itself; returns its revision.
async fn fold(path: &Path) -> Result<Revision> {
    let writer = connect::writer(path).await?;
    let revision = load::revision(&mut *acquire(&writer).await?).await;
    writer.close().await;
    revision
}

/// Brings the schema up to date, and the revision above both.
async fn raise(path: &Path, before: Option<Revision>) -> Result<()> {
    let writer = connect::writer(path).await?;
    let raised = async {
        connect::migrate(&writer, path).await?;
        let mut connection = acquire(&writer).await?;
        let own = load::revision(&mut connection).await?;
        let above = before.unwrap_or(Revision(own.0.saturating_add(UNKNOWN_REVISIONS))).max(own).next();
        let mut update = Query::update();
        update.table("meta").value("revision", revision_value(above)?);
        execute(&mut connection, &update).await.map(drop)
    }
    .await;
    writer.close().await;
    raised
}

/// Gives the file at `path` one more name, under which it stays.
fn set_aside(path: &Path) -> Result<PathBuf> {
    let cannot = |error: std::io::Error| unusable(path, &format!("cannot be kept beside the new one: {error}"));
    let stem = format!(".before-{}", machina_core::now().strftime("%Y%m%dT%H%M%S%3fZ"));
    let kept = with_suffix(path, &stem);
    if kept.symlink_metadata().is_ok() {
        return Err(Error::conflict(format!("`{}` is there already", kept.display())));
    }
    // Left over only from a file that could not be read.
    let log = with_suffix(path, "-wal");
    if log.exists() {
        std::fs::rename(&log, with_suffix(&kept, "-wal")).map_err(cannot)?;
    }
    let shared = with_suffix(path, "-shm");
    if shared.exists() {
        std::fs::remove_file(&shared).map_err(cannot)?;
    }
    // Not every file system knows a second name for a file.
    std::fs::hard_link(path, &kept).or_else(|_| std::fs::rename(path, &kept)).map_err(cannot)?;
    Ok(kept)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(suffix);
    PathBuf::from(name)
}

fn put_in_place(made: NamedTempFile, path: &Path) -> Result<()> {
    let cannot = |error: &std::io::Error| unusable(path, &format!("cannot be replaced: {error}"));
    made.as_file().sync_all().map_err(|error| cannot(&error))?;
    made.persist(path).map_err(|error| cannot(&error.error))?;
    sync_directory(path)
}
