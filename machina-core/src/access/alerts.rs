//! Alerts as a principal may see them.

use super::principal::Role;
use super::scoped::Scoped;
use crate::alerts::{Alert, Alerts, AlertsReport, ChannelTest};
use crate::error::{Error, Result};

impl Scoped {
    /// The alerts that fire, those that are over, and how the channels are.
    /// A principal of one tenant is told of the services of that tenant alone.
    #[must_use]
    pub fn alerts(&self) -> AlertsReport {
        let visible = |alert: &Alert| match &alert.service {
            None => self.principal.tenant.is_none(),
            Some(name) => self.principal.tenant.is_none() || self.service(name.as_str()).is_ok(),
        };
        let mut report = self.core.alerts.report(visible);
        if self.principal.tenant.is_some() {
            report.channels.clear();
        }
        report
    }

    /// Sends a test message to the channel of this name, or to all of them, and
    /// says what came of each. One attempt, at once, whatever the hour.
    ///
    /// # Errors
    /// [`Forbidden`](crate::ErrorKind::Forbidden) unless the principal is an admin
    /// of all tenants; [`Invalid`](crate::ErrorKind::Invalid) when there is no such
    /// channel; [`Overloaded`](crate::ErrorKind::Overloaded) while another test runs.
    pub async fn test_alerts(&self, channel: Option<&str>) -> Result<Vec<ChannelTest>> {
        self.principal.require(Role::Admin, "test alert channels")?;
        if self.principal.tenant.is_some() {
            return Err(Error::forbidden("the channels belong to all tenants"));
        }
        Alerts::test(&self.core, channel).await
    }
}
