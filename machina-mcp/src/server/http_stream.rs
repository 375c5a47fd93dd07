//! Streams that tell a host over HTTP of changes: the one of a session of the
//! older era, and subscriptions of the stateless one. They are made as fast as
//! they are read, so a slow reader costs a place and no memory.

use futures_util::stream::{BoxStream, StreamExt, unfold};
use http::header::{CACHE_CONTROL, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Response, StatusCode};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

use super::changes::{Feed, Kinds};
use super::gateway::Gateway;
use super::http::{Inner, session_of};
use super::http_body::AnswerBody;
use super::http_headers::{Accepts, check_stream};
use super::http_refusal::Refusal;
use super::http_sessions::{Owner, SessionStream};
use super::rpc::{self, INVALID_REQUEST, Request};
use super::subscriptions::Subscription;

impl Inner {
    /// The stream of a session.
    pub(super) async fn stream(
        &self,
        gateway: &Gateway,
        owner: &Owner,
        parts: &Parts,
    ) -> Result<Response<AnswerBody>, Refusal> {
        let Some(session) = session_of(parts) else {
            let why = "send messages by POST; only a session that `initialize` began has a stream to GET";
            return Err(Refusal::method("POST, DELETE, OPTIONS", why));
        };
        check_stream(&parts.headers)?;
        let permit = self.place()?;
        let session = self.sessions.stream(session, owner).ok_or_else(Refusal::no_session)?;
        let feed = Feed::open(gateway, Kinds::ALL, Some(session.told.clone())).await;
        let told = Told { feed, session, draining: self.draining.clone(), _place: permit };
        Ok(self.events(told.messages()))
    }

    /// A subscription.
    pub(super) async fn listen(
        &self,
        gateway: &Gateway,
        request: &Request,
        accepts: Accepts,
    ) -> Result<Response<AnswerBody>, Refusal> {
        if !accepts.events {
            let why = "Accept must name text/event-stream: a subscription is a stream";
            return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, INVALID_REQUEST, why).of(&request.id));
        }
        let permit = self.place().map_err(|refusal| refusal.of(&request.id))?;
        let subscription = Subscription::open(gateway, request).await;
        let subscription = subscription.map_err(|fault| Refusal::bad(Some(&request.id), fault))?;
        let subscribed = Subscribed { subscription, draining: self.draining.clone(), _place: permit };
        Ok(self.events(subscribed.messages()))
    }

    fn place(&self) -> Result<OwnedSemaphorePermit, Refusal> {
        let permit = self.streams.clone().try_acquire_owned();
        permit.ok().filter(|_| !self.draining.is_cancelled()).ok_or_else(|| Refusal::busy(self.config.streams_max))
    }

    fn events(&self, messages: BoxStream<'static, String>) -> Response<AnswerBody> {
        event_stream(AnswerBody::messages(messages, self.config.keep_alive))
    }
}

/// The response whose body is a stream of events.
pub(super) fn event_stream(body: AnswerBody) -> Response<AnswerBody> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// A session that is told of changes.
struct Told {
    feed: Feed,
    session: SessionStream,
    draining: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Told {
    fn messages(self) -> BoxStream<'static, String> {
        unfold(self, async |mut told| {
            let method = tokio::select! {
                biased;
                () = told.session.over.cancelled() => return None,
                () = told.draining.cancelled() => return None,
                method = told.feed.next() => method,
            };
            Some((rpc::notification(method, &json!({})), told))
        })
        .boxed()
    }
}

/// A subscription that is told of changes.
struct Subscribed {
    subscription: Subscription,
    draining: CancellationToken,
    _place: OwnedSemaphorePermit,
}

impl Subscribed {
    fn messages(self) -> BoxStream<'static, String> {
        unfold(Some(self), async |subscribed| {
            let mut subscribed = subscribed?;
            tokio::select! {
                biased;
                () = subscribed.draining.cancelled() => Some((subscribed.subscription.ended().text, None)),
                text = subscribed.subscription.next() => Some((text, Some(subscribed))),
            }
        })
        .boxed()
    }
}
