//! The shared state behind every handle: the current view, and the few ways in
//! which it changes.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::time::Instant;

use crate::alerts::Alerts;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::event::{EventKind, Events};
use crate::health::{Command, Guard, Monitor, Prober};
use crate::lease::LeaseTimers;
use crate::model::{Definitions, Endpoint, InstanceId, Revision, Service};
use crate::native::Natives;
use crate::random::Random;
use crate::recorder::Recorder;
use crate::replicas::{Freshness, Replicas};
use crate::replies::Replies;
use crate::scratch::Scratches;
use crate::sessions::Sessions;
use crate::store::{Batch, Change, Journal, Precondition, Store};
use crate::tasks::Tasks;
use crate::together::Writers;
use crate::tool_index::ToolIndex;
use crate::view::{Delta, ServiceView, View};

/// How long a store that several replicas share may take to commit a batch.
const COMMIT_PATIENCE: Duration = Duration::from_secs(30);

/// Everything that the handles of one registry share.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) view: ArcSwap<View>,
    /// Held, for microseconds, while the next view is made.
    pub(crate) publishing: Mutex<()>,
    /// Held while a batch is planned and committed.
    pub(crate) committing: tokio::sync::Mutex<()>,
    pub(crate) writers: Writers,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) journal: Arc<dyn Journal>,
    pub(crate) replies: Arc<dyn Replies>,
    pub(crate) scratches: Scratches,
    pub(crate) recorder: Recorder,
    pub(crate) sessions: Sessions,
    /// The functions of this process.
    pub(crate) natives: Natives,
    pub(crate) prober: Arc<dyn Prober>,
    pub(crate) monitor: Monitor,
    pub(crate) leases: LeaseTimers,
    pub(crate) replicas: Replicas,
    pub(crate) freshness: Freshness,
    pub(crate) events: Arc<Events>,
    pub(crate) index: Arc<dyn ToolIndex>,
    pub(crate) alerts: Alerts,
    pub(crate) guard: Guard,
    /// What is left to chance.
    pub(crate) random: Arc<Random>,
    pub(crate) tasks: Tasks,
    /// What watches the instances and the store; ends before the sessions do.
    pub(crate) monitor_tasks: Tasks,
    /// Whether the store belongs to another Machina.
    pub(crate) is_follower: bool,
    /// How often everything was begun or done to be read anew from the store.
    pub(crate) generation: AtomicU64,
}

impl Core {
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Makes the next view and swaps it in; returns the one before and it. Without
    /// a revision it stands where that one stood.
    pub(crate) fn swap(&self, revision: Option<Revision>, deltas: &[Delta]) -> (Arc<View>, Arc<View>) {
        let _publishing = self.publishing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.view.load_full();
        let revision = revision.unwrap_or(before.revision());
        let next = Arc::new(before.next(revision, deltas, &self.config));
        self.view.store(Arc::clone(&next));
        (before, next)
    }

    /// Shows committed changes to readers, and starts or ends what follows from
    /// them: probes, sessions, the search index, events.
    pub(crate) async fn publish(&self, revision: Revision, deltas: &[Delta]) {
        self.admit(deltas);
        let (before, next) = self.swap(Some(revision), deltas);
        for delta in deltas {
            match delta {
                Delta::Put(service) => {
                    let old = before.by_id(service.id);
                    let Some(new) = next.by_id(service.id) else { continue };
                    self.index_tools(old, Some(new));
                    self.supervise(old, Some(new)).await;
                    self.depart(old.map(Arc::as_ref), Some(new));
                    self.keep_leases(new);
                    let kind = if old.is_some() { EventKind::ServiceUpdated } else { EventKind::ServiceRegistered };
                    self.events.publish(revision, Some(service.name().clone()), kind);
                }
                Delta::Delete(id) => {
                    let Some(old) = before.by_id(*id) else { continue };
                    self.index_tools(Some(old), None);
                    self.supervise(Some(old), None).await;
                    self.depart(Some(old), None);
                    let name = old.service().name().clone();
                    self.events.publish(revision, Some(name), EventKind::ServiceDeregistered);
                }
                Delta::Definitions { service, instance, definitions } => {
                    let Some(new) = next.by_id(*service) else { continue };
                    self.index_tools(before.by_id(*service), Some(new));
                    let known = before.by_id(*service).and_then(|old| old.instance(*instance)?.1.definitions.clone());
                    if let Some(kind) = difference(*instance, known.as_deref(), definitions) {
                        self.events.publish(revision, Some(new.service().name().clone()), kind);
                    }
                }
                Delta::Health { .. } | Delta::Reported { .. } | Delta::Seen(_) => {}
                Delta::PutGroup(group) => {
                    let group = group.name().clone();
                    self.events.publish(revision, None, EventKind::GroupChanged { group });
                }
                Delta::DeleteGroup(group) => {
                    self.events.publish(revision, None, EventKind::GroupRemoved { group: group.clone() });
                }
            }
        }
        self.told(deltas);
    }

    /// Lets the instances be reached that the next view will have.
    pub(crate) fn admit(&self, deltas: &[Delta]) {
        for delta in deltas {
            if let Delta::Put(service) = delta {
                let parameters = self.config.sessions.under(&service.spec.session_policy);
                let processes =
                    probed(service).into_iter().map(|id| (id, is_process(service, id).then_some(parameters)));
                self.sessions.admit(processes);
                self.replicas.keep(&in_process(service));
            }
        }
    }

    pub(crate) fn index_tools(&self, old: Option<&Arc<ServiceView>>, new: Option<&Arc<ServiceView>>) {
        if let Some(old) = old
            && new.is_none_or(|new| new.service().name() != old.service().name())
        {
            self.index.remove(old.service().name());
        }
        if let Some(new) = new {
            let tools: Vec<_> = new.tools().iter().map(|offered| Arc::clone(&offered.tool)).collect();
            self.index.put(new.service().name(), &new.service().spec.tags, &tools);
        }
    }

    /// Watches new instances, and leaves those alone that are gone, switched off
    /// or reached in another way than before.
    async fn supervise(&self, old: Option<&Arc<ServiceView>>, new: Option<&Arc<ServiceView>>) {
        let patience = self.config.sessions.close_timeout;
        let before = old.map(|view| probed(view.service())).unwrap_or_default();
        let after = new.map(|view| probed(view.service())).unwrap_or_default();
        for instance in before.iter().filter(|id| !after.contains(id)) {
            self.monitor.tell(Command::Unwatch(*instance)).await;
            self.guard.forget(*instance);
            self.replicas.let_go(*instance);
            self.sessions.dismiss(*instance, patience);
        }
        for instance in after {
            if !before.contains(&instance) && self.replicas.owns(instance) {
                self.monitor.tell(Command::Watch { instance, delay: Duration::ZERO }).await;
            }
        }
    }

    /// Keeps what an instance publishes, if it is something else than before.
    pub(crate) async fn defined(
        &self,
        service: &Service,
        instance: InstanceId,
        definitions: Definitions,
    ) -> Result<()> {
        let _committing = self.turn_to_commit().await?;
        let view = self.view();
        let Some((_, seen)) = view.by_id(service.id).and_then(|view| view.instance(instance)) else { return Ok(()) };
        if seen.definitions.as_ref().is_some_and(|known| known.same_as(&definitions)) {
            return Ok(());
        }
        let definitions = Arc::new(definitions);
        let service = service.id;
        let Some(charge) = self.replicas.charge(instance) else { return Ok(()) };
        let held = self.replicas.condition(charge);
        let batch = Batch {
            preconditions: [Precondition::Exists(service)].into_iter().chain(held).collect(),
            changes: vec![Change::PutDefinitions { service, instance, definitions: Arc::clone(&definitions) }],
            entries: Vec::new(),
        };
        self.commit(&batch, vec![Delta::Definitions { service, instance, definitions }]).await?;
        Ok(())
    }

    /// A store that several replicas share may be out of reach.
    async fn ask_store_to_commit(&self, batch: &Batch) -> Result<Revision> {
        if !self.replicas.is_shared() {
            return self.store.commit(batch).await;
        }
        let committed = tokio::time::timeout(COMMIT_PATIENCE, self.store.commit(batch)).await;
        committed.unwrap_or_else(|_| {
            let what = "whether it has taken the change is not known: read it again";
            Err(Error::unavailable(format!("the store did not answer within {COMMIT_PATIENCE:?}; {what}")))
        })
    }

    /// Commits a batch and shows it to readers. The caller holds `committing`.
    pub(crate) async fn commit(&self, batch: &Batch, deltas: Vec<Delta>) -> Result<Revision> {
        let begun = Instant::now();
        let revision = self.ask_store_to_commit(batch).await?;
        if revision == self.view.load().revision().next() {
            self.freshness.is_current(begun);
            self.publish(revision, &stamped(deltas, revision)).await;
        } else {
            self.catch_up().await?;
        }
        Ok(revision)
    }
}

/// The same changes, with the revision in every service and group.
fn stamped(deltas: Vec<Delta>, revision: Revision) -> Vec<Delta> {
    deltas
        .into_iter()
        .map(|delta| match delta {
            Delta::Put(service) => Delta::Put(Arc::new(Service { revision, ..Service::clone(&service) })),
            Delta::PutGroup(group) => Delta::PutGroup(Arc::new(group.at_revision(revision))),
            other => other,
        })
        .collect()
}

/// The instances of a service that are to be probed, and may be reached.
fn probed(service: &Service) -> Vec<InstanceId> {
    if !service.spec.admin_state.is_probed() {
        return Vec::new();
    }
    let instances = service.spec.instances.iter().filter(|instance| instance.admin_state.is_probed());
    instances.map(|instance| instance.id).collect()
}

/// The instances of a service that are a part of whatever program looks at them.
fn in_process(service: &Service) -> Vec<InstanceId> {
    let instances = service.spec.instances.iter().filter(|instance| instance.endpoint == Endpoint::InProcess);
    instances.map(|instance| instance.id).collect()
}

fn is_process(service: &Service, id: InstanceId) -> bool {
    let instance = service.spec.instances.iter().find(|instance| instance.id == id);
    instance.is_some_and(|instance| matches!(instance.endpoint, Endpoint::Stdio(_)))
}

/// What changed between what an instance published and what it does; `None` when
/// no tool, prompt or resource did.
fn difference(instance: InstanceId, old: Option<&Definitions>, new: &Definitions) -> Option<EventKind> {
    let names = |tools: &mut dyn Iterator<Item = &Arc<crate::model::Tool>>| -> Vec<String> {
        tools.map(|tool| tool.name().to_string()).collect()
    };
    let before = |name: &str| old.and_then(|old| old.tool(name));
    let added = names(&mut new.tools.iter().filter(|tool| before(tool.name().as_str()).is_none()));
    let changed =
        names(&mut new.tools.iter().filter(|t| before(t.name().as_str()).is_some_and(|old| old.hash() != t.hash())));
    let gone = old.into_iter().flat_map(|old| &old.tools).filter(|tool| new.tool(tool.name().as_str()).is_none());
    let removed = names(&mut gone.into_iter());
    let prompts = old.map_or(&[][..], |old| &old.prompts) != new.prompts;
    let resources = old.map_or(&[][..], |old| &old.resources) != new.resources
        || old.map_or(&[][..], |old| &old.resource_templates) != new.resource_templates;
    let none = added.is_empty() && changed.is_empty() && removed.is_empty();
    (!none || prompts || resources).then_some(EventKind::DefinitionsChanged {
        instance,
        added,
        removed,
        changed,
        prompts,
        resources,
    })
}
