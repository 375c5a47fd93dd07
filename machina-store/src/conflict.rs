//! What every store says of a change that cannot be, because of what is there.

use machina_core::{Error, GroupName, InstanceId, Result, Revision, ServiceId};

/// Another service has the name.
pub(crate) fn name_is_taken(name: &str) -> Error {
    Error::conflict(format!("there is already a service named `{name}`")).with(|c| c.service = Some(name.to_owned()))
}

/// A service that must exist does not.
pub(crate) fn service_is_gone(id: ServiceId) -> Error {
    Error::conflict(format!("service {id} does not exist any more"))
}

/// The service is at the revision that its writer has seen.
pub(crate) fn check_service_revision(name: &str, now: Revision, expected: Revision) -> Result<()> {
    if now == expected {
        return Ok(());
    }
    Err(Error::conflict(format!("service `{name}` is at revision {now}, not {expected}")))
}

/// An instance is declared by another service already.
pub(crate) fn instance_of_another(id: InstanceId) -> Error {
    Error::conflict(format!("instance {id} belongs to another service"))
}

/// Something was said of an instance that is not declared.
pub(crate) fn no_instance(service: ServiceId, instance: InstanceId) -> Error {
    Error::conflict(format!("service {service} has no instance {instance}"))
}

/// No group has this name, where `now` is the revision of the one that has.
pub(crate) fn check_group_absent(name: &GroupName, now: Option<Revision>) -> Result<()> {
    match now {
        None => Ok(()),
        Some(_) => Err(Error::conflict(format!("there is already a group named `{name}`"))),
    }
}

/// The group was last changed by the revision that its writer has seen.
pub(crate) fn check_group_revision(name: &GroupName, now: Option<Revision>, expected: Revision) -> Result<()> {
    match now {
        None => Err(Error::conflict(format!("the group `{name}` does not exist any more"))),
        Some(now) if now != expected => {
            Err(Error::conflict(format!("the group `{name}` is at revision {now}, not {expected}")))
        }
        Some(_) => Ok(()),
    }
}
