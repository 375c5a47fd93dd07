//! What every answer has in common: a request id, one form for errors, no
//! caching; and the answers to requests that no handler takes.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{OriginalUri, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{ALLOW, CACHE_CONTROL};
use http::{HeaderName, HeaderValue, Method};
use machina_core::Error;
use tokio::time::Instant;
use tracing::Instrument as _;
use uuid::Uuid;

use super::App;
use super::failure::{Failure, Part};
use super::metrics::{Asked, Requests};

/// The header with the id of a request.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const REQUEST_ID_BYTES_MAX: usize = 128;

/// Gives the request an id, renders its failure, puts on the answer what all
/// have, and counts it. The outermost layer.
pub(super) async fn finished(State(requests): State<Arc<Requests>>, mut request: Request, next: Next) -> Response {
    let (asked, began) = (Asked::of(&request), Instant::now());
    let id = request_id(&request);
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let shown = id.to_str().unwrap_or_default().to_owned();
    let span = tracing::debug_span!("request", id = shown, method = %request.method(), path = request.uri().path());
    let mut response = next.run(request).instrument(span.clone()).await;
    if let Some(failure) = response.extensions_mut().remove::<Failure>() {
        let allow = response.headers_mut().remove(ALLOW);
        response = failure.render(&shown);
        response.headers_mut().extend(allow.map(|allow| (ALLOW, allow)));
    }
    let headers = response.headers_mut();
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers.insert(REQUEST_ID, id);
    requests.answered(&asked, response.status(), began.elapsed());
    span.in_scope(|| tracing::debug!(status = response.status().as_u16(), "answered"));
    response
}

/// The id that the request brought, if it is a sane one; a new one otherwise.
fn request_id(request: &Request) -> HeaderValue {
    let sane = |id: &&HeaderValue| {
        let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:".contains(byte);
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.as_bytes().iter().all(allowed)
    };
    let brought = request.headers().get(REQUEST_ID).filter(sane).cloned();
    brought.unwrap_or_else(|| {
        HeaderValue::from_str(&Uuid::now_v7().to_string()).expect("a UUID consists of ASCII letters and digits")
    })
}

/// How much longer a request may take than its body: a body that does not arrive
/// is to be told apart from a server that is slow.
const GRACE: Duration = Duration::from_millis(500);

/// Ends a request that takes too long.
pub(super) async fn within_time(State(app): State<App>, request: Request, next: Next) -> Response {
    let limit = app.config.request_timeout + GRACE;
    let outcome = tokio::time::timeout(limit, next.run(request)).await;
    outcome.unwrap_or_else(|_| Failure::from(Error::timeout(format!("not done after {limit:?}"))).into_response())
}

/// The answer to a request whose handler panicked. The panic itself has gone to
/// the panic hook; what it said is nobody else's business.
pub(super) fn panicked(_: Box<dyn Any + Send>) -> Response<Body> {
    tracing::error!("a request handler panicked");
    Failure::from(Error::internal("a bug: the request handler panicked; the log of the server says more"))
        .into_response()
}

pub(super) async fn no_such_path(OriginalUri(uri): OriginalUri) -> Failure {
    let path = uri.path().escape_debug();
    Error::not_found(format!(
        "no resource has the path `{path}`; `/` lists them, and in a name a slash is written `%2F`"
    ))
    .into()
}

pub(super) async fn method_not_allowed(method: Method, OriginalUri(uri): OriginalUri) -> Failure {
    let path = uri.path().escape_debug();
    Failure::of(Part::Method)(Error::invalid(format!(
        "`{path}` does not take {method}; the header `allow` says what it does"
    )))
}
