//! One place where a service runs.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};

use super::endpoint::{Endpoint, HttpEndpoint, OpenApiEndpoint, StdioEndpoint, UrlEndpoint};
use super::name::InstanceId;
use super::policy::length;
use crate::error::Problem;
use crate::parameters::between;

/// How many characters the reason for an admin state may have.
pub(super) const REASON_MAX: usize = 500;

/// What the operator said about a service or an instance. Always wins over health.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum AdminState {
    /// In use.
    #[default]
    Enabled,
    /// Finishes what it has, gets nothing new.
    Draining,
    /// Not used and not probed.
    Disabled,
    /// Not used, probed, and no one is alarmed.
    Maintenance,
    /// Not used because something about it is not trusted.
    Quarantined,
}

impl AdminState {
    /// Whether new calls may go there.
    #[must_use]
    pub const fn admits_calls(self) -> bool {
        matches!(self, Self::Enabled)
    }

    /// Whether it is to be probed.
    #[must_use]
    pub const fn is_probed(self) -> bool {
        !matches!(self, Self::Disabled)
    }

    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Draining => "draining",
            Self::Disabled => "disabled",
            Self::Maintenance => "maintenance",
            Self::Quarantined => "quarantined",
        }
    }
}

/// One place where a service runs: how to reach it, and how to use it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Wire", into = "Wire")]
pub struct Instance {
    /// Its identity. A declared instance without one gets a new one, or keeps
    /// that of the instance with the same endpoint that it replaces.
    pub id: InstanceId,
    /// How to reach it.
    pub endpoint: Endpoint,
    /// Its share of the calls relative to its siblings, 1 to 1000; 1 by default.
    pub weight: u32,
    /// Where it runs, coarsely.
    pub region: Option<String>,
    /// Where it runs, within the region.
    pub zone: Option<String>,
    /// Free labels.
    pub labels: BTreeMap<String, String>,
    /// What the operator said about it.
    pub admin_state: AdminState,
    /// Why, in at most 500 characters; none while it is enabled.
    pub admin_reason: Option<String>,
    /// How long it stays without a heartbeat, 5 s to 1 h, if it registered itself;
    /// a declared instance has none and never expires.
    pub lease_ttl: Option<Duration>,
    /// Whether it was registered, or given another address, from outside the
    /// process: it is then reached only where [`Reach::outside`](crate::Reach::outside)
    /// says. What a caller from outside says about it is passed over.
    pub from_outside: bool,
    declared_id: bool,
}

impl Instance {
    /// An enabled instance of weight 1 with a new identity.
    pub fn new(endpoint: impl Into<Endpoint>) -> Self {
        Self {
            id: InstanceId::generate(),
            endpoint: endpoint.into(),
            weight: 1,
            region: None,
            zone: None,
            labels: BTreeMap::new(),
            admin_state: AdminState::Enabled,
            admin_reason: None,
            lease_ttl: None,
            from_outside: false,
            declared_id: false,
        }
    }

    /// Takes over the identity of an instance that this one replaces.
    pub(crate) fn adopt(&mut self, id: InstanceId) {
        self.id = id;
        self.declared_id = true;
    }

    /// Whether the identity was declared or adopted, not made up on reading.
    pub(crate) fn has_declared_id(&self) -> bool {
        self.declared_id
    }

    pub(crate) fn check(&self, path: &str, problems: &mut Vec<Problem>) {
        if !(1..=1000).contains(&self.weight) {
            let detail = format!("must be 1 to 1000, is {}", self.weight);
            problems.push(Problem { field: format!("{path}.weight"), detail });
        }
        let second = Duration::from_secs(1);
        between(&format!("{path}.lease_ttl"), self.lease_ttl, 5 * second, 3600 * second, problems);
        length(&format!("{path}.admin_reason"), self.admin_reason.as_deref(), REASON_MAX, problems);
        self.endpoint.check(path, problems);
    }
}

/// The JSON form, in which the endpoint is one of six optional fields.
#[derive(Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
struct Wire {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<InstanceId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdio: Option<StdioEndpoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    http: Option<HttpEndpoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sse: Option<HttpEndpoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    websocket: Option<UrlEndpoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    openapi: Option<OpenApiEndpoint>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<Object>))]
    in_process: Option<BTreeMap<String, IgnoredField>>,
    #[serde(default = "default_weight")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 1000))]
    weight: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    zone: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(default)]
    admin_state: AdminState,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(max_length = 500))]
    admin_reason: Option<String>,
    #[serde(default, with = "crate::parameters::optional", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, examples("30s")))]
    lease_ttl: Option<Duration>,
    /// Whether it was registered from outside the process. Only those inside say so.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    #[cfg_attr(feature = "openapi", schema(read_only))]
    from_outside: bool,
    /// A reader gets these two; sent back, they are passed over.
    #[serde(default, skip_serializing, rename = "health")]
    #[cfg_attr(feature = "openapi", schema(ignore))]
    _health: Option<IgnoredAny>,
    #[serde(default, skip_serializing, rename = "protocol_version")]
    #[cfg_attr(feature = "openapi", schema(ignore))]
    _protocol_version: Option<IgnoredAny>,
}

/// `in_process` takes no fields: this type cannot be made.
#[derive(Serialize, Deserialize)]
enum IgnoredField {}

fn default_weight() -> u32 {
    1
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for Instance {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        Wire::schema()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for Instance {
    fn schemas(schemas: &mut Vec<(String, utoipa::openapi::RefOr<utoipa::openapi::Schema>)>) {
        Wire::schemas(schemas);
    }
}

impl TryFrom<Wire> for Instance {
    type Error = String;

    fn try_from(wire: Wire) -> Result<Self, String> {
        let given: Vec<Endpoint> = [
            wire.stdio.map(Endpoint::Stdio),
            wire.http.map(Endpoint::Http),
            wire.sse.map(Endpoint::Sse),
            wire.websocket.map(Endpoint::WebSocket),
            wire.openapi.map(Endpoint::OpenApi),
            wire.in_process.map(|_| Endpoint::InProcess),
        ]
        .into_iter()
        .flatten()
        .collect();
        let names = "`stdio`, `http`, `sse`, `websocket`, `openapi`, `in_process`";
        let Ok([endpoint]) = <[Endpoint; 1]>::try_from(given) else {
            return Err(format!("an instance needs exactly one endpoint out of {names}"));
        };
        Ok(Self {
            declared_id: wire.id.is_some(),
            id: wire.id.unwrap_or_else(InstanceId::generate),
            endpoint,
            weight: wire.weight,
            region: wire.region,
            zone: wire.zone,
            labels: wire.labels,
            admin_state: wire.admin_state,
            admin_reason: wire.admin_reason,
            lease_ttl: wire.lease_ttl,
            from_outside: wire.from_outside,
        })
    }
}

impl From<Instance> for Wire {
    fn from(instance: Instance) -> Self {
        let mut wire = Self {
            id: Some(instance.id),
            stdio: None,
            http: None,
            sse: None,
            websocket: None,
            openapi: None,
            in_process: None,
            weight: instance.weight,
            region: instance.region,
            zone: instance.zone,
            labels: instance.labels,
            admin_state: instance.admin_state,
            admin_reason: instance.admin_reason,
            lease_ttl: instance.lease_ttl,
            from_outside: instance.from_outside,
            _health: None,
            _protocol_version: None,
        };
        match instance.endpoint {
            Endpoint::Stdio(endpoint) => wire.stdio = Some(endpoint),
            Endpoint::Http(endpoint) => wire.http = Some(endpoint),
            Endpoint::Sse(endpoint) => wire.sse = Some(endpoint),
            Endpoint::WebSocket(endpoint) => wire.websocket = Some(endpoint),
            Endpoint::OpenApi(endpoint) => wire.openapi = Some(endpoint),
            Endpoint::InProcess => wire.in_process = Some(BTreeMap::new()),
        }
        wire
    }
}
