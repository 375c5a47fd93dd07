//! The file before SQLite sees it: its directory, its mode, and the lock that
//! keeps every other process (and this one, a second time) away from it.
//!
//! The lock is on a file of its own beside the database: closing any other
//! handle of the database itself would drop the locks that SQLite holds on it.

use std::ffi::OsString;
use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use machina_core::{Error, Result};

/// Held until it is dropped. The file stays: to remove it would let two
/// processes hold locks on two files of one name.
#[derive(Debug)]
pub(super) struct FileLock {
    file: File,
}

impl Drop for FileLock {
    /// A process that another thread is just starting has a copy of the handle until it
    /// runs its program: to close this one alone would leave the file locked for so long.
    fn drop(&mut self) {
        let _ = self.file.unlock();
    }
}

/// Makes what is missing, and locks the file. Returns its path with links resolved.
pub(super) fn prepare(path: &Path) -> Result<(PathBuf, FileLock)> {
    let directory = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    create_directory(directory)?;
    let name = path.file_name().ok_or_else(|| unusable(path, "must be a file, is a directory"))?;
    let path = path.canonicalize().or_else(|_| directory.canonicalize().map(|directory| directory.join(name)));
    let path = path.map_err(|error| unusable(directory, &format!("cannot be reached: {error}")))?;
    if path.is_dir() {
        return Err(unusable(&path, "must be a file, is a directory"));
    }
    let lock = lock(&path)?;
    create_or_check(&path)?;
    Ok((path, lock))
}

fn create_directory(directory: &Path) -> Result<()> {
    let mut builder = DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder
        .create(directory)
        .map_err(|error| unusable(directory, &format!("is no directory and cannot be made one: {error}")))
}

fn lock(path: &Path) -> Result<FileLock> {
    let mut lock_path = OsString::from(path);
    lock_path.push(".lock");
    let lock_path = PathBuf::from(lock_path);
    let mut file = private(OpenOptions::new().read(true).write(true).create(true).truncate(false))
        .open(&lock_path)
        .map_err(|error| unusable(&lock_path, &format!("cannot be written: {error}")))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(in_use(path, &lock_path)),
        Err(TryLockError::Error(error)) => return Err(unusable(&lock_path, &format!("cannot be locked: {error}"))),
    }
    // Who holds it is only for people to read: the lock holds without it.
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    if let Err(error) = written {
        tracing::warn!(path = %lock_path.display(), %error, "cannot note who holds the lock");
    }
    Ok(FileLock { file })
}

/// Who may be writing a file that is only to be read.
#[derive(Debug)]
pub(super) enum Writers {
    /// Nobody, for as long as this is held; `None` where no process of Machina
    /// ever had the file open.
    Nobody { _lock: Option<FileLock> },
    /// Perhaps another process.
    Others,
}

/// Keeps writers away from the file at `path`, unless there is one already.
/// Changes nothing.
pub(super) fn keep_writers_away(path: &Path) -> Writers {
    let mut lock_path = OsString::from(path);
    lock_path.push(".lock");
    match File::open(lock_path) {
        Ok(file) if file.try_lock().is_ok() => Writers::Nobody { _lock: Some(FileLock { file }) },
        Err(error) if error.kind() == ErrorKind::NotFound => Writers::Nobody { _lock: None },
        _ => Writers::Others,
    }
}

fn in_use(path: &Path, lock_path: &Path) -> Error {
    let holder = std::fs::read_to_string(lock_path).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let holder = match holder {
        Some(pid) if pid == std::process::id() => "this process already".to_owned(),
        Some(pid) => format!("process {pid}"),
        None => "another process".to_owned(),
    };
    let path = path.display();
    Error::unavailable(format!("`{path}` is open in {holder}; a SQLite store serves one process at a time"))
}

fn create_or_check(path: &Path) -> Result<()> {
    match private(OpenOptions::new().write(true).create_new(true)).open(path) {
        Ok(_) => return Ok(()),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(error) => return Err(unusable(path, &format!("cannot be made: {error}"))),
    }
    let cannot = |error| unusable(path, &format!("cannot be written: {error}"));
    let metadata = std::fs::metadata(path).map_err(cannot)?;
    if metadata.permissions().readonly() {
        return Err(unusable(path, "cannot be written: its mode is read-only"));
    }
    warn_if_others_may_read(path, &metadata);
    OpenOptions::new().write(true).open(path).map_err(cannot)?;
    Ok(())
}

/// Makes a file for the owner alone, if there is none.
pub(super) fn create_private(path: &Path) -> std::io::Result<()> {
    private(OpenOptions::new().write(true).create(true).truncate(false)).open(path).map(drop)
}

fn private(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(options, 0o600);
    options
}

#[cfg(unix)]
fn warn_if_others_may_read(path: &Path, metadata: &std::fs::Metadata) {
    use std::os::unix::fs::PermissionsExt;

    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 != 0 {
        tracing::warn!(path = %path.display(), mode = format!("{mode:o}"), "others may read the secrets in this file");
    }
}

#[cfg(not(unix))]
fn warn_if_others_may_read(_: &Path, _: &std::fs::Metadata) {}

/// The address of the store does not lead to a usable file.
pub(super) fn unusable(path: &Path, detail: &str) -> Error {
    Error::invalid_field("store", format!("`{}` {detail}", path.display()))
}
