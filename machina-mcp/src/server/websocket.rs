//! MCP over WebSockets, as a service that any HTTP/1.1 server can mount: shakes
//! hands, and leaves the connection to a task of its own. One text frame is one
//! message, as one line is on a pipe.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{
    CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Version};
use hyper::upgrade::OnUpgrade;
use machina_core::Result;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

use super::http::{BoxError, Inner, Place, group_of};
use super::http_body::AnswerBody;
use super::http_headers::check_source;
use super::http_refusal::{Refusal, empty};
use super::rpc::INVALID_REQUEST;
use super::socket::{Socket, converse_on};

/// The sub-protocol that is agreed on if the host offers it.
const PROTOCOL: &str = "mcp";

/// Machina as an MCP server over WebSockets: a service to mount at one path, on a
/// server that lets connections be upgraded. Cheap to clone.
#[derive(Clone)]
pub struct WebSocket {
    inner: Arc<Inner>,
    place: Place,
}

impl WebSocket {
    pub(super) fn new(inner: Arc<Inner>, place: Place) -> Self {
        Self { inner, place }
    }

    fn accept(&self, parts: &Parts, upgrade: Option<OnUpgrade>) -> Result<Response<AnswerBody>, Refusal> {
        let inner = &self.inner;
        check_source(&parts.uri, &parts.headers, &inner.config)?;
        let key = check_handshake(parts)?;
        let path = parts.uri.path().trim_end_matches('/');
        let group = group_of(self.place, path.strip_suffix("/ws").unwrap_or(path));
        let gateway = inner.gateway(inner.admit(parts)?, group)?;
        let upgrade = upgrade.ok_or_else(|| {
            let why = "the connection cannot be upgraded";
            Refusal::new(StatusCode::NOT_IMPLEMENTED, INVALID_REQUEST, why)
        })?;
        let permit = inner.sockets.clone().try_acquire_owned().ok().filter(|_| !inner.draining.is_cancelled());
        let permit = permit.ok_or_else(|| Refusal::busy(inner.config.sockets_max))?;
        let socket = Socket { inner: Arc::clone(inner), gateway, permit };
        inner.connections.spawn("serve a WebSocket", converse_on(socket, upgrade));
        Ok(switching(&key, offers_mcp(&parts.headers)))
    }
}

impl fmt::Debug for WebSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WebSocket")
            .field("place", &self.place)
            .field("config", &self.inner.config)
            .finish_non_exhaustive()
    }
}

impl<B> tower_service::Service<Request<B>> for WebSocket
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let (mut parts, _) = request.into_parts();
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let socket = self.clone();
        Box::pin(async move { Ok(socket.accept(&parts, upgrade).unwrap_or_else(refused)) })
    }
}

/// The key of a request that asks for a WebSocket as RFC 6455 wants it.
fn check_handshake(parts: &Parts) -> Result<HeaderValue, Refusal> {
    if parts.method != Method::GET {
        return Err(Refusal::method("GET", "a WebSocket is opened by GET"));
    }
    let headers = &parts.headers;
    let has = |name: &HeaderName, wanted: &str| {
        let values = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(wanted))
    };
    let asks = parts.version == Version::HTTP_11 && has(&UPGRADE, "websocket") && has(&CONNECTION, "upgrade");
    if !asks || !has(&SEC_WEBSOCKET_VERSION, "13") {
        let why = "only WebSockets of version 13 are spoken here, over HTTP/1.1";
        return Err(Refusal::new(StatusCode::UPGRADE_REQUIRED, INVALID_REQUEST, why));
    }
    let key = headers.get(SEC_WEBSOCKET_KEY).cloned();
    key.ok_or_else(|| Refusal::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, "Sec-WebSocket-Key is missing"))
}

fn offers_mcp(headers: &HeaderMap) -> bool {
    let offers = headers.get_all(SEC_WEBSOCKET_PROTOCOL).iter().filter_map(|value| value.to_str().ok());
    offers.flat_map(|value| value.split(',')).any(|offered| offered.trim() == PROTOCOL)
}

fn switching(key: &HeaderValue, with_protocol: bool) -> Response<AnswerBody> {
    let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
    let accept = HeaderValue::from_str(&derive_accept_key(key.as_bytes())).expect("base64 is ASCII");
    let headers = response.headers_mut();
    for (name, value) in [
        (CONNECTION, HeaderValue::from_static("upgrade")),
        (UPGRADE, HeaderValue::from_static("websocket")),
        (SEC_WEBSOCKET_ACCEPT, accept),
    ] {
        headers.insert(name, value);
    }
    if with_protocol {
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL));
    }
    response
}

fn refused(refusal: Refusal) -> Response<AnswerBody> {
    let mut response = refusal.response();
    if response.status() == StatusCode::UPGRADE_REQUIRED {
        let headers = response.headers_mut();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
    }
    response
}
