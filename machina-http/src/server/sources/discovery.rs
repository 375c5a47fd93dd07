//! The discovery service (source 003): a service registers itself, finds others,
//! and says how it is. A domain is a service, and what registers for it is the one
//! instance of it; its fields that Machina has no use for are kept as they came.
//!
//! `GET /api/v1/services/{service}/health` and `POST …/heartbeat` of the document
//! are those of the API.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::LOCATION;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use machina_core::{
    AccessLevel, Error, ErrorKind, HealthPolicy, HealthReport, Heartbeat, HttpEndpoint, Instance, InstanceId, Mutation,
    Query, Registry, Result as CoreResult, ServiceHealth, ServiceSpec, ServiceView, Status, Tag,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::super::extract::{Caller, InPath, Json, Parameters};
use super::super::failure::{Failure, Part};
use super::super::written::{header_value, tagged};
use super::{every, renamed};

/// How long a service that registered itself stays without a heartbeat.
const LEASE: Duration = Duration::from_secs(90);

/// The label of an instance with what the document calls `instanceId`.
const INSTANCE_ID: &str = "instance_id";

/// Where the fields of the document are kept in `config`.
const PERSONAL_CONFIG: &str = "personal_config";
const DEMO_CONFIG: &str = "demo_config";
const HEALTH_CHECK_CONFIG: &str = "health_check_config";
const ENDPOINTS: &str = "endpoints";

/// What the fields of a record are called in the document.
const NAMES: [(&str, &str); 11] = [
    ("name", "domain"),
    ("tenant", "companyName"),
    ("version", "serviceInfo.version"),
    ("environment", "serviceInfo.environment"),
    ("instances[0].http.url", "serviceInfo.endpoints.primary"),
    ("instances[0]", "serviceInfo"),
    ("health_policy.interval", "healthCheckConfig.interval"),
    ("health_policy.timeout", "healthCheckConfig.timeout"),
    ("health_policy.failure_threshold", "healthCheckConfig.failureThreshold"),
    ("health_policy.success_threshold", "healthCheckConfig.successThreshold"),
    ("health_policy", "healthCheckConfig"),
];

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Registration {
    company_name: String,
    domain: String,
    instance_id: String,
    #[serde(default)]
    service_info: ServiceInfo,
    personal_config: Option<Map<String, Value>>,
    demo_config: Option<Map<String, Value>>,
    health_check_config: Option<HealthCheckConfig>,
    sao_level: Option<AccessLevel>,
    #[serde(default)]
    tags: Vec<Tag>,
    #[serde(default)]
    metadata: Map<String, Value>,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct ServiceInfo {
    version: Option<String>,
    capabilities: Vec<String>,
    region: Option<String>,
    environment: Option<String>,
    endpoints: Endpoints,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct Endpoints {
    primary: Option<String>,
    health: Option<String>,
    metrics: Option<String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct HealthCheckConfig {
    #[serde(skip_serializing_if = "Option::is_none")]
    interval: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    retries: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    failure_threshold: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    success_threshold: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoints: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expected_status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    alerting: Option<Alerting>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Alerting {
    #[serde(skip_serializing_if = "Option::is_none")]
    enabled: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    channels: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    escalation_levels: Option<Vec<String>>,
}

/// A service, as the document has it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Record {
    service_id: String,
    company_name: Option<String>,
    domain: String,
    instance_id: Option<String>,
    status: ServiceStatus,
    health_status: HealthStatus,
    service_info: ServiceInfo,
    personal_config: Value,
    demo_config: Value,
    sao_level: AccessLevel,
    registered_at: Timestamp,
    last_updated: Timestamp,
    tags: Vec<Tag>,
    metadata: Map<String, Value>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ServiceStatus {
    Active,
    Inactive,
    Maintenance,
    Unhealthy,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct HealthStatus {
    last_check: Option<Timestamp>,
    response_time: Option<f64>,
    uptime: Option<f64>,
    consecutive_failures: u32,
    last_failure: Option<Timestamp>,
}

/// What a service says about itself.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Report {
    status: ServiceStatus,
    message: Option<String>,
    instance: Option<InstanceId>,
}

pub(super) async fn register(Caller(caller): Caller, parameters: Parameters, body: Json) -> Result<Response, Failure> {
    parameters.none()?;
    let wrong = |error| Failure::of(Part::Record)(renamed(error, &NAMES));
    let registration: Registration = body.typed()?;
    let before = caller.service(&registration.domain).ok();
    let before = before.filter(|view| view.service().name().as_str() == registration.domain);
    let status = if before.is_some() { StatusCode::OK } else { StatusCode::CREATED };
    let mutation = match &before {
        None => Mutation::Register(registration.into_spec(ServiceSpec::new("new")?).map_err(wrong)?),
        Some(view) => {
            let service = view.service();
            let registered_itself = service.spec.instances.iter().any(|one| one.labels.contains_key(INSTANCE_ID));
            if !registered_itself {
                let message = format!("`{}` is declared by an operator, and does not register itself", service.name());
                return Err(Error::conflict(message).into());
            }
            let (name, expected) = (service.name().clone(), Some(service.revision));
            Mutation::Update { name, spec: registration.into_spec(service.spec.clone()).map_err(wrong)?, expected }
        }
    };
    let name = mutation.service().clone();
    caller.apply(vec![mutation]).await.map_err(wrong)?;
    caller.heartbeat(name.as_str(), None)?;
    let record = Record::of(&*caller.service(name.as_str())?);
    let location = header_value(&format!("/api/v1/services/{}", record.service_id))?;
    Ok((status, [(LOCATION, location)], axum::Json(record)).into_response())
}

pub(super) async fn discover(
    Caller(caller): Caller,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let wrong = Failure::of(Part::Parameters);
    let (revision, services) = every(&caller, wanted(&parameters).map_err(&wrong)?).map_err(&wrong)?;
    let records: Vec<Record> = services.iter().map(|view| Record::of(view)).collect();
    tagged(&headers, revision, revision, &json!({"services": records, "total": records.len()}))
}

pub(super) async fn report(
    Caller(caller): Caller,
    InPath(service): InPath<String>,
    parameters: Parameters,
    body: Json,
) -> Result<axum::Json<Heartbeat>, Failure> {
    parameters.none()?;
    let Report { status, message, instance } = body.typed()?;
    let failing = match status {
        ServiceStatus::Active => None,
        ServiceStatus::Unhealthy => Some(message.unwrap_or_default()),
        ServiceStatus::Maintenance | ServiceStatus::Inactive => {
            let detail = "must be active or unhealthy: that it is out of use is for an operator to say, by \
                          POST /api/v1/services/{service}/maintenance or DELETE /api/v1/services/{service}";
            return Err(Failure::of(Part::Record)(Error::invalid_field("status", detail)));
        }
    };
    let reported = caller.report_health(&service, instance, failing.as_deref());
    Ok(axum::Json(reported.map_err(|error| {
        let part = if error.kind() == ErrorKind::NotFound { Part::Registration } else { Part::Record };
        Failure::of(part)(error)
    })?))
}

/// The services that the parameters ask for.
fn wanted(parameters: &Parameters) -> CoreResult<Query> {
    let mut pairs = Vec::new();
    for (name, value) in parameters.pairs() {
        match name {
            "company" => pairs.push(("tenant", value)),
            "region" | "capabilities" | "tags" => pairs.push((name, value)),
            "status" => {
                for word in value.split(',') {
                    pairs.push(("status", statuses(word)?));
                }
            }
            _ => {
                let detail = "is no parameter; there are company, region, capabilities, status, tags";
                return Err(Error::invalid_field(name, detail));
            }
        }
    }
    Query::from_pairs(pairs)
}

/// The statuses of Machina that the document has this word for.
fn statuses(word: &str) -> CoreResult<&'static str> {
    match word {
        "active" => Ok("healthy,degraded,unknown"),
        "unhealthy" => Ok("unhealthy"),
        "maintenance" => Ok("maintenance"),
        "inactive" => Ok("disabled"),
        _ => Err(Error::invalid_field("status", "must be active, inactive, maintenance or unhealthy")),
    }
}

impl Registration {
    /// The declaration that this makes of `spec`, which keeps what only an
    /// operator says.
    fn into_spec(self, mut spec: ServiceSpec) -> CoreResult<ServiceSpec> {
        spec.name = self.domain.parse()?;
        if self.instance_id.is_empty() || self.company_name.is_empty() {
            let field = if self.instance_id.is_empty() { "instanceId" } else { "companyName" };
            return Err(Error::invalid_field(field, "must not be empty"));
        }
        let Endpoints { primary, health, metrics } = self.service_info.endpoints;
        let endpoint = HttpEndpoint::new(primary.unwrap_or_else(|| format!("https://{}", self.domain)));
        let mut instance = spec.instances.first().cloned().unwrap_or_else(|| Instance::new(endpoint.clone()));
        instance.endpoint = endpoint.into();
        instance.region = self.service_info.region;
        instance.labels.insert(INSTANCE_ID.to_owned(), self.instance_id);
        // Who says how it is to be checked is checked, and need not send heartbeats.
        instance.lease_ttl = self.health_check_config.is_none().then_some(LEASE);
        spec.instances = vec![instance];
        spec.tenant = Some(self.company_name);
        spec.version = self.service_info.version;
        spec.capabilities = self.service_info.capabilities;
        spec.environment = self.service_info.environment;
        spec.access_level = self.sao_level.unwrap_or_default();
        spec.tags = self.tags;
        spec.metadata = self.metadata;
        spec.health_policy = self.health_check_config.as_ref().map_or(Ok(HealthPolicy::default()), policy)?;
        let kept = [
            (PERSONAL_CONFIG, json!(self.personal_config)),
            (DEMO_CONFIG, json!(self.demo_config)),
            (HEALTH_CHECK_CONFIG, json!(self.health_check_config)),
            (ENDPOINTS, json!({"health": health, "metrics": metrics})),
        ];
        spec.config.extend(kept.map(|(name, value)| (name.to_owned(), value)));
        Ok(spec)
    }
}

/// The part of the configuration of health checks that Machina goes by.
fn policy(config: &HealthCheckConfig) -> CoreResult<HealthPolicy> {
    let mut policy = Map::new();
    let durations = [("interval", &config.interval), ("timeout", &config.timeout)];
    let thresholds = [("failure_threshold", config.failure_threshold), ("success_threshold", config.success_threshold)];
    policy.extend(durations.into_iter().filter_map(|(name, text)| Some((name.to_owned(), json!(text.as_ref()?)))));
    policy.extend(thresholds.into_iter().filter_map(|(name, count)| Some((name.to_owned(), json!(count?)))));
    serde_path_to_error::deserialize(Value::Object(policy)).map_err(|error| {
        let field = format!("health_policy.{}", error.path());
        Error::invalid_field(field, format!("must be a duration such as 30s: {}", error.into_inner()))
    })
}

impl Record {
    fn of(view: &ServiceView) -> Self {
        let (service, spec) = (view.service(), &view.service().spec);
        let first = spec.instances.first();
        let kept = |name: &str| spec.config.get(name).cloned().unwrap_or_default();
        let endpoint = |name: &str| spec.config.get(ENDPOINTS)?.get(name)?.as_str().map(str::to_owned);
        let endpoints = Endpoints {
            primary: first.map(|instance| instance.endpoint.location()),
            health: endpoint("health"),
            metrics: endpoint("metrics"),
        };
        Self {
            service_id: service.id.to_string(),
            company_name: spec.tenant.clone(),
            domain: spec.name.to_string(),
            instance_id: first.and_then(|instance| instance.labels.get(INSTANCE_ID)).cloned(),
            status: ServiceStatus::of(view),
            health_status: HealthStatus::of(view),
            service_info: ServiceInfo {
                version: spec.version.clone(),
                capabilities: spec.capabilities.clone(),
                region: first.and_then(|instance| instance.region.clone()),
                environment: spec.environment.clone(),
                endpoints,
            },
            personal_config: kept(PERSONAL_CONFIG),
            demo_config: kept(DEMO_CONFIG),
            sao_level: spec.access_level,
            registered_at: service.created_at,
            last_updated: service.updated_at,
            tags: spec.tags.clone(),
            metadata: spec.metadata.clone(),
        }
    }
}

impl ServiceStatus {
    fn of(view: &ServiceView) -> Self {
        match view.status() {
            Status::Healthy | Status::Degraded | Status::Unknown => Self::Active,
            Status::Unhealthy => Self::Unhealthy,
            Status::Disabled => Self::Inactive,
            Status::Maintenance => Self::Maintenance,
        }
    }
}

impl HealthStatus {
    fn of(view: &ServiceView) -> Self {
        let ServiceHealth { status, health, .. } = ServiceHealth::from(view);
        let HealthReport { since, last_check, response_time_ms, consecutive_failures, uptime_percentage, .. } = health;
        let last_failure = if status == Status::Unhealthy { last_check.or(Some(since)) } else { None };
        Self {
            last_check,
            response_time: response_time_ms,
            uptime: uptime_percentage,
            consecutive_failures,
            last_failure,
        }
    }
}
