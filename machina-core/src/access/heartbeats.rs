//! Heartbeats of instances that registered themselves. Which instance is meant,
//! and who may speak for it, is decided here and nowhere else.

use super::principal::Role;
use super::scoped::Scoped;
use crate::error::{Error, Result};
use crate::lease::Heartbeat;
use crate::machina::Applied;
use crate::model::{InstanceId, ServiceName};
use crate::view::ServiceView;
use crate::write::Mutation;

impl Scoped {
    /// Says that an instance is alive: its lease begins anew. One that had expired
    /// comes back, to be probed at once. For a declared instance, which has no
    /// lease, nothing happens and [`Heartbeat::lease`] is none.
    ///
    /// `instance` may be left out where the service has one leased instance. Where
    /// it has several it must be named: a heartbeat for all would keep those alive
    /// that fell silent.
    ///
    /// # Errors
    /// [`NotFound`](crate::ErrorKind::NotFound) when there is no such service or
    /// instance (any more): register again. [`Invalid`](crate::ErrorKind::Invalid)
    /// for `instance` left out where it must be named;
    /// [`Forbidden`](crate::ErrorKind::Forbidden) unless the principal may call tools;
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where the registry follows
    /// another one.
    pub fn heartbeat(&self, service: &str, instance: Option<InstanceId>) -> Result<Heartbeat> {
        self.principal.require(Role::Developer, "send heartbeats")?;
        if self.core.is_follower {
            return Err(Error::unsupported("this Machina follows another one: heartbeats go there"));
        }
        let view = self.service(service)?;
        let instance = match instance {
            Some(id) if view.instance(id).is_none() => {
                let name = view.service().name();
                return Err(Error::not_found(format!("`{name}` has no instance {id}: register it again")).with(
                    |context| {
                        context.service = Some(name.to_string());
                        context.instance = Some(id.to_string());
                    },
                ));
            }
            Some(id) => Some(id),
            None => only_leased(&view)?,
        };
        let lease = instance.and_then(|id| self.core.renew_lease(&view, id));
        let health = instance.and_then(|id| Some(view.instance(id)?.1.cell.health().state));
        let (service, revision) = (view.service().name().clone(), self.revision());
        Ok(Heartbeat { service, instance, lease, health, revision })
    }

    /// Who registers is heard of: the leases of these services begin anew.
    pub(super) fn heard_of(&self, registered: &[ServiceName], applied: &Applied<std::sync::Arc<ServiceView>>) {
        for view in applied.services.iter().filter(|view| registered.contains(view.service().name())) {
            for (instance, _) in view.instances() {
                self.core.renew_lease(view, instance.id);
            }
        }
    }
}

/// The services that these mutations register, perhaps again. Other changes of a
/// record say nothing about its instances.
pub(super) fn registered(mutations: &[Mutation]) -> Vec<ServiceName> {
    let registers = |mutation: &&Mutation| matches!(mutation, Mutation::Register(_) | Mutation::Put(_));
    mutations.iter().filter(registers).map(|mutation| mutation.service().clone()).collect()
}

/// The leased instance of a service, where there is one; an error names them
/// where there are several.
fn only_leased(view: &ServiceView) -> Result<Option<InstanceId>> {
    let leased = view.instances().filter(|(instance, _)| instance.lease_ttl.is_some());
    let leased: Vec<InstanceId> = leased.map(|(instance, _)| instance.id).collect();
    match leased[..] {
        [] => Ok(None),
        [one] => Ok(Some(one)),
        _ => {
            let ids = leased.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let detail = format!("must say which of the instances with a lease is alive: {ids}");
            Err(Error::invalid_field("instance", detail)
                .with(|context| context.service = Some(view.service().name().to_string())))
        }
    }
}
