//! `/groups`: to list, make, read, replace and remove named selections of tools.

use axum::extract::OriginalUri;
use axum::response::Response;
use http::HeaderMap;
use http::header::IF_MATCH;
use machina_core::{Error, ErrorKind, GroupReport, GroupSpec, Page, Registry};
use serde_json::Value;

use super::extract::{Caller, InPath, Json, Parameters, expected_revision};
use super::failure::{Failure, Part};
use super::once::Keyed;
use super::written::{created, gone, tagged};

pub(super) async fn list(
    Caller(caller): Caller,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    parameters.none()?;
    let (revision, items) = (caller.revision(), Registry::groups(&caller).await?);
    tagged(&headers, revision, revision, &Page { items, next_cursor: None, revision })
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
        let spec = GroupSpec::from_value(body.0).map_err(&wrong)?;
        let report = Registry::put_group(&registry, spec, None, true).await.map_err(&wrong)?;
        let location = format!("{}/{}", uri.path().trim_end_matches('/'), report.declared.name);
        made(&report, &location)
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
    let report = Registry::group(&caller, &name).await?;
    tagged(&headers, report.revision, report.revision, &report)
}

pub(super) async fn put(
    Caller(caller): Caller,
    InPath(name): InPath<String>,
    OriginalUri(uri): OriginalUri,
    parameters: Parameters,
    headers: HeaderMap,
    body: Json,
) -> Result<Response, Failure> {
    parameters.none()?;
    let expected = expected_revision(&headers)?;
    let wrong = Failure::of(Part::of_body(expected));
    let spec = GroupSpec::from_value(named(body.0, &name)).map_err(&wrong)?;
    if spec.name.as_str() != name {
        let detail = format!("must be `{}`, as in the path: a group keeps its name", name.escape_debug());
        return Err(wrong(Error::invalid_field("name", detail)));
    }
    let known = Registry::group(&caller, &name).await;
    if let (Some(_), Err(missing)) = (headers.get(IF_MATCH), &known) {
        return Err(missing.clone().into());
    }
    let report = Registry::put_group(&caller, spec, expected, false).await.map_err(&wrong)?;
    match known {
        Err(error) if error.kind() == ErrorKind::NotFound => made(&report, uri.path()),
        _ => tagged(&HeaderMap::new(), report.revision, report.revision, &report),
    }
}

pub(super) async fn delete(
    Caller(caller): Caller,
    InPath(name): InPath<String>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    parameters.none()?;
    let expected = expected_revision(&headers)?;
    let removed = Registry::remove_group(&caller, &name, expected).await;
    Ok(gone(removed.map_err(Failure::of(Part::of_removal(expected)))?))
}

/// The record with the name in the path, which need not be repeated in it.
fn named(mut record: Value, name: &str) -> Value {
    if let Some(object) = record.as_object_mut() {
        object.entry("name").or_insert_with(|| name.into());
    }
    record
}

fn made(report: &GroupReport, location: &str) -> Result<Response, Failure> {
    created(tagged(&HeaderMap::new(), report.revision, report.revision, report)?, location)
}
