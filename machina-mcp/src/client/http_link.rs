//! A link to a Streamable HTTP server of either era. Refuses redirects and
//! proxies, and repeats nothing: what became of a request is told to the caller,
//! who alone decides about a second attempt.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use machina_core::{Carried, Era, Error, Phase, Result, Tasks};
use reqwest::{Client, RequestBuilder};
use serde_json::Value;
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};
use url::Url;

use super::events::Events;
use super::guard::{AGENT, barred_in, is_another, place};
use super::http_answer::Answers;
use super::http_direct::{Broken, Direct};
use super::http_response::{NotReceived, Received};
use super::link::{Dialect, Link, Misses, OnAside, Request, meta_of, unanswered};
use super::param_headers::name_of;
use super::secrets::Secrets;
use super::status::{Refusal, retry_after};
use super::wire::{self, Object};

/// The most of a refusal's body that is read, in bytes, and how long that may take.
const REFUSAL_BYTES_MAX: usize = 64 * 1024;
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a message that nobody waits for may take: a reply, a cancellation, the end.
const ASIDE_TIMEOUT: Duration = Duration::from_secs(2);
/// How many such messages may be under way at a time; more are dropped.
const ASIDES_MAX: usize = 16;
/// The pauses before a broken listening stream is opened again: the first, the longest.
const LISTEN_PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(30));
/// The first revision whose requests name it in a header.
const FIRST_VERSION_IN_HEADER: &str = "2025-06-18";

/// What every answer may be.
const ACCEPTED: &str = "application/json, text/event-stream";
const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

/// A connection to one HTTP server.
#[derive(Debug)]
pub(crate) struct HttpLink(Arc<Peer>);

/// What the link and its tasks share.
pub(super) struct Peer {
    client: Client,
    /// The short way, where there is one.
    direct: Option<Arc<Direct>>,
    url: Url,
    headers: HeaderMap,
    pub(super) secrets: Secrets,
    pub(super) events: Arc<Events>,
    pub(super) message_bytes_max: usize,
    session: OnceLock<HeaderValue>,
    next_id: AtomicU64,
    tasks: Tasks,
    asides: Arc<Semaphore>,
}

impl HttpLink {
    pub(crate) fn new(
        (client, direct): (Client, Option<Arc<Direct>>),
        url: Url,
        headers: HeaderMap,
        secrets: Secrets,
        message_bytes_max: usize,
        events: Arc<Events>,
        tasks: Tasks,
    ) -> Self {
        Self(Arc::new(Peer {
            client,
            direct,
            url,
            headers,
            secrets,
            events,
            message_bytes_max,
            session: OnceLock::new(),
            next_id: AtomicU64::new(1),
            tasks,
            asides: Arc::new(Semaphore::new(ASIDES_MAX)),
        }))
    }
}

#[async_trait]
impl Link for HttpLink {
    async fn exchange(&self, request: Request<'_>, on_aside: OnAside<'_>) -> Result<Value> {
        let peer = &self.0;
        let Request { method, mut params, dialect, stage, progress, param_headers, .. } = request;
        if let Some(reason) = peer.events.closed() {
            return Err(unanswered(reason.message(), Phase::NotSent));
        }
        let id = peer.next_id.fetch_add(1, Ordering::Relaxed);
        dialect.stamp(&mut params);
        if progress {
            meta_of(&mut params).insert("progressToken".into(), id.into());
        }
        let body = wire::request(id, method, &params);
        if body.len() > peer.message_bytes_max {
            let detail = format!("must fit into {} bytes, has {}", peer.message_bytes_max, body.len());
            return Err(Error::invalid_field("params", detail).at(Phase::NotSent));
        }
        let mut extra = HeaderMap::new();
        if dialect.era == Era::Modern {
            let name = name_of(method, &params).map(|name| ("Mcp-Name".to_owned(), name));
            let method = ("Mcp-Method".to_owned(), method.to_owned());
            for (name, value) in [method].into_iter().chain(name).chain(param_headers) {
                let (name, value) = protocol_header(&name, &value)?;
                extra.append(name, value);
            }
        }
        stage.begin();
        stage.carried.send(body.len());
        let mut cancel = Cancel { peer, dialect, id: Some(id).filter(|_| method != "initialize") };
        let answer = async {
            let response = peer.send(body, method, dialect, extra).await.map_err(|error| peer.not_received(error))?;
            let response = peer.accepted(method, response, dialect.era).await?;
            if method == "initialize"
                && let Some(session) = response.headers().get("mcp-session-id")
            {
                let mut session = session.clone();
                session.set_sensitive(true);
                let _ = peer.session.set(session);
            }
            Answers { peer, dialect, id, method, carried: &stage.carried }.answer(response, on_aside).await
        };
        let answer = answer.await;
        // An answer of any kind, or nothing sent: there is nothing to cancel.
        if answer.as_ref().map_or_else(|error| error.context().phase != Some(Phase::MaybeExecuted), |_| true) {
            cancel.id = None;
        }
        answer
    }

    async fn notify(&self, method: &str, params: &Object, dialect: &Dialect) -> Result<()> {
        let post = self.0.post(wire::notification(method, params), method, dialect);
        let response = post.send().await.map_err(|error| self.0.not_received(error.into()))?;
        self.0.accepted(method, response.into(), dialect.era).await.map(drop)
    }

    async fn follow(&self, dialect: &Dialect) {
        let peer = &self.0;
        let mut last_id = None;
        let (mut pause, mut misses) = (LISTEN_PAUSES.0, Misses::default());
        loop {
            let begun = Instant::now();
            match peer.get(dialect, last_id.as_deref()).send().await.map(Received::from) {
                Ok(response) if response.is_stream() => {
                    misses = Misses::default();
                    Answers { peer, dialect, id: 0, method: "", carried: &Carried::default() }
                        .listen(response, &mut last_id)
                        .await;
                    // What changes until the stream is open again is not announced to us.
                    peer.events.change();
                }
                // Most servers have nothing to say of their own accord.
                Ok(response) if !response.status().is_server_error() => return,
                Err(error) if error.is_connect() => {
                    if let Some(reason) = misses.add(peer.not_received(error.into())) {
                        return peer.events.close(reason);
                    }
                }
                Ok(_) | Err(_) => misses = Misses::default(),
            }
            sleep(pause).await;
            let lasted = begun.elapsed() > LISTEN_PAUSES.1;
            pause = if lasted { LISTEN_PAUSES.0 } else { (pause * 2).min(LISTEN_PAUSES.1) };
        }
    }

    fn secrets(&self) -> &Secrets {
        &self.0.secrets
    }

    fn stderr_tail(&self) -> String {
        String::new()
    }

    fn process_id(&self) -> Option<u32> {
        None
    }

    async fn close(&self, dialect: &Dialect) {
        self.0.events.close(Error::unavailable("the session was closed"));
        if self.0.session.get().is_some() {
            let end = self.0.dressed(self.0.client.delete(self.0.url.clone()), dialect);
            // A server need not know how to end a session; it will forget it some day.
            let _ = timeout(ASIDE_TIMEOUT, end.send()).await;
        }
    }
}

/// Shows no address and no header: either may hold a secret.
impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer").field("host", &self.url.host_str()).finish_non_exhaustive()
    }
}

impl Peer {
    /// Posts a request by the shortest way that there is.
    async fn send(
        &self,
        body: Vec<u8>,
        method: &str,
        dialect: &Dialect,
        extra: HeaderMap,
    ) -> Result<Received, NotReceived> {
        let Some(direct) = &self.direct else {
            return Ok(self.post(body, method, dialect).headers(extra).send().await?.into());
        };
        let mut headers = self.headers.clone();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
        headers.entry(USER_AGENT).or_insert(HeaderValue::from_static(AGENT));
        if method != "initialize" {
            headers.extend(self.protocol_headers(dialect).into_iter().flatten());
        }
        headers.extend(extra);
        direct.post(headers, body.into()).await.map(Received::Direct).map_err(NotReceived::Direct)
    }

    /// The version and the session, as far as a request names them.
    fn protocol_headers(&self, dialect: &Dialect) -> [Option<(HeaderName, HeaderValue)>; 2] {
        let version = Some(&dialect.version).filter(|version| version.as_str() >= FIRST_VERSION_IN_HEADER);
        let version = version.and_then(|version| HeaderValue::from_str(version).ok());
        [version.map(|version| (VERSION, version)), self.session.get().map(|session| (SESSION, session.clone()))]
    }

    fn post(&self, body: Vec<u8>, method: &str, dialect: &Dialect) -> RequestBuilder {
        let post = self.client.post(self.url.clone()).header(CONTENT_TYPE, "application/json");
        let post = post.header(ACCEPT, ACCEPTED).body(body);
        if method == "initialize" { post.headers(self.headers.clone()) } else { self.dressed(post, dialect) }
    }

    /// A request to listen, from the event `last_id` on.
    pub(super) fn get(&self, dialect: &Dialect, last_id: Option<&str>) -> RequestBuilder {
        let get = self.dressed(self.client.get(self.url.clone()).header(ACCEPT, "text/event-stream"), dialect);
        match last_id {
            Some(id) => get.header("Last-Event-ID", id),
            None => get,
        }
    }

    /// The request with the declared headers, the version and the session.
    fn dressed(&self, mut request: RequestBuilder, dialect: &Dialect) -> RequestBuilder {
        request = request.headers(self.headers.clone());
        for (name, value) in self.protocol_headers(dialect).into_iter().flatten() {
            request = request.header(name, value);
        }
        request
    }

    /// The response, if it is a success; otherwise what the refusal means.
    async fn accepted(&self, method: &str, mut response: Received, era: Era) -> Result<Received> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let retry_after = retry_after(response.headers(), machina_core::now());
        let mut body = Vec::new();
        let _ = timeout(REFUSAL_TIMEOUT, async {
            while let Ok(Some(chunk)) = response.chunk().await {
                let room = REFUSAL_BYTES_MAX - body.len();
                body.extend_from_slice(&chunk[..chunk.len().min(room)]);
                if body.len() == REFUSAL_BYTES_MAX {
                    break;
                }
            }
        })
        .await;
        let in_session = self.session.get().is_some();
        let (kind, secrets) = (response.content_type(), &self.secrets);
        let refusal = Refusal { method, status, retry_after, kind, body: &body, in_session, era, secrets };
        let error = refusal.error();
        if refusal.ends_session() {
            self.events.close(error.clone());
        }
        Err(error)
    }

    /// What it means that no response came.
    pub(super) fn not_received(&self, error: NotReceived) -> Error {
        not_received(&self.url, error)
    }

    /// Posts a message that nobody waits for, in the background.
    pub(super) fn aside(self: &Arc<Self>, body: Vec<u8>, dialect: &Dialect) {
        let Ok(permit) = self.asides.clone().try_acquire_owned() else { return };
        if Handle::try_current().is_err() {
            return;
        }
        let post = self.post(body, "", dialect);
        self.tasks.spawn("mcp-aside", async move {
            if let Ok(Err(error)) = timeout(ASIDE_TIMEOUT, post.send()).await {
                tracing::debug!(error = %error.without_url(), "a message was not delivered");
            }
            drop(permit);
        });
    }
}

/// What it means that no response came from `url`.
pub(super) fn not_received(url: &Url, error: NotReceived) -> Error {
    let place = place(url);
    let cause: &(dyn std::error::Error + 'static) = match &error {
        NotReceived::Full(error) => error,
        NotReceived::Direct(Broken::Connecting(error)) => error,
        NotReceived::Direct(Broken::Exchanging(error)) => error,
    };
    if let Some(barred) = barred_in(cause) {
        return barred.into_error(&place);
    }
    let is_another = is_another(cause);
    let refused = |cause: &str| {
        let error = unanswered(format!("could not connect to {place}: {cause}"), Phase::NotSent);
        error.with(|context| context.hard = is_another)
    };
    let broke = |cause: &str| unanswered(format!("the connection to {place} broke: {cause}"), Phase::MaybeExecuted);
    match error {
        NotReceived::Full(error) => {
            let error = error.without_url();
            let cause = root_cause(&error);
            if error.is_builder() {
                return Error::invalid(format!("the request could not be built: {cause}")).at(Phase::NotSent);
            }
            if error.is_connect() { refused(&cause).caused_by(error) } else { broke(&cause) }
        }
        NotReceived::Direct(Broken::Connecting(error)) => refused(&error.to_string()).caused_by(error),
        NotReceived::Direct(Broken::Exchanging(error)) => broke(&root_cause(&error)),
    }
}

/// The innermost reason of an error: the one that says something.
fn root_cause(error: &dyn std::error::Error) -> String {
    let mut cause = error;
    while let Some(inner) = cause.source() {
        cause = inner;
    }
    cause.to_string()
}

/// Cancels a request upstream when its future is dropped before the answer came.
/// In the stateless era the closed stream says it; before, a message does.
struct Cancel<'a> {
    peer: &'a Arc<Peer>,
    dialect: &'a Dialect,
    id: Option<u64>,
}

impl Drop for Cancel<'_> {
    fn drop(&mut self) {
        if let Some(id) = self.id.filter(|_| self.dialect.era == Era::Legacy) {
            self.peer.aside(wire::cancellation(id, &Object::new()), self.dialect);
        }
    }
}

/// Headers that the protocol itself sets.
const RESERVED: &[&str] = &[
    "accept",
    "connection",
    "content-length",
    "content-type",
    "host",
    "last-event-id",
    "mcp-method",
    "mcp-name",
    "mcp-protocol-version",
    "mcp-session-id",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// A header that the protocol demands, out of what a request says.
fn protocol_header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue)> {
    let parsed = HeaderName::from_bytes(name.as_bytes()).ok().zip(HeaderValue::from_str(value).ok());
    let wrong = || Error::invalid(format!("what `{name}` must say cannot be said in a header")).at(Phase::NotSent);
    parsed.ok_or_else(wrong)
}

/// One declared header, its value already resolved.
///
/// # Errors
/// [`machina_core::ErrorKind::Invalid`] naming the header; never its value.
pub(crate) fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue)> {
    let field = format!("headers.{name}");
    let parsed = HeaderName::from_bytes(name.as_bytes());
    let parsed = parsed.map_err(|_| Error::invalid_field(&field, "is not the name of a header"))?;
    if RESERVED.contains(&parsed.as_str()) || parsed.as_str().starts_with("mcp-param-") {
        return Err(Error::invalid_field(field, "is set by the protocol itself and cannot be declared"));
    }
    let mut value =
        HeaderValue::from_str(value).map_err(|_| Error::invalid_field(field, "must not hold control characters"))?;
    value.set_sensitive(true);
    Ok((parsed, value))
}

/// Whether a response says that it carries nothing.
pub(super) fn is_empty_success(status: StatusCode) -> bool {
    matches!(status, StatusCode::ACCEPTED | StatusCode::NO_CONTENT)
}
