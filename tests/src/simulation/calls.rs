//! Calls at a rate, whatever becomes of those before: as people make them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use machina_core::testing::registry_suite::call;
use machina_core::{CallOptions, ErrorKind, Tasks};
use serde_json::json;
use tokio::time::Instant;

use super::fleet::Fleet;

/// How long the last calls may take when no more are made.
const LAST_CALLS: Duration = Duration::from_secs(120);

/// What a caller was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Told {
    /// The answer.
    Answered,
    /// That it failed.
    Failed(ErrorKind),
}

/// One call.
#[derive(Debug, Clone, Copy)]
pub struct Call {
    /// When it was made.
    pub made: Instant,
    /// When its caller was told.
    pub ended: Instant,
    /// What.
    pub told: Told,
    /// How many attempts it had.
    pub attempts: u32,
}

/// What is called, and how often.
#[derive(Debug, Clone)]
pub struct Load {
    /// The service.
    pub service: String,
    /// Calls a second, evenly spaced.
    pub rate: u32,
    /// How long each may take.
    pub patience: Duration,
    /// The tool.
    pub tool: &'static str,
}

impl Load {
    /// Makes the calls for `time`, and waits for all of them; in the order in which
    /// they ended.
    ///
    /// # Panics
    /// When some have not ended long after their time.
    pub async fn offer(&self, fleet: &Fleet, time: Duration) -> Vec<Call> {
        let (tasks, ended) = (Tasks::new(), Arc::new(Mutex::new(Vec::new())));
        let begun = Instant::now();
        let count = self.rate * u32::try_from(time.as_secs()).unwrap_or(u32::MAX);
        for number in 0..count {
            tokio::time::sleep_until(begun + Duration::from_secs(1) * number / self.rate).await;
            let request = call(&self.service, self.tool, json!({ "call": number }));
            let options = CallOptions { timeout: Some(self.patience), ..CallOptions::default() };
            let (machina, ended) = (fleet.machina.clone(), Arc::clone(&ended));
            tasks.spawn("call", async move {
                let made = Instant::now();
                let outcome = machina.call(&request, &options).await;
                let (told, attempts) = match &outcome {
                    Ok(report) => (Told::Answered, u32::try_from(report.attempts.len()).unwrap_or(u32::MAX)),
                    Err(error) => (Told::Failed(error.kind()), error.context().attempts.unwrap_or(0)),
                };
                let call = Call { made, ended: Instant::now(), told, attempts };
                ended.lock().unwrap_or_else(PoisonError::into_inner).push(call);
            });
        }
        assert!(tasks.finish(LAST_CALLS).await, "every call ends in its time");
        let ended = ended.lock().unwrap_or_else(PoisonError::into_inner);
        ended.clone()
    }
}
