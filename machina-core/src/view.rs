//! The immutable snapshot that every read sees: what was declared, joined with
//! what is observed. [`View::next`] is the only place where one is made.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::catalog::Catalog;
use crate::cell::Cell;
use crate::config::Config;
pub(crate) use crate::delta::Delta;
use crate::egress::Reach;
use crate::error::Result;
use crate::health::{Health, HealthState, ReasonCode, Status};
use crate::model::{
    AdminState, Definitions, Endpoint, Group, GroupName, Instance, InstanceId, Revision, RoutingParameters, Service,
    ServiceId, SessionParameters, StartPolicy, Tool,
};
use crate::offered::{OfferedTool, OfferedTools, QuarantinedTool};
use crate::query::{Page, Query};
use crate::route::Traffic;
use crate::statistics::{CallOutcome, InstanceStatistics, ServiceCounters, ServiceStatistics};

/// A service with everything known about it.
#[derive(Debug, Clone)]
pub struct ServiceView {
    service: Arc<Service>,
    observed: Vec<InstanceView>,
    tools: Arc<OfferedTools>,
    status: Status,
    /// What holds for its calls.
    pub(crate) routing: RoutingParameters,
    /// What holds for its sessions.
    pub(crate) session: SessionParameters,
    /// Where those of its instances may be that were registered from outside.
    outside: Reach,
    /// Lower-case words that a text filter looks through.
    haystack: Arc<str>,
    /// How many calls were routed.
    calls: Arc<AtomicU64>,
    /// What its calls share.
    pub(crate) traffic: Arc<Traffic>,
    statistics: Arc<ServiceCounters>,
}

/// What is known about one instance.
#[derive(Debug, Clone)]
pub struct InstanceView {
    /// Its health.
    pub health: Arc<Health>,
    /// What it was last seen to publish.
    pub definitions: Option<Arc<Definitions>>,
    /// Its status, in one word.
    pub status: Status,
    pub(crate) cell: Arc<Cell>,
}

/// The whole registry at one moment. Cheap to keep, never changes.
#[derive(Debug, Clone, Default)]
pub struct View {
    revision: Revision,
    catalog: Catalog,
    groups: imbl::OrdMap<GroupName, Arc<Group>>,
}

impl View {
    /// The view after `changes`, standing at `revision`. Everything that did not
    /// change is shared with this one.
    pub(crate) fn next(&self, revision: Revision, changes: &[Delta], config: &Config) -> Self {
        let (mut catalog, mut groups) = (self.catalog.clone(), self.groups.clone());
        for change in changes {
            match change {
                Delta::Delete(id) => catalog.remove(*id),
                Delta::Put(service) => {
                    let before = catalog.by_id(service.id).cloned();
                    catalog.insert(Arc::new(ServiceView::declared(Arc::clone(service), before.as_deref(), config)));
                }
                Delta::Definitions { service, instance, definitions } => {
                    catalog.change(*service, |view| view.define(*instance, definitions));
                }
                Delta::Health { service, instance } => catalog.change(*service, |view| view.refresh(*instance)),
                Delta::PutGroup(group) => drop(groups.insert(group.name().clone(), Arc::clone(group))),
                Delta::DeleteGroup(name) => drop(groups.remove(name)),
                // The cells take these over; then the health changes.
                Delta::Reported { .. } | Delta::Seen(_) => {}
            }
        }
        Self { revision, catalog, groups }
    }

    /// The revision that the view stands at.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// The service of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<ServiceView>> {
        self.catalog.by_name(name)
    }

    /// The service with this identity.
    #[must_use]
    pub fn by_id(&self, id: ServiceId) -> Option<&Arc<ServiceView>> {
        self.catalog.by_id(id)
    }

    /// The service that an instance belongs to.
    #[must_use]
    pub fn owner(&self, instance: InstanceId) -> Option<&Arc<ServiceView>> {
        self.catalog.owner(instance)
    }

    /// How many services there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.catalog.len()
    }

    /// Whether there are no services.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.catalog.len() == 0
    }

    /// All services, by name.
    pub fn services(&self) -> impl Iterator<Item = &Arc<ServiceView>> {
        self.catalog.iter()
    }

    /// All groups, by name.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = &Arc<Group>> {
        self.groups.values()
    }

    /// The group of this name.
    #[must_use]
    pub fn group(&self, name: &str) -> Option<&Arc<Group>> {
        self.groups.get(name)
    }

    /// One page of the services that `query` asks for.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a limit out of range or a
    /// cursor of another query.
    pub fn find(&self, query: &Query) -> Result<Page<Arc<ServiceView>>> {
        let (items, next_cursor) = self.catalog.find(query)?;
        Ok(Page { items, next_cursor, revision: self.revision })
    }
}

impl ServiceView {
    fn declared(service: Arc<Service>, before: Option<&Self>, config: &Config) -> Self {
        let spec = &service.spec;
        let parameters = [false, true].map(|stdio| Arc::new(config.health.parameters(&spec.health_policy, stdio)));
        let in_use = before.is_some_and(|before| before.observed.iter().any(|seen| seen.health.state.is_up()));
        let observed = spec.instances.iter().map(|instance| {
            let stdio = matches!(instance.endpoint, Endpoint::Stdio(_));
            let parameters = Arc::clone(&parameters[usize::from(stdio)]);
            let known = before.and_then(|before| before.instance(instance.id));
            match known.filter(|(old, _)| old.endpoint == instance.endpoint) {
                Some((_, seen)) => {
                    seen.cell.set_parameters(parameters);
                    InstanceView::of(Arc::clone(&seen.cell), seen.definitions.clone())
                }
                None if in_use => InstanceView::of(Arc::new(Cell::joining(parameters)), None),
                None => InstanceView::of(Arc::new(Cell::new(parameters)), None),
            }
        });
        let haystack = haystack(&service).into();
        let calls = before.map(|before| Arc::clone(&before.calls)).unwrap_or_default();
        let traffic = before.map(|before| Arc::clone(&before.traffic)).unwrap_or_default();
        let statistics = before.map(|before| Arc::clone(&before.statistics)).unwrap_or_default();
        let mut view = Self {
            routing: config.routing.under(&spec.routing_policy),
            session: config.sessions.under(&spec.session_policy),
            outside: Reach::outside(&config.egress),
            observed: observed.collect(),
            service,
            tools: Arc::default(),
            status: Status::Unknown,
            haystack,
            calls,
            traffic,
            statistics,
        };
        view.collect_tools();
        view.judge();
        view
    }

    fn define(&mut self, instance: InstanceId, definitions: &Arc<Definitions>) {
        if let Some(index) = self.position(instance) {
            let known = |name: &str| self.tools.get(name).map(|offered| &offered.tool);
            self.observed[index].definitions = Some(definitions.sharing(known));
            self.collect_tools();
        }
    }

    fn refresh(&mut self, instance: InstanceId) {
        if let Some(index) = self.position(instance) {
            self.observed[index].health = self.observed[index].cell.health();
            self.judge();
        }
    }

    fn position(&self, id: InstanceId) -> Option<usize> {
        self.service.spec.instances.iter().position(|instance| instance.id == id)
    }

    fn collect_tools(&mut self) {
        let published = self.instances().map(|(instance, seen)| (instance.id, seen.definitions.as_deref()));
        self.tools =
            Arc::new(OfferedTools::of(published, &self.service.spec.routing_policy.pins, self.routing.pinning));
    }

    /// The hash of each tool that its instances publish, offered or not; where they
    /// differ, that of the first.
    pub(crate) fn published(&self) -> BTreeMap<String, String> {
        let mut published = BTreeMap::new();
        let tools = self.observed.iter().filter_map(|seen| seen.definitions.as_ref()).flat_map(|d| &d.tools);
        for tool in tools {
            published.entry(tool.name().to_string()).or_insert_with(|| tool.hash().to_owned());
        }
        published
    }

    fn judge(&mut self) {
        let service = &self.service;
        for (instance, seen) in service.spec.instances.iter().zip(&mut self.observed) {
            seen.status = status_of(instance.admin_state, &seen.health);
        }
        self.status = match service.spec.admin_state {
            AdminState::Enabled => together(self.observed.iter().map(|seen| seen.status)),
            AdminState::Maintenance => Status::Maintenance,
            AdminState::Draining | AdminState::Disabled | AdminState::Quarantined => Status::Disabled,
        };
    }

    /// Where one of its instances may be.
    pub(crate) fn reach(&self, instance: &Instance) -> Reach {
        if instance.from_outside { self.outside.clone() } else { Reach::inside() }
    }

    /// When its instances are started.
    #[must_use]
    pub fn start_policy(&self) -> StartPolicy {
        self.session.start
    }

    /// Whether the instance is one of the processes that are kept running though no
    /// one calls them: the first ones in use that do not end again and again.
    pub(crate) fn keeps_warm(&self, id: InstanceId) -> bool {
        if self.session.warm == 0 || !self.service.spec.admin_state.admits_calls() {
            return false;
        }
        let runs = |(instance, seen): &(&Instance, &InstanceView)| {
            let stdio = matches!(instance.endpoint, Endpoint::Stdio(_));
            stdio && instance.admin_state.admits_calls() && seen.health.state != HealthState::CrashLoop
        };
        self.instances().filter(runs).take(self.session.warm as usize).any(|(instance, _)| instance.id == id)
    }

    /// Whether every instance is decided, or nobody looks at it: the operator
    /// said so, it waits for its first call as `start` has it, or is elsewhere.
    #[must_use]
    pub fn is_settled(&self, start: StartPolicy) -> bool {
        let rests = |instance: &Instance, seen: &InstanceView| {
            let waits = start == StartPolicy::Lazy && matches!(instance.endpoint, Endpoint::Stdio(_));
            let waits = waits && !self.keeps_warm(instance.id);
            let elsewhere = seen.health.reason.code == ReasonCode::Elsewhere;
            elsewhere || !instance.admin_state.is_probed() || (waits && seen.definitions.is_some())
        };
        let settled =
            |(instance, seen): (&Instance, &InstanceView)| !seen.health.state.is_undecided() || rests(instance, seen);
        !self.service.spec.admin_state.is_probed() || self.instances().all(settled)
    }

    /// The service as it was declared.
    #[must_use]
    pub fn service(&self) -> &Arc<Service> {
        &self.service
    }

    /// Its status, in one word.
    #[must_use]
    pub fn status(&self) -> Status {
        self.status
    }

    /// Its instances, each with what is known about it.
    pub fn instances(&self) -> impl ExactSizeIterator<Item = (&Instance, &InstanceView)> {
        self.service.spec.instances.iter().zip(&self.observed)
    }

    /// One instance with what is known about it.
    #[must_use]
    pub fn instance(&self, id: InstanceId) -> Option<(&Instance, &InstanceView)> {
        let index = self.position(id)?;
        Some((&self.service.spec.instances[index], &self.observed[index]))
    }

    /// Its tools: the union over its instances, in the order of the first.
    #[must_use]
    pub fn tools(&self) -> &[OfferedTool] {
        self.tools.list()
    }

    /// The tool of this name.
    #[must_use]
    pub fn tool(&self, name: &str) -> Option<&OfferedTool> {
        self.tools.get(name)
    }

    /// Tools that its instances publish and that are not offered, because they are
    /// not those that the operator pinned.
    #[must_use]
    pub fn quarantined_tools(&self) -> &[QuarantinedTool] {
        self.tools.quarantined()
    }

    /// Whether it is known, for at least one instance, what it publishes.
    #[must_use]
    pub fn has_definitions(&self) -> bool {
        self.tools.is_known()
    }

    /// Whether the instance at `index` offers `tool`; `true` while it is not known.
    pub(crate) fn may_offer(&self, index: usize, tool: &str) -> bool {
        self.tools.may_offer(index, tool)
    }

    /// What is to be said of an instance that publishes another tool than was pinned.
    pub(crate) fn drift(&self, instance: InstanceId) -> Option<String> {
        let index = self.position(instance).filter(|index| self.tools.is_drifted(*index))?;
        let pins = &self.service.spec.routing_policy.pins;
        let tools = &self.observed[index].definitions.as_ref()?.tools;
        let is_another = |tool: &&Arc<Tool>| pins.get(tool.name().as_str()).is_some_and(|pin| pin != tool.hash());
        Some(format!("publishes another `{}` than was pinned", tools.iter().find(is_another)?.name()))
    }

    /// The number of a call that is routed now.
    pub(crate) fn next_call(&self) -> u64 {
        self.calls.fetch_add(1, Ordering::Relaxed)
    }

    /// How many calls were routed.
    pub(crate) fn routed_calls(&self) -> u64 {
        self.calls.load(Ordering::Relaxed)
    }

    /// Counts a call of `tool` that has ended.
    pub(crate) fn count_call(&self, tool: &str, duration: std::time::Duration, outcome: CallOutcome) {
        self.statistics.ended(self.tool(tool).map(|_| tool), duration, outcome);
    }

    /// How long calls of `tool` take but for the slowest twentieth; `None` while
    /// too few have ended to tell.
    pub(crate) fn usual_duration(&self, tool: &str) -> Option<std::time::Duration> {
        self.statistics.usual_duration(tool)
    }

    /// The calls of the service since this process started, in all and by tool.
    #[must_use]
    pub fn statistics(&self) -> ServiceStatistics {
        self.statistics.snapshot()
    }

    pub(crate) fn contains_words(&self, text: &str) -> bool {
        text.to_lowercase().split_whitespace().all(|word| self.haystack.contains(word))
    }
}

impl InstanceView {
    /// The attempts of calls at the instance, and its probes, since this process
    /// started.
    #[must_use]
    pub fn statistics(&self) -> InstanceStatistics {
        self.cell.statistics.snapshot()
    }

    /// The share of its calls that the instance should get, from 0.1 to 1: less
    /// than all while it has just come back.
    pub(crate) fn share(&self) -> f64 {
        self.cell.share()
    }

    fn of(cell: Arc<Cell>, definitions: Option<Arc<Definitions>>) -> Self {
        Self { health: cell.health(), definitions, status: Status::Unknown, cell }
    }
}

fn haystack(service: &Service) -> String {
    let spec = &service.spec;
    let optional = [spec.title.as_deref(), spec.category.as_deref()].into_iter().flatten();
    let tags = spec.tags.iter().map(crate::model::Tag::as_str);
    let parts = [spec.name.as_str(), &spec.description].into_iter().chain(optional).chain(tags);
    parts.collect::<Vec<_>>().join("\n").to_lowercase()
}

fn status_of(admin_state: AdminState, health: &Health) -> Status {
    match (admin_state, health.state) {
        (AdminState::Maintenance, _) => Status::Maintenance,
        (AdminState::Disabled | AdminState::Quarantined | AdminState::Draining, _) => Status::Disabled,
        (AdminState::Enabled, HealthState::Unknown | HealthState::Starting) => Status::Unknown,
        (AdminState::Enabled, HealthState::Healthy) => match health.reason.code {
            ReasonCode::Degraded | ReasonCode::AuthRequired => Status::Degraded,
            _ => Status::Healthy,
        },
        (AdminState::Enabled, HealthState::Suspect | HealthState::Recovering) => Status::Degraded,
        (AdminState::Enabled, HealthState::Unhealthy | HealthState::CrashLoop | HealthState::Expired) => {
            Status::Unhealthy
        }
    }
}

/// The status of a whole whose parts have these: the parts that the operator
/// took out do not count.
fn together(parts: impl Iterator<Item = Status>) -> Status {
    let parts: Vec<Status> = parts.collect();
    let active: Vec<Status> =
        parts.iter().copied().filter(|s| !matches!(s, Status::Disabled | Status::Maintenance)).collect();
    let all = |status| active.iter().all(|part| *part == status);
    match () {
        () if parts.is_empty() => Status::Unknown,
        () if active.is_empty() && parts.contains(&Status::Maintenance) => Status::Maintenance,
        () if active.is_empty() => Status::Disabled,
        () if all(Status::Healthy) => Status::Healthy,
        () if all(Status::Unhealthy) => Status::Unhealthy,
        () if active.iter().any(|s| matches!(s, Status::Healthy | Status::Degraded)) => Status::Degraded,
        () => Status::Unknown,
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
