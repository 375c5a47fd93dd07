//! A service as a `server.json` of the official registry (schema 2025-12-11).
//!
//! What the format can say is said in its own fields, so that any host can use
//! it. The rest goes into our extension: exactly those fields of the record that
//! a reader of the document would otherwise get wrong, found by reading it back.
//! Values of environment variables and headers are never written: whoever uses
//! the server is asked for them.

use std::collections::BTreeSet;

use machina_core::{AdminState, Endpoint, HttpEndpoint, Sensitive, SensitiveMap, ServiceSpec};
use serde_json::{Map, Value, json};

use super::host_entry::{Piece, Secrets, arguments, pieces};
use super::note::{Notes, field};
use super::package::Scope;
use super::server_json::{EXTENSION, PUBLISHER_PROVIDED, import_listed};
use super::server_json_package::package;

const SCHEMA: &str = "https://static.modelcontextprotocol.io/schemas/2025-12-11/server.schema.json";
/// What stands for the version of a service that has none, or one that the format refuses.
const NO_VERSION: &str = "0.0.0";
/// How many characters a title and a description may have there.
const TEXT_MAX: usize = 100;

/// The `server.json` of `spec` under `name`, which has the form `namespace/name`.
/// Reading it with [`import`](super::import) gives `spec` again, with a reference
/// such as `${env:TOKEN}` in the place of each secret, and new instance ids.
#[must_use]
pub fn server_json(spec: &ServiceSpec, name: &str) -> Value {
    let mut secrets = Secrets::default();
    let told = told(spec, name, &mut secrets);
    let mut document = document(&told, name, &secrets.names());
    let extension = beyond(&told, &document);
    if !extension.is_empty() {
        document["_meta"] = json!({ PUBLISHER_PROVIDED: { EXTENSION: extension } });
    }
    document
}

/// The version that the registry shows for `spec`.
pub(crate) fn version_of(spec: &ServiceSpec) -> &str {
    spec.version.as_deref().filter(|version| is_exact(version)).unwrap_or(NO_VERSION)
}

/// Whether `version` is one version and no range, as the format demands.
pub(super) fn is_exact(version: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '+' | '_' | '!');
    let wild = |part: &str| matches!(part, "x" | "X" | "*");
    version != "latest" && !version.is_empty() && version.chars().all(plain) && !version.split('.').any(wild)
}

/// `spec` with a reference in the place of each secret, under the names that a
/// reader of the document would make up for them.
fn told(spec: &ServiceSpec, name: &str, secrets: &mut Secrets) -> ServiceSpec {
    let (mut told, mut notes) = (spec.clone(), Notes::default());
    let service = name.rsplit('/').next().unwrap_or(name);
    let scope = Scope::named(service);
    told.env = referred(&spec.env, service, secrets, &mut notes, &str::to_owned);
    for instance in &mut told.instances {
        match &mut instance.endpoint {
            Endpoint::Stdio(stdio) => {
                stdio.env = referred(&stdio.env, service, secrets, &mut notes, &str::to_owned);
                let args = arguments(stdio, service, secrets, &mut notes);
                stdio.args = args.into_iter().map(Sensitive::plain).collect();
            }
            Endpoint::Http(http) | Endpoint::Sse(http) => {
                http.headers = referred(&http.headers, service, secrets, &mut notes, &|name| scope.variable(name));
                let url = secrets.written(&http.url, service, &scope.variable("url"), "url", &mut notes);
                http.url = Sensitive::plain(url);
            }
            Endpoint::WebSocket(socket) => {
                let url = secrets.written(&socket.url, service, &scope.variable("url"), "url", &mut notes);
                socket.url = Sensitive::plain(url);
            }
            _ => {}
        }
    }
    told
}

/// `values` with a reference for each that is more than one already.
fn referred(
    values: &SensitiveMap,
    service: &str,
    secrets: &mut Secrets,
    notes: &mut Notes,
    variable: &dyn Fn(&str) -> String,
) -> SensitiveMap {
    let one = |(name, value): (&String, &Sensitive)| {
        let text = secrets.written(value, service, &variable(name), &field(service, name), notes);
        (name.clone(), Sensitive::plain(text))
    };
    values.iter().map(one).collect()
}

fn document(told: &ServiceSpec, name: &str, made_up: &BTreeSet<&str>) -> Value {
    let mut document = Map::new();
    let mut put = |key: &str, value: Value| drop(document.insert(key.to_owned(), value));
    put("$schema", SCHEMA.into());
    put("name", name.into());
    if let Some(title) = told.title.as_deref().filter(|title| !title.is_empty()) {
        put("title", shortened(title).into());
    }
    let about = [told.description.trim(), told.title.as_deref().unwrap_or_default().trim()];
    match about.into_iter().find(|text| !text.is_empty()) {
        Some(text) => put("description", shortened(text).into()),
        None => put("description", shortened(&format!("The MCP server {name}")).into()),
    }
    put("version", version_of(told).into());
    if let Some(url) = &told.documentation_url {
        put("websiteUrl", url.as_str().into());
    }
    if let Some(url) = &told.repository_url {
        put("repository", json!({ "url": url, "source": forge(url) }));
    }
    let ways = ways(told, made_up);
    for (key, ways) in [("packages", ways.packages), ("remotes", ways.remotes)] {
        if !ways.is_empty() {
            put(key, ways.into());
        }
    }
    Value::Object(document)
}

/// The beginning of `text`, where it has more characters than the format takes.
fn shortened(text: &str) -> String {
    if text.chars().count() <= TEXT_MAX {
        return text.to_owned();
    }
    let kept: String = text.chars().take(TEXT_MAX - 1).collect();
    format!("{}…", kept.trim_end())
}

/// What the format calls the place where a repository is kept.
fn forge(url: &str) -> String {
    let host = url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
    match host.as_str() {
        "" => "other".to_owned(),
        "github.com" | "gitlab.com" => host.trim_end_matches(".com").to_owned(),
        _ => host,
    }
}

/// How the server can be had, in the terms of the format.
#[derive(Default)]
struct Ways {
    packages: Vec<Value>,
    remotes: Vec<Value>,
}

/// The ways that an operator has not taken out, each once.
fn ways(told: &ServiceSpec, made_up: &BTreeSet<&str>) -> Ways {
    let mut ways = Ways::default();
    let in_use = |state| matches!(state, AdminState::Enabled | AdminState::Draining | AdminState::Maintenance);
    for instance in told.instances.iter().filter(|instance| in_use(instance.admin_state)) {
        let (list, way) = match &instance.endpoint {
            Endpoint::Stdio(stdio) => (&mut ways.packages, package(&told.env, stdio, made_up)),
            Endpoint::Http(http) => (&mut ways.remotes, remote("streamable-http", http, made_up)),
            Endpoint::Sse(http) => (&mut ways.remotes, remote("sse", http, made_up)),
            _ => continue,
        };
        if let Some(way) = way.filter(|way| !list.contains(way)) {
            list.push(way);
        }
    }
    ways
}

fn remote(form: &str, http: &HttpEndpoint, made_up: &BTreeSet<&str>) -> Option<Value> {
    let Template { text, variables } = template(http.url.expose(), made_up);
    // An address that is a secret as a whole cannot be told.
    let address = text.starts_with("http://") || text.starts_with("https://");
    if !address || text.contains(char::is_whitespace) {
        return None;
    }
    let mut remote = json!({ "type": form, "url": text });
    if !variables.is_empty() {
        remote["variables"] = variables.into();
    }
    if !http.headers.is_empty() {
        let own = |name: &str, variable: &str| made_up.contains(variable) && !name.is_empty();
        remote["headers"] = inputs(&http.headers, made_up, &own);
    }
    Some(remote)
}

/// Environment variables or headers as what the user is asked for. `asks_itself`
/// says whether a reference to a variable says no more than the name of its input.
pub(super) fn inputs(
    values: &SensitiveMap,
    made_up: &BTreeSet<&str>,
    asks_itself: &dyn Fn(&str, &str) -> bool,
) -> Value {
    let one = |(name, value): (&String, &Sensitive)| match pieces(value.expose()).as_slice() {
        [Piece::Variable { name: variable, default: None }] if asks_itself(name, variable) => {
            json!({ "name": name, "isRequired": true, "isSecret": true })
        }
        _ => {
            let Template { text, variables } = template(value.expose(), made_up);
            let mut input = json!({ "name": name, "value": text });
            if !variables.is_empty() {
                input["variables"] = variables.into();
            }
            input
        }
    };
    values.iter().map(one).collect()
}

/// A text in which names in braces stand for what the user is asked for.
pub(super) struct Template {
    pub(super) text: String,
    pub(super) variables: Map<String, Value>,
}

/// `text` with its references in the form of the format. Those that were made up
/// for a secret, and those whose name says so, are marked as secrets.
pub(super) fn template(text: &str, made_up: &BTreeSet<&str>) -> Template {
    let mut template = Template { text: String::new(), variables: Map::new() };
    for piece in pieces(text) {
        match piece {
            Piece::Text(text) => template.text.push_str(text),
            Piece::Variable { name, default } => {
                template.text.push_str(&format!("{{{name}}}"));
                let mut variable = match default {
                    Some(default) => json!({ "default": default }),
                    None => json!({ "isRequired": true }),
                };
                if made_up.contains(name) || sounds_secret(name) {
                    variable["isSecret"] = true.into();
                }
                template.variables.insert(name.to_owned(), variable);
            }
        }
    }
    template
}

fn sounds_secret(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    ["TOKEN", "KEY", "SECRET", "PASSWORD", "CREDENTIAL", "AUTH"].iter().any(|word| name.contains(word))
}

/// The fields of `told` that a reader of `document` would not get.
fn beyond(told: &ServiceSpec, document: &Value) -> Map<String, Value> {
    let (has, wanted) = (read_back(document), record(told));
    let gone = has.keys().filter(|key| !wanted.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let other = wanted.iter().filter(|(key, value)| has.get(*key) != Some(value));
    other.map(|(key, value)| (key.clone(), value.clone())).chain(gone).collect()
}

/// The record that a reader makes of `document`; without `instances` if it does
/// not say how to reach the server.
fn read_back(document: &Value) -> Map<String, Value> {
    let read = |document| import_listed(document).services.pop();
    if let Some(spec) = read(document.clone()) {
        return record(&spec);
    }
    let mut without_ways = document.clone();
    without_ways["_meta"] = json!({ PUBLISHER_PROVIDED: { EXTENSION: { "instances": [] } } });
    let mut rest = read(without_ways).as_ref().map(record).unwrap_or_default();
    rest.shift_remove("instances");
    rest
}

/// A record in clear, without the identities of its instances.
fn record(spec: &ServiceSpec) -> Map<String, Value> {
    let Value::Object(mut record) = spec.exposed() else { return Map::new() };
    for instance in record.get_mut("instances").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(instance) = instance.as_object_mut() {
            instance.shift_remove("id");
        }
    }
    record
}
