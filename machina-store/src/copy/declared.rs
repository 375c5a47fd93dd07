//! Services, definitions and groups: what is missing in the target is put there,
//! what is equal stays, what is older gives way, and what is different otherwise is
//! refused or replaced.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use machina_core::{Backend, Batch, Change, Error, Image, InstanceId, Precondition, Result, Service, ServiceId};

use super::content::{self, Sum};
use super::since::Since;
use super::{CopyOptions, CopyPart, CopyProgress};

/// How many changes a batch has, unless one service needs more.
const CHANGES_MAX: usize = 500;

/// What is to be done with the target.
#[derive(Debug)]
pub(super) struct Declared {
    /// What goes before anything comes.
    deletions: Vec<Change>,
    /// Each with what must be true: a service with its definitions, or a group.
    units: Vec<Batch>,
    /// Which services are there, and stay as they are.
    pub(super) kept: HashSet<ServiceId>,
    /// Which instances of them have the definitions that the source has.
    published: HashSet<InstanceId>,
    pub(super) services_before: u64,
    pub(super) definitions_before: u64,
    pub(super) groups_before: u64,
}

/// What the target holds, to be looked up.
struct Known<'a> {
    image: &'a Image,
    services: HashMap<ServiceId, Sum>,
}

impl<'a> Known<'a> {
    fn new(image: &'a Image) -> Result<Self> {
        let services = image.services.iter().map(|service| Ok((service.id, sum(service)?)));
        Ok(Self { image, services: services.collect::<Result<_>>()? })
    }

    /// Whether this service is in the target, and all that it has there of
    /// definitions is in the source, or is older. Notes which are the same.
    fn has(&self, service: &Service, theirs: &Image, published: &mut HashSet<InstanceId>) -> Result<bool> {
        let Some(known) = self.services.get(&service.id) else { return Ok(false) };
        if *known != sum(service)? {
            return Ok(false);
        }
        for instance in &service.spec.instances {
            let Some(known) = self.image.definitions.get(&instance.id) else { continue };
            let Some(their) = theirs.definitions.get(&instance.id) else { return Ok(false) };
            if content::definitions(instance.id, known)? == content::definitions(instance.id, their)? {
                published.insert(instance.id);
            } else if their.listed_at.as_millisecond() <= known.listed_at.as_millisecond() {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn sum(service: &Service) -> Result<Sum> {
    content::of(&content::service(service)?)
}

impl Declared {
    /// # Errors
    /// [`Conflict`](machina_core::ErrorKind::Conflict) when the target has other
    /// content that does not give way.
    pub(super) fn plan(theirs: &Image, ours: &Image, since: &Since) -> Result<Self> {
        let known = Known::new(ours)?;
        let mut plan = Self {
            deletions: Vec::new(),
            units: Vec::new(),
            kept: HashSet::new(),
            published: HashSet::new(),
            services_before: 0,
            definitions_before: 0,
            groups_before: 0,
        };
        for service in &theirs.services {
            if known.has(service, theirs, &mut plan.published)? {
                plan.kept.insert(service.id);
            }
        }
        for service in ours.services.iter().filter(|service| !plan.kept.contains(&service.id)) {
            if !since.has_service(service.name()) {
                return Err(other_content(&format!("service `{}`", service.name())));
            }
            plan.deletions.push(Change::DeleteService { id: service.id, name: service.name().clone() });
        }
        for service in &theirs.services {
            plan.service(service, theirs);
        }
        plan.groups(theirs, ours, since)?;
        Ok(plan)
    }

    fn service(&mut self, service: &Arc<Service>, theirs: &Image) {
        let is_kept = self.kept.contains(&service.id);
        let mut unit = Batch::default();
        if is_kept {
            self.services_before += 1;
            unit.preconditions.push(Precondition::Exists(service.id));
        } else {
            unit.preconditions.push(Precondition::Absent(service.name().clone()));
            unit.changes.push(Change::PutService(Arc::clone(service)));
        }
        for instance in &service.spec.instances {
            let Some(definitions) = theirs.definitions.get(&instance.id) else { continue };
            if is_kept && self.published.contains(&instance.id) {
                self.definitions_before += 1;
                continue;
            }
            let (service, instance, definitions) = (service.id, instance.id, Arc::clone(definitions));
            unit.changes.push(Change::PutDefinitions { service, instance, definitions });
        }
        if !unit.changes.is_empty() {
            self.units.push(unit);
        }
    }

    fn groups(&mut self, theirs: &Image, ours: &Image, since: &Since) -> Result<()> {
        let mut missing: HashMap<_, _> = theirs.groups.iter().map(|group| (group.name(), group)).collect();
        for group in &ours.groups {
            let is_equal = match missing.get(group.name()) {
                Some(their) => content::group(their)? == content::group(group)?,
                None => false,
            };
            if is_equal {
                self.groups_before += 1;
                missing.remove(group.name());
            } else if since.has_group(group.name().as_str()) {
                self.deletions.push(Change::DeleteGroup(group.name().clone()));
            } else {
                return Err(other_content(&format!("group `{}`", group.name())));
            }
        }
        self.units.extend(missing.into_values().map(|group| Batch {
            preconditions: vec![Precondition::GroupAbsent(group.name().clone())],
            changes: vec![Change::PutGroup(Arc::clone(group))],
            entries: Vec::new(),
        }));
        Ok(())
    }

    pub(super) async fn carry_out(&self, to: &Backend, options: CopyOptions<'_>) -> Result<()> {
        for changes in self.deletions.chunks(CHANGES_MAX) {
            to.store.commit(&Batch { changes: changes.to_vec(), ..Batch::default() }).await?;
        }
        let (mut done, total) = (0, self.units.len() as u64);
        let mut batch = Batch::default();
        for unit in &self.units {
            batch.preconditions.extend(unit.preconditions.iter().cloned());
            batch.changes.extend(unit.changes.iter().cloned());
            done += 1;
            if batch.changes.len() >= CHANGES_MAX || done == total {
                to.store.commit(&std::mem::take(&mut batch)).await?;
                (options.progress)(CopyProgress { part: CopyPart::Services, done, total });
            }
        }
        Ok(())
    }
}

/// The target holds something that does not come from the source as it is now.
pub(super) fn other_content(what: &str) -> Error {
    Error::conflict(format!(
        "the target has other content: {what} is not there, or is different, in the store that is copied; \
         with --replace the target is overwritten"
    ))
}
