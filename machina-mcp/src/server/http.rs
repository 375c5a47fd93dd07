//! MCP over HTTP, both eras on one endpoint, as a service that any HTTP server
//! can mount: Streamable HTTP here, WebSockets beside it. Refuses web pages that
//! are not allowed to ask, and everybody whom it is not told to admit.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::ACCESS_CONTROL_REQUEST_METHOD;
use http::request::Parts;
use http::{Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use machina_core::{Result, Scoped, Tasks};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::audience::Selection;
use super::config::HttpServerConfig;
use super::gateway::Gateway;
use super::http_body::AnswerBody;
use super::http_cors;
use super::http_headers::{check_media, check_source};
use super::http_refusal::{Refusal, empty};
use super::http_sessions::{HttpSessions, Owner};
use super::offer::Offer;
use super::rpc::INVALID_REQUEST;
use super::websocket::WebSocket;

const SESSION: &str = "mcp-session-id";

/// How much of a drain WebSockets need to be closed in order.
const FAREWELLS: Duration = Duration::from_secs(2);

type Admit = dyn Fn(&Parts) -> Result<Scoped> + Send + Sync;
pub(super) type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Machina as an MCP server over Streamable HTTP: a service to mount at one path.
/// Cheap to clone; every clone is the same endpoint.
///
/// The connection should have `TCP_NODELAY` set, or answers wait for tens of
/// milliseconds.
#[derive(Clone)]
pub struct StreamableHttp {
    inner: Arc<Inner>,
    place: Place,
}

/// What is reached at the path where a service is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Everything.
    Whole,
    /// What the group selects that the path names.
    Groups,
}

/// What all services of one endpoint share.
pub(super) struct Inner {
    admit: Box<Admit>,
    pub(super) config: HttpServerConfig,
    offer: Arc<Offer>,
    pub(super) sessions: HttpSessions,
    /// Requests that run.
    pub(super) tasks: Tasks,
    pub(super) running: Arc<Semaphore>,
    pub(super) streams: Arc<Semaphore>,
    /// Open WebSockets.
    pub(super) connections: Tasks,
    pub(super) sockets: Arc<Semaphore>,
    /// Streams and WebSockets end.
    pub(super) draining: CancellationToken,
    last_answers: OnceLock<Duration>,
}

/// The endpoint that serves whom `admit` lets in, each with the handle that it
/// returns. An error of `admit` is the answer, with the HTTP status of its kind.
pub fn streamable_http(
    admit: impl Fn(&Parts) -> Result<Scoped> + Send + Sync + 'static,
    config: HttpServerConfig,
) -> StreamableHttp {
    let places = |most: usize| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
    let inner = Inner {
        admit: Box::new(admit),
        offer: Offer::new(config.exposure()),
        sessions: HttpSessions::new(config.sessions_max, config.session_idle),
        tasks: Tasks::new(),
        running: places(config.requests_max),
        streams: places(config.streams_max),
        connections: Tasks::new(),
        sockets: places(config.sockets_max),
        draining: CancellationToken::new(),
        last_answers: OnceLock::new(),
        config,
    };
    StreamableHttp { inner: Arc::new(inner), place: Place::Whole }
}

impl StreamableHttp {
    /// The same endpoint for groups: to mount where the last segment of the path
    /// is the name of a group, such as `/mcp/{group}`.
    #[must_use]
    pub fn of_groups(&self) -> Self {
        Self { inner: Arc::clone(&self.inner), place: Place::Groups }
    }

    /// The same endpoint over WebSockets: to mount beside this one at `ws`, such
    /// as `/mcp/ws`, and `/mcp/{group}/ws` for that of the groups.
    #[must_use]
    pub fn web_socket(&self) -> WebSocket {
        WebSocket::new(Arc::clone(&self.inner), self.place)
    }

    /// Ends every stream and WebSocket, and opens no more. Calls over a WebSocket
    /// have up to `patience` to be answered; says whether that was enough. Other
    /// calls go on.
    pub async fn drain(&self, patience: Duration) -> bool {
        // What is left of it is for saying goodbye.
        let _ = self.inner.last_answers.set(patience.saturating_sub(FAREWELLS));
        self.inner.draining.cancel();
        self.inner.connections.finish(patience).await
    }

    /// Ends every call, stream and WebSocket, and takes no more; waits up to
    /// `patience`, and says whether all have ended.
    pub async fn close(&self, patience: Duration) -> bool {
        let Inner { running, draining, tasks, connections, .. } = &*self.inner;
        running.close();
        draining.cancel();
        let (requests, sockets) = tokio::join!(tasks.close(patience), connections.close(patience));
        requests && sockets
    }
}

impl fmt::Debug for StreamableHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamableHttp")
            .field("place", &self.place)
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}

impl<B> tower_service::Service<Request<B>> for StreamableHttp
where
    B: Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<BoxError>,
{
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (inner, place) = (Arc::clone(&self.inner), self.place);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            Ok(inner.serve(place, &parts, body).await)
        })
    }
}

impl Inner {
    /// How long calls over a WebSocket have to be answered while it is drained.
    pub(super) fn last_answers(&self) -> Duration {
        self.last_answers.get().copied().unwrap_or_default()
    }

    async fn serve<B>(&self, place: Place, parts: &Parts, body: B) -> Response<AnswerBody>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        if let Err(refusal) = check_source(&parts.uri, &parts.headers, &self.config) {
            return refusal.response();
        }
        let answered = match parts.method {
            // A browser asks without saying who asks.
            Method::OPTIONS if parts.headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD) => {
                Ok(http_cors::preflight(&parts.headers))
            }
            _ => self.answered(place, parts, body).await,
        };
        let mut response = answered.unwrap_or_else(Refusal::response);
        http_cors::open(&mut response, &parts.headers);
        response
    }

    async fn answered<B>(&self, place: Place, parts: &Parts, body: B) -> Result<Response<AnswerBody>, Refusal>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        let group = group_of(place, parts.uri.path());
        let scoped = self.admit(parts)?;
        let owner = Owner { principal: scoped.principal().id.clone(), group: group.map(str::to_owned) };
        match parts.method {
            Method::POST => {
                let accepts = check_media(&parts.headers)?;
                let bytes = self.read(body).await?;
                self.post(scoped, owner, parts, accepts, &bytes).await
            }
            Method::GET => self.stream(&self.gateway(scoped, group)?, &owner, parts).await,
            Method::DELETE => self.delete(&owner, parts),
            Method::OPTIONS => Ok(empty(StatusCode::NO_CONTENT)),
            _ => Err(Refusal::method("GET, POST, DELETE, OPTIONS", "send messages by POST")),
        }
    }

    /// The handle of whoever sent the request.
    pub(super) fn admit(&self, parts: &Parts) -> Result<Scoped> {
        (self.admit)(parts)
    }

    /// The server as `scoped` sees it, or the part of it that a group selects.
    pub(super) fn gateway(&self, scoped: Scoped, group: Option<&str>) -> Result<Gateway> {
        let selection = group.map_or(Selection::Everything, |group| Selection::Group(group.into()));
        Gateway::new(scoped, Arc::clone(&self.offer), selection)
    }

    async fn read<B>(&self, body: B) -> Result<Bytes, Refusal>
    where
        B: Body + Send,
        B::Error: Into<BoxError>,
    {
        let most = self.config.message_bytes_max;
        let refuse = |status, why: String| Err(Refusal::new(status, INVALID_REQUEST, why));
        match tokio::time::timeout(self.config.message_timeout, Limited::new(body, most).collect()).await {
            Ok(Ok(read)) => Ok(read.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                refuse(StatusCode::PAYLOAD_TOO_LARGE, format!("a message may have {most} bytes"))
            }
            Ok(Err(_)) => refuse(StatusCode::BAD_REQUEST, "the message broke off".to_owned()),
            Err(_) => refuse(StatusCode::REQUEST_TIMEOUT, "the message took too long".to_owned()),
        }
    }

    fn delete(&self, owner: &Owner, parts: &Parts) -> Result<Response<AnswerBody>, Refusal> {
        let Some(session) = session_of(parts) else {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, "Mcp-Session-Id is missing"));
        };
        match self.sessions.close(session, owner) {
            true => Ok(empty(StatusCode::NO_CONTENT)),
            false => Err(Refusal::no_session()),
        }
    }
}

/// The group that the path of a request names.
pub(super) fn group_of(place: Place, path: &str) -> Option<&str> {
    match place {
        Place::Whole => None,
        Place::Groups => path.trim_end_matches('/').rsplit('/').next(),
    }
}

pub(super) fn session_of(parts: &Parts) -> Option<&str> {
    parts.headers.get(SESSION)?.to_str().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_is_the_last_segment_of_the_path() {
        assert_eq!(group_of(Place::Whole, "/mcp"), None);
        assert_eq!(group_of(Place::Groups, "/mcp/data-team"), Some("data-team"));
        assert_eq!(group_of(Place::Groups, "/mcp/data-team/"), Some("data-team"));
        assert_eq!(group_of(Place::Groups, "/x"), Some("x"));
    }
}
