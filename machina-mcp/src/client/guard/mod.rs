//! Where sockets to services are opened: the one place of this crate that resolves
//! a name or dials on behalf of an instance. Applies the core's [`Reach`] to what
//! a URL says, to everything its name resolves to, and to the peer of the socket
//! that came about. What was resolved once is what is dialled, so a name that
//! leads elsewhere a moment later leads nowhere. Holds no rule of its own.

mod clients;
mod discreet;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;

use machina_core::{Barred, Error, Reach, Result};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::rustls;
use url::{Host, Url};

pub(crate) use clients::{AGENT, Clients, guarded};
pub(crate) use discreet::discreet;

/// What names resolve to.
type Resolving = Pin<Box<dyn Future<Output = io::Result<Vec<SocketAddr>>> + Send>>;
type Lookup = Arc<dyn Fn(String, u16) -> Resolving + Send + Sync>;

/// Opens sockets, to where its reach lets it and to nowhere else.
#[derive(Clone)]
pub(crate) struct Guard {
    reach: Reach,
    lookup: Lookup,
}

impl Guard {
    pub(crate) fn new(reach: Reach) -> Self {
        let lookup = |host: String, port| -> Resolving {
            Box::pin(async move { Ok(lookup_host((host.as_str(), port)).await?.collect()) })
        };
        Self { reach, lookup: Arc::new(lookup) }
    }

    /// The same with other answers of the resolver.
    #[cfg(test)]
    pub(crate) fn resolving(self, lookup: impl Fn(&str) -> Vec<SocketAddr> + Send + Sync + 'static) -> Self {
        let lookup = move |host: String, _| -> Resolving {
            let found = lookup(&host);
            Box::pin(async move { Ok(found) })
        };
        Self { lookup: Arc::new(lookup), ..self }
    }

    /// Whether `url` may be connected to, as far as it tells by itself.
    ///
    /// # Errors
    /// As [`Barred::into_error`].
    pub(crate) fn check(&self, url: &Url) -> Result<()> {
        let host = url.host().ok_or_else(|| Error::invalid_field("url", "must name a host"))?;
        self.reach.check_host(&host).map_err(|barred| barred.into_error(&place(url)))
    }

    /// The addresses of `host`, as far as they may be dialled; an error if none may.
    async fn resolve<S: AsRef<str> + Sync>(&self, host: &Host<S>, port: u16) -> io::Result<Vec<SocketAddr>> {
        self.reach.check_host(host).map_err(io::Error::other)?;
        let found = match host {
            Host::Ipv4(address) => vec![SocketAddr::new((*address).into(), port)],
            Host::Ipv6(address) => vec![SocketAddr::new((*address).into(), port)],
            Host::Domain(name) => (self.lookup)(name.as_ref().to_owned(), port).await?,
        };
        let (mut open, mut barred) = (Vec::new(), None);
        for address in found {
            match self.reach.check(address.ip()) {
                Ok(()) => open.push(address),
                Err(why) => barred = Some(why),
            }
        }
        match barred {
            Some(why) if open.is_empty() => Err(io::Error::other(why)),
            _ => Ok(open),
        }
    }

    /// Connects to `host`: to its addresses in turn, until one answers.
    pub(crate) async fn dial<S: AsRef<str> + Sync>(&self, host: &Host<S>, port: u16) -> io::Result<TcpStream> {
        let mut failed = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for address in self.resolve(host, port).await? {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    self.check_peer(stream.peer_addr()?)?;
                    return Ok(stream);
                }
                Err(error) => failed = error,
            }
        }
        Err(failed)
    }

    /// Whether a socket may be used whose other end is `peer`.
    fn check_peer(&self, peer: SocketAddr) -> io::Result<()> {
        self.reach.check(peer.ip()).map_err(io::Error::other)
    }
}

/// Shows the reach.
impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").field("reach", &self.reach).finish_non_exhaustive()
    }
}

/// Why no socket was opened, if it is that it may not be.
pub(crate) fn barred_in(error: &(dyn std::error::Error + 'static)) -> Option<Barred> {
    cause_of(error).copied()
}

/// Whether the other end could not show that it is who it should be: that is no fault
/// that passes, and nothing may be sent there.
pub(crate) fn is_another(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(cause_of(error), Some(rustls::Error::InvalidCertificate(_)))
}

/// The first cause of `error` that is a `T`.
fn cause_of<'a, T: std::error::Error + 'static>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a T> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        let found = error.downcast_ref();
        if found.is_some() {
            return found;
        }
        // What an I/O error wraps is not its source, but that of its source.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        cause = wrapped.map_or_else(|| error.source(), |wrapped| Some(wrapped));
    }
    None
}

/// Where a URL leads, for a message.
pub(crate) fn place(url: &Url) -> String {
    format!("{}:{}", url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default())
}

#[cfg(test)]
mod tests;
