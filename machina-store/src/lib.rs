//! Durable stores for Machina. [`open`] turns an address into a [`Backend`]:
//! what a registry keeps its services and its journal in.
//!
//! No type of a database driver leaves this crate, and no rule of the registry
//! enters it: a store keeps what it is given and interprets none of it.

mod address;
mod sqlite;

use machina_core::{Backend, MemoryStore, Result};

use crate::address::Address;
use crate::sqlite::SqliteStore;

/// Opens the store at `url`:
///
/// * `memory:`: in this process only, forgotten with it.
/// * `sqlite:PATH`: a SQLite file, made together with its directory if there is
///   none. The path is relative to the working directory unless it begins with
///   `/`; `sqlite://PATH` and a bare path that ends in `.db`, `.sqlite` or
///   `.sqlite3` mean the same.
///
/// A SQLite file serves one process at a time, which holds a lock on the file
/// `PATH.lock` until [`Store::close`](machina_core::Store::close) or its end.
/// A commit is on the disk when it is acknowledged, and survives the loss of
/// power.
///
/// # Errors
/// * [`Invalid`](machina_core::ErrorKind::Invalid) when `url` is not one of
///   these, or names something that cannot be made, read or written, or that is
///   not a database of Machina.
/// * [`Unavailable`](machina_core::ErrorKind::Unavailable) when another process,
///   or this one, has the file open already.
/// * [`Unsupported`](machina_core::ErrorKind::Unsupported) when a newer Machina
///   wrote the file.
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
    match Address::parse(url)? {
        Address::Memory => Ok(Backend::of(MemoryStore::new())),
        Address::Sqlite(path) => Ok(Backend::whole(SqliteStore::open(&path).await?)),
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
