//! The open-source registry (source 004): servers with the tools that they are
//! said to have, and a job that checks all of them. Its errors are
//! `{"error", "code", "details"}`, whatever went wrong.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use machina_core::{
    Error, ErrorKind, HttpEndpoint, Instance, Mutation, Order, Origin, Principal, Query, Registry,
    Result as CoreResult, Role, ServiceHealth, ServiceName, ServiceSpec, ServiceView, Status, Tag, Tool,
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use subtle::ConstantTimeEq as _;

use super::super::App;
use super::super::extract::{Caller, InPath, Json, NoBody, Parameters};
use super::super::failure::{Failure, Part};
use super::{every, renamed};

/// Where the tools are kept that a server was registered with.
const DECLARED_TOOLS: &str = "declared_tools";

/// The header with the secret of the job.
const SECRET: &str = "x-cron-secret";

/// How many services the job checks at a time.
const CHECKED_MAX: usize = 32;

/// What the fields of a record are called in the document.
const NAMES: [(&str, &str); 7] = [
    ("title", "display_name"),
    ("owner", "metadata.author"),
    ("repository_url", "metadata.repository_url"),
    ("documentation_url", "metadata.documentation_url"),
    ("tags", "metadata.tags"),
    ("instances[0].http.url", "endpoint_url"),
    ("instances[0].http", "endpoint_url"),
];

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Registration {
    name: ServiceName,
    display_name: String,
    description: Option<String>,
    server_type: ServerType,
    endpoint_url: String,
    version: Option<String>,
    metadata: Option<Metadata>,
    tools: Vec<DeclaredTool>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum ServerType {
    Official,
    Community,
    Mock,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Metadata {
    author: Option<String>,
    repository_url: Option<String>,
    documentation_url: Option<String>,
    tags: Vec<Tag>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredTool {
    name: String,
    description: String,
    input_schema: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    category: Option<String>,
}

/// A server of a list.
#[derive(Debug, Serialize)]
struct Listed<'a> {
    id: String,
    name: &'a str,
    display_name: &'a str,
    server_type: Origin,
    status: &'static str,
    version: Option<&'a str>,
    last_health_check: Option<Timestamp>,
    tools_count: usize,
}

/// A failure in the form of the document.
#[derive(Debug)]
pub(super) struct Refused(Failure);

pub(super) async fn register(
    caller: Result<Caller, Failure>,
    parameters: Parameters,
    body: Result<Json, Failure>,
) -> Result<Response, Refused> {
    parameters.none()?;
    let Caller(caller) = caller?;
    let spec = body?.typed::<Registration>()?.into_spec().map_err(wrong)?;
    let applied = caller.apply(vec![Mutation::Register(spec)]).await.map_err(wrong)?;
    let report = applied.services.first().ok_or_else(|| wrong(Error::conflict("the server was removed meanwhile")))?;
    let body = json!({"id": report.id, "name": report.name(), "status": "active", "created_at": report.created_at});
    Ok((StatusCode::CREATED, axum::Json(body)).into_response())
}

pub(super) async fn list(
    caller: Result<Caller, Failure>,
    parameters: Parameters,
) -> Result<axum::Json<Value>, Refused> {
    let mut parameters = parameters.only(&["status", "type", "search"])?;
    let Caller(caller) = caller?;
    let status = parameters.take("status").map(|word| one_of("status", &word, &["active", "inactive", "error"]));
    let origin =
        parameters.take("type").map(|word| one_of("type", &word, &["official", "community", "mock", "internal"]));
    let search = parameters.take("search").map(|text| text.to_lowercase());
    let (status, origin) = (status.transpose()?, origin.transpose()?);
    let (_, services) = every(&caller, Query { order: Order::CreatedAt, ..Query::default() }).map_err(wrong)?;
    let servers = services.iter().map(|view| Listed::of(view)).filter(|server| {
        let holds = |text: &str, part: &str| text.to_lowercase().contains(part);
        status.is_none_or(|status| server.status == status)
            && origin.is_none_or(|origin| server.server_type.as_str() == origin)
            && search.as_deref().is_none_or(|part| holds(server.name, part) || holds(server.display_name, part))
    });
    let servers: Vec<Listed<'_>> = servers.collect();
    Ok(axum::Json(json!({"servers": servers, "total": servers.len()})))
}

pub(super) async fn get(
    caller: Result<Caller, Failure>,
    id: Result<InPath<String>, Failure>,
    parameters: Parameters,
) -> Result<axum::Json<Value>, Refused> {
    parameters.none()?;
    let (Caller(caller), InPath(id)) = (caller?, id?);
    ServiceName::new(&id).map_err(|_| Failure::of(Part::Request)(Error::invalid("Invalid server ID")))?;
    Ok(axum::Json(detail(&*caller.service(&id).map_err(wrong)?)))
}

/// Checks every service in use. Who knows the secret may, and nobody else.
pub(super) async fn check_all(
    State(app): State<App>,
    headers: HeaderMap,
    parameters: Parameters,
    body: Result<NoBody, Failure>,
) -> Result<Response, Refused> {
    let given = headers.get(SECRET).map(http::HeaderValue::as_bytes).unwrap_or_default();
    let known = app.config.job_secret.as_ref().map(|secret| secret.expose().as_bytes());
    if !known.is_some_and(|known| bool::from(known.ct_eq(given))) {
        return Ok((StatusCode::UNAUTHORIZED, axum::Json(json!({"error": "Unauthorized"}))).into_response());
    }
    parameters.none()?;
    let NoBody = body?;
    let caller = app.machina.scoped(Principal::new("health-check job", Role::Developer).remote());
    let (_, services) = every(&caller, Query { enabled: Some(true), ..Query::default() }).map_err(wrong)?;
    let checks = services.into_iter().map(|view| {
        let caller = caller.clone();
        async move { caller.check(view.service().name().as_str()).await }
    });
    // A service that was removed meanwhile needs no check.
    stream::iter(checks).buffer_unordered(CHECKED_MAX).for_each(|_| std::future::ready(())).await;
    Ok(axum::Json(json!({"success": true})).into_response())
}

fn wrong(error: Error) -> Failure {
    Failure::of(Part::Record)(renamed(error, &NAMES))
}

fn one_of(field: &str, word: &str, words: &[&'static str]) -> Result<&'static str, Failure> {
    words.iter().copied().find(|known| *known == word).ok_or_else(|| {
        Failure::of(Part::Parameters)(Error::invalid_field(field, format!("must be {}", words.join(", "))))
    })
}

impl Registration {
    fn into_spec(self) -> CoreResult<ServiceSpec> {
        if self.display_name.is_empty() {
            return Err(Error::invalid_field("display_name", "must not be empty"));
        }
        for (index, tool) in self.tools.iter().enumerate() {
            let places = [("name", "name"), ("inputSchema", "input_schema"), ("tool", "name")];
            let place = places.map(|(ours, theirs)| (ours, format!("tools[{index}].{theirs}")));
            let names: Vec<_> = place.iter().map(|(ours, theirs)| (*ours, theirs.as_str())).collect();
            tool.parse().map_err(|error| renamed(error, &names))?;
        }
        let Metadata { author, repository_url, documentation_url, tags } = self.metadata.unwrap_or_default();
        let mut spec = ServiceSpec::new(self.name.as_str())?;
        spec.title = Some(self.display_name);
        spec.description = self.description.unwrap_or_default();
        spec.origin = self.server_type.into();
        spec.version = self.version;
        (spec.owner, spec.repository_url, spec.documentation_url, spec.tags) =
            (author, repository_url, documentation_url, tags);
        spec.instances = vec![Instance::new(HttpEndpoint::new(self.endpoint_url))];
        spec.metadata.insert(DECLARED_TOOLS.to_owned(), json!(self.tools));
        Ok(spec)
    }
}

impl From<ServerType> for Origin {
    fn from(server_type: ServerType) -> Self {
        match server_type {
            ServerType::Official => Self::Official,
            ServerType::Community => Self::Community,
            ServerType::Mock => Self::Mock,
        }
    }
}

impl DeclaredTool {
    /// The same as an MCP server would publish it.
    fn parse(&self) -> CoreResult<Tool> {
        Tool::parse(json!({"name": self.name, "description": self.description, "inputSchema": self.input_schema}))
    }
}

/// The tools of a server, each with its category: those that it publishes, or,
/// until that is known, those that it was registered with.
fn tools(view: &ServiceView) -> Vec<(Tool, Option<String>)> {
    let declared = view.service().spec.metadata.get(DECLARED_TOOLS).cloned().unwrap_or_default();
    let declared: Vec<DeclaredTool> = serde_json::from_value(declared).unwrap_or_default();
    let category = |name: &str| declared.iter().find(|tool| tool.name == name).and_then(|tool| tool.category.clone());
    if view.has_definitions() {
        let published = view.tools().iter().map(|offered| Tool::clone(&offered.tool));
        return published.map(|tool| (tool.clone(), category(tool.name().as_str()))).collect();
    }
    declared.iter().filter_map(|tool| Some((tool.parse().ok()?, tool.category.clone()))).collect()
}

/// The three words of the document for a status.
const fn word(status: Status) -> &'static str {
    match status {
        Status::Healthy | Status::Degraded | Status::Unknown => "active",
        Status::Unhealthy => "error",
        Status::Disabled | Status::Maintenance => "inactive",
    }
}

fn display_name(spec: &ServiceSpec) -> &str {
    spec.title.as_deref().unwrap_or(spec.name.as_str())
}

impl<'a> Listed<'a> {
    fn of(view: &'a ServiceView) -> Self {
        let spec = &view.service().spec;
        Self {
            id: view.service().id.to_string(),
            name: spec.name.as_str(),
            display_name: display_name(spec),
            server_type: spec.origin,
            status: word(view.status()),
            version: spec.version.as_deref(),
            last_health_check: ServiceHealth::from(view).health.last_check,
            tools_count: tools(view).len(),
        }
    }
}

/// A server with everything about it. Its fields are named as those of the list
/// are not: the document has them so.
fn detail(view: &ServiceView) -> Value {
    let (service, spec) = (view.service(), &view.service().spec);
    let tools = tools(view).into_iter().map(|(tool, category)| {
        json!({"id": tool.hash(), "serverId": service.id, "name": tool.name(), "description": tool.description(),
            "inputSchema": tool.input_schema(), "category": category, "createdAt": service.created_at})
    });
    let said = spec.owner.is_some()
        || spec.repository_url.is_some()
        || spec.documentation_url.is_some()
        || !spec.tags.is_empty();
    let metadata = json!({"serverId": service.id, "author": spec.owner, "repositoryUrl": spec.repository_url,
        "documentationUrl": spec.documentation_url, "tags": spec.tags});
    json!({
        "id": service.id,
        "name": spec.name,
        "displayName": display_name(spec),
        "description": spec.description,
        "serverType": spec.origin,
        "endpointUrl": spec.instances.first().map(|instance| instance.endpoint.location()),
        "status": word(view.status()),
        "version": spec.version,
        "lastHealthCheck": ServiceHealth::from(view).health.last_check,
        "createdAt": service.created_at,
        "updatedAt": service.updated_at,
        "metadata": if said { metadata } else { Value::Null },
        "tools": tools.collect::<Vec<_>>(),
    })
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (error, status) = (self.0.error(), self.0.status());
        let message = error.message();
        let (status, text, code) = match (error.kind(), status) {
            (ErrorKind::Invalid, StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY) => {
                let text = match error.context().problems.first() {
                    None => message,
                    Some(problem) if problem.field == "body" && status == StatusCode::BAD_REQUEST => "Invalid JSON",
                    Some(_) => "Validation failed",
                };
                (StatusCode::BAD_REQUEST, text, "VALIDATION_ERROR".to_owned())
            }
            (ErrorKind::Invalid, _) => (status, message, "VALIDATION_ERROR".to_owned()),
            (ErrorKind::Conflict, _) => (status, "Server with this name already exists", "DUPLICATE_SERVER".to_owned()),
            (ErrorKind::NotFound, _) => (status, "Server not found", "SERVER_NOT_FOUND".to_owned()),
            (ErrorKind::Unauthenticated, _) => (status, "Unauthorized", "UNAUTHORIZED".to_owned()),
            (ErrorKind::Internal, _) => (status, "Internal server error", "INTERNAL_ERROR".to_owned()),
            (kind, _) => (status, message, kind.code().to_uppercase()),
        };
        let mut body = json!({"error": text, "code": code});
        let details: Vec<Value> = error.context().problems.iter().map(detail_of).collect();
        if !details.is_empty() {
            body["details"] = details.into();
        }
        (status, axum::Json(body)).into_response()
    }
}

/// One wrong field, as zod reports it.
fn detail_of(problem: &machina_core::Problem) -> Value {
    let parts = problem.field.split(['.', '[']).map(|part| part.trim_end_matches(']'));
    let path = parts.map(|part| part.parse::<usize>().map_or_else(|_| json!(part), |index| json!(index)));
    json!({"code": "custom", "path": path.collect::<Vec<_>>(), "message": problem.detail})
}
