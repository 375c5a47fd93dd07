//! What is measured of a registry: for whoever watches over it as a whole.

use std::sync::Arc;

use super::principal::Role;
use super::scoped::Scoped;
use crate::alerts::AlertCounts;
use crate::error::{Error, Result};
use crate::replicas::StoreStanding;
use crate::view::View;

/// A registry at one moment, for those who measure it. What its services and
/// instances have counted is with them: [`ServiceView::statistics`](crate::ServiceView::statistics),
/// [`InstanceView::statistics`](crate::InstanceView::statistics).
#[derive(Debug, Clone)]
pub struct Measured {
    /// All of it, whoever it belongs to.
    pub view: Arc<View>,
    /// How many sessions with instances are open.
    pub sessions: usize,
    /// How many journal entries were dropped because the store was too slow.
    pub dropped_journal_entries: u64,
    /// Whether soft failures take no instance down at the moment, because so many
    /// fail at once.
    pub self_preservation: bool,
    /// How what readers see stands to the store.
    pub standing: StoreStanding,
    /// The alerts that fire, and what channels were told.
    pub alerts: AlertCounts,
}

impl Scoped {
    /// What is measured of the registry, all tenants together.
    ///
    /// # Errors
    /// [`Forbidden`](crate::ErrorKind::Forbidden) unless the principal is an admin
    /// of all tenants.
    pub fn measured(&self) -> Result<Measured> {
        self.principal.require(Role::Admin, "read metrics")?;
        if self.principal.tenant.is_some() {
            return Err(Error::forbidden("metrics belong to all tenants"));
        }
        Ok(Measured {
            view: self.core.view(),
            sessions: self.core.sessions.open_count(),
            dropped_journal_entries: self.core.recorder.dropped(),
            self_preservation: self.core.guard.holds(),
            standing: self.core.standing(),
            alerts: self.core.alerts.counts(),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::{ErrorKind, Machina, Principal, Role};

    #[tokio::test]
    async fn only_an_admin_of_all_tenants_may_measure() {
        let machina = Machina::builder().open().await.unwrap();
        let measured = machina.scoped(Principal::new("a", Role::Admin)).measured().unwrap();
        assert_eq!((measured.sessions, measured.view.len()), (0, 0));
        for principal in [Principal::new("d", Role::Developer), Principal::new("t", Role::Admin).of_tenant("t")] {
            assert_eq!(machina.scoped(principal).measured().unwrap_err().kind(), ErrorKind::Forbidden);
        }
        machina.close().await;
    }
}
