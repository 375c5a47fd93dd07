//! What a Machina that follows this one reads of it, and commits to it: the store of
//! the follower is this registry. A follower acts from outside the process, so
//! what it commits is taken exactly as it is, or refused: every record is checked
//! as if it had been registered, and changing a part of it silently would leave the
//! follower with a view of something that is not there.
//!
//! Refuses principals of one tenant, since a follower reads everything, secrets
//! included. Refuses to believe what a follower says of its own deeds: the audit
//! trail is written here.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use super::commands::refuse_new_commands;
use super::egress::refuse_unreachable;
use super::principal::{Principal, Role};
use super::scoped::Scoped;
use crate::clock;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::model::{Group, GroupName, Revision, Service, ServiceId, ServiceName};
use crate::store::{Batch, Change, Changes, Entry, Image, Precondition, What};
use crate::view::{Delta, View};
use crate::write::{changed_fields, mark_outside, new_reason, parting, renew_changed};

/// How many characters the name of who changed a record may have.
const UPDATED_BY_MAX: usize = 200;

impl Scoped {
    /// Tells revisions that count the same changes from others: another process, or
    /// this one after its store was replaced by an older backup, counts other ones.
    ///
    /// # Errors
    /// [`Forbidden`](crate::ErrorKind::Forbidden) unless the principal is an admin
    /// of all tenants.
    pub fn generation(&self) -> Result<String> {
        self.may_follow()?;
        Ok(format!("{:x}.{}", self.core.events.stream(), self.core.generation.load(Ordering::Acquire)))
    }

    /// Everything that the registry shows now, secrets in place. Costs no look into
    /// the store.
    ///
    /// # Errors
    /// As [`Scoped::generation`].
    pub fn image(&self) -> Result<Image> {
        self.may_follow()?;
        let view = self.core.view.load();
        let mut image = Image { revision: view.revision(), ..Image::default() };
        for service in view.services() {
            image.services.push(Arc::clone(service.service()));
            for (instance, seen) in service.instances() {
                let definitions = seen.definitions.iter().map(|definitions| (instance.id, Arc::clone(definitions)));
                image.definitions.extend(definitions);
            }
        }
        image.groups = view.groups().cloned().collect();
        Ok(image)
    }

    /// What was committed after `after`: see [`Store::changes`](crate::Store::changes).
    ///
    /// # Errors
    /// As [`Scoped::generation`]; whatever the store says.
    pub async fn changes_after(&self, after: Revision) -> Result<Changes> {
        self.may_follow()?;
        self.core.store.changes(after).await
    }

    /// Commits what a follower has planned: see [`Store::commit`](crate::Store::commit).
    /// Its journal entries are passed over, and audit entries in the name of this
    /// principal take their place.
    ///
    /// # Errors
    /// * As [`Scoped::generation`].
    /// * [`Invalid`](crate::ErrorKind::Invalid) for a record that could not be
    ///   registered, or that changes what never changes.
    /// * [`Forbidden`](crate::ErrorKind::Forbidden) for a command, an address or a
    ///   placeholder that may not be registered from outside, and for an instance
    ///   that does not say that it comes from there.
    /// * [`Conflict`](crate::ErrorKind::Conflict) when a precondition fails.
    /// * [`Unsupported`](crate::ErrorKind::Unsupported) for what only replicas write
    ///   that share a store.
    pub async fn commit_batch(&self, batch: Batch) -> Result<Revision> {
        let (done, outcome) = tokio::sync::oneshot::channel();
        let scoped = self.clone();
        // A follower that goes away must not leave a committed batch that no view shows.
        let committing = async move { drop(done.send(scoped.commit_reviewed(batch).await)) };
        drop(self.core.tasks.spawn("commit", committing));
        outcome.await.unwrap_or_else(|_| Err(Error::unavailable("the registry is closing")))
    }

    async fn commit_reviewed(&self, batch: Batch) -> Result<Revision> {
        self.may_follow()?;
        let core = &self.core;
        let _committing = core.committing.lock().await;
        if newest(&batch.preconditions) > core.view.load().revision() {
            // The follower knows what another replica has committed.
            core.catch_up().await?;
        }
        let before = core.view();
        let batch = reviewed(&before, batch, &self.principal, &core.config)?;
        let deltas: Vec<Delta> = batch.changes.iter().cloned().map(Delta::of).collect();
        refuse_new_commands(&before, &deltas, &self.principal, &core.config.access)?;
        refuse_unreachable(&before, &deltas, &self.principal, &core.config.egress)?;
        core.commit(&batch, deltas).await
    }

    fn may_follow(&self) -> Result<()> {
        self.principal.require(Role::Admin, "follow this Machina")?;
        match &self.principal.tenant {
            None => Ok(()),
            Some(tenant) => Err(Error::forbidden(format!(
                "`{}` sees only the tenant `{tenant}`, and a follower reads everything",
                self.principal.id
            ))),
        }
    }
}

/// The newest revision that is presupposed.
fn newest(preconditions: &[Precondition]) -> Revision {
    let revisions = preconditions.iter().filter_map(|precondition| match precondition {
        Precondition::AtRevision(_, revision) | Precondition::GroupAtRevision(_, revision) => Some(*revision),
        _ => None,
    });
    revisions.max().unwrap_or(Revision::ZERO)
}

/// The batch as it is committed, if every change of it may be made.
fn reviewed(view: &View, batch: Batch, principal: &Principal, config: &Config) -> Result<Batch> {
    let most = config.limits.batch_max as usize;
    for (field, count) in [("changes", batch.changes.len()), ("preconditions", batch.preconditions.len())] {
        if count > most {
            return Err(Error::invalid_field(field, format!("must be at most {most} at once, are {count}")));
        }
    }
    if batch.preconditions.iter().any(|one| matches!(one, Precondition::Holds { .. })) {
        return Err(only_replicas());
    }
    let mut review = Review {
        view,
        principal,
        config,
        changed: HashMap::new(),
        changed_groups: HashMap::new(),
        services: view.len(),
        groups: view.groups().len(),
        preconditions: batch.preconditions,
        entries: Vec::new(),
    };
    for (index, change) in batch.changes.iter().enumerate() {
        review.change(change).map_err(|error| placed(&error, index))?;
    }
    Ok(Batch { preconditions: review.preconditions, changes: batch.changes, entries: review.entries })
}

/// The same error, with the fields of one change as fields of the batch.
fn placed(error: &Error, index: usize) -> Error {
    error.clone().with(|context| {
        for problem in &mut context.problems {
            problem.field = format!("changes[{index}].{}", problem.field);
        }
    })
}

fn only_replicas() -> Error {
    Error::unsupported("a follower shares no probes: only replicas that share a store write health, times and leases")
}

/// What the changes of a batch, so far, come to.
struct Review<'a> {
    view: &'a View,
    principal: &'a Principal,
    config: &'a Config,
    changed: HashMap<ServiceId, Option<Arc<Service>>>,
    changed_groups: HashMap<GroupName, Option<Arc<Group>>>,
    services: usize,
    groups: usize,
    preconditions: Vec<Precondition>,
    entries: Vec<Entry>,
}

impl Review<'_> {
    fn change(&mut self, change: &Change) -> Result<()> {
        match change {
            Change::PutService(service) => self.put_service(service),
            Change::DeleteService { id, name } => self.delete_service(*id, name),
            Change::PutDefinitions { definitions, .. } => definitions.validate(),
            Change::PutGroup(group) => self.put_group(group),
            Change::DeleteGroup(name) => {
                if self.group(name).is_some() {
                    self.groups -= 1;
                    self.audit(None, "remove_group", json!({ "group": name }));
                }
                self.changed_groups.insert(name.clone(), None);
                Ok(())
            }
            Change::PutHealth { .. } | Change::Seen(_) => Err(only_replicas()),
        }
    }

    fn service(&self, id: ServiceId) -> Option<Arc<Service>> {
        match self.changed.get(&id) {
            Some(changed) => changed.clone(),
            None => self.view.by_id(id).map(|view| Arc::clone(view.service())),
        }
    }

    fn group(&self, name: &GroupName) -> Option<Arc<Group>> {
        match self.changed_groups.get(name) {
            Some(changed) => changed.clone(),
            None => self.view.group(name.as_str()).cloned(),
        }
    }

    fn put_service(&mut self, service: &Arc<Service>) -> Result<()> {
        let named = |error: Error| error.with(|context| context.service = Some(service.name().to_string()));
        let before = self.service(service.id);
        self.check_service(before.as_deref(), service).map_err(named)?;
        let by = ("follower", Value::from(service.updated_by.as_str()));
        match &before {
            None => {
                if self.services >= self.config.limits.services_max as usize {
                    let most = self.config.limits.services_max;
                    let message = format!("there are {most} services, as many as limits.services_max allows");
                    return Err(Error::overloaded(message));
                }
                self.services += 1;
                self.audit(Some(service.name()), "register", json!({ by.0: by.1 }));
            }
            Some(before) => {
                // What was compared with must still be there when the store commits.
                if !self.changed.contains_key(&service.id) {
                    self.preconditions.push(Precondition::AtRevision(before.id, before.revision));
                }
                if before.name() != service.name() {
                    self.audit(Some(before.name()), "rename", parting(&before.spec));
                }
                let mut detail = json!({ "fields": changed_fields(&before.spec, &service.spec), by.0: by.1 });
                if let Some(reason) = new_reason(&before.spec, &service.spec) {
                    detail["reason"] = reason.into();
                }
                self.audit(Some(service.name()), "update", detail);
            }
        }
        self.changed.insert(service.id, Some(Arc::clone(service)));
        Ok(())
    }

    fn check_service(&self, before: Option<&Service>, service: &Service) -> Result<()> {
        let spec = &service.spec;
        spec.validate()?;
        check_author(&service.updated_by)?;
        let most = self.config.limits.instances_max as usize;
        if spec.instances.len() > most {
            let detail = format!("must be at most {most}, are {}", spec.instances.len());
            return Err(Error::invalid_field("instances", detail));
        }
        if let Some(place) = spec.dangling_mask() {
            return Err(Error::invalid_field(place, "is masked, and there is no earlier value to keep"));
        }
        let mut without = spec.clone();
        without.drop_stale_reasons();
        if without != *spec {
            return Err(Error::invalid_field("admin_reason", "must not be there for what is enabled"));
        }
        if let Some(before) = before
            && before.created_at != service.created_at
        {
            return Err(Error::invalid_field("created_at", format!("never changes, and is {}", before.created_at)));
        }
        self.check_instances(before, service)
    }

    fn check_instances(&self, before: Option<&Service>, service: &Service) -> Result<()> {
        let (mut renewed, mut marked) = (service.spec.clone(), service.spec.clone());
        match before {
            Some(before) => {
                renew_changed(before, &mut renewed);
                mark_outside(before, &mut marked);
            }
            None => marked.instances.iter_mut().for_each(|instance| instance.from_outside = true),
        }
        // Who may have any command started is not kept from any address.
        let believed = !self.principal.remote || self.config.access.allow_stdio_registration;
        for (index, instance) in service.spec.instances.iter().enumerate() {
            if renewed.instances[index].id != instance.id {
                let detail = "is that of an instance that is reached in another way: this one needs a new id";
                return Err(Error::invalid_field(format!("instances[{index}].id"), detail));
            }
            if !believed && marked.instances[index].from_outside != instance.from_outside {
                let must = marked.instances[index].from_outside;
                let message = format!(
                    "instances[{index}].from_outside of `{}` must be {must}: what a follower registers comes from \
                     outside, and nothing else changes where it comes from",
                    service.name()
                );
                return Err(Error::forbidden(message));
            }
        }
        Ok(())
    }

    fn delete_service(&mut self, id: ServiceId, name: &ServiceName) -> Result<()> {
        if let Some(before) = self.service(id) {
            if before.name() != name {
                let detail = format!("is not the name of the service {id}, which is `{}`", before.name());
                return Err(Error::invalid_field("name", detail));
            }
            self.services -= 1;
            self.audit(Some(name), "deregister", parting(&before.spec));
        }
        self.changed.insert(id, None);
        Ok(())
    }

    fn put_group(&mut self, group: &Arc<Group>) -> Result<()> {
        let spec = group.spec();
        spec.validate()?;
        check_author(&group.updated_by)?;
        let action = match self.group(group.name()) {
            None => {
                if self.groups >= self.config.limits.groups_max as usize {
                    let most = self.config.limits.groups_max;
                    let message = format!("there are {most} groups, as many as limits.groups_max allows");
                    return Err(Error::overloaded(message));
                }
                self.groups += 1;
                "create_group"
            }
            Some(before) if before.created_at != group.created_at => {
                let detail = format!("never changes, and is {}", before.created_at);
                return Err(Error::invalid_field("created_at", detail));
            }
            Some(_) => "update_group",
        };
        self.audit(None, action, json!({ "group": group.name(), "follower": group.updated_by }));
        self.changed_groups.insert(group.name().clone(), Some(Arc::clone(group)));
        Ok(())
    }

    fn audit(&mut self, service: Option<&ServiceName>, action: &str, detail: Value) {
        let what = What::Audit { principal: self.principal.id.clone(), action: action.to_owned(), detail };
        self.entries.push(Entry { at: clock::now(), service: service.cloned(), instance: None, what });
    }
}

fn check_author(updated_by: &str) -> Result<()> {
    let length = updated_by.chars().count();
    if length > UPDATED_BY_MAX || updated_by.chars().any(char::is_control) {
        let detail = format!("must have at most {UPDATED_BY_MAX} characters, none of them a control character");
        return Err(Error::invalid_field("updated_by", detail));
    }
    Ok(())
}

#[cfg(test)]
#[path = "followers_tests.rs"]
mod tests;
