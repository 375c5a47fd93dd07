//! `…/connect`: how a host is told to use this server. The formats of hosts are
//! known elsewhere; here is said what there is to connect to, and where.

use axum::extract::{OriginalUri, State};
use http::header::HOST;
use http::{HeaderMap, Uri};
use machina_core::{Endpoint, Error, GroupName, Scoped, ServiceSpec};
use serde::Serialize;
use serde_json::Value;

use super::App;
use super::extract::{Caller, InPath, Parameters};
use super::failure::{Failure, Part};

/// What a host is to be connected to.
#[derive(Debug, Clone, PartialEq)]
pub struct ConnectRequest {
    /// The host, such as `claude-code`.
    pub client: String,
    /// What the connection is called there.
    pub name: String,
    /// The MCP endpoint to use.
    pub url: String,
    /// The service, where it can be used without this server, too: it is reached
    /// over HTTP, and nothing about it is secret.
    pub direct: Option<ServiceSpec>,
}

/// How a host is configured.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct ConnectAnswer {
    /// A command that does it, for hosts that have one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    /// What to put into a file of the host.
    #[serde(flatten)]
    pub snippet: Snippet,
    /// The same for the service itself, past this server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub direct: Option<Snippet>,
}

/// A part of a configuration file.
#[derive(Debug, Clone, PartialEq, Serialize, utoipa::ToSchema)]
pub struct Snippet {
    /// The file that it belongs into, as its host's users know it.
    pub file: String,
    /// What is to be merged into it: JSON, or the text where the file is none.
    pub config: Value,
    /// What else is to be said.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The answer, and what it connects to.
#[derive(Debug, Serialize, utoipa::ToSchema)]
pub(super) struct Connection {
    client: String,
    url: String,
    /// What is behind the endpoint: `machina`, or `group`.
    scope: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<GroupName>,
    #[serde(flatten)]
    answer: ConnectAnswer,
}

pub(super) async fn everything(
    State(app): State<App>,
    OriginalUri(uri): OriginalUri,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<axum::Json<Connection>, Failure> {
    connection(&app, &base(&uri, &headers)?, parameters, None, None)
}

pub(super) async fn group(
    State(app): State<App>,
    Caller(caller): Caller,
    InPath(group): InPath<String>,
    OriginalUri(uri): OriginalUri,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<axum::Json<Connection>, Failure> {
    let group = caller.group(&group)?.name().clone();
    connection(&app, &base(&uri, &headers)?, parameters, Some(group), None)
}

pub(super) async fn service(
    State(app): State<App>,
    Caller(caller): Caller,
    InPath(service): InPath<String>,
    OriginalUri(uri): OriginalUri,
    parameters: Parameters,
    headers: HeaderMap,
) -> Result<axum::Json<Connection>, Failure> {
    let view = caller.service(&service)?;
    let spec = &view.service().spec;
    connection(&app, &base(&uri, &headers)?, parameters, group_of(&caller, spec), open_to_all(spec))
}

fn connection(
    app: &App,
    base: &str,
    parameters: Parameters,
    group: Option<GroupName>,
    direct: Option<ServiceSpec>,
) -> Result<axum::Json<Connection>, Failure> {
    let wrong = Failure::of(Part::Parameters);
    let client = parameters.only(&["client"])?.take("client");
    let client =
        client.ok_or_else(|| wrong(Error::invalid_field("client", "must name a host, such as claude-code")))?;
    let connect = app.connect.as_ref();
    let connect = connect.ok_or_else(|| Error::unsupported("this server does not know how hosts are configured"))?;
    let (name, url) = match &group {
        Some(group) => (format!("machina-{group}"), format!("{base}/mcp/{group}")),
        None => ("machina".to_owned(), format!("{base}/mcp")),
    };
    let request = ConnectRequest { client, name, url, direct };
    let answer = connect.answer(&request).map_err(wrong)?;
    let ConnectRequest { client, url, .. } = request;
    let scope = if group.is_some() { "group" } else { "machina" };
    Ok(axum::Json(Connection { client, url, scope, group, answer }))
}

/// The address that the one who asks has used for this server.
fn base(uri: &Uri, headers: &HeaderMap) -> Result<String, Failure> {
    let host = uri.authority().map(http::uri::Authority::as_str);
    let host = host.or_else(|| headers.get(HOST).and_then(|host| host.to_str().ok()));
    let host = host.ok_or_else(|| Failure::of(Part::Headers)(Error::invalid_field("host", "must be there")))?;
    let nested_under = uri.path().split_once("/api/v1").map_or("", |(before, _)| before);
    Ok(format!("http://{host}{nested_under}"))
}

/// A group that is all of this service and nothing else.
fn group_of(caller: &Scoped, spec: &ServiceSpec) -> Option<GroupName> {
    let groups = caller.groups();
    let mut alone = groups.iter().filter(|group| match group.spec().members.as_slice() {
        [only] => only.service == spec.name && only.tools.is_none(),
        _ => false,
    });
    alone.next().map(|group| group.name().clone())
}

/// The service with the one instance that anyone may be told of.
fn open_to_all(spec: &ServiceSpec) -> Option<ServiceSpec> {
    let open = spec.instances.iter().find(|instance| match &instance.endpoint {
        Endpoint::Http(http) => {
            http.headers.is_empty() && !http.url.is_secret() && !instance.endpoint.reaches_into_process()
        }
        _ => false,
    });
    let only = open?.clone();
    let mut spec = spec.clone();
    spec.env.clear();
    spec.instances = vec![only];
    Some(spec)
}
