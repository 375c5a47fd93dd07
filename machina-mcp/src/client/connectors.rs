//! The two connectors: from an endpoint as it was declared to an open session.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderMap;
use machina_core::{
    Connector, Endpoint, Era, Error, ErrorKind, HealthEndpoint, HttpEndpoint, Phase, Reach, Result, Sensitive, Session,
    StdioEndpoint, Target,
};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use super::child::{Custody, Program};
use super::config::{ClientConfig, HttpConfig, StdioConfig};
use super::duplex_connectors::{SseConnector, WebSocketConnector};
use super::environment::{Environment, for_child, resolved};
use super::guard::{Clients, Guard, discreet};
use super::handshake::{Failure, Greeting, legacy_first, modern_first, modern_first_over_http, of_connect};
use super::http_check::Declared;
use super::http_direct::{Direct, Limits};
use super::http_link::{HttpLink, header};
use super::link::shown;
use super::secrets::Secrets;
use super::session::Opening;
use super::stdio::StdioLink;

/// How long a starting child counts among those that are starting, of which there are at most
/// [`StdioConfig::starts_max`].
const START_SHARE: Duration = Duration::from_secs(10);

/// Every connector of this crate. `environment` is what placeholders refer to
/// and what children inherit from.
///
/// # Errors
/// Those of [`ClientConfig::validate`]; [`ErrorKind::Internal`] if the system has no usable TLS.
pub fn connectors(config: ClientConfig, environment: Environment) -> Result<Vec<Arc<dyn Connector>>> {
    config.validate()?;
    let ClientConfig { stdio, http } = config;
    Ok(vec![
        Arc::new(StdioConnector::new(stdio, environment.clone())),
        Arc::new(WebSocketConnector::new(http.clone(), environment.clone())?),
        Arc::new(SseConnector::new(http.clone(), environment.clone())?),
        Arc::new(HttpConnector::new(http, environment)?),
    ])
}

/// Starts MCP servers as child processes and speaks to them over their standard streams.
pub struct StdioConnector {
    config: StdioConfig,
    environment: Environment,
    starts: Semaphore,
    custody: Custody,
}

impl StdioConnector {
    /// A connector whose children inherit from `environment`.
    #[must_use]
    pub fn new(config: StdioConfig, environment: Environment) -> Self {
        let starts = Semaphore::new(config.starts_max.clamp(1, Semaphore::MAX_PERMITS));
        let custody = Custody::new(&config);
        Self { config, environment, starts, custody }
    }

    fn program(&self, endpoint: &StdioEndpoint, target: &Target) -> Result<(Program, Secrets)> {
        let mut declared = target.env.clone();
        declared.extend(endpoint.env.clone());
        let env = for_child(&self.environment, &self.config.inherit_env, &declared, &self.config.allow_env)?;
        let args = endpoint.args.iter().enumerate();
        let args: Vec<_> =
            args.map(|(n, arg)| resolved(&self.environment, &format!("args[{n}]"), arg)).collect::<Result<_>>()?;
        let cwd = endpoint.cwd.as_ref().map(|cwd| {
            let cwd = cwd.to_str().ok_or_else(|| Error::invalid_field("cwd", "must be UTF-8"))?;
            self.environment.resolve("cwd", cwd).map(Into::into)
        });
        let hidden_args = endpoint.args.iter().zip(&args).filter(|(declared, _)| declared.expose() != declared.shown());
        let secrets = declared.keys().filter_map(|name| env.get(name).cloned());
        let secrets = Secrets::new(secrets.chain(hidden_args.map(|(_, arg)| arg.clone())));
        let command = self.environment.resolve("command", &endpoint.command)?;
        Ok((Program { command, args, env, cwd: cwd.transpose()? }, secrets))
    }

    /// Starts the program once and greets it by `greet`.
    async fn attempt<G>(&self, program: &(Program, Secrets), greet: G) -> Result<Arc<dyn Session>, Failure>
    where
        G: AsyncFnOnce(&StdioLink) -> Result<Greeting, Failure>,
    {
        let opening = Opening::new();
        let (events, tasks) = (opening.events.clone(), &opening.tasks);
        let started = StdioLink::start(program, &self.custody, &self.config, events, tasks).await;
        let link = started.map_err(Failure::Final)?;
        match greet(&link).await {
            Ok(greeting) => Ok(opening.done(Arc::new(link), greeting)),
            Err(failure) => {
                let tail = link.stderr_summary();
                link.kill().await;
                Err(failure.with_stderr(tail))
            }
        }
    }

    async fn start(&self, target: &Target, endpoint: &StdioEndpoint, deadline: Instant) -> Result<Arc<dyn Session>> {
        let program = self.program(endpoint, target)?;
        let permit = timeout_at(deadline, self.starts.acquire()).await.map_err(|_| {
            let most = self.config.starts_max;
            let waited = shown(target.timeout);
            // Says nothing about this server: its program was not even started.
            Error::unreachable(format!("no place to start in for {waited}: {most} other servers are starting"))
        })?;
        let mut started = Box::pin(self.negotiate(target, &program, deadline));
        match timeout(START_SHARE, &mut started).await {
            Ok(result) => result,
            Err(_) => {
                drop(permit);
                started.await
            }
        }
    }

    /// Starts the program, a second time if it did not survive the question for its era.
    async fn negotiate(
        &self,
        target: &Target,
        program: &(Program, Secrets),
        deadline: Instant,
    ) -> Result<Arc<dyn Session>> {
        let legacy = async |link: &StdioLink| legacy_first(link, deadline).await.map_err(Failure::Final);
        if target.era == Some(Era::Legacy) {
            return self.attempt(program, legacy).await.map_err(Failure::into_error);
        }
        let wait = match target.era {
            Some(_) => target.timeout / 2,
            None => self.config.discover_timeout,
        };
        let modern = async |link: &StdioLink| modern_first(link, wait, deadline).await;
        match self.attempt(program, modern).await {
            Err(Failure::Spoiled(why)) => {
                tracing::debug!(service = %target.service.as_str(), %why, "asked for the stateless era in vain");
                let tail = why.context().stderr_tail.clone();
                self.attempt(program, legacy).await.map_err(|failure| failure.with_stderr(tail).into_error())
            }
            result => result.map_err(Failure::into_error),
        }
    }
}

#[async_trait]
impl Connector for StdioConnector {
    fn handles(&self, endpoint: &Endpoint) -> bool {
        matches!(endpoint, Endpoint::Stdio(_))
    }

    async fn connect(&self, target: &Target) -> Result<Arc<dyn Session>> {
        let Endpoint::Stdio(endpoint) = &target.instance.endpoint else { return Err(not_mine(target)) };
        let begun = Instant::now();
        let session = self.start(target, endpoint, begun + target.timeout).await;
        session.map_err(|error| of_connect(&format!("`{}`", endpoint.command), error, begun.elapsed()))
    }
}

/// Shows limits, not the environment.
impl fmt::Debug for StdioConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StdioConnector").field("config", &self.config).finish_non_exhaustive()
    }
}

/// Speaks to MCP servers over Streamable HTTP, on one pool of connections.
pub struct HttpConnector {
    config: HttpConfig,
    environment: Environment,
    clients: Clients,
}

impl HttpConnector {
    /// A connector whose placeholders refer to `environment`.
    ///
    /// # Errors
    /// [`ErrorKind::Internal`] if the system has no usable TLS.
    pub fn new(config: HttpConfig, environment: Environment) -> Result<Self> {
        let clients = Clients::new(&config)?;
        Ok(Self { config, environment, clients })
    }

    fn link(&self, endpoint: &HttpEndpoint, reach: &Reach, opening: &Opening) -> Result<HttpLink> {
        let url = http_url(&self.environment, &endpoint.url)?;
        let headers = declared_headers(&self.environment, endpoint)?;
        let secrets = Secrets::of_http(&endpoint.url, &url, &headers);
        let (events, tasks) = (opening.events.clone(), opening.tasks.clone());
        let limits = Limits {
            connect_timeout: self.config.connect_timeout,
            idle_max: self.config.idle_connections_max,
            idle_timeout: self.config.idle_timeout,
        };
        let direct = Direct::for_url(&url, limits, Guard::new(reach.clone()), tasks.clone());
        let ways = (self.clients.for_url(&url, reach)?, direct);
        Ok(HttpLink::new(ways, url, headers, secrets, self.config.message_bytes_max, events, tasks))
    }

    async fn open(&self, target: &Target, endpoint: &HttpEndpoint, deadline: Instant) -> Result<Arc<dyn Session>> {
        let opening = Opening::new();
        let link = self.link(endpoint, &target.reach, &opening)?;
        let wait = match target.era {
            Some(Era::Legacy) => Duration::ZERO,
            Some(Era::Modern) => target.timeout / 2,
            None => self.config.discover_timeout,
        };
        let greeting = match wait.is_zero() {
            true => legacy_first(&link, deadline).await,
            false => modern_first_over_http(&link, wait, deadline).await,
        };
        Ok(opening.done(Arc::new(link), greeting?))
    }
}

#[async_trait]
impl Connector for HttpConnector {
    fn handles(&self, endpoint: &Endpoint) -> bool {
        matches!(endpoint, Endpoint::Http(_))
    }

    async fn connect(&self, target: &Target) -> Result<Arc<dyn Session>> {
        let Endpoint::Http(endpoint) = &target.instance.endpoint else { return Err(not_mine(target)) };
        let begun = Instant::now();
        let session = self.open(target, endpoint, begun + target.timeout).await;
        session.map_err(|error| of_connect("the server", told(target, error), begun.elapsed()))
    }

    async fn check(&self, target: &Target, endpoint: &HealthEndpoint, expected: &[u16]) -> Result<()> {
        let (own, headers) = match &target.instance.endpoint {
            Endpoint::Http(declared) => {
                let url = http_url(&self.environment, &declared.url)?;
                (Some(url), declared_headers(&self.environment, declared)?)
            }
            // Whose own connector cannot look at anything.
            _ => (None, HeaderMap::new()),
        };
        let declared = Declared { target, own, headers, connect_timeout: self.config.connect_timeout };
        declared.look(&self.clients, endpoint, expected).await
    }
}

/// Shows limits, not the environment.
impl fmt::Debug for HttpConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HttpConnector").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The address of an endpoint, its placeholders filled in.
pub(super) fn http_url(environment: &Environment, url: &Sensitive) -> Result<Url> {
    let url = resolved(environment, "url", url)?;
    let url = Url::parse(&url).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    url.ok_or_else(|| Error::invalid_field("url", "must be an absolute http or https address"))
}

/// The headers of an endpoint, their placeholders filled in.
pub(super) fn declared_headers(environment: &Environment, endpoint: &HttpEndpoint) -> Result<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, value) in &endpoint.headers {
        let (name, value) = header(name, &resolved(environment, &format!("headers.{name}"), value)?)?;
        headers.insert(name, value);
    }
    Ok(headers)
}

/// `error`, as far as it may be told about `target`.
pub(super) fn told(target: &Target, error: Error) -> Error {
    if target.reach.is_outside() { discreet(error) } else { error }
}

pub(super) fn not_mine(target: &Target) -> Error {
    let kind = target.instance.endpoint.kind();
    Error::new(ErrorKind::Unsupported, format!("an endpoint of the kind `{kind}` needs another connector"))
        .at(Phase::NotSent)
}
