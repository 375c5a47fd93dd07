//! The words in which health is reported: for programs, for people, and in the
//! journal. Decides nothing: that is [`step`](super::state::step).

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// The reported health of an instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HealthState {
    /// Nothing is known yet.
    #[default]
    Unknown,
    /// It has not answered yet and may still be starting.
    Starting,
    /// It answers.
    Healthy,
    /// It answered until recently; too few failures to be sure.
    Suspect,
    /// It does not answer.
    Unhealthy,
    /// It answers again, not yet often enough to be sure.
    Recovering,
    /// Its process ends again and again; it is only started now and then.
    CrashLoop,
    /// It registered itself, and its heartbeats have stopped.
    Expired,
}

impl HealthState {
    /// Every state.
    pub const ALL: &'static [Self] = &[
        Self::Unknown,
        Self::Starting,
        Self::Healthy,
        Self::Suspect,
        Self::Unhealthy,
        Self::Recovering,
        Self::CrashLoop,
        Self::Expired,
    ];

    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Starting => "starting",
            Self::Healthy => "healthy",
            Self::Suspect => "suspect",
            Self::Unhealthy => "unhealthy",
            Self::Recovering => "recovering",
            Self::CrashLoop => "crash_loop",
            Self::Expired => "expired",
        }
    }

    /// The state with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|state| state.as_str() == word)
    }

    /// How far it is from well: the health of a service is that of its best
    /// instance.
    pub(crate) const fn severity(self) -> u8 {
        match self {
            Self::Healthy => 0,
            Self::Suspect => 1,
            Self::Recovering => 2,
            Self::Starting => 3,
            Self::Unknown => 4,
            Self::Unhealthy => 5,
            Self::CrashLoop => 6,
            Self::Expired => 7,
        }
    }

    /// Whether a call may be expected to succeed.
    #[must_use]
    pub const fn is_up(self) -> bool {
        matches!(self, Self::Healthy | Self::Suspect)
    }

    /// Whether nothing has been decided yet.
    #[must_use]
    pub const fn is_undecided(self) -> bool {
        matches!(self, Self::Unknown | Self::Starting)
    }
}

/// The one coarse word about a service or an instance, for people and filters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// All is well.
    Healthy,
    /// It works, but not all of it, or not well.
    Degraded,
    /// It does not work.
    Unhealthy,
    /// It is not known yet.
    #[default]
    Unknown,
    /// The operator switched it off.
    Disabled,
    /// The operator is working on it.
    Maintenance,
}

impl Status {
    /// Every value.
    pub const ALL: &'static [Self] =
        &[Self::Healthy, Self::Degraded, Self::Unhealthy, Self::Unknown, Self::Disabled, Self::Maintenance];

    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
            Self::Unknown => "unknown",
            Self::Disabled => "disabled",
            Self::Maintenance => "maintenance",
        }
    }
}

/// What kind of evidence a state rests on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ReasonCode {
    /// It was not checked yet.
    #[default]
    Unchecked,
    /// The last check passed.
    Passed,
    /// It answers, but slowly, or asks to slow down.
    Degraded,
    /// It is alive and wants credentials.
    AuthRequired,
    /// Checks fail, in a way that may pass.
    Failing,
    /// It is certainly down: its process ended, or its command does not exist.
    Down,
    /// Its heartbeats have stopped.
    Expired,
    /// It is a part of another program, and cannot be looked at from this process.
    Elsewhere,
}

/// Why the state is what it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reason {
    /// For programs.
    pub code: ReasonCode,
    /// For people; empty when all is well.
    pub message: String,
}

/// What is reported about the health of an instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// The state.
    pub state: HealthState,
    /// Why.
    pub reason: Reason,
    /// Since when.
    pub since: Timestamp,
    /// When it was last checked, by a probe or by a call.
    pub last_check: Option<Timestamp>,
    /// How long the last successful probe took, in milliseconds.
    pub response_time_ms: Option<f64>,
    /// Failures in a row.
    pub consecutive_failures: u32,
    /// Whether it goes down and comes back again and again, so that it takes more
    /// to be healthy and longer to get its full share of the calls.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub flapping: bool,
}

impl Health {
    /// The health of an instance that was never checked.
    #[must_use]
    pub fn unknown(since: Timestamp) -> Self {
        Self {
            state: HealthState::Unknown,
            reason: Reason::default(),
            since,
            last_check: None,
            response_time_ms: None,
            consecutive_failures: 0,
            flapping: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_state_has_its_word_and_its_place() {
        let severities: BTreeSet<_> = HealthState::ALL.iter().map(|state| usize::from(state.severity())).collect();
        assert_eq!(severities, (0..HealthState::ALL.len()).collect());
        for state in HealthState::ALL {
            assert_eq!(HealthState::from_word(state.as_str()), Some(*state));
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert_eq!(HealthState::from_word("fine"), None);
    }
}
