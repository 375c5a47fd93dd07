//! The full HTTP clients, one for each reach: connections are pooled by name, so
//! instances of different reach must not share them. Without redirects, which
//! would lead where nobody has looked, proxies, which would dial in our place, and
//! repeats.

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use http::Extensions;
use hyper_util::client::legacy::connect::{Connection, HttpInfo};
use machina_core::{Error, Reach, Result};
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use reqwest::{Client, ClientBuilder};
use tower_layer::Layer;
use tower_service::Service;
use url::{Host, Url};

use super::Guard;
use crate::client::config::HttpConfig;

/// How Machina calls itself.
pub(crate) const AGENT: &str = concat!("machina/", env!("CARGO_PKG_VERSION"));

/// How many clients are kept: a registry has one reach for each origin of services,
/// so more than two only where registries share a connector.
const CLIENTS_MAX: usize = 8;

/// How many signs of life in a row may be missed before a connection is over.
const KEEPALIVES_MISSED: u32 = 2;

type BoxError = Box<dyn StdError + Send + Sync>;

/// The clients of one connector, made when they are first needed.
pub(crate) struct Clients {
    config: HttpConfig,
    /// Whether connections are to become something else, which only those of
    /// HTTP/1.1 can.
    upgrading: bool,
    made: Mutex<Vec<(Reach, Client)>>,
}

impl Clients {
    /// # Errors
    /// [`Internal`](machina_core::ErrorKind::Internal) if the system has no usable TLS.
    pub(crate) fn new(config: &HttpConfig) -> Result<Self> {
        Self::of(config, false)
    }

    /// Clients whose connections can be taken over.
    ///
    /// # Errors
    /// As [`Clients::new`].
    pub(crate) fn upgrading(config: &HttpConfig) -> Result<Self> {
        Self::of(config, true)
    }

    fn of(config: &HttpConfig, upgrading: bool) -> Result<Self> {
        let clients = Self { config: config.clone(), upgrading, made: Mutex::default() };
        clients.with(&Guard::new(Reach::inside()))?;
        Ok(clients)
    }

    /// The client for requests to `url` within `reach`.
    ///
    /// # Errors
    /// As [`Guard::check`] and [`Clients::new`].
    pub(crate) fn for_url(&self, url: &Url, reach: &Reach) -> Result<Client> {
        let guard = Guard::new(reach.clone());
        guard.check(url)?;
        self.with(&guard)
    }

    pub(super) fn with(&self, guard: &Guard) -> Result<Client> {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, client)) = made.iter().find(|(reach, _)| *reach == guard.reach) {
            return Ok(client.clone());
        }
        let client = self.make(guard)?;
        if made.len() == CLIENTS_MAX {
            made.remove(0);
        }
        made.push((guard.reach.clone(), client.clone()));
        Ok(client)
    }

    #[cfg(test)]
    pub(super) fn kept(&self) -> usize {
        self.made.lock().unwrap().len()
    }

    pub(super) fn make(&self, guard: &Guard) -> Result<Client> {
        let builder = guarded(builder(&self.config), guard);
        let builder = if self.upgrading { builder.http1_only() } else { builder };
        builder.build().map_err(|error| Error::internal(format!("no HTTP client: {error}")).caused_by(error))
    }
}

/// Shows limits.
impl fmt::Debug for Clients {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clients").field("config", &self.config).finish_non_exhaustive()
    }
}

/// A client that connects as `guard` lets it, and to nothing that it was not asked for.
pub(crate) fn guarded(builder: ClientBuilder, guard: &Guard) -> ClientBuilder {
    builder
        .user_agent(AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .no_proxy()
        .referer(false)
        .dns_resolver(guard.clone())
        .connector_layer(PeerCheck(guard.clone()))
}

fn builder(config: &HttpConfig) -> ClientBuilder {
    Client::builder()
        .tcp_nodelay(true)
        .tcp_keepalive(config.keepalive_interval)
        .tcp_keepalive_interval(config.keepalive_interval)
        .tcp_keepalive_retries(KEEPALIVES_MISSED)
        .connect_timeout(config.connect_timeout)
        .pool_max_idle_per_host(config.idle_connections_max)
        .pool_idle_timeout(config.idle_timeout)
}

/// Names only: an address in a URL never comes this way, and is checked before.
impl Resolve for Guard {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.clone();
        Box::pin(async move {
            let found = Self::resolve(&guard, &Host::Domain(name.as_str()), 0).await?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// Looks at the other end of each connection before anything is sent over it.
#[derive(Clone)]
struct PeerCheck(Guard);

impl<S> Layer<S> for PeerCheck {
    type Service = PeerChecked<S>;

    fn layer(&self, inner: S) -> PeerChecked<S> {
        PeerChecked { inner, guard: self.0.clone() }
    }
}

#[derive(Clone)]
struct PeerChecked<S> {
    inner: S,
    guard: Guard,
}

impl<S, R> Service<R> for PeerChecked<S>
where
    S: Service<R, Error = BoxError>,
    S::Response: Connection,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: R) -> Self::Future {
        let (connecting, guard) = (self.inner.call(request), self.guard.clone());
        Box::pin(async move {
            let connection = connecting.await?;
            let mut known = Extensions::new();
            connection.connected().get_extras(&mut known);
            let peer = known.get::<HttpInfo>().ok_or_else(|| io::Error::other("the connection names no peer"))?;
            guard.check_peer(peer.remote_addr())?;
            Ok(connection)
        })
    }
}
