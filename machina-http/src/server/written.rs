//! How an answer is written: its body, its `ETag`, the revision it stands at, the
//! way to the next page. Decides nothing about what is in it.

use std::hash::{DefaultHasher, Hasher as _};

use axum::body::Bytes;
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, LINK, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use machina_core::{Error, Page, Revision};
use serde::Serialize;

use super::extract::{Parameters, has_already};
use super::failure::Failure;

/// The header with the revision that an answer stands at.
pub(super) const REVISION: HeaderName = HeaderName::from_static("x-machina-revision");

/// An answer that is written once, and perhaps sent more often.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) body: Bytes,
    pub(super) etag: HeaderValue,
    pub(super) revision: Revision,
    /// The way to the next page.
    pub(super) link: Option<HeaderValue>,
}

/// One page, with its `ETag` and the way to the next.
pub(super) fn paged<T: Serialize>(
    uri: &Uri,
    parameters: &Parameters,
    headers: &HeaderMap,
    page: &Page<T>,
) -> Result<Response, Failure> {
    Ok(sent(headers, paged_as(uri, parameters, page)?))
}

/// The same, before it is sent.
pub(super) fn paged_as<T: Serialize>(uri: &Uri, parameters: &Parameters, page: &Page<T>) -> Result<Written, Failure> {
    let (body, etag) = encoded(page.revision, page)?;
    let link = page.next_cursor.as_ref().map(|cursor| next_page(uri, parameters, cursor)).transpose()?;
    Ok(Written { body, etag, revision: page.revision, link })
}

/// The answer, or only that the reader has it already.
pub(super) fn sent(headers: &HeaderMap, page: Written) -> Response {
    let Written { body, etag, revision, link } = page;
    let mut response = if has_already(headers, etag.to_str().unwrap_or_default()) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response()
    };
    response.headers_mut().insert(ETAG, etag);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
    response.headers_mut().insert(REVISION, HeaderValue::from(revision.0));
    response.headers_mut().extend(link.map(|link| (LINK, link)));
    response
}

/// The text of `body`, and its `ETag`.
fn encoded(revision: Revision, body: &impl Serialize) -> Result<(Bytes, HeaderValue), Failure> {
    let bytes =
        serde_json::to_vec(body).map_err(|error| Error::internal(format!("the answer cannot be written: {error}")))?;
    let mut hasher = DefaultHasher::new();
    hasher.write(&bytes);
    Ok((bytes.into(), header_value(&format!("\"{revision}.{:x}\"", hasher.finish()))?))
}

/// An answer with an `ETag`: the revision that a later `If-Match` may name, and a
/// hash, because health changes without a revision. Without a body for the one
/// who has it already.
pub(super) fn tagged(
    headers: &HeaderMap,
    revision: Revision,
    at: Revision,
    body: &impl Serialize,
) -> Result<Response, Failure> {
    let (body, etag) = encoded(revision, body)?;
    Ok(sent(headers, Written { body, etag, revision: at, link: None }))
}

pub(super) fn header_value(text: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(text).map_err(|error| Error::internal(format!("`{text}` is no header: {error}")).into())
}

/// `response`, to a request that has made what is now at `location`.
pub(super) fn created(mut response: Response, location: &str) -> Result<Response, Failure> {
    *response.status_mut() = StatusCode::CREATED;
    response.headers_mut().insert(LOCATION, header_value(location)?);
    Ok(response)
}

/// The answer to a removal, which stands at `revision`.
pub(super) fn gone(revision: Revision) -> Response {
    (StatusCode::NO_CONTENT, [(REVISION, HeaderValue::from(revision.0))]).into_response()
}

/// An answer without an `ETag`, and the revision that it stands at.
pub(super) fn at_revision(body: &impl Serialize, revision: Revision) -> Response {
    let mut response = axum::Json(body).into_response();
    response.headers_mut().insert(REVISION, HeaderValue::from(revision.0));
    response
}

/// The same request for the next page.
fn next_page(uri: &Uri, parameters: &Parameters, cursor: &str) -> Result<HeaderValue, Failure> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters.pairs().filter(|(name, _)| *name != "cursor")).append_pair("cursor", cursor);
    header_value(&format!("<{}?{}>; rel=\"next\"", uri.path(), query.finish()))
}
