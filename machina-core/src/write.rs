//! Writing: what a caller asks to change becomes a batch for the store. All or
//! nothing; every precondition is checked again by the store itself.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::access::Principal;
use crate::clock;
use crate::config::LimitsConfig;
use crate::error::{Error, Result};
use crate::model::{AdminState, Endpoint, InstanceId, Pinning, Revision, Service, ServiceId, ServiceName, ServiceSpec};
use crate::store::{Batch, Change, Entry, Precondition, What};
use crate::view::{Delta, View};

/// One change that a caller asks for.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Mutation {
    /// A new service. A conflict if the name is taken. Its instances keep the
    /// identities that [`Instance::new`](crate::Instance::new) gave them; those
    /// read from the record of another service get new ones.
    Register(ServiceSpec),
    /// Another declaration for a service. Instances with the same endpoint keep
    /// their identity, and one that is reached in another way than before is
    /// another instance; a masked secret keeps its value.
    Update {
        /// The service, by its name until now.
        name: ServiceName,
        /// The whole new declaration, perhaps with another name.
        spec: ServiceSpec,
        /// The revision that the caller has seen; a conflict if it is another now.
        expected: Option<Revision>,
    },
    /// [`Mutation::Update`] if there is a service of this name, otherwise
    /// [`Mutation::Register`].
    Put(ServiceSpec),
    /// The service goes.
    Deregister {
        /// The service.
        name: ServiceName,
        /// The revision that the caller has seen; a conflict if it is another now.
        expected: Option<Revision>,
    },
    /// The operator says something about a service, or one instance of it.
    SetAdminState {
        /// The service.
        name: ServiceName,
        /// One instance of it; all of it when `None`.
        instance: Option<InstanceId>,
        /// What the operator says.
        admin_state: AdminState,
        /// Why, in at most 500 characters. Stands in the audit trail, and is kept
        /// until the next state; without one, that of the same state stays.
        reason: Option<String>,
    },
    /// The operator has seen the tools of a service as its instances publish them
    /// now: their hashes become its pins ([`crate::RoutingPolicy::pins`]).
    PinTools {
        /// The service.
        name: ServiceName,
        /// What happens from now on when a tool is another one; as before when `None`.
        pinning: Option<Pinning>,
    },
}

impl Mutation {
    /// The name of the service that it is about.
    #[must_use]
    pub fn service(&self) -> &ServiceName {
        match self {
            Self::Register(spec) | Self::Put(spec) => &spec.name,
            Self::Update { name, .. }
            | Self::Deregister { name, .. }
            | Self::SetAdminState { name, .. }
            | Self::PinTools { name, .. } => name,
        }
    }
}

/// What a batch of mutations comes to.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) batch: Batch,
    pub(crate) deltas: Vec<Delta>,
    /// The names of the services that were put, in the order of the mutations.
    pub(crate) put: Vec<ServiceName>,
}

/// Plans `mutations` against `view`.
///
/// # Errors
/// The first mutation that cannot be: invalid, a conflict, or about nothing.
pub(crate) fn plan(
    view: &View,
    mutations: Vec<Mutation>,
    principal: &Principal,
    limits: &LimitsConfig,
) -> Result<Plan> {
    if mutations.len() > limits.batch_max as usize {
        let detail = format!("must be at most {} at once, are {}", limits.batch_max, mutations.len());
        return Err(Error::invalid_field("mutations", detail));
    }
    let mut planner = Planner {
        view,
        principal,
        limits,
        changed: HashMap::new(),
        given: HashSet::new(),
        count: view.len(),
        plan: Plan::default(),
    };
    for mutation in mutations {
        let name = mutation.service().clone();
        planner.one(mutation).map_err(|error| error.with(|context| context.service = Some(name.to_string())))?;
    }
    Ok(planner.plan)
}

struct Planner<'a> {
    view: &'a View,
    principal: &'a Principal,
    limits: &'a LimitsConfig,
    /// What earlier mutations of the batch made of these names.
    changed: HashMap<ServiceName, Option<Arc<Service>>>,
    /// Identities that new instances of the batch have.
    given: HashSet<InstanceId>,
    count: usize,
    plan: Plan,
}

impl Planner<'_> {
    fn one(&mut self, mutation: Mutation) -> Result<()> {
        match mutation {
            Mutation::Register(spec) => self.register(spec),
            Mutation::Put(spec) => match self.current(&spec.name) {
                Some(service) => self.update(&service, spec, "update"),
                None => self.register(spec),
            },
            Mutation::Update { name, spec, expected } => {
                let service = self.existing(&name, expected)?;
                self.update(&service, spec, "update")
            }
            Mutation::Deregister { name, expected } => self.deregister(&name, expected),
            Mutation::SetAdminState { name, instance, admin_state, reason } => {
                let service = self.existing(&name, None)?;
                let mut spec = service.spec.clone();
                let (state, kept) = match instance {
                    None => (&mut spec.admin_state, &mut spec.admin_reason),
                    Some(id) => {
                        let found = spec.instances.iter_mut().find(|instance| instance.id == id);
                        let found = found.ok_or_else(|| no_instance(&name, id))?;
                        (&mut found.admin_state, &mut found.admin_reason)
                    }
                };
                if reason.is_some() || *state != admin_state {
                    *kept = reason;
                }
                *state = admin_state;
                self.update(&service, spec, admin_state.as_str())
            }
            Mutation::PinTools { name, pinning } => {
                let service = self.existing(&name, None)?;
                let published = self.view.by_id(service.id).map(|view| view.published()).unwrap_or_default();
                if published.is_empty() {
                    let message = format!("nothing is known yet of the tools of `{name}`, so they cannot be pinned");
                    return Err(Error::conflict(message));
                }
                let mut spec = service.spec.clone();
                spec.routing_policy.pins = published;
                spec.routing_policy.pinning = pinning.or(spec.routing_policy.pinning);
                self.update(&service, spec, "pin")
            }
        }
    }

    fn current(&self, name: &ServiceName) -> Option<Arc<Service>> {
        match self.changed.get(name) {
            Some(changed) => changed.clone(),
            None => self.view.get(name.as_str()).map(|view| Arc::clone(view.service())),
        }
    }

    fn existing(&self, name: &ServiceName, expected: Option<Revision>) -> Result<Arc<Service>> {
        let service = self.current(name).ok_or_else(|| no_service(name))?;
        match expected {
            Some(expected) if expected != service.revision => {
                let now = service.revision;
                Err(Error::conflict(format!("`{name}` is at revision {now}, not {expected}: read it again")))
            }
            _ => Ok(service),
        }
    }

    fn register(&mut self, mut spec: ServiceSpec) -> Result<()> {
        if self.current(&spec.name).is_some() {
            return Err(Error::conflict(format!("a service named `{}` is already registered", spec.name)));
        }
        if self.count >= self.limits.services_max as usize {
            let most = self.limits.services_max;
            return Err(Error::overloaded(format!("there are {most} services, as many as limits.services_max allows")));
        }
        for instance in &mut spec.instances {
            // An identity that was read from a record may belong to another service.
            let theirs = instance.has_declared_id() || self.view.owner(instance.id).is_some();
            let id = if theirs || !self.given.insert(instance.id) { InstanceId::generate() } else { instance.id };
            instance.adopt(id);
            instance.from_outside |= self.principal.remote;
        }
        self.check(&spec)?;
        spec.drop_stale_reasons();
        let now = clock::now();
        let service = Service {
            id: ServiceId::generate(),
            revision: Revision::ZERO,
            created_at: now,
            updated_at: now,
            updated_by: self.principal.id.clone(),
            spec,
        };
        self.count += 1;
        // The store checks preconditions before the batch: an earlier change of it
        // may be what freed the name.
        if !self.changed.contains_key(service.name()) {
            self.plan.batch.preconditions.push(Precondition::Absent(service.name().clone()));
        }
        self.put(service, "register", json!({}));
        Ok(())
    }

    fn update(&mut self, before: &Arc<Service>, mut spec: ServiceSpec, action: &str) -> Result<()> {
        if spec.name != *before.name() && self.current(&spec.name).is_some() {
            return Err(Error::conflict(format!("a service named `{}` is already registered", spec.name)));
        }
        self.adopt_instances(before, &mut spec)?;
        spec.restore_secrets(&before.spec.secrets());
        if self.principal.remote {
            mark_outside(before, &mut spec);
        }
        renew_changed(before, &mut spec);
        self.check(&spec)?;
        let reason = new_reason(&before.spec, &spec);
        spec.drop_stale_reasons();
        if spec == before.spec {
            self.plan.put.push(spec.name);
            return Ok(());
        }
        if !self.changed.contains_key(before.name()) {
            self.plan.batch.preconditions.push(Precondition::AtRevision(before.id, before.revision));
        }
        if spec.name != *before.name() {
            self.changed.insert(before.name().clone(), None);
            self.audit(before.name(), "rename", parting(&before.spec));
        }
        let fields = changed_fields(&before.spec, &spec);
        let service =
            Service { updated_at: clock::now(), updated_by: self.principal.id.clone(), spec, ..Service::clone(before) };
        let detail = match reason {
            Some(reason) => json!({ "fields": fields, "reason": reason }),
            None => json!({ "fields": fields }),
        };
        self.put(service, action, detail);
        Ok(())
    }

    /// Gives each instance its identity: the one it declares, that of the
    /// instance with the same endpoint that it replaces, or a new one.
    fn adopt_instances(&self, before: &Service, spec: &mut ServiceSpec) -> Result<()> {
        let mut free: BTreeMap<InstanceId, Value> = BTreeMap::new();
        for instance in &before.spec.instances {
            free.insert(instance.id, shown(instance));
        }
        for (index, instance) in spec.instances.iter().enumerate().filter(|(_, i)| i.has_declared_id()) {
            if free.remove(&instance.id).is_none() {
                let detail = "is no instance of this service; leave it out to add a new one";
                return Err(Error::invalid_field(format!("instances[{index}].id"), detail));
            }
        }
        for instance in spec.instances.iter_mut().filter(|instance| !instance.has_declared_id()) {
            let place = shown(instance);
            let same = free.iter().find(|(_, candidate)| **candidate == place).map(|(id, _)| *id);
            let id = same.unwrap_or_else(InstanceId::generate);
            free.remove(&id);
            instance.adopt(id);
        }
        Ok(())
    }

    fn check(&self, spec: &ServiceSpec) -> Result<()> {
        spec.validate()?;
        let most = self.limits.instances_max as usize;
        if spec.instances.len() > most {
            let detail = format!("must be at most {most}, are {}", spec.instances.len());
            return Err(Error::invalid_field("instances", detail));
        }
        match spec.dangling_mask() {
            Some(place) => Err(Error::invalid_field(place, "is masked, and there is no earlier value to keep")),
            None => Ok(()),
        }
    }

    fn deregister(&mut self, name: &ServiceName, expected: Option<Revision>) -> Result<()> {
        let service = self.existing(name, expected)?;
        if !self.changed.contains_key(name) {
            self.plan.batch.preconditions.push(Precondition::AtRevision(service.id, service.revision));
        }
        self.changed.insert(name.clone(), None);
        self.count -= 1;
        self.plan.batch.changes.push(Change::DeleteService { id: service.id, name: name.clone() });
        self.plan.deltas.push(Delta::Delete(service.id));
        self.audit(name, "deregister", parting(&service.spec));
        Ok(())
    }

    fn put(&mut self, service: Service, action: &str, detail: Value) {
        let (name, service) = (service.name().clone(), Arc::new(service));
        self.changed.insert(name.clone(), Some(Arc::clone(&service)));
        self.plan.batch.changes.push(Change::PutService(Arc::clone(&service)));
        self.plan.deltas.push(Delta::Put(service));
        self.audit(&name, action, detail);
        self.plan.put.push(name);
    }

    fn audit(&mut self, name: &ServiceName, action: &str, detail: Value) {
        let (principal, action) = (self.principal.id.clone(), action.to_owned());
        self.plan.batch.entries.push(Entry {
            at: clock::now(),
            service: Some(name.clone()),
            instance: None,
            what: What::Audit { principal, action, detail },
        });
    }
}

/// What is remembered of a service that goes, for those who could see it.
pub(crate) fn parting(spec: &ServiceSpec) -> Value {
    json!({ "version": spec.version, "tenant": spec.tenant })
}

/// Marks the instances that this change from outside reaches in another way than
/// before; the others stay what they were.
pub(crate) fn mark_outside(before: &Service, spec: &mut ServiceSpec) {
    for instance in &mut spec.instances {
        let same = before.instance(instance.id).filter(|known| known.endpoint == instance.endpoint);
        instance.from_outside = same.is_none_or(|known| known.from_outside);
    }
}

/// Gives an instance that is reached in another way a new identity: what was
/// seen of the old one says nothing about it. What a process is started with
/// is part of how it is reached.
pub(crate) fn renew_changed(before: &Service, spec: &mut ServiceSpec) {
    let same_env = before.spec.env == spec.env;
    for instance in &mut spec.instances {
        let known = before.instance(instance.id).map(|known| &known.endpoint);
        let stdio = matches!(instance.endpoint, Endpoint::Stdio(_));
        if known.is_some_and(|known| *known != instance.endpoint || (stdio && !same_env)) {
            instance.adopt(InstanceId::generate());
        }
    }
}

/// Why the operator says something else than before, where that is said.
pub(crate) fn new_reason(before: &ServiceSpec, after: &ServiceSpec) -> Option<String> {
    let instances = after.instances.iter().map(|one| {
        let known = before.instances.iter().find(|known| known.id == one.id);
        (known.and_then(|known| known.admin_reason.as_ref()), one.admin_reason.as_ref())
    });
    let mut said = std::iter::once((before.admin_reason.as_ref(), after.admin_reason.as_ref())).chain(instances);
    said.find_map(|(old, new)| new.filter(|_| old != new)).cloned()
}

/// How an instance looks to a reader, as far as it says where it runs.
fn shown(instance: &crate::model::Instance) -> Value {
    let value = serde_json::to_value(instance).unwrap_or_default();
    value.get(instance.endpoint.kind()).cloned().unwrap_or_default()
}

/// The names of the fields that differ; a changed secret is named too, and
/// never shown.
pub(crate) fn changed_fields(before: &ServiceSpec, after: &ServiceSpec) -> Vec<String> {
    let (old, new) = (serde_json::to_value(before), serde_json::to_value(after));
    let (Ok(Value::Object(old)), Ok(Value::Object(new))) = (old, new) else { return Vec::new() };
    let names: std::collections::BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let mut fields: Vec<String> = names.into_iter().filter(|name| old.get(*name) != new.get(*name)).cloned().collect();
    if before.secrets() != after.secrets() {
        fields.push("secrets".to_owned());
    }
    fields
}

pub(crate) fn no_service(name: &ServiceName) -> Error {
    Error::not_found(format!("no service is named `{name}`")).with(|context| context.service = Some(name.to_string()))
}

fn no_instance(name: &ServiceName, id: InstanceId) -> Error {
    Error::not_found(format!("`{name}` has no instance {id}")).with(|context| context.instance = Some(id.to_string()))
}
