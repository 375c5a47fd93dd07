//! One entry of the registry: the server as anyone may install it, and what this
//! registry says about it, with evidence of whether it lives.

use std::collections::HashSet;
use std::sync::Arc;

use machina_core::{AdminState, Departed, Scoped, ServiceHealth, ServiceView};
use serde_json::{Value, json};

use super::cursor::Position;
use super::names::Names;
use super::parameters::Filter;
use crate::formats::{server_json, version_of};

/// Where the specification has what a registry says of its entries.
const OFFICIAL: &str = "io.modelcontextprotocol.registry/official";
/// Where we say what was seen of a server.
const HEALTH: &str = "dev.machina/health";

/// An entry: a service, or what is remembered of one.
#[derive(Debug)]
pub(super) struct Listed {
    pub(super) position: Position,
    what: What,
}

#[derive(Debug)]
enum What {
    Service(Arc<ServiceView>),
    Gone,
}

/// How an entry stands, in the words of the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Status {
    Active,
    Deprecated,
    Deleted,
}

impl Status {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Deprecated => "deprecated",
            Self::Deleted => "deleted",
        }
    }

    /// The status of a service of which its operator said this, and why.
    const fn of(state: AdminState) -> (Self, Option<&'static str>) {
        match state {
            AdminState::Enabled => (Self::Active, None),
            AdminState::Maintenance => (Self::Active, Some("in maintenance at present")),
            AdminState::Draining => (Self::Deprecated, Some("is being taken out of use")),
            AdminState::Disabled => (Self::Deprecated, Some("was disabled by its operator")),
            AdminState::Quarantined => (Self::Deleted, Some("is not trusted by its operator")),
        }
    }
}

impl Listed {
    pub(super) fn service(view: Arc<ServiceView>, names: &Names<'_>) -> Self {
        let service = view.service();
        let position = Position {
            updated_at: service.updated_at,
            name: names.of(service.name()),
            version: version_of(&service.spec).to_owned(),
        };
        Self { position, what: What::Service(view) }
    }

    /// What is remembered of a service.
    pub(super) fn gone(departed: Departed, names: &Names<'_>) -> Self {
        let version = departed.version.unwrap_or_else(|| "0.0.0".to_owned());
        let position = Position { updated_at: departed.at, name: names.of(&departed.name), version };
        Self { position, what: What::Gone }
    }

    /// Whether the entry is one of those that `filter` asks for.
    pub(super) fn fits(&self, filter: &Filter) -> bool {
        let Position { updated_at, name, version } = &self.position;
        filter.search.as_ref().is_none_or(|part| name.to_lowercase().contains(part.as_str()))
            && filter.updated_since.is_none_or(|since| *updated_at >= since)
            && filter.version.as_ref().is_none_or(|wanted| wanted == version)
            && (filter.include_deleted || !self.is_deleted())
    }

    pub(super) fn is_deleted(&self) -> bool {
        match &self.what {
            What::Service(view) => Status::of(view.service().spec.admin_state).0 == Status::Deleted,
            What::Gone => true,
        }
    }

    /// The entry as it is answered. A page of another site is told what the
    /// format itself says, and not how this machine starts its programs.
    pub(super) fn document(&self, for_foreign_page: bool) -> Value {
        let Position { updated_at, name, version } = &self.position;
        match &self.what {
            What::Service(view) => {
                let service = view.service();
                let (status, message) = Status::of(service.spec.admin_state);
                let mut official = json!({
                    "status": status.as_str(),
                    "publishedAt": service.created_at,
                    "updatedAt": updated_at,
                    "isLatest": true,
                });
                if let Some(message) = message {
                    official["statusMessage"] = message.into();
                }
                let mut server = server_json(&service.spec, name);
                if for_foreign_page && let Some(server) = server.as_object_mut() {
                    server.shift_remove("_meta");
                }
                json!({ "server": server, "_meta": { OFFICIAL: official, HEALTH: health(view) } })
            }
            What::Gone => json!({
                "server": { "name": name, "description": "Is no longer registered here.", "version": version },
                "_meta": { OFFICIAL: {
                    "status": Status::Deleted.as_str(),
                    "statusMessage": "was removed from this registry",
                    "statusChangedAt": updated_at,
                    "updatedAt": updated_at,
                    "isLatest": true,
                } },
            }),
        }
    }
}

/// What was seen of a service: no more than whether it answers, and since when.
fn health(view: &ServiceView) -> Value {
    let ServiceHealth { status, health, instances, .. } = ServiceHealth::from(view);
    let protocol_version = instances.iter().find_map(|instance| instance.protocol_version.as_ref());
    json!({
        "status": status,
        "state": health.state,
        "since": health.since,
        "last_check": health.last_check,
        "response_time_ms": health.response_time_ms,
        "uptime_percentage": health.uptime_percentage,
        "protocol_version": protocol_version,
        "tool_count": view.tools().len(),
    })
}

/// Every entry that `scoped` may see, with those of `departed` whose names are
/// not taken again.
pub(super) fn all(scoped: &Scoped, names: &Names<'_>, departed: Vec<Departed>) -> Vec<Listed> {
    let (_, services) = scoped.snapshot();
    let mut entries: Vec<_> = services.into_iter().map(|view| Listed::service(view, names)).collect();
    let taken: HashSet<String> = match departed.is_empty() {
        true => HashSet::new(),
        false => entries.iter().map(|entry| entry.position.name.clone()).collect(),
    };
    let gone = departed.into_iter().map(|departed| Listed::gone(departed, names));
    entries.extend(gone.filter(|entry| !taken.contains(&entry.position.name)));
    entries
}
