//! What the engine is told: how a service stands now, or what happened to it.
//! The one place that knows events and views; a new kind of event is a line here.

use std::sync::Arc;
use std::time::Duration;

use super::config::AlertsConfig;
use crate::event::{Event, EventKind};
use crate::health::{HealthState, Status};
use crate::model::{AdminState, AlertLevel, Instance, InstanceId, ServiceName};
use crate::view::{InstanceView, ServiceView, View};

/// One thing that the engine takes into account.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Signal {
    /// How a service stands now.
    Service { name: ServiceName, seen: Seen },
    /// There is no such service any more.
    Gone(ServiceName),
    /// An instance of the service publishes something else than before.
    Definitions { name: ServiceName, what: String, seen: Seen },
    /// Machina takes what it sees to be its own fault, or no longer.
    SelfPreservation { holds: bool, message: String },
}

/// What the engine looks at of a service.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Seen {
    /// Why nobody is told how it is, if nobody is.
    pub(super) exempt: Option<&'static str>,
    /// Nobody is told what happens to it either.
    pub(super) silent: bool,
    pub(super) standing: Standing,
    pub(super) instances: Vec<SeenInstance>,
    pub(super) terms: Terms,
}

/// Whether calls of a service find an instance that answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Standing {
    Up,
    Down(String),
    /// Not known: what was known counts on.
    Undecided,
}

/// What the engine looks at of an instance in use.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct SeenInstance {
    pub(super) id: InstanceId,
    /// It answers.
    pub(super) up: bool,
    /// Nothing is known of it yet.
    pub(super) undecided: bool,
    /// Why its process ends again and again, if it does.
    pub(super) crash_loop: Option<String>,
    pub(super) flapping: bool,
}

/// What holds for the alerts of one service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Terms {
    pub(super) down_after: Duration,
    /// The levels there are; none means all.
    pub(super) levels: Vec<AlertLevel>,
    pub(super) channels: Arc<[String]>,
}

impl Terms {
    /// What holds where nobody says otherwise.
    pub(super) fn general(config: &AlertsConfig) -> Self {
        Self { down_after: config.down_after, levels: Vec::new(), channels: Arc::default() }
    }
}

/// What an event means; `view` is the registry now.
pub(super) fn signals(event: &Event, view: &View, config: &AlertsConfig) -> Vec<Signal> {
    let look = |name: &ServiceName| look(name, view, config);
    match (&event.kind, &event.service) {
        (EventKind::DefinitionsChanged { instance, added, removed, changed, prompts, resources }, Some(name)) => {
            let Some(service) = view.get(name.as_str()) else { return vec![Signal::Gone(name.clone())] };
            let first = removed.is_empty() && changed.is_empty() && publishes_only(service, *instance, added.len());
            let what = (!first).then(|| difference(added, removed, changed, *prompts, *resources));
            let definitions = |what| Signal::Definitions { name: name.clone(), what, seen: seen(service, config) };
            what.map(definitions).into_iter().collect()
        }
        (EventKind::SelfPreservation { active, message, .. }, _) => {
            vec![Signal::SelfPreservation { holds: *active, message: message.clone() }]
        }
        (_, Some(name)) => vec![look(name)],
        (_, None) => Vec::new(),
    }
}

/// How the service of this name stands.
pub(super) fn look(name: &ServiceName, view: &View, config: &AlertsConfig) -> Signal {
    match view.get(name.as_str()) {
        Some(service) => Signal::Service { name: name.clone(), seen: seen(service, config) },
        None => Signal::Gone(name.clone()),
    }
}

/// What the engine looks at of a service.
pub(super) fn seen(service: &ServiceView, config: &AlertsConfig) -> Seen {
    let spec = &service.service().spec;
    let policy = spec.health_policy.alerting.clone().unwrap_or_default();
    let instances: Vec<_> = in_use(service).map(|(declared, seen)| instance(declared.id, seen)).collect();
    let (exempt, silent) = match spec.admin_state {
        AdminState::Maintenance => (Some("the operator works on it"), true),
        AdminState::Disabled | AdminState::Draining => (Some("the operator took it out of use"), true),
        _ if !policy.enabled.unwrap_or(config.enabled) => (Some("alerts of it are switched off"), true),
        AdminState::Quarantined => (Some("it is quarantined"), false),
        AdminState::Enabled if instances.is_empty() => (Some("it has no instance in use"), false),
        AdminState::Enabled => (None, false),
    };
    Seen {
        exempt,
        silent,
        standing: standing(service),
        instances,
        terms: Terms {
            down_after: policy.down_after.unwrap_or(config.down_after),
            levels: policy.escalation_levels,
            channels: policy.channels.into(),
        },
    }
}

fn in_use(service: &ServiceView) -> impl Iterator<Item = (&Instance, &InstanceView)> {
    service.instances().filter(|(declared, _)| declared.admin_state == AdminState::Enabled)
}

fn standing(service: &ServiceView) -> Standing {
    match service.status() {
        Status::Healthy | Status::Degraded => Standing::Up,
        Status::Unhealthy => {
            let reasons = in_use(service).map(|(_, seen)| seen.health.reason.message.as_str());
            let reason = reasons.filter(|reason| !reason.is_empty()).last().unwrap_or("no instance answers");
            Standing::Down(reason.to_owned())
        }
        _ => Standing::Undecided,
    }
}

fn instance(id: InstanceId, seen: &InstanceView) -> SeenInstance {
    let health = &seen.health;
    let crash_loop = (health.state == HealthState::CrashLoop).then(|| health.reason.message.clone());
    let (up, undecided) = (health.state.is_up(), health.state.is_undecided());
    SeenInstance { id, up, undecided, crash_loop, flapping: health.flapping }
}

/// Whether the instance offers just as many tools as are new: then it was not
/// known before what it offers.
fn publishes_only(service: &ServiceView, instance: InstanceId, added: usize) -> bool {
    let definitions = service.instance(instance).and_then(|(_, seen)| seen.definitions.as_ref());
    definitions.is_none_or(|definitions| definitions.tools.len() == added)
}

/// How many names of each kind a message lists.
const NAMES_MAX: usize = 5;

fn difference(added: &[String], removed: &[String], changed: &[String], prompts: bool, resources: bool) -> String {
    let named = |word: &str, names: &[String]| {
        let listed = names.iter().take(NAMES_MAX).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let more = names.len().saturating_sub(NAMES_MAX);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        (!names.is_empty()).then(|| format!("{word} {listed}{more}"))
    };
    let lists = [named("changed", changed), named("removed", removed), named("new", added)];
    let kinds = [prompts.then(|| "other prompts".to_owned()), resources.then(|| "other resources".to_owned())];
    lists.into_iter().chain(kinds).flatten().collect::<Vec<_>>().join("; ")
}
