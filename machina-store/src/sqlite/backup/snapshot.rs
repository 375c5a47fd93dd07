//! What a SQLite file holds at one moment, in another file. Readers of a SQLite
//! file disturb no writer, so this also works while a server has the store open.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use machina_core::{Error, Result};
use sqlx::{Connection, SqliteConnection};

use super::super::connect::{existing, options};
use super::super::file::{Writers, create_private, keep_writers_away, unusable};
use super::super::statement::database_error;

/// Writes what the store at `path` holds to the file `into`, which is made for the
/// owner alone, or is there and empty. The store is not changed.
pub(crate) async fn snapshot(path: &Path, into: &Path) -> Result<()> {
    let metadata = path.metadata().map_err(|error| unusable(path, &format!("cannot be read: {error}")))?;
    if !metadata.is_file() {
        return Err(unusable(path, "must be a file"));
    }
    // Links are resolved because the lock is beside the file itself.
    let path = path.canonicalize().map_err(|error| unusable(path, &format!("cannot be reached: {error}")))?;
    let writers = keep_writers_away(&path);
    let mut connection = reader(&path, &writers).await?;
    create_private(into)
        .map_err(|error| Error::unavailable(format!("`{}` cannot be made: {error}", into.display())))?;
    let into = into.to_string_lossy().into_owned();
    let written = sqlx::query("VACUUM INTO ?1").bind(into).execute(&mut connection).await.map_err(database_error);
    // Also after a failure: what SQLite puts beside the file goes when it is closed, and this process may end now.
    let closed = connection.close().await.map_err(database_error);
    written.and(closed)
}

/// Where there is no writer, an ordinary connection leaves nothing beside the
/// file. It may have to put something there meanwhile: where it cannot, and
/// nothing is pending, the file is read as one that does not change.
async fn reader(path: &Path, writers: &Writers) -> Result<SqliteConnection> {
    if matches!(writers, Writers::Others) {
        return existing(options(path).read_only(true), path).await;
    }
    let opened = existing(options(path), path).await;
    if opened.is_err() && nothing_is_pending(path) {
        return existing(options(path).read_only(true).immutable(true), path).await;
    }
    opened
}

/// Whether everything that was committed is in the file itself.
fn nothing_is_pending(path: &Path) -> bool {
    let mut log = OsString::from(path);
    log.push("-wal");
    PathBuf::from(log).metadata().map_or(true, |metadata| metadata.len() == 0)
}
