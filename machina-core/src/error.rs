//! One error type for the whole project: a kind out of a short table, a message
//! for people, and typed context for programs.
//!
//! Every adapter maps [`ErrorKind`] in exactly one function;
//! `docs/reference/errors.md` lists the table and a test keeps the two equal.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::route::Attempt;

/// The result of every fallible operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

macro_rules! kinds {
    ($($(#[$doc:meta])* $variant:ident = $code:literal,)*) => {
        /// What went wrong, coarse enough to act upon.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
        #[serde(rename_all = "snake_case")]
        #[non_exhaustive]
        pub enum ErrorKind { $($(#[$doc])* $variant,)* }

        impl ErrorKind {
            /// Every kind, in the order of the table.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The stable code that every adapter shows, such as `not_found`.
            #[must_use]
            pub const fn code(self) -> &'static str {
                match self { $(Self::$variant => $code,)* }
            }

            /// The kind with this code.
            #[must_use]
            pub fn from_code(code: &str) -> Option<Self> {
                match code { $($code => Some(Self::$variant),)* _ => None }
            }
        }
    };
}

kinds! {
    /// A record, query or argument is malformed; the context names the field.
    Invalid = "invalid",
    /// The caller did not say who it is.
    Unauthenticated = "unauthenticated",
    /// The caller may not do this.
    Forbidden = "forbidden",
    /// No such service, tool or instance.
    NotFound = "not_found",
    /// A precondition (revision, unique name) failed.
    Conflict = "conflict",
    /// No instance can take the call now; the context may say when to retry.
    Unavailable = "unavailable",
    /// Nothing was sent: another instance may always be tried.
    Unreachable = "unreachable",
    /// Sent, and the outcome is unknown.
    Lost = "lost",
    /// Sent, and no answer came in time.
    Timeout = "timeout",
    /// The other side, or a local limit, says slow down.
    Overloaded = "overloaded",
    /// The instance answered with a protocol error.
    Rejected = "rejected",
    /// This build or store cannot do it.
    Unsupported = "unsupported",
    /// A bug, or a broken store.
    Internal = "internal",
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.code())
    }
}

/// How far a call had come when it failed: what the retry classifier reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Nothing reached the instance (DNS, refused, connect timeout, child not running).
    NotSent,
    /// The request was written, wholly or in part, and no answer came.
    MaybeExecuted,
    /// The instance explicitly declined to take the call (429, 503 + Retry-After, dead session).
    Refused,
    /// The instance answered with an error of the protocol.
    Answered,
    /// Part of the answer (bytes or progress) had already been handed to the caller.
    Committed,
}

/// What is known about the effect of a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The tool certainly did not run.
    NotExecuted,
    /// The tool may have run.
    Unknown,
    /// The tool ran, or at least answered.
    Executed,
}

impl Phase {
    /// What this phase says about the effect of the call.
    #[must_use]
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::NotSent | Self::Refused => Outcome::NotExecuted,
            Self::MaybeExecuted | Self::Committed => Outcome::Unknown,
            Self::Answered => Outcome::Executed,
        }
    }
}

/// One wrong field of a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// Where: a dotted path such as `instances[0].weight`.
    pub field: String,
    /// What is wrong, and what would be right.
    pub detail: String,
}

/// What a program may want to know about an [`Error`]; all of it optional.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ErrorContext {
    /// The wrong fields of a request ([`ErrorKind::Invalid`]).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub problems: Vec<Problem>,
    /// The service concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// The tool concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The instance concerned: for a call, the last one tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<String>,
    /// How far the last attempt of a call had come.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<Phase>,
    /// What is known about the effect of the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// How many attempts were made.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u32>,
    /// Each of them, in order; goes into the journal and into no answer.
    #[serde(skip)]
    pub tried: Vec<Attempt>,
    /// When it makes sense to try again, in milliseconds from now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_after_ms: Option<u64>,
    /// The HTTP status that the instance answered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_status: Option<u16>,
    /// The JSON-RPC error code that the instance answered with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_code: Option<i64>,
    /// What the instance added to that error (its `data`), without secrets; left
    /// out when it is longer than 16 KiB.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upstream_data: Option<Value>,
    /// The last lines that the instance's process wrote to stderr.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr_tail: Option<String>,
    /// Whether the failure is final evidence about the instance (its process
    /// ended, its command does not exist), not one that may pass.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub hard: bool,
}

/// The error of every Machina operation. Cheap to clone and to move.
#[derive(Clone)]
pub struct Error(Box<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    context: ErrorContext,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

macro_rules! constructors {
    ($($name:ident => $kind:ident,)*) => {
        $(
            #[doc = concat!("An error of kind [`ErrorKind::", stringify!($kind), "`].")]
            pub fn $name(message: impl Into<String>) -> Self {
                Self::new(ErrorKind::$kind, message)
            }
        )*
    };
}

impl Error {
    /// An error of this kind; `message` is for people and holds no secret.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(Inner { kind, message: message.into(), context: ErrorContext::default(), source: None }))
    }

    constructors! {
        invalid => Invalid,
        unauthenticated => Unauthenticated,
        forbidden => Forbidden,
        not_found => NotFound,
        conflict => Conflict,
        unavailable => Unavailable,
        unreachable => Unreachable,
        lost => Lost,
        timeout => Timeout,
        overloaded => Overloaded,
        rejected => Rejected,
        unsupported => Unsupported,
        internal => Internal,
    }

    /// [`ErrorKind::Invalid`] for one field: says where, and what would be right.
    pub fn invalid_field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::invalid_fields(vec![Problem { field: field.into(), detail: detail.into() }])
    }

    /// [`ErrorKind::Invalid`] for several fields at once.
    #[must_use]
    pub fn invalid_fields(problems: Vec<Problem>) -> Self {
        let message = problems.iter().map(|p| format!("{}: {}", p.field, p.detail)).collect::<Vec<_>>().join("; ");
        Self::invalid(message).with(|c| c.problems = problems)
    }

    /// The same error with its context changed by `change`.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut ErrorContext)) -> Self {
        change(&mut self.0.context);
        self
    }

    /// The same error with its phase, and the outcome that follows from it.
    #[must_use]
    pub fn at(self, phase: Phase) -> Self {
        self.with(|c| {
            c.phase = Some(phase);
            c.outcome = Some(phase.outcome());
        })
    }

    /// The same error with the time after which a retry makes sense.
    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        self.with(|c| c.retry_after_ms = Some(u64::try_from(after.as_millis()).unwrap_or(u64::MAX)))
    }

    /// The same error with its cause.
    #[must_use]
    pub fn caused_by(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.0.source = Some(Arc::new(source));
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The message for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// What a program may want to know.
    #[must_use]
    pub fn context(&self) -> &ErrorContext {
        &self.0.context
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.0.kind, self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("context", &self.0.context)
            .field("source", &self.0.source.as_ref().map(ToString::to_string))
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|s| &**s as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_reads_back() {
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::from_code(kind.code()), Some(*kind));
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.code());
        }
        assert_eq!(ErrorKind::from_code("no_such_code"), None);
    }

    #[test]
    fn invalid_field_names_the_field_in_message_and_context() {
        let error = Error::invalid_field("instances[0].weight", "must be 1 to 1000, is 0");
        assert_eq!(error.to_string(), "invalid: instances[0].weight: must be 1 to 1000, is 0");
        assert_eq!(error.context().problems[0].field, "instances[0].weight");
    }

    #[test]
    fn a_phase_implies_its_outcome() {
        let error = Error::lost("connection reset").at(Phase::MaybeExecuted);
        assert_eq!(error.context().outcome, Some(Outcome::Unknown));
    }
}
