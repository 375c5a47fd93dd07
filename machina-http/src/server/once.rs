//! Requests that are done once: reads the key, hands the work to the core, and
//! turns answers into what can be remembered, and back. The rule is the core's.

use axum::body::{Body, to_bytes};
use axum::extract::{FromRequestParts, OriginalUri};
use axum::response::{IntoResponse, Response};
use http::header::IF_MATCH;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use machina_core::{Answer, Error, ErrorKind, Replied, Reply, RequestHash, Scoped};
use serde_json::Value;

use super::App;
use super::answer::REQUEST_ID;
use super::failure::{Failure, Part};

pub(super) const KEY: HeaderName = HeaderName::from_static("idempotency-key");
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The field of a body that may have the key instead of the header.
const FIELD: &str = "idempotency_key";

/// What a request says about how it is to be repeated.
#[derive(Debug)]
pub(super) struct Keyed {
    key: Option<String>,
    /// Whether the key is in the body only.
    in_body: bool,
    /// Everything but the body that tells the request from others.
    head: [String; 3],
    body: Vec<u8>,
    id: String,
}

impl FromRequestParts<App> for Keyed {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let Ok(OriginalUri(uri)) = OriginalUri::from_request_parts(parts, app).await;
        let text = |name| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
        let head = [parts.method.to_string(), uri.path().to_owned(), text(IF_MATCH)];
        Ok(Self { key: key_in(&parts.headers)?, in_body: false, head, body: Vec::new(), id: text(REQUEST_ID) })
    }
}

/// The key in the header: a string as RFC 9651 writes it, in quotes, or bare, as
/// most clients do.
pub(super) fn key_in(headers: &HeaderMap) -> Result<Option<String>, Failure> {
    let mut values = headers.get_all(KEY).iter();
    let (Some(value), more) = (values.next(), values.next()) else { return Ok(None) };
    if more.is_some() {
        return Err(wrong_key("must be given once"));
    }
    let text = value.to_str().map_err(|_| wrong_key("must be printable ASCII"))?.trim();
    match text.strip_prefix('"') {
        None => Ok(Some(text.to_owned())),
        Some(rest) => unquoted(rest).map(Some).ok_or_else(|| wrong_key("must end with the quote that it begins with")),
    }
}

/// What stands before the closing quote, which is the end.
fn unquoted(rest: &str) -> Option<String> {
    let (mut key, mut letters) = (String::new(), rest.chars());
    loop {
        match letters.next()? {
            '"' => return letters.next().is_none().then_some(key),
            '\\' => key.push(letters.next().filter(|letter| matches!(letter, '"' | '\\'))?),
            letter => key.push(letter),
        }
    }
}

pub(super) fn wrong_key(detail: &str) -> Failure {
    Failure::of(Part::Headers)(Error::invalid_field(KEY.as_str(), detail))
}

impl Keyed {
    /// The same request with its body.
    pub(super) fn with(mut self, body: &Value) -> Self {
        if self.key.is_some() {
            self.body = body.to_string().into_bytes();
        }
        self
    }

    /// The same request with its body, whose field `idempotency_key` may have the
    /// key instead of the header.
    pub(super) fn with_or_in(mut self, body: &Value) -> Self {
        if self.key.is_none() {
            self.key = body.get(FIELD).and_then(Value::as_str).map(str::to_owned);
            self.in_body = self.key.is_some();
        }
        self.with(body)
    }

    /// Does `work`, once where the request has a key.
    pub(super) async fn once<F>(self, caller: &Scoped, work: F) -> Result<Response, Failure>
    where
        F: Future<Output = Result<Response, Failure>> + Send + 'static,
    {
        let Some(key) = self.key else { return work.await };
        let head = self.head.iter().map(String::as_bytes);
        let request = RequestHash::of(head.chain([self.body.as_slice()]));
        let id = self.id;
        let answering = async move { answer(work.await, &id).await };
        match caller.once(&key, request, answering).await {
            Ok(replied) => Ok(response(replied)),
            Err(error) if error.kind() == ErrorKind::Invalid && self.in_body => {
                let details = error.context().problems.iter().map(|problem| problem.detail.as_str());
                let detail = details.collect::<Vec<_>>().join("; ");
                Err(Failure::of(Part::Record)(Error::invalid_field(FIELD, detail)))
            }
            Err(error) => Err(Failure::of(Part::Key)(error)),
        }
    }
}

/// An answer as it is remembered. That of a failure keeps the id of the request
/// that failed.
async fn answer(outcome: Result<Response, Failure>, id: &str) -> Answer {
    let (response, error) = match outcome {
        Ok(response) => (response, None),
        Err(failure) => (failure.render(id), Some(failure.error().clone())),
    };
    let (parts, body) = response.into_parts();
    let (body, error) = match to_bytes(body, usize::MAX).await {
        Ok(bytes) => (bytes.to_vec(), error),
        // The bodies here are in memory already.
        Err(broken) => (Vec::new(), Some(Error::internal("the answer broke off").caused_by(broken))),
    };
    let texts =
        parts.headers.iter().filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())));
    Answer { reply: Reply { status: parts.status.as_u16(), headers: texts.collect(), body }, error }
}

fn response(Replied { reply, again }: Replied) -> Response {
    let mut response = Body::from(reply.body).into_response();
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let pairs = reply.headers.iter();
    let headers = pairs.filter_map(|(name, value)| Some((name.parse::<HeaderName>().ok()?, value.parse().ok()?)));
    response.headers_mut().extend(headers);
    if again {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&'static str]) -> Result<Option<String>, Failure> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(KEY, HeaderValue::from_static(value));
        }
        key_in(&headers)
    }

    #[test]
    fn a_key_is_read_bare_and_in_quotes() {
        for (value, expected) in
            [("k-1", "k-1"), ("\"k-1\"", "k-1"), (r#" "a\"b\\" "#, "a\"b\\"), ("\"\"", ""), ("a\"", "a\"")]
        {
            assert_eq!(read(&[value]).unwrap().as_deref(), Some(expected), "{value}");
        }
        assert_eq!(read(&[]).unwrap(), None);
    }

    #[test]
    fn a_malformed_header_is_refused() {
        for values in [&["\"a"][..], &["\"a\"b"], &[r#""a\""#], &[r#""a\b""#], &["a", "a"]] {
            assert_eq!(read(values).unwrap_err().render("1").status(), StatusCode::BAD_REQUEST, "{values:?}");
        }
    }
}
