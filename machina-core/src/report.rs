//! What a reader of a service gets: the declaration, and what is observed, as
//! plain data. The same in REST, MCP, Python and Node.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::health::{Health, HealthState, Reason, Status};
use crate::model::{InstanceId, Revision, ServiceId, ServiceName, Tool};
use crate::view::{InstanceView, ServiceView};

/// A service as a reader sees it. Secrets are masked.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ServiceReport {
    /// Its identity.
    pub id: ServiceId,
    /// The declaration, field by field, with `enabled` and with the health and
    /// the protocol version of each instance.
    #[serde(flatten)]
    pub declared: serde_json::Map<String, Value>,
    /// The batch that last changed it.
    pub revision: Revision,
    /// When it was registered.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Who last changed it.
    pub updated_by: String,
    /// Its status, in one word.
    pub status: Status,
    /// Its health: that of its best instance.
    pub health: HealthReport,
    /// How many tools it offers.
    pub tool_count: usize,
}

/// The health of a service or an instance as a reader sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HealthReport {
    /// The state.
    pub state: HealthState,
    /// Why.
    pub reason: Reason,
    /// Since when.
    pub since: Timestamp,
    /// When it was last checked.
    pub last_check: Option<Timestamp>,
    /// How long the last successful probe took, in milliseconds.
    pub response_time_ms: Option<f64>,
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// Whether it goes down and comes back again and again, so that it takes more
    /// to be healthy and longer to get its full share of the calls.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flapping: bool,
    /// The share of time it was up, in percent, since this process first knew.
    pub uptime_percentage: Option<f64>,
    /// When it was last heard of, if it registered itself; absent for those that
    /// have no lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_heartbeat: Option<Timestamp>,
    /// When its lease runs out, or ran out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease_expires_at: Option<Timestamp>,
}

/// The health of a service with that of each instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ServiceHealth {
    /// The service.
    pub service: ServiceName,
    /// Its status, in one word.
    pub status: Status,
    /// Why the operator took it out of use, where that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_reason: Option<String>,
    /// Its health: that of its best instance.
    pub health: HealthReport,
    /// Each instance.
    pub instances: Vec<InstanceHealth>,
    /// Tools that its instances publish and that are not offered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub withheld_tools: Vec<WithheldTool>,
}

/// A tool that an instance publishes and that is not offered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WithheldTool {
    /// The instance.
    pub instance: InstanceId,
    /// The name it claims, where it has one.
    pub name: Option<String>,
    /// The hash of the definition, where that is valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hash: Option<String>,
    /// Why it is not offered.
    pub reason: String,
}

/// The health of one instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct InstanceHealth {
    /// The instance.
    pub id: InstanceId,
    /// Where it runs.
    pub location: String,
    /// Its status, in one word.
    pub status: Status,
    /// Why the operator took it out of use, where that was said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub admin_reason: Option<String>,
    /// Its health.
    pub health: HealthReport,
    /// The revision of MCP it speaks, where that is known.
    pub protocol_version: Option<String>,
    /// The process, for an instance that is one and is running.
    pub process_id: Option<u32>,
    /// What its process wrote to stderr of late, or before it failed.
    #[serde(skip_serializing_if = "String::is_empty", default)]
    pub stderr_tail: String,
}

/// A tool as a reader sees it: its definition, word for word, and the service
/// that offers it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ToolReport {
    /// The service that offers it.
    pub service: ServiceName,
    /// The hash of the definition.
    pub hash: String,
    /// How well it fits what was searched for; absent in lists.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub score: Option<f32>,
    /// Characters in the name, title or description that a reader does not see, or
    /// takes for others: something may be hidden there from people, or from models.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub suspicious: Vec<String>,
    /// The definition as the server sent it: `name`, `description`, `inputSchema`, …
    #[serde(flatten)]
    pub definition: serde_json::Map<String, Value>,
}

/// The registry in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Overview {
    /// The revision of the view that was counted.
    pub revision: Revision,
    /// How many services there are.
    pub services: usize,
    /// How many of them have each status; every status is there.
    pub statuses: BTreeMap<String, usize>,
    /// How many instances they have.
    pub instances: usize,
    /// How many tools they offer.
    pub tools: usize,
    /// How many journal entries were dropped because the store was too slow.
    pub dropped_journal_entries: u64,
    /// Whether so many instances fail at once that the fault is taken to be
    /// Machina's own: soft failures then take none of them down.
    #[serde(default)]
    pub self_preservation: bool,
}

impl Overview {
    /// The worst status of the services that are in use: unhealthy before unknown
    /// before degraded. Healthy where there are none.
    #[must_use]
    pub fn worst(&self) -> Status {
        let there = |status: &Status| self.statuses.get(status.as_str()).is_some_and(|count| *count > 0);
        let worst = [Status::Unhealthy, Status::Unknown, Status::Degraded].into_iter().find(there);
        worst.unwrap_or(Status::Healthy)
    }

    pub(crate) fn of<'a>(revision: Revision, views: impl Iterator<Item = &'a Arc<ServiceView>>) -> Self {
        let statuses = Status::ALL.iter().map(|status| (status.as_str().to_owned(), 0)).collect();
        let (services, instances, tools) = (0, 0, 0);
        let (dropped_journal_entries, self_preservation) = (0, false);
        let mut overview =
            Self { revision, services, statuses, instances, tools, dropped_journal_entries, self_preservation };
        for view in views {
            overview.services += 1;
            overview.instances += view.instances().len();
            overview.tools += view.tools().len();
            *overview.statuses.entry(view.status().as_str().to_owned()).or_default() += 1;
        }
        overview
    }
}

impl ToolReport {
    pub(crate) fn of(service: &ServiceName, tool: &Tool, score: Option<f32>) -> Self {
        let definition = match tool.definition() {
            Value::Object(definition) => definition,
            _ => serde_json::Map::new(),
        };
        let (service, hash, suspicious) = (service.clone(), tool.hash().to_owned(), tool.suspicious().to_vec());
        Self { service, hash, score, suspicious, definition }
    }
}

impl HealthReport {
    fn of(seen: &InstanceView) -> Self {
        let latest = seen.cell.health();
        let lease = seen.cell.lease();
        Self {
            uptime_percentage: seen.cell.uptime_percentage(),
            last_heartbeat: lease.and_then(|lease| lease.last_heartbeat()),
            lease_expires_at: lease.map(|lease| lease.expires_at()),
            ..Self::plain(&latest)
        }
    }

    fn plain(health: &Health) -> Self {
        Self {
            state: health.state,
            reason: health.reason.clone(),
            since: health.since,
            last_check: health.last_check,
            response_time_ms: health.response_time_ms,
            consecutive_failures: health.consecutive_failures,
            flapping: health.flapping,
            uptime_percentage: None,
            last_heartbeat: None,
            lease_expires_at: None,
        }
    }

    /// The health of the best instance; unknown where there is none.
    fn of_service(view: &ServiceView) -> Self {
        let best = view.instances().map(|(_, seen)| seen).min_by_key(|seen| seen.health.state.severity());
        best.map_or_else(|| Self::plain(&Health::unknown(view.service().created_at)), Self::of)
    }
}

impl From<&ServiceView> for ServiceReport {
    fn from(view: &ServiceView) -> Self {
        let service = view.service();
        let spec = &service.spec;
        let mut declared = match serde_json::to_value(spec) {
            Ok(Value::Object(declared)) => declared,
            _ => serde_json::Map::new(),
        };
        declared.insert("enabled".to_owned(), spec.admin_state.admits_calls().into());
        let instances = declared.get_mut("instances").and_then(Value::as_array_mut).into_iter().flatten();
        for (instance, (_, seen)) in instances.zip(view.instances()) {
            if let Some(instance) = instance.as_object_mut() {
                let health = serde_json::to_value(HealthReport::of(seen)).unwrap_or_default();
                instance.insert("health".to_owned(), health);
                if let Some(definitions) = &seen.definitions {
                    instance.insert("protocol_version".to_owned(), definitions.protocol_version.clone().into());
                }
            }
        }
        Self {
            id: service.id,
            declared,
            revision: service.revision,
            created_at: service.created_at,
            updated_at: service.updated_at,
            updated_by: service.updated_by.clone(),
            status: view.status(),
            health: HealthReport::of_service(view),
            tool_count: view.tools().len(),
        }
    }
}

impl ServiceReport {
    /// The name of the service.
    #[must_use]
    pub fn name(&self) -> &str {
        self.declared.get("name").and_then(Value::as_str).unwrap_or_default()
    }
}

fn withheld(view: &ServiceView) -> Vec<WithheldTool> {
    let quarantined = view.quarantined_tools().iter().map(|quarantined| WithheldTool {
        instance: quarantined.instance,
        name: Some(quarantined.tool.name().to_string()),
        hash: Some(quarantined.tool.hash().to_owned()),
        reason: match &quarantined.pinned {
            Some(pinned) => format!("quarantined: it is another tool than the operator pinned ({pinned})"),
            None => "quarantined: the operator has not pinned it".to_owned(),
        },
    });
    let rejected = view.instances().flat_map(|(instance, seen)| {
        let rejected = seen.definitions.iter().flat_map(|definitions| &definitions.rejected);
        rejected.map(|tool| WithheldTool {
            instance: instance.id,
            name: tool.name.clone(),
            hash: None,
            reason: tool.reason.clone(),
        })
    });
    quarantined.chain(rejected).collect()
}

impl From<&ServiceView> for ServiceHealth {
    fn from(view: &ServiceView) -> Self {
        let instances = view.instances().map(|(instance, seen)| InstanceHealth {
            id: instance.id,
            location: instance.endpoint.location(),
            status: seen.status,
            admin_reason: instance.admin_reason.clone(),
            health: HealthReport::of(seen),
            protocol_version: seen.definitions.as_ref().map(|d| d.protocol_version.clone()),
            process_id: None,
            stderr_tail: String::new(),
        });
        Self {
            service: view.service().name().clone(),
            status: view.status(),
            admin_reason: view.service().spec.admin_reason.clone(),
            health: HealthReport::of_service(view),
            instances: instances.collect(),
            withheld_tools: withheld(view),
        }
    }
}
