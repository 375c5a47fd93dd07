//! Lets pages of named origins use the API from a browser (CORS). Nobody is named
//! by default; credentials of the browser are never taken.

use std::time::Duration;

use axum::Router;
use http::Method;
use http::header::{
    ACCEPT, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH, LINK, LOCATION, RETRY_AFTER,
};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::answer::REQUEST_ID;
use super::once::{KEY, REPLAYED};
use super::written::REVISION;

/// How long a browser need not ask again.
const MAX_AGE: Duration = Duration::from_secs(600);

/// `router`, which answers the preflight requests of these origins.
pub(super) fn for_pages(router: Router, origins: &[String]) -> Router {
    if origins.is_empty() {
        return router;
    }
    let origins = origins.iter().filter_map(|origin| HeaderValue::from_str(origin).ok());
    let layer = CorsLayer::new()
        .allow_origin(AllowOrigin::list(origins))
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE])
        .allow_headers([
            ACCEPT,
            CONTENT_TYPE,
            IF_MATCH,
            IF_NONE_MATCH,
            REQUEST_ID,
            KEY,
            HeaderName::from_static("last-event-id"),
            HeaderName::from_static("mcp-protocol-version"),
            HeaderName::from_static("mcp-session-id"),
        ])
        .expose_headers([ETAG, LINK, LOCATION, RETRY_AFTER, REVISION, REQUEST_ID, REPLAYED])
        .max_age(MAX_AGE);
    router.layer(layer)
}
