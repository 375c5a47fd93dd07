//! The circumstances of a call, as its caller sets them. Refuses what would
//! bind the registry longer than it may.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;

use crate::connect::{LogSink, ProgressSink};
use crate::error::{Error, Problem, Result};

/// The longest that a call may be allowed to take, and the longest key.
const TIMEOUT_MAX: Duration = Duration::from_secs(600);
const KEY_MAX: usize = 255;

/// The circumstances of a call.
#[derive(Clone, Default)]
pub struct CallOptions {
    /// How long it may take in all; the service's own limit by default.
    pub timeout: Option<Duration>,
    /// Says that the caller may repeat the call: it is then repeated even if
    /// its outcome is unknown.
    pub idempotency_key: Option<String>,
    /// What the call belongs to, such as a session or a task: calls with the same
    /// key go to the same instance while that is up. The argument that the service
    /// names for this (`routing_policy.affinity_argument`) counts first.
    pub affinity_key: Option<String>,
    /// The session of the host that the call came in, where it came in one: what the
    /// affinity is to where the service wants that (`routing_policy.session_affinity`)
    /// and there is no other.
    pub session: Option<Arc<str>>,
    /// Fires when the caller has lost interest.
    pub cancelled: CancellationToken,
    /// Who is told about progress.
    pub progress: Option<ProgressSink>,
    /// Who is told what the instance logs meanwhile. The level is asked for in
    /// [`CallOptions::meta`] under [`LOG_LEVEL`](crate::LOG_LEVEL), of instances
    /// that take it per request; others log from `debug` on, for everyone.
    pub log: Option<LogSink>,
    /// What the instance gets as `_meta` of the request, such as the context of a
    /// trace, beside what the protocol itself puts there.
    pub meta: Map<String, Value>,
}

impl CallOptions {
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) with every wrong field at once.
    pub(crate) fn validate(&self) -> Result<()> {
        let mut problems = Vec::new();
        if self.timeout.is_some_and(|timeout| timeout.is_zero() || timeout > TIMEOUT_MAX) {
            let detail = format!("must be 1 to {}", TIMEOUT_MAX.as_millis());
            problems.push(Problem { field: "timeout_ms".to_owned(), detail });
        }
        let fits = |key: &String| (1..=KEY_MAX).contains(&key.len()) && !key.chars().any(char::is_control);
        for (field, key) in [("idempotency_key", &self.idempotency_key), ("affinity_key", &self.affinity_key)] {
            if !key.as_ref().is_none_or(fits) {
                let detail = format!("must have 1 to {KEY_MAX} bytes, and no control characters");
                problems.push(Problem { field: field.to_owned(), detail });
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::invalid_fields(problems)) }
    }
}

impl std::fmt::Debug for CallOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CallOptions")
            .field("timeout", &self.timeout)
            .field("idempotency_key", &self.idempotency_key.is_some())
            .field("affinity_key", &self.affinity_key.is_some())
            .field("progress", &self.progress.is_some())
            .field("log", &self.log.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_out_of_range_are_named() {
        let options = |timeout, key: &str| CallOptions {
            timeout: Some(timeout),
            idempotency_key: Some(key.to_owned()),
            affinity_key: Some(key.to_owned()),
            ..CallOptions::default()
        };
        options(TIMEOUT_MAX, &"k".repeat(KEY_MAX)).validate().unwrap();
        let long = "k".repeat(KEY_MAX + 1);
        for (timeout, key) in [(Duration::ZERO, ""), (Duration::MAX, "a\nb"), (TIMEOUT_MAX * 2, &long)] {
            let error = options(timeout, key).validate().unwrap_err();
            let fields: Vec<_> = error.context().problems.iter().map(|problem| problem.field.as_str()).collect();
            assert_eq!(fields, ["timeout_ms", "idempotency_key", "affinity_key"]);
        }
    }
}
