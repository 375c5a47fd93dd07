//! What may be repeated: the heart of routing. Pure.
//!
//! The rule in one sentence: a call that may have been executed is repeated only
//! if the operator trusts that repeating it is harmless, or the caller said so.

use super::breaker::CallEvidence;
use crate::error::{Error, ErrorKind, Phase};

/// How an attempt failed, as far as repeating it is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failure {
    /// What went wrong.
    pub kind: ErrorKind,
    /// How far the attempt had come.
    pub phase: Phase,
    /// The instance wants credentials (401 or 403).
    pub wants_credentials: bool,
    /// The session was open before the call came, so it may merely be stale.
    pub stale_session: bool,
}

impl Failure {
    /// How this error counts. Without a phase, nothing is assumed: the call may
    /// have been executed.
    #[must_use]
    pub fn of(error: &Error, progressed: bool, stale_session: bool) -> Self {
        let phase = error.context().phase.unwrap_or(Phase::MaybeExecuted);
        let progressed = progressed && phase == Phase::MaybeExecuted;
        Self {
            kind: error.kind(),
            phase: if progressed { Phase::Committed } else { phase },
            wants_credentials: matches!(error.context().upstream_status, Some(401 | 403)),
            stale_session,
        }
    }
}

/// What a failed attempt says about its instance; `None` when it says nothing.
/// An answer is an answer, also that the arguments are wrong; but an instance that
/// says it is broken is believed.
pub(crate) fn evidence(failure: Failure, error: &Error) -> Option<CallEvidence> {
    const INTERNAL_ERROR: i64 = -32603;
    let context = error.context();
    let broken =
        context.upstream_code == Some(INTERNAL_ERROR) || context.upstream_status.is_some_and(|status| status >= 500);
    match (failure.phase, failure.kind) {
        (Phase::Answered, _) if broken => Some(CallEvidence::Failure),
        (Phase::Answered, _) => Some(CallEvidence::Success),
        (Phase::Refused, ErrorKind::Overloaded) => Some(CallEvidence::Limited),
        // It may merely have been away for a moment; the next attempt shows it.
        (Phase::NotSent | Phase::Refused, _) if failure.stale_session => None,
        // It is on our side: a process that may not be started yet, a registry that closes.
        (Phase::NotSent, ErrorKind::Unavailable | ErrorKind::Unsupported | ErrorKind::Internal) => None,
        _ => Some(CallEvidence::Failure),
    }
}

/// What to do after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Try an instance that was not tried yet.
    NextInstance,
    /// Try the same instance once more, on a new session.
    NewSession,
    /// Tell the caller.
    Fail,
}

/// What to do after a failed attempt. `safe` says whether repeating the call is
/// known to be harmless. Limits (attempts, deadline) are the caller's.
#[must_use]
pub fn decide(failure: Failure, safe: bool) -> Decision {
    if failure.wants_credentials {
        return Decision::Fail;
    }
    match failure.phase {
        Phase::NotSent if matches!(failure.kind, ErrorKind::Internal) => Decision::Fail,
        Phase::NotSent if failure.stale_session => Decision::NewSession,
        Phase::NotSent => Decision::NextInstance,
        Phase::Refused if failure.kind == ErrorKind::Overloaded => Decision::NextInstance,
        Phase::Refused if failure.stale_session => Decision::NewSession,
        Phase::Refused => Decision::NextInstance,
        Phase::MaybeExecuted | Phase::Committed if safe => Decision::NextInstance,
        Phase::MaybeExecuted | Phase::Committed | Phase::Answered => Decision::Fail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(phase: Phase) -> Failure {
        Failure { kind: ErrorKind::Lost, phase, wants_credentials: false, stale_session: false }
    }

    #[test]
    fn the_repeat_table() {
        use Decision::{Fail, NewSession, NextInstance};
        let stale = |phase| Failure { stale_session: true, ..failure(phase) };
        let overloaded = Failure { kind: ErrorKind::Overloaded, ..stale(Phase::Refused) };
        let unauthorised = Failure { wants_credentials: true, ..failure(Phase::Refused) };
        let rows = [
            // failure, any tool, safe to repeat
            (failure(Phase::NotSent), NextInstance, NextInstance),
            (stale(Phase::NotSent), NewSession, NewSession),
            (failure(Phase::MaybeExecuted), Fail, NextInstance),
            (stale(Phase::MaybeExecuted), Fail, NextInstance),
            (failure(Phase::Refused), NextInstance, NextInstance),
            (stale(Phase::Refused), NewSession, NewSession),
            (overloaded, NextInstance, NextInstance),
            (failure(Phase::Answered), Fail, Fail),
            (failure(Phase::Committed), Fail, NextInstance),
            (unauthorised, Fail, Fail),
        ];
        for (failure, any, safe) in rows {
            assert_eq!(decide(failure, false), any, "{failure:?}");
            assert_eq!(decide(failure, true), safe, "{failure:?}, safe");
        }
    }

    #[test]
    fn what_a_failure_says_about_the_instance() {
        let answered = |code: i64| Error::rejected("x").at(Phase::Answered).with(|c| c.upstream_code = Some(code));
        let status = |status, error: Error| error.with(|context| context.upstream_status = Some(status));
        let rows = [
            (answered(-32602), false, Some(CallEvidence::Success)),
            (answered(-32000), false, Some(CallEvidence::Success)),
            (answered(-32603), false, Some(CallEvidence::Failure)),
            (status(500, Error::rejected("x").at(Phase::Answered)), false, Some(CallEvidence::Failure)),
            (Error::overloaded("x").at(Phase::Refused), false, Some(CallEvidence::Limited)),
            (status(401, Error::rejected("x").at(Phase::Refused)), false, Some(CallEvidence::Failure)),
            (Error::rejected("no such session").at(Phase::Refused), true, None),
            (Error::unreachable("x").at(Phase::NotSent), true, None),
            (Error::unreachable("x").at(Phase::NotSent), false, Some(CallEvidence::Failure)),
            (Error::unavailable("x").at(Phase::NotSent), false, None),
            (Error::lost("x").at(Phase::MaybeExecuted), false, Some(CallEvidence::Failure)),
            (Error::timeout("x").at(Phase::MaybeExecuted), false, Some(CallEvidence::Failure)),
        ];
        for (error, stale, expected) in rows {
            assert_eq!(evidence(Failure::of(&error, false, stale), &error), expected, "{error:?}");
        }
    }

    #[test]
    fn nothing_is_assumed_of_an_error_without_a_phase() {
        assert_eq!(Failure::of(&Error::lost("x"), false, false).phase, Phase::MaybeExecuted);
    }

    #[test]
    fn progress_that_was_forwarded_commits() {
        let lost = Error::lost("x").at(Phase::MaybeExecuted);
        assert_eq!(Failure::of(&lost, true, false).phase, Phase::Committed);
        let refused = Error::overloaded("x").at(Phase::Refused);
        assert_eq!(Failure::of(&refused, true, false).phase, Phase::Refused);
    }
}
