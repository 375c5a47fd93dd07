//! Maintenance of one instance, as [`Scoped::set_maintenance`] is of a service.

use super::scoped::Scoped;
use crate::error::Result;
use crate::machina::{Applied, Registry};
use crate::model::{AdminState, InstanceId};
use crate::report::ServiceReport;
use crate::write::Mutation;

impl Scoped {
    /// Takes an instance out for maintenance, or back into use; one that is out
    /// for another reason stays out. `reason` is as in [`Scoped::set_maintenance`].
    ///
    /// # Errors
    /// As [`Mutation::SetAdminState`].
    pub async fn set_instance_maintenance(
        &self,
        name: &str,
        instance: InstanceId,
        maintained: bool,
        reason: Option<&str>,
    ) -> Result<Applied> {
        let view = self.service(name)?;
        let state = view.instance(instance).map(|(declared, _)| declared.admin_state);
        if !maintained && state.is_some_and(|state| state != AdminState::Maintenance) {
            return Ok(Applied { revision: self.revision(), services: vec![ServiceReport::from(&*view)] });
        }
        let admin_state = if maintained { AdminState::Maintenance } else { AdminState::Enabled };
        let (name, reason) = (view.service().name().clone(), reason.map(str::to_owned));
        self.apply(vec![Mutation::SetAdminState { name, instance: Some(instance), admin_state, reason }]).await
    }
}
