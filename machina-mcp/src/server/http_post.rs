//! Messages that a host posts, and their answers: one document if the answer
//! comes soon, a stream of events otherwise.

use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;

use http::header::HeaderValue;
use http::request::Parts;
use http::{Response, StatusCode};
use machina_core::{Attached, Era, Scoped};
use tokio::sync::mpsc;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::changes::{Kinds, Told, tellable};
use super::config::HttpServerConfig;
use super::gateway::{Answer, Gateway, Outgoing};
use super::http::{Inner, session_of};
use super::http_body::AnswerBody;
use super::http_headers::{Accepts, check_request};
use super::http_params::Repeated;
use super::http_refusal::{Refusal, document, empty};
use super::http_sessions::Owner;
use super::http_stream::event_stream;
use super::in_flight::Flight;
use super::protocol;
use super::rpc::{METHOD_NOT_FOUND, Message, Object, Request};
use super::subscriptions::Subscription;

/// How many messages of one call may wait to be sent.
const OUTBOX_MAX: usize = 16;
/// How many requests of one session wait for an answer at a time.
const SESSION_REQUESTS_MAX: usize = 256;

/// A request, and how it wants to be answered.
struct Exchange {
    gateway: Gateway,
    request: Request,
    era: Era,
    accepts: Accepts,
}

impl Inner {
    pub(super) async fn post(
        &self,
        scoped: Scoped,
        owner: Owner,
        parts: &Parts,
        accepts: Accepts,
        bytes: &[u8],
    ) -> Result<Response<AnswerBody>, Refusal> {
        let request = match Message::parse(bytes)? {
            Message::Request(request) => request,
            Message::Notification { method, params } => {
                if method == "notifications/cancelled" {
                    self.cancel(&owner, parts, &params)?;
                }
                return Ok(empty(StatusCode::ACCEPTED));
            }
            Message::Response => return Ok(empty(StatusCode::ACCEPTED)),
        };
        let id = request.id.clone();
        let refuse = |fault| Refusal::bad(Some(&id), fault);
        let gateway = self.gateway(scoped, owner.group.as_deref()).map_err(|error| Refusal::from(error).of(&id))?;
        check_request(&parts.headers, &request).map_err(refuse)?;
        let era = protocol::era_of(&request).map_err(refuse)?;
        if Subscription::is_wanted(&request, era) {
            return self.listen(&gateway, &request, accepts).await;
        }
        let introduces = matches!(request.method.as_str(), "initialize" | "server/discover");
        let told = if introduces { tellable(&gateway).await } else { Kinds::default() };
        let mut gateway = gateway.telling(told);
        if era == Era::Modern && request.method == "tools/call" {
            gateway = gateway.repeating(Repeated::of(&parts.headers));
        }
        let exchange = Exchange { gateway, request, era, accepts };
        match (era, exchange.request.method.as_str(), session_of(parts)) {
            (Era::Legacy, "initialize", _) => self.initialize(exchange, owner).await,
            (Era::Legacy, _, Some(session)) => {
                let entered = self.sessions.enter(session, &owner).ok_or_else(Refusal::no_session)?;
                let flight = entered.in_flight.begin(&id, SESSION_REQUESTS_MAX).map_err(refuse)?;
                let exchange =
                    Exchange { gateway: exchange.gateway.in_session(session, entered.log_level), ..exchange };
                self.answer(exchange, flight.cancelled.clone(), Some(flight)).await
            }
            _ => self.answer(exchange, CancellationToken::new(), None).await,
        }
    }

    async fn initialize(&self, exchange: Exchange, owner: Owner) -> Result<Response<AnswerBody>, Refusal> {
        // Before the answer: from then on the host may read the lists.
        let told = Told::new(exchange.gateway.lists());
        let busy = || Refusal::busy(self.config.sessions_max).of(&exchange.request.id);
        let session = self.sessions.open(owner, told).ok_or_else(busy)?;
        let mut response = self.answer(exchange, CancellationToken::new(), None).await?;
        if let Ok(value) = HeaderValue::from_str(&session) {
            response.headers_mut().insert("mcp-session-id", value);
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
        let busy = || Refusal::busy(self.config.requests_max).of(&request.id);
        let permit = Arc::clone(&self.running).try_acquire_owned().map_err(|_| busy())?;
        let guard = cancelled.clone().drop_guard();
        let answering = self.tasks.attached("answer a request", async move {
            gateway.answer(request, era, outbox, cancelled).await;
            drop((flight, permit));
        });
        let waiting = Waiting { answering, queue, accepts, era, config: &self.config };
        Ok(waiting.response(guard).await)
    }

    fn cancel(&self, owner: &Owner, parts: &Parts, params: &Object) -> Result<(), Refusal> {
        // In the stateless era, a closed connection is what cancels.
        let Some(session) = session_of(parts) else { return Ok(()) };
        self.sessions.enter(session, owner).ok_or_else(Refusal::no_session)?.in_flight.cancel(params);
        Ok(())
    }
}

/// An answer that is still to come.
struct Waiting<'a> {
    answering: Attached,
    queue: mpsc::Receiver<Outgoing>,
    accepts: Accepts,
    era: Era,
    config: &'a HttpServerConfig,
}

impl Waiting<'_> {
    /// One JSON document if the answer comes soon; else a stream of events, if
    /// the host reads such.
    async fn response(mut self, guard: DropGuard) -> Response<AnswerBody> {
        let first = match self.accepts {
            Accepts { json: false, .. } => None,
            Accepts { events: true, .. } => match tokio::time::timeout(self.config.stream_after, self.next()).await {
                Ok(Some(Outgoing::Answer(answer))) => return self.document(answer),
                Ok(first) => first,
                Err(_) => None,
            },
            Accepts { events: false, .. } => loop {
                match self.next().await {
                    Some(Outgoing::Answer(answer)) => return self.document(answer),
                    Some(Outgoing::Notification(_)) => {}
                    // Cancelled: the host waits for nothing.
                    None => return empty(StatusCode::NO_CONTENT),
                }
            },
        };
        event_stream(AnswerBody::answer(first, self.queue, self.config.keep_alive, guard))
    }

    /// The next message, on whose answer this future works itself meanwhile.
    async fn next(&mut self) -> Option<Outgoing> {
        poll_fn(|cx| {
            if let Poll::Ready(message) = self.queue.poll_recv(cx) {
                return Poll::Ready(message);
            }
            // What it has sent by now is to be seen at once.
            let _ = Pin::new(&mut self.answering).poll(cx);
            self.queue.poll_recv(cx)
        })
        .await
    }

    /// In the older era, an error is an answer like any other.
    fn document(&self, answer: Answer) -> Response<AnswerBody> {
        let status = match (self.era, answer.fault) {
            (Era::Modern, Some((METHOD_NOT_FOUND, _))) => StatusCode::NOT_FOUND,
            (Era::Modern, Some((_, true))) => StatusCode::BAD_REQUEST,
            _ => StatusCode::OK,
        };
        document(status, answer.text)
    }
}
