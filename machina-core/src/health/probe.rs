//! One check of one instance, and what it saw. A prober says what it saw and
//! never decides what that means.

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;

use super::faults::is_own_fault;
use crate::connect::Target;
use crate::error::{Error, ErrorKind, Phase};
use crate::model::{Canary, HealthEndpoint, HealthParameters};

/// What a check saw.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ProbeOutcome {
    /// It answers as it should.
    Pass,
    /// It answers, but slowly, or asks to slow down.
    Degraded,
    /// It answers that it wants credentials: it is alive.
    AuthRequired,
    /// It does not answer.
    Fail {
        /// Whether that is final (its process ended), not one lost packet.
        hard: bool,
    },
    /// Nothing can be concluded: the fault is ours, or nobody looked.
    Inconclusive,
}

impl ProbeOutcome {
    /// The word in JSON and in the journal.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Degraded => "degraded",
            Self::AuthRequired => "auth_required",
            Self::Fail { .. } => "fail",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// What one probe, or one call, saw of an instance.
#[derive(Debug, Clone, PartialEq)]
pub struct Observation {
    /// In one word.
    pub outcome: ProbeOutcome,
    /// For people; empty when all is well.
    pub message: String,
    /// How long it took to answer.
    pub response_time: Option<Duration>,
    /// What the instance's process last wrote to stderr, if it failed.
    pub stderr_tail: String,
    /// Whether the call of the canary brought what it should, if one was made.
    pub canary: Option<bool>,
}

impl Observation {
    /// An observation without a response time.
    pub fn new(outcome: ProbeOutcome, message: impl Into<String>) -> Self {
        Self { outcome, message: message.into(), response_time: None, stderr_tail: String::new(), canary: None }
    }

    /// The instance answered after this time.
    #[must_use]
    pub fn pass(response_time: Duration) -> Self {
        Self { response_time: Some(response_time), ..Self::new(ProbeOutcome::Pass, "") }
    }

    /// What a failed probe says about the instance.
    #[must_use]
    pub fn of_failed_probe(error: &Error) -> Self {
        let context = error.context();
        let outcome = match (error.kind(), context.upstream_status) {
            _ if is_own_fault(error) => ProbeOutcome::Inconclusive,
            (_, Some(401 | 403)) => ProbeOutcome::AuthRequired,
            (ErrorKind::Overloaded, _) => ProbeOutcome::Degraded,
            (ErrorKind::Rejected, _) if context.phase == Some(Phase::Answered) => ProbeOutcome::Pass,
            (ErrorKind::Internal | ErrorKind::Unavailable, _) => ProbeOutcome::Inconclusive,
            // It answered the handshake, and the answer is no.
            (ErrorKind::Rejected, _) if context.upstream_code.is_some() => ProbeOutcome::Fail { hard: true },
            (ErrorKind::Invalid | ErrorKind::Unsupported, _) => ProbeOutcome::Fail { hard: true },
            _ => ProbeOutcome::Fail { hard: context.hard },
        };
        let stderr_tail = context.stderr_tail.clone().unwrap_or_default();
        Self { stderr_tail, ..Self::new(outcome, describe(error)) }
    }

    /// What a failed call says about the instance. A call is a poorer witness
    /// than a probe: a slow tool is no sign of a dead server.
    #[must_use]
    pub fn of_failed_call(error: &Error) -> Self {
        match error.kind() {
            ErrorKind::Timeout | ErrorKind::Invalid | ErrorKind::Unsupported => {
                Self::new(ProbeOutcome::Inconclusive, describe(error))
            }
            // It answered; what it refuses is this one request.
            ErrorKind::Rejected if error.context().upstream_code.is_some() => Self::new(ProbeOutcome::Pass, ""),
            _ => Self::of_failed_probe(error),
        }
    }
}

/// The message, with the last line of stderr: that is where the cause is.
fn describe(error: &Error) -> String {
    let stderr = error.context().stderr_tail.as_deref().unwrap_or_default();
    match stderr.lines().rev().find(|line| !line.trim().is_empty()) {
        Some(line) if !error.message().contains(line.trim()) => format!("{}; stderr: {}", error.message(), line.trim()),
        _ => error.message().to_owned(),
    }
}

/// What a probe looks at, and how long that may take.
#[derive(Debug, Clone, Default)]
pub struct ProbePlan {
    /// How long an attempt may take, and how often it is confirmed.
    pub parameters: HealthParameters,
    /// What is looked at besides MCP.
    pub endpoints: Vec<HealthEndpoint>,
    /// The HTTP statuses that count as well there; 200 to 299 when there are none.
    pub expected_status: Vec<u16>,
    /// The call of a tool that is to succeed; the tool is known to be read-only.
    pub canary: Option<Canary>,
}

/// Checks instances. The default one asks the instance itself, through the
/// session that calls use.
#[async_trait]
pub trait Prober: fmt::Debug + Send + Sync + 'static {
    /// Checks `target` as `plan` says. Never decides what the observation means,
    /// and never fails: a fault of the prober itself is
    /// [`ProbeOutcome::Inconclusive`].
    async fn probe(&self, target: &Target, plan: &ProbePlan) -> Observation;
}

#[cfg(test)]
#[path = "probe_tests.rs"]
mod tests;
