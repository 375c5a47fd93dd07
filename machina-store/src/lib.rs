//! Durable stores for Machina. [`open`] turns an address into a [`Backend`]:
//! what a registry keeps its services and its journal in.
//!
//! No type of a database driver leaves this crate, and no rule of the registry
//! enters it: a store keeps what it is given and interprets none of it.

mod address;
mod configurations;
mod conflict;
mod copy;
mod declared;
mod known_tools;
mod migrations;
mod places;
#[cfg(feature = "postgres")]
mod postgres;
mod published;
mod record;
#[cfg(feature = "redis")]
mod redis;
mod remembered;
mod sqlite;

use std::sync::Arc;

use machina_core::{Backend, MemoryStore, Result};

use crate::address::Address;
use crate::configurations::Configurations;
#[cfg(feature = "postgres")]
use crate::postgres::PostgresStore;
#[cfg(feature = "redis")]
pub use crate::redis::Redis;
use crate::sqlite::SqliteStore;

pub use crate::copy::{Copied, CopyOptions, CopyPart, CopyProgress, Count, copy};
pub use crate::sqlite::{Backup, Content, Restored, backup, restore};

/// Opens the store at `url`:
///
/// * `memory:`: in this process only, forgotten with it.
/// * `sqlite:PATH`: a SQLite file, made together with its directory if there is
///   none. The path is relative to the working directory unless it begins with
///   `/`; `sqlite://PATH` and a bare path that ends in `.db`, `.sqlite` or
///   `.sqlite3` mean the same.
/// * `postgres://USER:PASSWORD@HOST/DATABASE` or `postgresql://…`: a PostgreSQL
///   database, 15 or later, that any number of processes may share; the tables
///   are made if they are not there. Parameters after `?`: `sslmode`,
///   `sslrootcert`, `sslcert`, `sslkey` and the like as for `psql`, and `schema`,
///   `connections_max` (8), `connect_timeout` (5 s), `statement_timeout` (10 s),
///   `lock_timeout` (5 s). With the feature `postgres`, which is on by default.
///
/// A SQLite file serves one process at a time, which holds a lock on the file
/// `PATH.lock` until [`Store::close`](machina_core::Store::close) or its end.
/// A commit is on the disk when it is acknowledged, and survives the loss of
/// power.
///
/// # Errors
/// * [`Invalid`](machina_core::ErrorKind::Invalid) when `url` is not one of
///   these, or names something that cannot be made, read or written, or that is
///   not a database of Machina, or lets this user not in.
/// * [`Unavailable`](machina_core::ErrorKind::Unavailable) when another process,
///   or this one, has the file open already, or the server cannot be reached.
/// * [`Unsupported`](machina_core::ErrorKind::Unsupported) when a newer Machina
///   wrote it, the server is older than PostgreSQL 15, or this build cannot use a
///   database of that kind.
/// * [`Internal`](machina_core::ErrorKind::Internal) when the file is damaged.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> machina_core::Result<()> {
/// let backend = machina_store::open("memory:").await?;
/// assert!(backend.store.load().await?.services.is_empty());
/// # Ok(())
/// # }
/// ```
pub async fn open(url: &str) -> Result<Backend> {
    Ok(Opened::open(&Address::parse(url)?).await?.backend)
}

/// An open store, and what only copies ask of it.
pub(crate) struct Opened {
    pub(crate) backend: Backend,
    /// The history of configurations; `None` where the store keeps none.
    pub(crate) configurations: Option<Arc<dyn Configurations>>,
}

impl Opened {
    pub(crate) async fn open(address: &Address) -> Result<Self> {
        Ok(match address {
            Address::Memory => Self { backend: Backend::of(MemoryStore::new()), configurations: None },
            Address::Sqlite(path) => {
                let all = Arc::new(SqliteStore::open(path).await?);
                let (store, journal, replies) = (all.clone(), all.clone(), all.clone());
                let backend = Backend { store, journal, replies, leases: None, scratch: None };
                Self { backend, configurations: Some(all) }
            }
            #[cfg(feature = "postgres")]
            Address::Postgres(address) => {
                let all = Arc::new(PostgresStore::open(address).await?);
                let (store, journal, replies) = (all.clone(), all.clone(), all.clone());
                let backend = Backend { store, journal, replies, leases: Some(all.clone()), scratch: None };
                Self { backend, configurations: Some(all) }
            }
        })
    }
}

/// Checks that `url` is the address of a store, as [`open`] takes it, without
/// opening anything.
///
/// # Errors
/// [`Invalid`](machina_core::ErrorKind::Invalid) when it is none.
pub fn check_address(url: &str) -> Result<()> {
    Address::parse(url).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_store_is_opened_in_any_thread() {
        fn may_change_threads<T: Send>(opening: T) -> T {
            opening
        }
        assert!(may_change_threads(open("memory:")).await.is_ok());
    }
}
