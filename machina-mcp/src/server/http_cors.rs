//! What a browser wants to be told before it lets a web page of an allowed origin
//! send, and before it lets it read. Decides nothing: who may ask was checked.

use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
    ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ACCESS_CONTROL_REQUEST_HEADERS, ORIGIN, VARY,
};
use http::{HeaderMap, HeaderValue, Response, StatusCode};

use super::http_body::AnswerBody;
use super::http_refusal::empty;

/// The methods that a page may use.
const METHODS: HeaderValue = HeaderValue::from_static("GET, POST, DELETE");
/// What a page may read beside the body.
const EXPOSED: HeaderValue =
    HeaderValue::from_static("Mcp-Session-Id, MCP-Protocol-Version, Retry-After, WWW-Authenticate, X-Request-Id");
/// How long a browser need not ask again, in seconds: the most that browsers heed.
const MAX_AGE: HeaderValue = HeaderValue::from_static("7200");
/// What a page may send when the browser does not say what it wants to send.
const USUAL: HeaderValue = HeaderValue::from_static(
    "Accept, Authorization, Content-Type, Last-Event-ID, MCP-Protocol-Version, Mcp-Method, Mcp-Name, Mcp-Session-Id",
);

/// The answer to a browser that asks what a page may send. Every header may be:
/// those that are not known do nothing.
pub(super) fn preflight(headers: &HeaderMap) -> Response<AnswerBody> {
    let mut response = empty(StatusCode::NO_CONTENT);
    let allowed = headers.get(ACCESS_CONTROL_REQUEST_HEADERS).cloned().unwrap_or(USUAL);
    for (name, value) in [
        (ACCESS_CONTROL_ALLOW_METHODS, METHODS),
        (ACCESS_CONTROL_ALLOW_HEADERS, allowed),
        (ACCESS_CONTROL_MAX_AGE, MAX_AGE),
    ] {
        response.headers_mut().insert(name, value);
    }
    response
}

/// Lets the page that asked, if it was one, read `response`.
pub(super) fn open(response: &mut Response<AnswerBody>, asked: &HeaderMap) {
    let Some(origin) = asked.get(ORIGIN) else { return };
    for (name, value) in [
        (VARY, HeaderValue::from_name(ORIGIN)),
        (ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone()),
        (ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED),
    ] {
        response.headers_mut().insert(name, value);
    }
}
