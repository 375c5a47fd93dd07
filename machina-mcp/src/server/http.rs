//! Streamable HTTP, both eras on one endpoint, as a service that any HTTP server
//! can mount. Gives no stream of its own accord, and so
//! announces no changes.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::request::Parts;
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use machina_core::{Era, Result, Scoped, Tasks};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use super::config::HttpServerConfig;
use super::gateway::{Answer, Gateway, Offer, Outgoing};
use super::http_body::AnswerBody;
use super::http_headers::{Accepts, check_media, check_request, check_source};
use super::http_sessions::HttpSessions;
use super::in_flight::{Flight, overloaded};
use super::rpc::{self, Fault, INVALID_REQUEST, Id, METHOD_NOT_FOUND, Message, Object, SERVER_ERROR};
use super::{errors, protocol};

const SESSION: &str = "mcp-session-id";
/// How many messages of one call may wait to be sent.
const OUTBOX_MAX: usize = 16;
/// How many requests of one session wait for an answer at a time.
const SESSION_REQUESTS_MAX: usize = 256;

type Admit = dyn Fn(&Parts) -> Result<Scoped> + Send + Sync;
type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// Machina as an MCP server over Streamable HTTP: a service to mount at one path.
/// Cheap to clone; every clone is the same endpoint.
///
/// The connection should have `TCP_NODELAY` set, or answers wait for tens of
/// milliseconds.
#[derive(Clone)]
pub struct StreamableHttp {
    inner: Arc<Inner>,
}

struct Inner {
    admit: Box<Admit>,
    config: HttpServerConfig,
    offer: Arc<Offer>,
    sessions: HttpSessions,
    tasks: Tasks,
    running: Arc<Semaphore>,
}

/// The endpoint that serves whom `admit` lets in, each with the handle that it
/// returns. An error of `admit` is the answer, with the HTTP status of its kind.
pub fn streamable_http(
    admit: impl Fn(&Parts) -> Result<Scoped> + Send + Sync + 'static,
    config: HttpServerConfig,
) -> StreamableHttp {
    let sessions = HttpSessions::new(config.sessions_max, config.session_idle);
    let running = Arc::new(Semaphore::new(config.requests_max.min(Semaphore::MAX_PERMITS)));
    let offer = Offer::new(config.exposure());
    let inner = Inner { admit: Box::new(admit), config, offer, sessions, tasks: Tasks::new(), running };
    StreamableHttp { inner: Arc::new(inner) }
}

/// A request that is not answered with what it asked for.
#[derive(Debug)]
pub(super) struct Refusal {
    status: StatusCode,
    id: Option<Id>,
    fault: Fault,
}

impl Refusal {
    pub(super) fn new(status: StatusCode, code: i64, why: impl Into<String>) -> Self {
        Self { status, id: None, fault: Fault::new(code, why) }
    }

    #[cfg(test)]
    pub(super) fn status(&self) -> StatusCode {
        self.status
    }
}

impl StreamableHttp {
    /// Ends every call and stream, and takes no more; waits up to `patience`,
    /// and says whether all have ended.
    pub async fn close(&self, patience: Duration) -> bool {
        self.inner.running.close();
        self.inner.tasks.close(patience).await
    }
}

impl fmt::Debug for StreamableHttp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamableHttp").field("config", &self.inner.config).finish_non_exhaustive()
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
        let inner = Arc::clone(&self.inner);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            Ok(inner.serve(parts, body).await.unwrap_or_else(refused))
        })
    }
}

impl Inner {
    async fn serve<B>(&self, parts: Parts, body: B) -> Result<Response<AnswerBody>, Refusal>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<BoxError>,
    {
        check_source(&parts.uri, &parts.headers, &self.config)?;
        let scoped = (self.admit)(&parts).map_err(|error| Refusal {
            status: errors::status(&error),
            id: None,
            fault: errors::fault(&error, Era::Modern),
        })?;
        let gateway = Gateway::new(scoped, Arc::clone(&self.offer));
        match parts.method {
            Method::POST => {
                let accepts = check_media(&parts.headers)?;
                let bytes = self.read(body).await?;
                self.post(gateway, &parts, accepts, &bytes).await
            }
            Method::DELETE => self.delete(&gateway, &parts),
            _ => {
                let why = "send messages by POST; there is no stream to GET";
                Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, INVALID_REQUEST, why))
            }
        }
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

    async fn post(
        &self,
        gateway: Gateway,
        parts: &Parts,
        accepts: Accepts,
        bytes: &[u8],
    ) -> Result<Response<AnswerBody>, Refusal> {
        let bad = |rejected: rpc::Rejected| Refusal {
            status: StatusCode::BAD_REQUEST,
            id: rejected.id,
            fault: rejected.fault,
        };
        let request = match Message::parse(bytes).map_err(bad)? {
            Message::Request(request) => request,
            Message::Notification { method, params } => {
                if method == "notifications/cancelled" {
                    self.cancel(&gateway, parts, &params)?;
                }
                return Ok(empty(StatusCode::ACCEPTED));
            }
            Message::Response => return Ok(empty(StatusCode::ACCEPTED)),
        };
        let id = request.id.clone();
        let refuse = |fault: Fault| Refusal { status: StatusCode::BAD_REQUEST, id: Some(id.clone()), fault };
        check_request(&parts.headers, &request).map_err(refuse)?;
        let era = protocol::era_of(&request).map_err(refuse)?;
        let exchange = Exchange { gateway, request, era, accepts };
        match (era, exchange.request.method.as_str(), session_of(parts)) {
            (Era::Legacy, "initialize", _) => self.initialize(exchange).await,
            (Era::Legacy, _, Some(session)) => {
                let requests = self.sessions.enter(session, exchange.gateway.principal()).ok_or_else(no_session)?;
                let flight = requests.begin(&id, SESSION_REQUESTS_MAX).map_err(refuse)?;
                self.answer(exchange, flight.cancelled.clone(), Some(flight)).await
            }
            _ => self.answer(exchange, CancellationToken::new(), None).await,
        }
    }

    async fn initialize(&self, exchange: Exchange) -> Result<Response<AnswerBody>, Refusal> {
        let busy = || Refusal { id: Some(exchange.request.id.clone()), ..too_busy(self.config.sessions_max) };
        let session = self.sessions.open(exchange.gateway.principal()).ok_or_else(busy)?;
        let mut response = self.answer(exchange, CancellationToken::new(), None).await?;
        if let Ok(value) = HeaderValue::from_str(&session) {
            response.headers_mut().insert(SESSION, value);
        }
        Ok(response)
    }

    /// Answers a request; its call ends when `cancelled` fires or nobody reads
    /// the answer any more.
    async fn answer(
        &self,
        exchange: Exchange,
        cancelled: CancellationToken,
        flight: Option<Flight>,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let Exchange { gateway, request, era, accepts } = exchange;
        let (outbox, queue) = mpsc::channel(OUTBOX_MAX);
        let busy = || Refusal { id: Some(request.id.clone()), ..too_busy(self.config.requests_max) };
        let permit = Arc::clone(&self.running).try_acquire_owned().map_err(|_| busy())?;
        let guard = cancelled.clone().drop_guard();
        let calls = request.method == "tools/call";
        let answering = async move {
            gateway.answer(request, era, outbox, cancelled).await;
            drop((flight, permit));
        };
        if calls {
            self.tasks.spawn("answer a call", answering);
        } else {
            // Reads a snapshot: over before a task would have begun.
            answering.await;
        }
        let waiting = Waiting { queue, accepts, era, config: &self.config };
        Ok(waiting.response(guard).await)
    }

    fn cancel(&self, gateway: &Gateway, parts: &Parts, params: &Object) -> Result<(), Refusal> {
        // In the stateless era, a closed connection is what cancels.
        let Some(session) = session_of(parts) else { return Ok(()) };
        self.sessions.enter(session, gateway.principal()).ok_or_else(no_session)?.cancel(params);
        Ok(())
    }

    fn delete(&self, gateway: &Gateway, parts: &Parts) -> Result<Response<AnswerBody>, Refusal> {
        let Some(session) = session_of(parts) else {
            return Err(Refusal::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, "Mcp-Session-Id is missing"));
        };
        match self.sessions.close(session, gateway.principal()) {
            true => Ok(empty(StatusCode::NO_CONTENT)),
            false => Err(no_session()),
        }
    }
}

/// A request, and how it wants to be answered.
struct Exchange {
    gateway: Gateway,
    request: rpc::Request,
    era: Era,
    accepts: Accepts,
}

/// An answer that is still to come.
struct Waiting<'a> {
    queue: mpsc::Receiver<Outgoing>,
    accepts: Accepts,
    era: Era,
    config: &'a HttpServerConfig,
}

impl Waiting<'_> {
    /// One JSON document if the answer comes soon; else a stream of events, if
    /// the host reads such.
    async fn response(mut self, guard: tokio_util::sync::DropGuard) -> Response<AnswerBody> {
        let first = match self.accepts {
            Accepts { json: false, .. } => None,
            Accepts { events: true, .. } => {
                match tokio::time::timeout(self.config.stream_after, self.queue.recv()).await {
                    Ok(Some(Outgoing::Answer(answer))) => return self.document(answer),
                    Ok(first) => first,
                    Err(_) => None,
                }
            }
            Accepts { events: false, .. } => loop {
                match self.queue.recv().await {
                    Some(Outgoing::Answer(answer)) => return self.document(answer),
                    Some(Outgoing::Notification(_)) => {}
                    // Cancelled: the host waits for nothing.
                    None => return empty(StatusCode::NO_CONTENT),
                }
            },
        };
        let body = AnswerBody::events(first, self.queue, self.config.keep_alive, guard);
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
        response
    }

    /// In the older era, an error is an answer like any other.
    fn document(&self, answer: Answer) -> Response<AnswerBody> {
        let status = match (self.era, answer.fault) {
            (Era::Modern, Some((METHOD_NOT_FOUND, _))) => StatusCode::NOT_FOUND,
            (Era::Modern, Some((_, true))) => StatusCode::BAD_REQUEST,
            _ => StatusCode::OK,
        };
        json(status, answer.text)
    }
}

fn session_of(parts: &Parts) -> Option<&str> {
    parts.headers.get(SESSION)?.to_str().ok()
}

fn no_session() -> Refusal {
    let why = "there is no such session, or it has ended: send `initialize` again";
    Refusal::new(StatusCode::NOT_FOUND, SERVER_ERROR, why)
}

fn too_busy(most: usize) -> Refusal {
    Refusal { status: StatusCode::SERVICE_UNAVAILABLE, id: None, fault: overloaded(most) }
}

fn refused(refusal: Refusal) -> Response<AnswerBody> {
    let mut response = json(refusal.status, rpc::answer(refusal.id.as_ref(), Err(refusal.fault)));
    let more = match refusal.status {
        StatusCode::METHOD_NOT_ALLOWED => Some((ALLOW, "POST, DELETE")),
        StatusCode::UNAUTHORIZED => Some((WWW_AUTHENTICATE, "Bearer")),
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS => Some((RETRY_AFTER, "1")),
        _ => None,
    };
    if let Some((name, value)) = more {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response
}

fn json(status: StatusCode, text: String) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::whole(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

fn empty(status: StatusCode) -> Response<AnswerBody> {
    let mut response = Response::new(AnswerBody::whole(Bytes::new()));
    *response.status_mut() = status;
    response
}
