//! What a Machina leaves alone because it follows another one. Its store is not its
//! own: to start a command that is declared there is to run what someone elsewhere
//! says as the user of this process. Refuses that unless the configuration lets
//! commands come from outside.

use std::sync::Arc;

use async_trait::async_trait;

use crate::connect::{Connector, Session, Target};
use crate::core::Core;
use crate::error::{Error, Phase, Result};
use crate::health::{Reason, ReasonCode};
use crate::model::{Endpoint, ServiceName};

/// Stands before the connectors of a Machina that follows another, in the place of
/// the one that would start its commands.
#[derive(Debug)]
pub(crate) struct NoCommands;

#[async_trait]
impl Connector for NoCommands {
    fn handles(&self, endpoint: &Endpoint) -> bool {
        matches!(endpoint, Endpoint::Stdio(_))
    }

    async fn connect(&self, target: &Target) -> Result<Arc<dyn Session>> {
        Err(Error::unavailable(elsewhere(&target.service)).at(Phase::NotSent))
    }
}

impl Core {
    /// Why an instance cannot be looked at from here, where that is no fault of its own.
    pub(crate) fn absence(&self, service: &ServiceName, endpoint: &Endpoint) -> Option<Reason> {
        let command = matches!(endpoint, Endpoint::Stdio(_)) && !self.starts_commands();
        let command = command.then(|| Reason { code: ReasonCode::Elsewhere, message: elsewhere(service) });
        command.or_else(|| self.natives.absence(service, endpoint))
    }

    const fn starts_commands(&self) -> bool {
        !self.is_follower || self.config.access.allow_stdio_registration
    }
}

fn elsewhere(service: &ServiceName) -> String {
    format!(
        "`{service}` is a command of the Machina that is followed, and is not started here: call it there, or set \
         access.allow_stdio_registration = true to let commands come from outside"
    )
}
