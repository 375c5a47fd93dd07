//! `/services/{service}/instances`: to list, read, add, change and remove the
//! places where a service runs.

use axum::extract::OriginalUri;
use axum::response::Response;
use http::HeaderMap;
use machina_core::{Error, InstanceId, Registry, Scoped, ServiceReport};
use serde_json::{Value, json};

use super::extract::{Caller, InPath, Json, MergePatch, Parameters, expected_revision};
use super::failure::{Failure, Part};
use super::once::Keyed;
use super::services::changed;
use super::written::{created, gone, tagged};

pub(super) async fn list(
    Caller(caller): Caller,
    InPath(service): InPath<String>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    parameters.none()?;
    let report = caller.get(&service).await?;
    tagged(&headers, report.revision, report.revision, &json!({"items": report.declared["instances"]}))
}

pub(super) async fn get(
    Caller(caller): Caller,
    InPath((service, id)): InPath<(String, String)>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    parameters.none()?;
    let (id, report) = (instance(&caller, &service, &id)?, caller.get(&service).await?);
    tagged(&headers, report.revision, report.revision, one(&report, id)?)
}

pub(super) async fn create(
    Caller(caller): Caller,
    InPath(service): InPath<String>,
    OriginalUri(uri): OriginalUri,
    parameters: Parameters,
    headers: HeaderMap,
    keyed: Keyed,
    body: Json,
) -> Result<Response, Failure> {
    parameters.none()?;
    let expected = expected_revision(&headers)?;
    let (keyed, registry) = (keyed.with(&body.0), caller.clone());
    let work = async move {
        let added = registry.add_instance(&service, &body.0, expected).await;
        let (applied, id) = added.map_err(Failure::of(Part::of_body(expected)))?;
        let location = format!("{}/{id}", uri.path().trim_end_matches('/'));
        created(changed(&applied, |report| one(report, id))?, &location)
    };
    keyed.once(&caller, work).await
}

pub(super) async fn patch(
    Caller(caller): Caller,
    InPath((service, id)): InPath<(String, String)>,
    parameters: Parameters,
    headers: HeaderMap,
    body: MergePatch,
) -> Result<Response, Failure> {
    parameters.none()?;
    let (id, expected) = (instance(&caller, &service, &id)?, expected_revision(&headers)?);
    let patched = caller.patch_instance(&service, id, &body.0, expected).await;
    let (applied, id) = patched.map_err(Failure::of(Part::of_body(expected)))?;
    changed(&applied, |report| one(report, id))
}

pub(super) async fn delete(
    Caller(caller): Caller,
    InPath((service, id)): InPath<(String, String)>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    parameters.none()?;
    let (id, expected) = (instance(&caller, &service, &id)?, expected_revision(&headers)?);
    let applied = caller.remove_instance(&service, id, expected).await;
    Ok(gone(applied.map_err(Failure::of(Part::of_removal(expected)))?.revision))
}

/// The instance that a path names. What is no identity names nothing.
pub(super) fn instance(caller: &Scoped, service: &str, id: &str) -> Result<InstanceId, Failure> {
    Ok(known_instance(caller, service, id)?)
}

/// The same, with its error as it is.
pub(super) fn known_instance(caller: &Scoped, service: &str, id: &str) -> Result<InstanceId, Error> {
    let view = caller.service(service)?;
    let known = id.parse().ok().filter(|id| view.instance(*id).is_some());
    known.ok_or_else(|| {
        let name = view.service().name();
        Error::not_found(format!("`{name}` has no instance `{}`", id.escape_debug()))
            .with(|context| context.service = Some(name.to_string()))
    })
}

pub(super) fn one(report: &ServiceReport, id: InstanceId) -> Result<&Value, Failure> {
    let id = id.to_string();
    let mut instances = report.declared["instances"].as_array().into_iter().flatten();
    let found = instances.find(|instance| instance["id"].as_str() == Some(&id));
    found.ok_or_else(|| Error::not_found(format!("the instance {id} was removed meanwhile")).into())
}
