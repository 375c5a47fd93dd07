//! The platform (source 000): services with their build type and priority, their
//! configuration and health. Its list of services is that of source 001 too, so
//! a record has the fields of both.

use axum::response::Response;
use http::HeaderMap;
use jiff::Timestamp;
use machina_core::{
    AdminState, BuildPriority, BuildType, Endpoint, Error, Instance, Overview, Query, Registry, Scoped, Sensitive,
    SensitiveMap, ServiceHealth, ServiceView, Status, Tag,
};
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::super::extract::{Caller, InPath, Json, NoBody, Parameters, expected_revision};
use super::super::failure::{Failure, Part};
use super::super::written::tagged;
use super::{every, renamed};

/// The part of `config` that this document calls `scaling_config`, and the part
/// of `metadata` that it calls `health_endpoint`.
const SCALING: &str = "scaling_config";
const HEALTH_ENDPOINT: &str = "health_endpoint";

/// A registration (`ServiceRegistration` in both documents).
#[derive(Debug, Serialize)]
struct Record<'a> {
    name: &'a str,
    build_type: BuildType,
    r#type: BuildType,
    required: bool,
    build_priority: BuildPriority,
    status: &'static str,
    location: Option<String>,
    protocol: Option<&'static str>,
    base_url: Option<String>,
    description: &'a str,
    tags: &'a [Tag],
    config: &'a Map<String, Value>,
    health_endpoint: Option<&'a str>,
    api_key: Option<&'static str>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

/// A configuration (`ServiceConfig`).
#[derive(Debug, Serialize)]
struct Config<'a> {
    service_name: &'a str,
    required: bool,
    build_priority: BuildPriority,
    enabled: bool,
    environment_vars: &'a SensitiveMap,
    scaling_config: Map<String, Value>,
    updated_by: &'a str,
    updated_at: Timestamp,
}

/// A configuration as it is sent. What is left out stays as it is; who changed it
/// and when is not for the sender to say, and passed over.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewConfig {
    service_name: Option<String>,
    required: Option<bool>,
    build_priority: Option<BuildPriority>,
    enabled: Option<bool>,
    environment_vars: Option<Map<String, Value>>,
    scaling_config: Option<Map<String, Value>>,
    #[serde(rename = "updated_by")]
    _updated_by: Option<IgnoredAny>,
    #[serde(rename = "updated_at")]
    _updated_at: Option<IgnoredAny>,
}

/// The health of a service (`HealthStatus`).
#[derive(Debug, Serialize)]
struct Health {
    service_name: String,
    status: &'static str,
    last_check: Option<Timestamp>,
    response_time_ms: Option<f64>,
    error_message: Option<String>,
    consecutive_failures: u32,
    uptime_percentage: Option<f64>,
}

pub(super) async fn list(
    Caller(caller): Caller,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    records(&caller, filters(&parameters)?, &headers)
}

pub(super) async fn by_type(
    Caller(caller): Caller,
    InPath(build_type): InPath<String>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    selected(&caller, "build_type", &build_type, parameters, &headers)
}

pub(super) async fn by_priority(
    Caller(caller): Caller,
    InPath(level): InPath<String>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    selected(&caller, "build_priority", &level, parameters, &headers)
}

pub(super) async fn required(
    Caller(caller): Caller,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    selected(&caller, "required", "true", parameters, &headers)
}

pub(super) async fn get(
    Caller(caller): Caller,
    InPath(name): InPath<String>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    parameters.none()?;
    let view = caller.service(&name)?;
    let revision = view.service().revision;
    tagged(&headers, revision, revision, &Record::of(&view))
}

pub(super) async fn config(
    Caller(caller): Caller,
    InPath(name): InPath<String>,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    parameters.none()?;
    configuration(&caller, &name, &headers)
}

pub(super) async fn configure(
    Caller(caller): Caller,
    InPath(name): InPath<String>,
    parameters: Parameters,
    headers: HeaderMap,
    body: Json,
) -> Result<Response, Failure> {
    parameters.none()?;
    let expected = expected_revision(&headers)?;
    let wrong = Failure::of(Part::of_body(expected));
    let new: NewConfig = body.typed()?;
    let view = caller.service(&name)?;
    if new.service_name.as_deref().is_some_and(|sent| sent != view.service().name().as_str()) {
        let detail = format!("must be `{}`, as in the path, or left out", view.service().name());
        return Err(wrong(Error::invalid_field("service_name", detail)));
    }
    let applied = caller.patch(&name, &new.into_patch(&view), expected).await;
    applied.map_err(|error| wrong(renamed(error, &[("env", "environment_vars"), ("config", SCALING)])))?;
    configuration(&caller, view.service().name().as_str(), &HeaderMap::new())
}

pub(super) async fn toggle(
    Caller(caller): Caller,
    InPath(name): InPath<String>,
    parameters: Parameters,
    _: NoBody,
) -> Result<Response, Failure> {
    parameters.none()?;
    caller.toggle(&name).await?;
    configuration(&caller, &name, &HeaderMap::new())
}

pub(super) async fn overall(Caller(caller): Caller, parameters: Parameters) -> Result<axum::Json<Value>, Failure> {
    parameters.none()?;
    Ok(axum::Json(summary(&caller.overview())))
}

pub(super) async fn status_document(
    Caller(caller): Caller,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let query = filters(&parameters)?;
    let mut document = summary(&caller.overview());
    let (revision, services) = every(&caller, query).map_err(Failure::of(Part::Parameters))?;
    let services = services.iter().map(|view| Health::of(ServiceHealth::from(&**view)));
    document["services"] = json!(services.collect::<Vec<_>>());
    tagged(&headers, revision, revision, &document)
}

pub(super) async fn health(
    Caller(caller): Caller,
    InPath(name): InPath<String>,
    parameters: Parameters,
) -> Result<Response, Failure> {
    parameters.none()?;
    let health = Health::of(Registry::health(&caller, &name).await?);
    Ok(axum::response::IntoResponse::into_response(axum::Json(health)))
}

pub(super) async fn deploy(Caller(caller): Caller, InPath(name): InPath<String>) -> Result<Response, Failure> {
    let view = caller.service(&name)?;
    let name = view.service().name();
    Err(Error::unsupported(format!("Machina does not deploy services: start `{name}` elsewhere, and declare where"))
        .into())
}

/// The filters of a list, which are those of `GET /api/v1/services`.
fn filters(parameters: &Parameters) -> Result<Query, Failure> {
    let wrong = Failure::of(Part::Parameters);
    let query = Query::from_pairs(parameters.pairs()).map_err(&wrong)?;
    for (name, given) in [("cursor", query.cursor.is_some()), ("limit", query.limit.is_some())] {
        if given {
            let detail = "is no parameter of a list without pages; `/api/v1/services` has pages";
            return Err(wrong(Error::invalid_field(name, detail)));
        }
    }
    Ok(query)
}

/// The services of which the path says that `field` is `value`.
fn selected(
    caller: &Scoped,
    field: &str,
    value: &str,
    parameters: Parameters,
    headers: &HeaderMap,
) -> Result<Response, Failure> {
    parameters.none()?;
    let query = Query::from_pairs([(field, value)]).map_err(Failure::of(Part::Request))?;
    records(caller, query, headers)
}

fn records(caller: &Scoped, query: Query, headers: &HeaderMap) -> Result<Response, Failure> {
    let (revision, services) = every(caller, query).map_err(Failure::of(Part::Parameters))?;
    let records: Vec<Record<'_>> = services.iter().map(|view| Record::of(view)).collect();
    tagged(headers, revision, revision, &records)
}

fn configuration(caller: &Scoped, name: &str, headers: &HeaderMap) -> Result<Response, Failure> {
    let view = caller.service(name)?;
    let revision = view.service().revision;
    tagged(headers, revision, revision, &Config::of(&view))
}

/// How many services are how, and the worst of it.
fn summary(overview: &Overview) -> Value {
    let mut counts = [("healthy", 0), ("unhealthy", 0), ("unknown", 0)];
    for status in Status::ALL {
        let count = overview.statuses.get(status.as_str()).copied().unwrap_or_default();
        counts.iter_mut().filter(|(name, _)| *name == word(*status)).for_each(|(_, sum)| *sum += count);
    }
    let mut summary = json!({"status": word(overview.worst()), "total": overview.services});
    counts.iter().for_each(|(name, count)| summary[*name] = json!(count));
    summary
}

/// The three words that both documents have for a status.
pub(super) const fn word(status: Status) -> &'static str {
    match status {
        Status::Healthy | Status::Degraded => "healthy",
        Status::Unhealthy => "unhealthy",
        Status::Unknown | Status::Disabled | Status::Maintenance => "unknown",
    }
}

/// The three words that both documents have for a protocol.
const fn protocol(endpoint: &Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Stdio(_) => "stdio",
        Endpoint::WebSocket(_) => "websocket",
        Endpoint::Http(_) | Endpoint::Sse(_) | Endpoint::OpenApi(_) => "http",
        other => other.kind(),
    }
}

/// A mask, where an instance has credentials.
fn api_key(instance: &Instance) -> Option<&'static str> {
    let (Endpoint::Http(http) | Endpoint::Sse(http)) = &instance.endpoint else { return None };
    let has_key = http.headers.keys().any(|name| name.eq_ignore_ascii_case("authorization"));
    has_key.then_some(Sensitive::MASK)
}

impl<'a> Record<'a> {
    fn of(view: &'a ServiceView) -> Self {
        let (service, spec) = (view.service(), &view.service().spec);
        let first = spec.instances.first();
        let location = first.map(|instance| instance.endpoint.location());
        let protocol = first.map(|instance| protocol(&instance.endpoint));
        Self {
            name: spec.name.as_str(),
            build_type: spec.build_type,
            r#type: spec.build_type,
            required: spec.required,
            build_priority: spec.build_priority,
            status: word(view.status()),
            base_url: location.clone().filter(|_| protocol == Some("http")),
            location,
            protocol,
            description: &spec.description,
            tags: &spec.tags,
            config: &spec.config,
            health_endpoint: spec.metadata.get(HEALTH_ENDPOINT).and_then(Value::as_str),
            api_key: first.and_then(api_key),
            created_at: service.created_at,
            updated_at: service.updated_at,
        }
    }
}

impl<'a> Config<'a> {
    fn of(view: &'a ServiceView) -> Self {
        let (service, spec) = (view.service(), &view.service().spec);
        Self {
            service_name: spec.name.as_str(),
            required: spec.required,
            build_priority: spec.build_priority,
            enabled: spec.admin_state == AdminState::Enabled,
            environment_vars: &spec.env,
            scaling_config: scaling(view),
            updated_by: &service.updated_by,
            updated_at: service.updated_at,
        }
    }
}

fn scaling(view: &ServiceView) -> Map<String, Value> {
    view.service().spec.config.get(SCALING).and_then(Value::as_object).cloned().unwrap_or_default()
}

impl NewConfig {
    /// The merge patch on the record of the service that this comes to.
    fn into_patch(self, view: &ServiceView) -> Value {
        let mut patch = Map::new();
        patch.extend(self.required.map(|required| ("required".to_owned(), required.into())));
        patch.extend(self.build_priority.map(|priority| ("build_priority".to_owned(), priority.as_str().into())));
        patch.extend(self.enabled.map(|enabled| ("enabled".to_owned(), enabled.into())));
        if let Some(variables) = self.environment_vars {
            let known = view.service().spec.env.keys().map(|name| (name.clone(), Value::Null)).collect();
            patch.insert("env".to_owned(), Value::Object(replacing(&known, variables)));
        }
        if let Some(new) = self.scaling_config {
            patch.insert("config".to_owned(), json!({ SCALING: replacing(&scaling(view), new) }));
        }
        Value::Object(patch)
    }
}

/// The merge patch that makes `new` of `old`.
fn replacing(old: &Map<String, Value>, mut new: Map<String, Value>) -> Map<String, Value> {
    for (name, value) in &mut new {
        if let (Some(Value::Object(old)), Value::Object(inner)) = (old.get(name), &mut *value) {
            *inner = replacing(old, std::mem::take(inner));
        }
    }
    for name in old.keys() {
        new.entry(name.clone()).or_insert(Value::Null);
    }
    new
}

impl Health {
    fn of(report: ServiceHealth) -> Self {
        let ServiceHealth { service, status, health, .. } = report;
        Self {
            service_name: service.to_string(),
            status: word(status),
            last_check: health.last_check,
            response_time_ms: health.response_time_ms,
            error_message: Some(health.reason.message).filter(|message| !message.is_empty()),
            consecutive_failures: health.consecutive_failures,
            uptime_percentage: health.uptime_percentage,
        }
    }
}

#[cfg(test)]
#[path = "platform_tests.rs"]
mod tests;
