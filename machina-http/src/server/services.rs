//! `/services`: to list, create, read, replace and remove them, and their health.

use std::hash::{DefaultHasher, Hasher as _};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{OriginalUri, State};
use axum::response::{IntoResponse, Response};
use http::header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, LINK, LOCATION};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use jiff::SignedDuration;
use machina_core::{
    Applied, Error, HealthSlots, Mutation, Page, Query, Registry, Revision, Scoped, ServiceHealth, ServiceName,
    ServiceReport, ServiceSpec,
};
use serde::Serialize;

use super::App;
use super::extract::{Caller, InPath, Json, MergePatch, Parameters, expected_revision, has_already};
use super::failure::{Failure, Part};
use super::once::Keyed;
use super::pages::Written;
use crate::mutations::Mutations;

/// The header with the revision that an answer stands at.
pub(super) const REVISION: HeaderName = HeaderName::from_static("x-machina-revision");

pub(super) async fn list(
    State(app): State<App>,
    Caller(caller): Caller,
    OriginalUri(uri): OriginalUri,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let (view, asked) = (app.machina.view(), uri.path_and_query().map_or_else(|| uri.path(), |asked| asked.as_str()));
    if let Some(page) = app.pages.get(&caller, asked, &view) {
        return Ok(sent(&headers, page));
    }
    let wrong = Failure::of(Part::Parameters);
    let query = Query::from_pairs(parameters.pairs()).map_err(&wrong)?;
    let page = caller.find(&query).await.map_err(&wrong)?;
    let page = written(&uri, &parameters, &page)?;
    app.pages.put(&caller, asked, &view, &page);
    Ok(sent(&headers, page))
}

/// One page, with its `ETag` and the way to the next.
pub(super) fn paged<T: Serialize>(
    uri: &Uri,
    parameters: &Parameters,
    headers: &HeaderMap,
    page: &Page<T>,
) -> Result<Response, Failure> {
    Ok(sent(headers, written(uri, parameters, page)?))
}

fn written<T: Serialize>(uri: &Uri, parameters: &Parameters, page: &Page<T>) -> Result<Written, Failure> {
    let (body, etag) = encoded(page.revision, page)?;
    let link = page.next_cursor.as_ref().map(|cursor| next_page(uri, parameters, cursor)).transpose()?;
    Ok(Written { body, etag, revision: page.revision, link })
}

/// The answer, or only that the reader has it already.
fn sent(headers: &HeaderMap, page: Written) -> Response {
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

pub(super) async fn create(
    Caller(caller): Caller,
    OriginalUri(uri): OriginalUri,
    parameters: Parameters,
    keyed: Keyed,
    body: Json,
) -> Result<Response, Failure> {
    parameters.none()?;
    let (keyed, registry) = (keyed.with(&body.0), caller.clone());
    let work = async move {
        let wrong = Failure::of(Part::Record);
        let spec = ServiceSpec::from_value(body.0).map_err(&wrong)?;
        let applied = registry.apply(vec![Mutation::Register(spec)]).await.map_err(&wrong)?;
        let report = put_service(&applied)?;
        let mut response = described(&HeaderMap::new(), report, applied.revision)?;
        *response.status_mut() = StatusCode::CREATED;
        let location = format!("{}/{}", uri.path().trim_end_matches('/'), report.name().replace('/', "%2F"));
        response.headers_mut().insert(LOCATION, header_value(&location)?);
        Ok(response)
    };
    keyed.once(&caller, work).await
}

pub(super) async fn get(
    Caller(caller): Caller,
    InPath(name): InPath<String>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    parameters.none()?;
    let report = caller.get(&name).await?;
    described(&headers, &report, report.revision)
}

pub(super) async fn put(
    Caller(caller): Caller,
    InPath(name): InPath<String>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Json,
) -> Result<Response, Failure> {
    parameters.none()?;
    let expected = expected_revision(&headers)?;
    let wrong = Failure::of(Part::of_body(expected));
    let name = named(&caller, &name)?;
    let spec = ServiceSpec::from_value(body.0).map_err(&wrong)?;
    let applied = caller.apply(vec![Mutation::Update { name, spec, expected }]).await.map_err(&wrong)?;
    changed(&applied, Ok)
}

pub(super) async fn patch(
    Caller(caller): Caller,
    InPath(name): InPath<String>,
    parameters: Parameters,
    headers: HeaderMap,
    body: MergePatch,
) -> Result<Response, Failure> {
    parameters.none()?;
    let expected = expected_revision(&headers)?;
    let applied = caller.patch(&name, &body.0, expected).await;
    changed(&applied.map_err(Failure::of(Part::of_body(expected)))?, Ok)
}

pub(super) async fn delete(
    Caller(caller): Caller,
    InPath(name): InPath<String>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    parameters.none()?;
    let expected = expected_revision(&headers)?;
    let name = named(&caller, &name)?;
    let gone = caller.apply(vec![Mutation::Deregister { name, expected }]).await;
    let part = if expected.is_some() { Part::Revision } else { Part::Request };
    let revision = gone.map_err(Failure::of(part))?.revision;
    Ok((StatusCode::NO_CONTENT, [(REVISION, HeaderValue::from(revision.0))]).into_response())
}

pub(super) async fn bulk(
    Caller(caller): Caller,
    parameters: Parameters,
    keyed: Keyed,
    body: Json,
) -> Result<Response, Failure> {
    parameters.none()?;
    let (keyed, registry) = (keyed.with(&body.0), caller.clone());
    let work = async move {
        let wrong = Failure::of(Part::Record);
        let mutations = body.typed::<Mutations>()?.parse().map_err(&wrong)?;
        let applied = registry.apply(mutations).await.map_err(&wrong)?;
        Ok(answer(&applied, applied.revision))
    };
    keyed.once(&caller, work).await
}

pub(super) async fn health(
    Caller(caller): Caller,
    InPath(name): InPath<String>,
    parameters: Parameters,
) -> Result<axum::Json<HealthAnswer>, Failure> {
    let mut parameters = parameters.only(&["slots", "slot"])?;
    let slots: Option<u32> = parameters.parse("slots", "a number, 1 to 366")?;
    let slot: Option<SignedDuration> = parameters.parse("slot", "a duration, such as 1h")?;
    let history = match (slots, slot) {
        (None, None) => None,
        (slots, slot) => {
            let slot = slot.map_or(SLOT_DEFAULT, |slot| Duration::try_from(slot).unwrap_or_default());
            let read = caller.health_slots(&name, slots.unwrap_or(SLOTS_DEFAULT), slot).await;
            Some(read.map_err(Failure::of(Part::Parameters))?)
        }
    };
    Ok(axum::Json(HealthAnswer { health: caller.health(&name).await?, history }))
}

/// How many slots there are, and how long each is, when only the other is said.
const SLOTS_DEFAULT: u32 = 90;
const SLOT_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);

/// The health of a service, and how it was where that is asked.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct HealthAnswer {
    #[serde(flatten)]
    health: ServiceHealth,
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<HealthSlots>,
}

/// The name of the service that a path names, perhaps by its identity.
pub(super) fn named(caller: &Scoped, name: &str) -> Result<ServiceName, Failure> {
    Ok(caller.service(name)?.service().name().clone())
}

fn put_service(applied: &Applied) -> Result<&ServiceReport, Failure> {
    applied.services.first().ok_or_else(|| Error::conflict("the service was removed meanwhile").into())
}

fn answer(body: &impl Serialize, revision: Revision) -> Response {
    let mut response = axum::Json(body).into_response();
    response.headers_mut().insert(REVISION, HeaderValue::from(revision.0));
    response
}

fn described(headers: &HeaderMap, report: &ServiceReport, revision: Revision) -> Result<Response, Failure> {
    tagged(headers, report.revision, revision, report)
}

/// What a change has made of a service, or of the part of it that was asked about.
pub(super) fn changed<'a, T: Serialize + 'a>(
    applied: &'a Applied,
    part: impl FnOnce(&'a ServiceReport) -> Result<T, Failure>,
) -> Result<Response, Failure> {
    let report = put_service(applied)?;
    tagged(&HeaderMap::new(), report.revision, applied.revision, &part(report)?)
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

/// The same request for the next page.
fn next_page(uri: &Uri, parameters: &Parameters, cursor: &str) -> Result<HeaderValue, Failure> {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    query.extend_pairs(parameters.pairs().filter(|(name, _)| *name != "cursor")).append_pair("cursor", cursor);
    header_value(&format!("<{}?{}>; rel=\"next\"", uri.path(), query.finish()))
}
