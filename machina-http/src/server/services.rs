//! `/services`: to list, create, read, replace and remove them, and their health.

use std::time::Duration;

use axum::extract::{OriginalUri, State};
use axum::response::Response;
use http::HeaderMap;
use jiff::SignedDuration;
use machina_core::{
    Applied, Error, HealthSlots, Mutation, Query, Registry, Revision, Scoped, ServiceHealth, ServiceName,
    ServiceReport, ServiceSpec,
};
use serde::Serialize;

use super::App;
use super::extract::{Caller, InPath, Json, MergePatch, Parameters, expected_revision};
use super::failure::{Failure, Part};
use super::once::Keyed;
use super::written::{at_revision, created, gone, paged_as, sent, tagged};
use crate::mutations::Mutations;

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
    let page = paged_as(&uri, &parameters, &page)?;
    app.pages.put(&caller, asked, &view, &page);
    Ok(sent(&headers, page))
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
        let location = format!("{}/{}", uri.path().trim_end_matches('/'), report.name().replace('/', "%2F"));
        created(described(&HeaderMap::new(), report, applied.revision)?, &location)
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
    let applied = caller.apply(vec![Mutation::Deregister { name, expected }]).await;
    Ok(gone(applied.map_err(Failure::of(Part::of_removal(expected)))?.revision))
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
        Ok(at_revision(&applied, applied.revision))
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
