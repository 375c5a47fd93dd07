//! Changing a part of a record instead of the whole: a merge patch (RFC 7396) on
//! what a reader sees, one instance more or less, maintenance. Each is read,
//! changed and written back as one update, and tried again when someone else came
//! between, unless the caller insists on a revision.

use serde_json::{Map, Value};

use super::principal::Role;
use super::scoped::Scoped;
use crate::error::{Error, ErrorKind, Problem, Result};
use crate::machina::{Applied, Registry};
use crate::model::{AdminState, InstanceId, Revision, ServiceSpec};
use crate::report::{ServiceHealth, ServiceReport};
use crate::write::Mutation;

/// How often a change is tried when others keep coming between.
const ATTEMPTS_MAX: u32 = 5;

impl Scoped {
    /// Changes a service by a merge patch on its record as a reader gets it:
    /// `null` removes a field, lists are replaced whole. With `expected`, only if
    /// the service is still at that revision.
    ///
    /// # Errors
    /// As [`Mutation::Update`]; [`Invalid`](ErrorKind::Invalid) for a patch that
    /// is no object.
    pub async fn patch(&self, name: &str, patch: &Value, expected: Option<Revision>) -> Result<Applied> {
        let changes = object(patch)?;
        self.edit(name, expected, |record| {
            let enabled = changes.get("enabled").and_then(Value::as_bool);
            if !changes.contains_key("enabled") {
                record.shift_remove("enabled");
            } else if !changes.contains_key("admin_state") && enabled != record.get("enabled").and_then(Value::as_bool)
            {
                record.shift_remove("admin_state");
            }
            merge_fields(record, changes);
            Ok(())
        })
        .await
    }

    /// Adds an instance to a service, and says which identity it got.
    ///
    /// # Errors
    /// As [`Mutation::Update`]; fields are those of the instance.
    pub async fn add_instance(
        &self,
        name: &str,
        instance: &Value,
        expected: Option<Revision>,
    ) -> Result<(Applied, InstanceId)> {
        if object(instance)?.contains_key("id") {
            return Err(Error::invalid_field("id", "is given by the registry: leave it out"));
        }
        let mut place = 0;
        let added = self.edit(name, expected, |record| {
            let instances = instances(record)?;
            place = instances.len();
            instances.push(instance.clone());
            Ok(())
        });
        let applied = added.await.map_err(of_instance)?;
        let id = identity(&applied, place)?;
        Ok((applied, id))
    }

    /// Changes an instance by a merge patch on its record as a reader gets it, and
    /// says which identity it has now: reached in another way, it is another one.
    ///
    /// # Errors
    /// As [`Mutation::Update`], fields are those of the instance;
    /// [`NotFound`](ErrorKind::NotFound) when the service has no such instance.
    pub async fn patch_instance(
        &self,
        name: &str,
        id: InstanceId,
        patch: &Value,
        expected: Option<Revision>,
    ) -> Result<(Applied, InstanceId)> {
        let (changes, mut place) = (object(patch)?, 0);
        let changed = self.edit(name, expected, |record| {
            let (index, instance) = instance_of(record, name, id)?;
            place = index;
            merge_fields(instance, changes);
            Ok(())
        });
        let applied = changed.await.map_err(of_instance)?;
        let id = identity(&applied, place)?;
        Ok((applied, id))
    }

    /// Removes an instance of a service.
    ///
    /// # Errors
    /// As [`Mutation::Update`]; [`NotFound`](ErrorKind::NotFound) when the service
    /// has no such instance.
    pub async fn remove_instance(&self, name: &str, id: InstanceId, expected: Option<Revision>) -> Result<Applied> {
        self.edit(name, expected, |record| {
            let instances = instances(record)?;
            let index = position(instances, name, id)?;
            instances.remove(index);
            Ok(())
        })
        .await
    }

    /// Takes a service out for maintenance, or back into use; one that is out for
    /// another reason stays out. `reason` says why, in at most 500 characters: it
    /// stands in the audit trail, and in reports until maintenance ends.
    ///
    /// # Errors
    /// As [`Mutation::SetAdminState`].
    pub async fn set_maintenance(&self, name: &str, maintained: bool, reason: Option<&str>) -> Result<Applied> {
        self.edit(name, None, |record| maintain(record, maintained, reason)).await
    }

    /// Takes an instance out for maintenance, or back into use, as
    /// [`Scoped::set_maintenance`] does a service.
    ///
    /// # Errors
    /// As [`Mutation::SetAdminState`].
    pub async fn set_instance_maintenance(
        &self,
        name: &str,
        id: InstanceId,
        maintained: bool,
        reason: Option<&str>,
    ) -> Result<Applied> {
        self.edit(name, None, |record| maintain(instance_of(record, name, id)?.1, maintained, reason)).await
    }

    /// Switches a service off that is enabled, and on otherwise.
    ///
    /// # Errors
    /// As [`Mutation::SetAdminState`].
    pub async fn toggle(&self, name: &str) -> Result<Applied> {
        self.edit(name, None, |record| {
            record.shift_remove("admin_state");
            let enabled = record.get("enabled").and_then(Value::as_bool).unwrap_or_default();
            record.insert("enabled".to_owned(), (!enabled).into());
            Ok(())
        })
        .await
    }

    /// Probes every instance of a service now, with the same probe as the
    /// monitor's, and returns what came of it.
    ///
    /// # Errors
    /// [`Forbidden`](ErrorKind::Forbidden) unless the principal may call tools;
    /// [`NotFound`](ErrorKind::NotFound).
    pub async fn check(&self, name: &str) -> Result<ServiceHealth> {
        self.principal.require(Role::Developer, "check services")?;
        let view = self.service(name)?;
        let probes = view.instances().map(|(instance, _)| {
            let (core, instance) = (std::sync::Arc::clone(&self.core), instance.id);
            let probe = async move {
                core.probe(instance).await;
            };
            self.core.tasks.spawn("check now", probe)
        });
        for probe in probes.collect::<Vec<_>>() {
            // An error means that the registry is closing: there is nothing to wait for.
            let _ = probe.await;
        }
        self.health(name).await
    }

    async fn edit(
        &self,
        name: &str,
        expected: Option<Revision>,
        mut change: impl FnMut(&mut Map<String, Value>) -> Result<()>,
    ) -> Result<Applied> {
        self.principal.require(Role::Admin, "change services")?;
        let mut attempt = 1;
        loop {
            let view = self.service(name)?;
            let (seen, current) = (view.service().revision, view.service().name().clone());
            let mut record = ServiceReport::from(&*view).declared;
            change(&mut record)?;
            let spec = ServiceSpec::from_value(Value::Object(record))?;
            let update = Mutation::Update { name: current, spec, expected: Some(expected.unwrap_or(seen)) };
            match self.apply(vec![update]).await {
                Err(error)
                    if error.kind() == ErrorKind::Conflict
                        && expected.is_none()
                        && attempt < ATTEMPTS_MAX
                        && self.service(name)?.service().revision != seen =>
                {
                    attempt += 1;
                }
                outcome => return outcome,
            }
        }
    }
}

fn object(value: &Value) -> Result<&Map<String, Value>> {
    value.as_object().ok_or_else(|| Error::invalid_field("body", "must be an object"))
}

fn instances(record: &mut Map<String, Value>) -> Result<&mut Vec<Value>> {
    let instances = record.get_mut("instances").and_then(Value::as_array_mut);
    instances.ok_or_else(|| Error::internal("a service has no list of instances"))
}

fn position(instances: &[Value], name: &str, id: InstanceId) -> Result<usize> {
    let text = id.to_string();
    let found = instances.iter().position(|instance| instance["id"].as_str() == Some(&text));
    found.ok_or_else(|| {
        Error::not_found(format!("`{}` has no instance {id}", name.escape_debug())).with(|context| {
            context.service = Some(name.to_owned());
            context.instance = Some(text);
        })
    })
}

/// The place and the record of an instance.
fn instance_of<'a>(
    record: &'a mut Map<String, Value>,
    name: &str,
    id: InstanceId,
) -> Result<(usize, &'a mut Map<String, Value>)> {
    let instances = instances(record)?;
    let place = position(instances, name, id)?;
    let instance = instances[place].as_object_mut().ok_or_else(|| Error::internal("an instance is no object"))?;
    Ok((place, instance))
}

/// Writes into the record of a service or an instance that it is in maintenance,
/// or is not; what is out for another reason stays out.
fn maintain(record: &mut Map<String, Value>, maintained: bool, reason: Option<&str>) -> Result<()> {
    let out = record.get("admin_state").and_then(Value::as_str) == Some(AdminState::Maintenance.as_str());
    let state = match (maintained, out) {
        (true, _) => AdminState::Maintenance,
        (false, true) => AdminState::Enabled,
        (false, false) => return Ok(()),
    };
    record.shift_remove("enabled");
    record.insert("admin_state".to_owned(), state.as_str().into());
    if !out {
        record.shift_remove("admin_reason");
    }
    if let Some(reason) = reason {
        record.insert("admin_reason".to_owned(), reason.into());
    }
    Ok(())
}

/// The identity of the instance at this place.
fn identity(applied: &Applied, place: usize) -> Result<InstanceId> {
    let id = applied.services.first().and_then(|service| service.declared["instances"][place]["id"].as_str());
    id.and_then(|id| id.parse().ok()).ok_or_else(|| Error::conflict("the instance was removed meanwhile"))
}

/// The same error, with the fields of an instance as fields of the request.
fn of_instance(error: Error) -> Error {
    let (kind, context) = (error.kind(), error.context());
    if kind != ErrorKind::Invalid || context.problems.is_empty() {
        return error;
    }
    let (service, problems) = (context.service.clone(), context.problems.iter().map(relative).collect());
    Error::invalid_fields(problems).with(|context| context.service = service)
}

fn relative(problem: &Problem) -> Problem {
    let inner = problem.field.strip_prefix("instances[").and_then(|rest| Some(rest.split_once(']')?.1));
    let field = match inner.map(|inner| inner.trim_start_matches('.')) {
        Some("") => "body",
        Some(inner) => inner,
        None => &problem.field,
    };
    Problem { field: field.to_owned(), detail: problem.detail.clone() }
}

fn merge_fields(target: &mut Map<String, Value>, changes: &Map<String, Value>) {
    for (name, change) in changes {
        if change.is_null() {
            target.shift_remove(name);
        } else {
            merge(target.entry(name.clone()).or_insert(Value::Null), change);
        }
    }
}

/// RFC 7396, section 2.
fn merge(target: &mut Value, patch: &Value) {
    let Some(changes) = patch.as_object() else {
        *target = patch.clone();
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    if let Some(target) = target.as_object_mut() {
        merge_fields(target, changes);
    }
}

#[cfg(test)]
#[path = "edit_tests.rs"]
mod tests;
