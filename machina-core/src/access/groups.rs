//! Groups as a principal sees and changes them. Refuses to say more about the
//! services in them than the principal may know.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::principal::Role;
use super::scoped::Scoped;
use crate::clock;
use crate::error::{Error, Result};
use crate::model::{Group, GroupName, GroupSpec, Revision, ServiceName};
use crate::store::{Batch, Change, Entry, Precondition, What};
use crate::view::{Delta, View};

/// A group as a reader sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct GroupReport {
    /// What was declared.
    #[serde(flatten)]
    pub declared: GroupSpec,
    /// The batch that last changed it.
    pub revision: Revision,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// Who last changed it.
    pub updated_by: String,
    /// The services that it names and that do not exist, as far as the reader
    /// may know.
    pub missing: Vec<ServiceName>,
    /// How many tools it selects now.
    pub tool_count: usize,
}

impl Scoped {
    /// Every group that the principal may see, by name.
    #[must_use]
    pub fn groups(&self) -> Vec<Arc<Group>> {
        let view = self.core.view.load();
        view.groups().filter(|group| self.sees_group(group)).cloned().collect()
    }

    /// The group of this name, if the principal may see it.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound).
    pub fn group(&self, name: &str) -> Result<Arc<Group>> {
        let view = self.core.view.load();
        view.group(name).filter(|group| self.sees_group(group)).cloned().ok_or_else(|| no_group(name))
    }

    /// What a reader gets of a group that the principal may see.
    #[must_use]
    pub fn group_report(&self, group: &Group) -> GroupReport {
        let view = self.core.view.load();
        let (mut missing, mut tool_count) = (Vec::new(), 0);
        for member in &group.spec().members {
            let service = view.get(member.service.as_str());
            match service.filter(|view| self.principal.sees(view.service().spec.tenant.as_deref())) {
                None => missing.push(member.service.clone()),
                Some(view) => {
                    let names = view.tools().iter().map(|offered| offered.tool.name().as_str());
                    tool_count += names.filter(|tool| group.selects(&member.service, tool)).count();
                }
            }
        }
        GroupReport {
            declared: group.spec().clone(),
            revision: group.revision,
            created_at: group.created_at,
            updated_at: group.updated_at,
            updated_by: group.updated_by.clone(),
            missing,
            tool_count,
        }
    }

    /// Makes a group, or replaces its declaration: only the first with
    /// `create_only`, only the second, and at that revision, with `expected`.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid), naming the field;
    /// [`Forbidden`](crate::ErrorKind::Forbidden);
    /// [`Conflict`](crate::ErrorKind::Conflict) when the name is taken or the
    /// revision is another; [`NotFound`](crate::ErrorKind::NotFound) when
    /// `expected` is given and there is no such group;
    /// [`Overloaded`](crate::ErrorKind::Overloaded) when there are as many as can be.
    pub async fn put_group(
        &self,
        spec: GroupSpec,
        expected: Option<Revision>,
        create_only: bool,
    ) -> Result<Arc<Group>> {
        let name = spec.name.clone();
        self.change_group(GroupChange::Put { spec, expected, create_only }).await?;
        self.group(name.as_str()).map_err(|_| Error::conflict("the group was removed meanwhile"))
    }

    /// Removes a group; with `expected`, only if it is at that revision. Returns
    /// the revision at which it is gone.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound), [`Conflict`](crate::ErrorKind::Conflict),
    /// [`Forbidden`](crate::ErrorKind::Forbidden).
    pub async fn remove_group(&self, name: &str, expected: Option<Revision>) -> Result<Revision> {
        self.change_group(GroupChange::Remove { name: name.to_owned(), expected }).await
    }

    /// In a task of its own, as every change is: a caller that goes away must not
    /// leave a committed batch that no view shows.
    async fn change_group(&self, change: GroupChange) -> Result<Revision> {
        let (done, outcome) = tokio::sync::oneshot::channel();
        let scoped = self.clone();
        let committing = async move { drop(done.send(scoped.commit_group(change).await)) };
        drop(self.core.tasks.spawn("commit", committing));
        outcome.await.unwrap_or_else(|_| Err(Error::unavailable("the registry is closing")))
    }

    async fn commit_group(&self, change: GroupChange) -> Result<Revision> {
        self.principal.require(Role::Admin, "change groups")?;
        let _committing = self.core.turn_to_commit().await?;
        let view = self.core.view();
        let planned = match change {
            GroupChange::Put { spec, expected, create_only } => self.plan_put(&view, spec, expected, create_only)?,
            GroupChange::Remove { name, expected } => Some(self.plan_removal(&view, &name, expected)?),
        };
        match planned {
            Some((batch, delta)) => self.core.commit(&batch, vec![delta]).await,
            None => Ok(view.revision()),
        }
    }

    /// What is to be committed; nothing where nothing changes.
    fn plan_put(
        &self,
        view: &View,
        spec: GroupSpec,
        expected: Option<Revision>,
        create_only: bool,
    ) -> Result<Option<(Batch, Delta)>> {
        spec.validate()?;
        self.may_write_group(view, &spec)?;
        let name = spec.name.clone();
        let known = view.group(name.as_str());
        let (precondition, action, created_at) = match (known, expected) {
            (Some(_), _) if create_only => {
                return Err(Error::conflict(format!("there is already a group named `{name}`")));
            }
            (None, Some(_)) => return Err(no_group(name.as_str())),
            (None, None) => {
                let most = self.core.config.limits.groups_max;
                if view.groups().len() >= most as usize {
                    let message = format!("there are {most} groups, as many as limits.groups_max allows");
                    return Err(Error::overloaded(message));
                }
                (Precondition::GroupAbsent(name.clone()), "create_group", None)
            }
            (Some(group), expected) => {
                at_revision(group, expected)?;
                if *group.spec() == spec {
                    return Ok(None);
                }
                let at = Precondition::GroupAtRevision(name.clone(), group.revision);
                (at, "update_group", Some(group.created_at))
            }
        };
        let mut group = Group::new(spec, clock::now(), self.principal.id.clone());
        group.created_at = created_at.unwrap_or(group.created_at);
        let group = Arc::new(group);
        let entries = vec![self.audited(action, &name)];
        let batch =
            Batch { preconditions: vec![precondition], changes: vec![Change::PutGroup(Arc::clone(&group))], entries };
        Ok(Some((batch, Delta::PutGroup(group))))
    }

    fn plan_removal(&self, view: &View, name: &str, expected: Option<Revision>) -> Result<(Batch, Delta)> {
        let group = view.group(name).filter(|group| self.sees_group(group)).ok_or_else(|| no_group(name))?;
        at_revision(group, expected)?;
        let name = group.name().clone();
        let batch = Batch {
            preconditions: vec![Precondition::GroupAtRevision(name.clone(), group.revision)],
            changes: vec![Change::DeleteGroup(name.clone())],
            entries: vec![self.audited("remove_group", &name)],
        };
        Ok((batch, Delta::DeleteGroup(name)))
    }

    fn may_write_group(&self, view: &View, spec: &GroupSpec) -> Result<()> {
        let Some(tenant) = &self.principal.tenant else { return Ok(()) };
        let name = spec.name.as_str();
        if view.group(name).is_some_and(|group| !self.sees_group(group)) {
            return Err(no_group(name));
        }
        if spec.tenant.as_ref() == Some(tenant) {
            return Ok(());
        }
        Err(Error::forbidden(format!("`{}` may only write groups of the tenant `{tenant}`", self.principal.id)))
    }

    fn sees_group(&self, group: &Group) -> bool {
        self.principal.sees(group.spec().tenant.as_deref())
    }

    fn audited(&self, action: &str, group: &GroupName) -> Entry {
        let detail: Value = json!({ "group": group });
        let what = What::Audit { principal: self.principal.id.clone(), action: action.to_owned(), detail };
        Entry { at: clock::now(), service: None, instance: None, what }
    }
}

enum GroupChange {
    Put { spec: GroupSpec, expected: Option<Revision>, create_only: bool },
    Remove { name: String, expected: Option<Revision> },
}

fn at_revision(group: &Group, expected: Option<Revision>) -> Result<()> {
    match expected {
        Some(expected) if expected != group.revision => {
            let (name, now) = (group.name(), group.revision);
            Err(Error::conflict(format!("the group `{name}` is at revision {now}, not {expected}: read it again")))
        }
        _ => Ok(()),
    }
}

fn no_group(name: &str) -> Error {
    Error::not_found(format!("no group is named `{}`", name.escape_debug()))
}

#[cfg(test)]
#[path = "groups_tests.rs"]
mod tests;
