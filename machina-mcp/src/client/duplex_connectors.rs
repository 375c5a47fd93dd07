//! The connectors of the two older ways to reach a server over the network: a
//! WebSocket, and the HTTP + SSE transport of 2024-11-05.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use http::HeaderMap;
use machina_core::{
    Connector, Endpoint, Era, Error, HealthEndpoint, HttpEndpoint, Phase, Result, Session, Target, UrlEndpoint,
};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::config::HttpConfig;
use super::connectors::{declared_headers, http_url, not_mine, told};
use super::duplex::DuplexLink;
use super::environment::{Environment, resolved};
use super::guard::Clients;
use super::handshake::{Failure, Greeting, legacy_first, modern_first, of_connect};
use super::http_check::Declared;
use super::secrets::Secrets;
use super::session::Opening;
use super::{sse_link, websocket};

/// Speaks to MCP servers over WebSockets, in both eras.
pub struct WebSocketConnector {
    config: HttpConfig,
    environment: Environment,
    clients: Clients,
}

impl WebSocketConnector {
    /// A connector whose placeholders refer to `environment`.
    ///
    /// # Errors
    /// [`Internal`](machina_core::ErrorKind::Internal) if the system has no usable TLS.
    pub fn new(config: HttpConfig, environment: Environment) -> Result<Self> {
        let clients = Clients::upgrading(&config)?;
        Ok(Self { config, environment, clients })
    }

    fn url(&self, endpoint: &UrlEndpoint) -> Result<Url> {
        let url = resolved(&self.environment, "url", &endpoint.url)?;
        let as_http = url.strip_prefix("ws").map(|rest| format!("http{rest}"));
        let url = as_http.and_then(|url| Url::parse(&url).ok());
        let url = url.filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
        url.ok_or_else(|| Error::invalid_field("url", "must be an absolute ws or wss address"))
    }

    /// Opens a connection and greets the server by `greet`.
    async fn attempt<G>(
        &self,
        target: &Target,
        endpoint: &UrlEndpoint,
        deadline: Instant,
        greet: G,
    ) -> Result<Arc<dyn Session>, Failure>
    where
        G: AsyncFnOnce(&DuplexLink) -> Result<Greeting, Failure>,
    {
        let url = self.url(endpoint).map_err(Failure::Final)?;
        let secrets = Secrets::of_http(&endpoint.url, &url, &HeaderMap::new());
        let most = self.config.message_bytes_max;
        let client = self.clients.for_url(&url, &target.reach).map_err(Failure::Final)?;
        let opened = in_time(deadline, websocket::open(&client, &url, &secrets, most)).await;
        let socket = opened.map_err(Failure::Final)?;
        let opening = Opening::new();
        let (link, frames) = DuplexLink::new(opening.events.clone(), secrets, most);
        opening.tasks.spawn("mcp-websocket", websocket::carry(socket, link.line(), frames));
        let greeting = greet(&link).await?;
        Ok(opening.done(Arc::new(link), greeting))
    }

    /// Opens a connection, a second one if the first did not survive the question for the era.
    async fn open(&self, target: &Target, endpoint: &UrlEndpoint, deadline: Instant) -> Result<Arc<dyn Session>> {
        let legacy = async |link: &DuplexLink| legacy_first(link, deadline).await.map_err(Failure::Final);
        if target.era == Some(Era::Legacy) {
            return self.attempt(target, endpoint, deadline, legacy).await.map_err(Failure::into_error);
        }
        let wait = target.era.map_or(self.config.discover_timeout, |_| target.timeout / 2);
        let modern = async |link: &DuplexLink| modern_first(link, wait, deadline).await;
        match self.attempt(target, endpoint, deadline, modern).await {
            Err(Failure::Spoiled(_)) => {
                self.attempt(target, endpoint, deadline, legacy).await.map_err(Failure::into_error)
            }
            result => result.map_err(Failure::into_error),
        }
    }
}

#[async_trait]
impl Connector for WebSocketConnector {
    fn handles(&self, endpoint: &Endpoint) -> bool {
        matches!(endpoint, Endpoint::WebSocket(_))
    }

    async fn connect(&self, target: &Target) -> Result<Arc<dyn Session>> {
        let Endpoint::WebSocket(endpoint) = &target.instance.endpoint else { return Err(not_mine(target)) };
        let begun = Instant::now();
        let session = self.open(target, endpoint, begun + target.timeout).await;
        session.map_err(|error| of_connect("the server", told(target, error), begun.elapsed()))
    }

    async fn check(&self, target: &Target, endpoint: &HealthEndpoint, expected: &[u16]) -> Result<()> {
        let Endpoint::WebSocket(declared) = &target.instance.endpoint else { return Err(not_mine(target)) };
        let (url, headers) = (self.url(declared)?, HeaderMap::new());
        let declared = Declared { target, own: Some(url), headers, connect_timeout: self.config.connect_timeout };
        declared.look(&self.clients, endpoint, expected).await
    }
}

/// Speaks to MCP servers over HTTP + SSE, in the older era.
pub struct SseConnector {
    config: HttpConfig,
    environment: Environment,
    clients: Clients,
}

impl SseConnector {
    /// A connector whose placeholders refer to `environment`.
    ///
    /// # Errors
    /// [`Internal`](machina_core::ErrorKind::Internal) if the system has no usable TLS.
    pub fn new(config: HttpConfig, environment: Environment) -> Result<Self> {
        let clients = Clients::new(&config)?;
        Ok(Self { config, environment, clients })
    }

    async fn open(&self, target: &Target, endpoint: &HttpEndpoint, deadline: Instant) -> Result<Arc<dyn Session>> {
        let url = http_url(&self.environment, &endpoint.url)?;
        let headers = declared_headers(&self.environment, endpoint)?;
        let secrets = Secrets::of_http(&endpoint.url, &url, &headers);
        let most = self.config.message_bytes_max;
        let client = self.clients.for_url(&url, &target.reach)?;
        let opening = sse_link::open(&client, &url, headers, secrets.clone(), most);
        let stream = in_time(deadline, opening).await?;
        let opening = Opening::new();
        let (link, frames) = DuplexLink::new(opening.events.clone(), secrets, most);
        opening.tasks.spawn("mcp-sse", sse_link::carry(stream, link.line(), frames));
        let greeting = legacy_first(&link, deadline).await?;
        Ok(opening.done(Arc::new(link), greeting))
    }
}

#[async_trait]
impl Connector for SseConnector {
    fn handles(&self, endpoint: &Endpoint) -> bool {
        matches!(endpoint, Endpoint::Sse(_))
    }

    async fn connect(&self, target: &Target) -> Result<Arc<dyn Session>> {
        let Endpoint::Sse(endpoint) = &target.instance.endpoint else { return Err(not_mine(target)) };
        let begun = Instant::now();
        let session = self.open(target, endpoint, begun + target.timeout).await;
        session.map_err(|error| of_connect("the server", told(target, error), begun.elapsed()))
    }

    async fn check(&self, target: &Target, endpoint: &HealthEndpoint, expected: &[u16]) -> Result<()> {
        let Endpoint::Sse(declared) = &target.instance.endpoint else { return Err(not_mine(target)) };
        let url = http_url(&self.environment, &declared.url)?;
        let headers = declared_headers(&self.environment, declared)?;
        let declared = Declared { target, own: Some(url), headers, connect_timeout: self.config.connect_timeout };
        declared.look(&self.clients, endpoint, expected).await
    }
}

async fn in_time<T>(deadline: Instant, opening: impl Future<Output = Result<T>>) -> Result<T> {
    let late = || Error::timeout("the connection was not open in time").at(Phase::NotSent);
    timeout_at(deadline, opening).await.unwrap_or_else(|_| Err(late()))
}

/// Shows limits, not the environment.
impl fmt::Debug for WebSocketConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocketConnector").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Shows limits, not the environment.
impl fmt::Debug for SseConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SseConnector").field("config", &self.config).finish_non_exhaustive()
    }
}
