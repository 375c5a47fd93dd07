//! The two stores of a copy: which they may be, and how they are opened. The one
//! that is read is not changed by that, and not made if it is not there.

use std::path::{Path, PathBuf};

use machina_core::{Error, Result};
use tempfile::TempDir;

use crate::Opened;
use crate::address::{Address, is_in_memory};
#[cfg(feature = "postgres")]
use crate::postgres::PostgresStore;
use crate::sqlite::snapshot;

/// Both stores, open.
pub(super) struct Ends {
    pub(super) from: Opened,
    pub(super) to: Opened,
    /// Where what a SQLite file holds is meanwhile.
    _read: Option<TempDir>,
}

impl Ends {
    pub(super) async fn open(from: &str, to: &str) -> Result<Self> {
        let (source, target) = (address("from", from)?, address("to", to)?);
        refuse_one_store(&source, &target)?;
        let (read, from) = match &source {
            Address::Sqlite(path) => {
                let (directory, file) = taken(path).await?;
                (Some(directory), Opened::open(&Address::Sqlite(file)).await?)
            }
            #[cfg(feature = "postgres")]
            Address::Postgres(address) => {
                PostgresStore::check_made(address).await?;
                (None, Opened::open(&source).await?)
            }
            Address::Memory => (None, Opened::open(&source).await?),
        };
        match Opened::open(&target).await {
            Ok(to) => Ok(Self { from, to, _read: read }),
            Err(error) => {
                from.backend.store.close().await?;
                Err(error)
            }
        }
    }

    pub(super) async fn close(self) -> Result<()> {
        let (from, to) = (self.from.backend.store.close().await, self.to.backend.store.close().await);
        to.and(from)
    }
}

fn address(field: &str, url: &str) -> Result<Address> {
    if is_in_memory(url) {
        return Err(Error::unsupported(format!(
            "`{field}` must be a store that lasts: one in memory is empty when it is opened, and gone when it is closed"
        )));
    }
    Address::parse_lasting(url).map_err(|error| {
        let detail = error.context().problems.first().map_or_else(|| error.message().to_owned(), |p| p.detail.clone());
        Error::invalid_field(field, detail)
    })
}

fn refuse_one_store(from: &Address, to: &Address) -> Result<()> {
    let same = match (from, to) {
        (Address::Sqlite(from), Address::Sqlite(to)) => from == to || is_one_file(from, to),
        (from, to) => from == to,
    };
    if same { Err(Error::invalid_field("to", "is the store that is copied: name another")) } else { Ok(()) }
}

#[cfg(unix)]
fn is_one_file(one: &Path, other: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;

    let identity = |path: &Path| path.metadata().map(|metadata| (metadata.dev(), metadata.ino())).ok();
    identity(one).is_some_and(|one| Some(one) == identity(other))
}

#[cfg(not(unix))]
fn is_one_file(one: &Path, other: &Path) -> bool {
    one.canonicalize().is_ok_and(|one| other.canonicalize().is_ok_and(|other| one == other))
}

/// What a SQLite file holds now, in a file in a directory of its own.
async fn taken(path: &Path) -> Result<(TempDir, PathBuf)> {
    let cannot = |error| Error::unavailable(format!("there is no temporary directory: {error}"));
    let directory = tempfile::Builder::new().prefix("machina-copy-").tempdir().map_err(cannot)?;
    let file = directory.path().join("read.db");
    snapshot(path, &file).await?;
    Ok((directory, file))
}
