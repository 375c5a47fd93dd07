//! What differs from one view to the next: what was committed, and what was
//! observed. Pure data: [`View::next`](crate::View) applies it.

use std::sync::Arc;

use crate::health::Health;
use crate::model::{Definitions, Group, GroupName, InstanceId, Service, ServiceId};
use crate::store::{Change, Seen};

/// A change from one view to the next.
#[derive(Debug, Clone)]
pub(crate) enum Delta {
    Put(Arc<Service>),
    Delete(ServiceId),
    Definitions {
        service: ServiceId,
        instance: InstanceId,
        definitions: Arc<Definitions>,
    },
    /// The health of an instance, as its cell has it now.
    Health {
        service: ServiceId,
        instance: InstanceId,
    },
    PutGroup(Arc<Group>),
    DeleteGroup(GroupName),
    /// The health of an instance, as the store has it.
    Reported {
        service: ServiceId,
        instance: InstanceId,
        health: Arc<Health>,
    },
    /// When instances were seen, as the store has it.
    Seen(Arc<[Seen]>),
}

impl Delta {
    /// What a committed change is to the view.
    pub(crate) fn of(change: Change) -> Self {
        match change {
            Change::PutService(service) => Self::Put(service),
            Change::DeleteService { id, .. } => Self::Delete(id),
            Change::PutDefinitions { service, instance, definitions } => {
                Self::Definitions { service, instance, definitions }
            }
            Change::PutGroup(group) => Self::PutGroup(group),
            Change::DeleteGroup(name) => Self::DeleteGroup(name),
            Change::PutHealth { service, instance, health } => Self::Reported { service, instance, health },
            Change::Seen(all) => Self::Seen(all),
        }
    }
}
