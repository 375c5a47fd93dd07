//! What a service says about its own health. It is believed when it says that it
//! fails, as one witness among others, and never when it says that all is well:
//! that is for the probes to find out.

use super::scoped::Scoped;
use crate::error::{Error, Result};
use crate::health::{Observation, ProbeOutcome};
use crate::lease::Heartbeat;
use crate::model::InstanceId;

/// How many characters a service may say about its failure.
const MESSAGE_MAX: usize = 500;

impl Scoped {
    /// An instance reports on itself. That it can is a [heartbeat](Scoped::heartbeat).
    /// With `failing`, which says what is wrong, it is also evidence of a failure
    /// that may pass, as a failed call is: the instance is probed, and it takes
    /// several in a row to take it out. Without, its health stays what it was.
    ///
    /// # Errors
    /// As [`Scoped::heartbeat`]; [`Invalid`](crate::ErrorKind::Invalid) for
    /// `failing` with more than 500 characters.
    pub fn report_health(
        &self,
        service: &str,
        instance: Option<InstanceId>,
        failing: Option<&str>,
    ) -> Result<Heartbeat> {
        let length = failing.unwrap_or_default().chars().count();
        if length > MESSAGE_MAX {
            let detail = format!("must have at most {MESSAGE_MAX} characters, has {length}");
            return Err(Error::invalid_field("message", detail));
        }
        let mut heartbeat = self.heartbeat(service, instance)?;
        let Some(message) = failing else { return Ok(heartbeat) };
        let view = self.service(service)?;
        let only = view.instances().next().map(|(instance, _)| instance.id).filter(|_| view.instances().len() == 1);
        let id = heartbeat.instance.or(only).ok_or_else(|| {
            let detail = format!("must say which of {} instances reports", view.instances().len());
            Error::invalid_field("instance", detail)
        })?;
        let message = if message.is_empty() { "no reason given" } else { message };
        let failed = Observation::new(ProbeOutcome::Fail { hard: false }, format!("it reports: {message}"));
        self.core.observe_call(&view, id, failed);
        heartbeat.health = view.instance(id).map(|(_, seen)| seen.cell.health().state);
        heartbeat.instance = Some(id);
        Ok(heartbeat)
    }
}

#[cfg(test)]
#[path = "self_report_tests.rs"]
mod tests;
