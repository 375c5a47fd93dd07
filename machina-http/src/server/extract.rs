//! Reading a request: who asks, the names in its path, its parameters, its body.

use std::collections::BTreeMap;
use std::str::FromStr;
use std::time::Duration;

use axum::body::{Body, BodyDataStream};
use axum::extract::rejection::PathRejection;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use futures_util::StreamExt as _;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, IF_MATCH, IF_NONE_MATCH};
use http::request::Parts;
use http::{HeaderMap, HeaderValue};
use machina_core::json::strict_from_slice;
use machina_core::{Error, Principal, Revision, Role, Scoped};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::App;
use super::failure::{Failure, Part};
use super::listen::Stopping;
use super::place::place_of_refusal;

/// The registry as the one who asks sees it.
pub(super) struct Caller(pub(super) Scoped);

impl FromRequestParts<App> for Caller {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        Ok(Self(app.machina.scoped(authenticate(parts)?)))
    }
}

/// Who asks. The server binds loopback only, and whoever reaches it there may do
/// everything that can be done from outside the process.
#[allow(clippy::unnecessary_wraps, reason = "who cannot say who they are will be refused here")]
fn authenticate(_: &Parts) -> Result<Principal, Failure> {
    Ok(Principal::new("local", Role::Admin).remote())
}

/// The names in the path, decoded.
pub(super) struct InPath<T>(pub(super) T);

impl<T: DeserializeOwned + Send, S: Send + Sync> FromRequestParts<S> for InPath<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Failure> {
        let Path(names) = Path::from_request_parts(parts, state)
            .await
            .map_err(|rejection: PathRejection| Error::invalid(format!("the path is malformed: {rejection}")))?;
        Ok(Self(names))
    }
}

/// The parameters after `?`, decoded.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let query = parts.uri.query().unwrap_or_default();
        Ok(Self(url::form_urlencoded::parse(query.as_bytes()).into_owned().collect()))
    }
}

impl Parameters {
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }

    /// The parameters, each of which is one of `names` and occurs once.
    pub(super) fn only(self, names: &[&str]) -> Result<Named, Failure> {
        let mut named = BTreeMap::new();
        for (name, value) in self.0 {
            let detail = if !names.contains(&name.as_str()) {
                if names.is_empty() {
                    "is no parameter; there are none".to_owned()
                } else {
                    format!("is no parameter; there are {}", names.join(", "))
                }
            } else if named.insert(name.clone(), value).is_some() {
                "must be given once".to_owned()
            } else {
                continue;
            };
            return Err(Failure::of(Part::Parameters)(Error::invalid_field(name, detail)));
        }
        Ok(Named(named))
    }

    /// No parameters.
    pub(super) fn none(self) -> Result<(), Failure> {
        self.only(&[]).map(drop)
    }
}

/// Parameters by name.
#[derive(Debug)]
pub(super) struct Named(BTreeMap<String, String>);

impl Named {
    pub(super) fn take(&mut self, name: &str) -> Option<String> {
        self.0.remove(name)
    }

    /// The parameter as a `T`; `what` says what would be right.
    pub(super) fn parse<T: FromStr>(&mut self, name: &str, what: &str) -> Result<Option<T>, Failure> {
        let Some(text) = self.take(name) else { return Ok(None) };
        let wrong = || Failure::of(Part::Parameters)(Error::invalid_field(name, format!("must be {what}")));
        text.parse().map(Some).map_err(|_| wrong())
    }
}

/// The body, read as JSON.
#[derive(Debug)]
pub(super) struct Json(pub(super) Value);

impl Json {
    /// The body as a `T`.
    pub(super) fn typed<T: DeserializeOwned>(self) -> Result<T, Failure> {
        serde_path_to_error::deserialize(self.0).map_err(|error| {
            let path = error.path().to_string();
            let field = if path == "." { "body".to_owned() } else { path };
            Failure::of(Part::Record)(Error::invalid_field(field, error.into_inner().to_string()))
        })
    }
}

impl FromRequest<App> for Json {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        json(request, app, &[JSON]).await.map(Self)
    }
}

/// The body, read as JSON where there is one.
#[derive(Debug)]
pub(super) struct OptionalJson(Option<Json>);

impl OptionalJson {
    /// The body as a `T`, or what a `T` is when nothing is said.
    pub(super) fn typed<T: DeserializeOwned + Default>(self) -> Result<T, Failure> {
        self.0.map_or_else(|| Ok(T::default()), Json::typed)
    }
}

impl FromRequest<App> for OptionalJson {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        let media = check_media(&request, &[JSON]);
        let bytes = body(request, app).await?;
        if bytes.is_empty() {
            return Ok(Self(None));
        }
        media?;
        Ok(Self(Some(Json(parsed(&bytes)?))))
    }
}

/// The body, read as a merge patch (RFC 7396).
#[derive(Debug)]
pub(super) struct MergePatch(pub(super) Value);

impl FromRequest<App> for MergePatch {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        json(request, app, &["application/merge-patch+json", JSON]).await.map(Self)
    }
}

/// A body that has nothing to say: it is empty, or an empty object.
#[derive(Debug)]
pub(super) struct NoBody;

impl FromRequest<App> for NoBody {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        match body(request, app).await?.trim_ascii() {
            b"" | b"{}" => Ok(Self),
            _ => Err(Failure::of(Part::Record)(Error::invalid_field("body", "must be empty"))),
        }
    }
}

const JSON: &str = "application/json";

async fn json(request: Request, app: &App, types: &[&str]) -> Result<Value, Failure> {
    check_media(&request, types)?;
    parsed(&body(request, app).await?)
}

fn check_media(request: &Request, types: &[&str]) -> Result<(), Failure> {
    if is_one_of(types, request.headers().get(CONTENT_TYPE)) {
        return Ok(());
    }
    let error = Error::invalid_field("content-type", format!("must be {}", types.join(" or ")));
    Err(Failure::of(Part::MediaType)(error))
}

/// JSON in which no key is there twice and nothing is nested too deep.
fn parsed(bytes: &[u8]) -> Result<Value, Failure> {
    let syntax = |field: String, detail: String| Failure::of(Part::Syntax)(Error::invalid_field(field, detail));
    if bytes.is_empty() {
        return Err(syntax("body".to_owned(), "is empty: send a JSON object".to_owned()));
    }
    let value = strict_from_slice(bytes).map_err(|error| match place_of_refusal(bytes) {
        Some(field) => syntax(field, error.to_string()),
        None => syntax("body".to_owned(), format!("is not JSON: {error}")),
    })?;
    match value {
        Value::Object(_) => Ok(value),
        // Serde would read the fields of a record from a list, too.
        _ => Err(Failure::of(Part::Record)(Error::invalid_field("body", "must be a JSON object"))),
    }
}

async fn body(request: Request, app: &App) -> Result<Vec<u8>, Failure> {
    let declared = request.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    let limit = app.config.body_max;
    if declared.is_some_and(|length: usize| length > limit) {
        return Err(too_long(limit));
    }
    let (patience, (head, body)) = (app.config.request_timeout, request.into_parts());
    let late = |message: String| Failure::of(Part::Arrival)(Error::timeout(message));
    tokio::select! {
        biased;
        arrived = tokio::time::timeout(patience, collect(body, limit)) => {
            arrived.map_err(|_| late(format!("the body had not arrived after {patience:?}")))?
        }
        () = stopped(head.extensions.get()) => Err(late("the server stops, and the body had not arrived".to_owned())),
    }
}

/// How long bodies may still take to arrive when the server stops.
const ARRIVAL_AFTER_STOP: Duration = Duration::from_secs(3);

/// Resolves so long after the server has begun to answer only what runs.
async fn stopped(stopping: Option<&Stopping>) {
    let Some(stopping) = stopping else { return std::future::pending().await };
    stopping.draining().await;
    tokio::time::sleep(ARRIVAL_AFTER_STOP).await;
}

fn is_one_of(types: &[&str], content_type: Option<&HeaderValue>) -> bool {
    let essence = content_type.and_then(|value| value.to_str().ok()?.split(';').next().map(str::trim));
    essence.is_some_and(|essence| types.iter().any(|one| essence.eq_ignore_ascii_case(one)))
}

fn too_long(limit: usize) -> Failure {
    Failure::of(Part::Length)(Error::invalid_field("body", format!("must have at most {limit} bytes")))
}

async fn collect(body: Body, limit: usize) -> Result<Vec<u8>, Failure> {
    let mut stream: BodyDataStream = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = stream.next().await {
        let chunk = chunk.map_err(|error| {
            Failure::of(Part::Syntax)(Error::invalid_field("body", format!("did not arrive whole: {error}")))
        })?;
        if bytes.len() + chunk.len() > limit {
            return Err(too_long(limit));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

/// The revision that `If-Match` names; `*` names none.
pub(super) fn expected_revision(headers: &HeaderMap) -> Result<Option<Revision>, Failure> {
    let mut values = headers.get_all(IF_MATCH).iter();
    let (Some(value), more) = (values.next(), values.next()) else { return Ok(None) };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" && more.is_none() {
        return Ok(None);
    }
    let number = text.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    // What follows the revision is about health, which no precondition is about.
    let number = number.map(|number| number.split_once('.').map_or(number, |(revision, _)| revision));
    let revision = number.filter(|_| more.is_none()).and_then(|number| number.parse().ok());
    revision.map(|revision| Some(Revision(revision))).ok_or_else(|| {
        let detail = "must be one ETag of an earlier answer, such as \"7\" with its quotes";
        Failure::of(Part::Headers)(Error::invalid_field("if-match", detail))
    })
}

/// Whether the one who asks already has what `etag` names.
pub(super) fn has_already(headers: &HeaderMap, etag: &str) -> bool {
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|tag| tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag)
}
