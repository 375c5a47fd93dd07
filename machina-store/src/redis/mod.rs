//! Redis beside a store: replicas wake each other, and share counts of calls and
//! kept answers. Refuses to be needed: whatever it does not do within a moment is
//! done without it, and nothing is kept in it that must not be lost.

mod address;
mod link;
mod scratch;
mod waking;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ::redis::Script;
use machina_core::{Backend, Result, Tasks};

use address::Address;
use link::Link;
use waking::Waking;

/// How long the first attempt to connect may hold up a start.
const FIRST_ATTEMPT: Duration = Duration::from_secs(1);

/// How long the tasks may take to end.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// A Redis that replicas share beside their store. Cheap to clone.
///
/// Every use of it is bounded by 100 milliseconds; one that fails ends the
/// connection, and until there is a new one nothing waits for Redis at all. It is
/// tried again by itself, at most every second.
#[derive(Clone)]
pub struct Redis(Arc<Parts>);

struct Parts {
    link: Arc<Link>,
    tasks: Tasks,
    take: Script,
}

impl Redis {
    /// Begins to keep a connection with the Redis at `url`: `redis://` or, over TLS,
    /// `rediss://`, then `[USER[:PASSWORD]@]HOST[:PORT][/DATABASE]`. Registries that
    /// are to have nothing to do with each other use different databases. Waits for
    /// the first attempt, for at most a second; one that fails is told in the log,
    /// and is no error.
    ///
    /// Certificates are held against the authorities of the system, or of the file
    /// that `SSL_CERT_FILE` names.
    ///
    /// # Errors
    /// [`Invalid`](machina_core::ErrorKind::Invalid) when `url` is no such address.
    ///
    /// # Panics
    /// When called outside a tokio runtime.
    pub async fn open(url: &str) -> Result<Self> {
        let (link, tasks) = (Arc::new(Link::new(Address::parse(url)?)?), Tasks::new());
        tasks.spawn("keep redis", Arc::clone(&link).keep());
        tasks.spawn("tell redis", Arc::clone(&link).publish());
        let _ = tokio::time::timeout(FIRST_ATTEMPT, link.attempted()).await;
        Ok(Self(Arc::new(Parts { link, tasks, take: scratch::take_script() })))
    }

    /// Checks that `url` is an address as [`Redis::open`] takes it, without asking
    /// anyone.
    ///
    /// # Errors
    /// As [`Redis::open`].
    pub fn check_address(url: &str) -> Result<()> {
        Address::parse(url).map(drop)
    }

    /// `backend`, whose store wakes the other replicas after each commit and is
    /// woken by theirs, and which shares counts and kept answers with them. Closing
    /// its store ends the connection.
    #[must_use]
    pub fn attach(&self, backend: Backend) -> Backend {
        let waking = Waking { store: backend.store, redis: self.clone() };
        Backend { store: Arc::new(waking), scratch: Some(Arc::new(self.clone())), ..backend }
    }

    /// Whether there is a connection now.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.link.is_open()
    }

    /// Ends the connection, for good.
    pub async fn close(&self) {
        self.0.tasks.close(CLOSE_TIMEOUT).await;
        self.0.link.close().await;
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Redis").field(&self.0.link).finish()
    }
}
