//! The configuration: defaults, then a file, then `MACHINA_SECTION__KEY`
//! variables, then flags; each later one wins.
//!
//! The layering is our own, some eighty lines in [`layers`], because the two
//! crates for it each lack what this needs: a report of *every* wrong key at
//! once, each with its line or its variable, before any of them takes effect.

mod file;
mod keys;
mod layers;
mod schema;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use machina_core::{
    AccessConfig, AlertChannel, AlertsConfig, Builtin, CommandTemplate, Config, EgressConfig, Error, GroupSpec,
    HealthConfig, JournalConfig, LimitsConfig, Problem, ReplicasConfig, Result, RoutingConfig, ServiceSpec,
    SessionsConfig,
};
use machina_http::{ServerConfig, check_bind};
use machina_mcp::client::{ClientConfig, HttpConfig, StdioConfig};
use machina_mcp::registry::RegistryConfig;
use machina_mcp::server::HttpServerConfig;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::paths::{self, Variables};
use layers::{Layers, Source};

pub(crate) use schema::schema;

/// Everything that can be set, as one tree. Its default is the first layer.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Settings {
    pub(crate) server: ServerSettings,
    pub(crate) mcp: HttpServerConfig,
    pub(crate) registry: RegistryConfig,
    pub(crate) store: StoreSettings,
    /// Files of MCP servers that are declared at every start.
    pub(crate) import: Vec<PathBuf>,
    pub(crate) health: HealthConfig,
    pub(crate) routing: RoutingConfig,
    pub(crate) sessions: SessionsConfig,
    pub(crate) journal: JournalConfig,
    pub(crate) limits: LimitsConfig,
    pub(crate) access: AccessConfig,
    pub(crate) egress: EgressConfig,
    pub(crate) replicas: ReplicasConfig,
    pub(crate) alerts: AlertsConfig,
    pub(crate) stdio: StdioConfig,
    pub(crate) http: HttpConfig,
    /// Services that come with Machina and are served.
    pub(crate) builtin: Vec<Builtin>,
    /// Services that are declared at every start.
    #[serde(deserialize_with = "services")]
    pub(crate) services: Vec<ServiceSpec>,
    /// Groups that are declared at every start.
    #[serde(deserialize_with = "groups")]
    pub(crate) groups: Vec<GroupSpec>,
}

/// The HTTP server: where it listens, and [`ServerConfig`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct ServerSettings {
    #[serde(deserialize_with = "address")]
    pub(crate) listen: SocketAddr,
    #[serde(flatten)]
    pub(crate) http: ServerConfig,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 8000)), http: ServerConfig::default() }
    }
}

/// Where services and history are kept.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct StoreSettings {
    pub(crate) url: Option<String>,
    pub(crate) redis: Option<String>,
}

/// Without whom either is opened as.
impl std::fmt::Debug for StoreSettings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let shown = |url: &Option<String>| url.as_deref().map(paths::shown_store);
        f.debug_struct("StoreSettings").field("url", &shown(&self.url)).field("redis", &shown(&self.redis)).finish()
    }
}

/// What the command line says about the configuration.
#[derive(Debug, Default)]
pub(crate) struct Flags<'a> {
    pub(crate) config: Option<&'a Path>,
    pub(crate) listen: Option<&'a str>,
    pub(crate) store: Option<&'a str>,
    pub(crate) redis: Option<&'a str>,
    pub(crate) mode: Option<&'a str>,
    pub(crate) import: &'a [PathBuf],
    pub(crate) builtin: &'a [String],
}

/// The configuration in effect, and where each value comes from.
#[derive(Debug)]
pub(crate) struct Effective {
    pub(crate) settings: Settings,
    layers: Layers,
}

impl Settings {
    /// The part of the core.
    pub(crate) fn core(&self) -> Config {
        Config {
            health: self.health.clone(),
            routing: self.routing.clone(),
            sessions: self.sessions.clone(),
            journal: self.journal.clone(),
            limits: self.limits.clone(),
            access: self.access.clone(),
            egress: self.egress.clone(),
            alerts: self.alerts.clone(),
            replicas: self.replicas.clone(),
        }
    }

    /// The part of the MCP endpoint, which is asked under the same names.
    pub(crate) fn mcp_server(&self) -> HttpServerConfig {
        let mut config = self.mcp.clone();
        config.allowed_hosts.extend(self.server.http.allowed_hosts.iter().cloned());
        config
    }

    /// What is wrong that the types alone do not say.
    fn problems(&self) -> Vec<Problem> {
        let listen = check_bind(self.server.listen).map_err(|error| Error::invalid_field("listen", error.message()));
        let store = self.store.url.as_deref().map_or(Ok(()), machina_http::assemble::check_store_address);
        let store = store.map_err(|error| match error.context().problems.first() {
            Some(problem) => Error::invalid_field("url", &*problem.detail),
            None => Error::invalid_field("url", error.message()),
        });
        let redis = self.store.redis.as_deref().map_or(Ok(()), machina_store::Redis::check_address);
        let parts = [
            ("server.", listen),
            ("server.", self.server.http.validate()),
            ("mcp.", self.mcp.validate()),
            ("registry.", self.registry.validate()),
            ("store.", store),
            ("store.", redis),
            ("", self.core().validate()),
            ("", self.client().validate()),
        ];
        let problems = parts.into_iter().filter_map(|(section, checked)| Some((section, checked.err()?)));
        let prefixed = |section: &str, problem: &Problem| Problem {
            field: format!("{section}{}", problem.field),
            ..problem.clone()
        };
        problems
            .flat_map(|(section, error)| {
                error.context().problems.iter().map(|problem| prefixed(section, problem)).collect::<Vec<_>>()
            })
            .collect()
    }

    /// The part of the connectors.
    pub(crate) fn client(&self) -> ClientConfig {
        ClientConfig { stdio: self.stdio.clone(), http: self.http.clone() }
    }
}

/// Reads the configuration.
///
/// # Errors
/// [`Invalid`](machina_core::ErrorKind::Invalid) with every problem at once, each
/// with its place.
pub(crate) fn load(flags: &Flags<'_>, variables: &Variables) -> Result<Effective> {
    let mut layers = Layers::default();
    if let Some(path) = flags.config {
        file::read(path, &mut layers)?;
    }
    layers.environment(variables);
    if let Some(listen) = flags.listen {
        layers.set("server.listen", listen.into(), Source::Flag("--listen"));
    }
    if let Some(store) = flags.store {
        layers.set("store.url", store.into(), Source::Flag("--store"));
    }
    if let Some(redis) = flags.redis {
        layers.set("store.redis", redis.into(), Source::Flag("--redis"));
    }
    if let Some(mode) = flags.mode {
        layers.set("mcp.mode", mode.into(), Source::Flag("--mode"));
    }
    if !flags.import.is_empty() {
        let files = layers.value("import").as_array().cloned().unwrap_or_default().into_iter();
        let more = flags.import.iter().map(|path| Value::from(path.to_string_lossy()));
        layers.set("import", files.chain(more).collect(), Source::Flag("--import"));
    }
    if !flags.builtin.is_empty() {
        layers.set("builtin", flags.builtin.into(), Source::Flag("--builtin"));
    }
    let mut problems = layers.take_wrong();
    let mut settings: Settings =
        layers.settings().map_err(|error| Error::internal(format!("the checked settings cannot be read: {error}")))?;
    problems.extend(settings.problems().into_iter().map(|problem| layers.placed(problem)));
    if !problems.is_empty() {
        return Err(Error::invalid_fields(problems));
    }
    if settings.store.url.is_none() {
        settings.store.url = paths::default_store(variables).ok();
    }
    Ok(Effective { settings, layers })
}

impl Effective {
    /// Every key that is not part of a list, with its value and where that comes
    /// from. Secrets are masked.
    pub(crate) fn entries(&self) -> Vec<(String, Value, String)> {
        let tree = serde_json::to_value(&self.settings).unwrap_or_default();
        let entry = |key: &keys::Key| {
            let mut value = layers::at(&tree, key.path).cloned().unwrap_or_default();
            if let ("store.url" | "store.redis", Value::String(url)) = (key.path, &mut value) {
                *url = paths::shown_store(url);
            }
            (key.path.to_owned(), value, self.layers.source(key.path).to_string())
        };
        keys::KEYS.iter().map(entry).collect()
    }
}

/// Reads an address and port; the name `localhost` is an address of this machine.
fn address<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    let address = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    address.as_deref().unwrap_or(&text).parse().map_err(|_| {
        serde::de::Error::custom("must be ADDRESS:PORT, such as 127.0.0.1:8000, [::1]:8000 or localhost:8000")
    })
}

/// Reads each service as the API does, so that `enabled` and the like mean the same.
fn services<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<ServiceSpec>, D::Error> {
    records(deserializer, ServiceSpec::from_value)
}

/// Reads each group as the API does.
fn groups<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<GroupSpec>, D::Error> {
    records(deserializer, GroupSpec::from_value)
}

fn records<'de, D: serde::Deserializer<'de>, T>(
    deserializer: D,
    read: impl Fn(Value) -> Result<T>,
) -> Result<Vec<T>, D::Error> {
    let items = Vec::<Value>::deserialize(deserializer)?;
    let specs: Result<Vec<_>, _> = items.into_iter().map(read).collect();
    specs.map_err(|error| serde::de::Error::custom(error.message()))
}

/// What is wrong with the records of a configuration, each with its place; none
/// for a `list` that is no list of records.
fn problems_of_records(list: &str, value: &Value) -> Option<Vec<Problem>> {
    match list {
        "services" => Some(problems_of(list, value, &|item| ServiceSpec::from_value(item).map(drop))),
        "groups" => Some(problems_of(list, value, &|item| GroupSpec::from_value(item).map(drop))),
        "access.command_templates" => {
            Some(problems_of(list, value, &|item| CommandTemplate::from_value(item).map(drop)))
        }
        "alerts.channels" => Some(problems_of(list, value, &|item| AlertChannel::from_value(item).map(drop))),
        _ => None,
    }
}

fn problems_of(list: &str, value: &Value, check: &dyn Fn(Value) -> Result<()>) -> Vec<Problem> {
    let Some(items) = value.as_array() else {
        return vec![Problem { field: list.to_owned(), detail: format!("must be a list of {list}") }];
    };
    let mut problems = Vec::new();
    for (index, item) in items.iter().enumerate() {
        if let Err(error) = check(item.clone()) {
            let place = |field: &str| match field {
                "body" => format!("{list}[{index}]"),
                field => format!("{list}[{index}].{field}"),
            };
            let found = error.context().problems.iter();
            problems.extend(found.map(|p| Problem { field: place(&p.field), detail: without_value(&p.detail) }));
        }
    }
    problems
}

/// A type error of serde quotes the text that it met, which may be a secret.
fn without_value(detail: &str) -> String {
    match (detail.find("string \""), detail.rfind('"')) {
        (Some(start), Some(end)) if start + 8 <= end => format!("{}text{}", &detail[..start], &detail[end + 1..]),
        _ => detail.to_owned(),
    }
}

#[cfg(test)]
mod tests;
