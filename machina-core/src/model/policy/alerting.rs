//! When a person is told about a service.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::entries;
use crate::error::Problem;
use crate::parameters::{DAY, between};

/// How grave an alert is. It grows with the time that the alert lasts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum AlertLevel {
    /// Someone should look at it.
    #[default]
    Warning,
    /// Someone should look at it now.
    Critical,
    /// Someone should be woken.
    Emergency,
}

impl AlertLevel {
    /// Every level, the least first.
    pub const ALL: &'static [Self] = &[Self::Warning, Self::Critical, Self::Emergency];

    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
            Self::Emergency => "emergency",
        }
    }
}

/// When a person is told about the health of a service.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct AlertPolicy {
    /// Whether anyone is told; as `alerts.enabled` says by default.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,
    /// How long the service must have been down; 0 s to 1 day.
    #[serde(with = "crate::parameters::optional", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, examples("1m")))]
    pub down_after: Option<Duration>,
    /// The channels that are told, by name, at most 32; all of them by default,
    /// and where there is none of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<String>,
    /// The levels that an alert may have; all of them by default. One that has
    /// not reached the least of these is not sent yet.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub escalation_levels: Vec<AlertLevel>,
}

impl AlertPolicy {
    pub(super) fn check(&self, problems: &mut Vec<Problem>) {
        between("health_policy.alerting.down_after", self.down_after, Duration::ZERO, DAY, problems);
        entries("health_policy.alerting.channels", self.channels.len(), 32, problems);
        entries("health_policy.alerting.escalation_levels", self.escalation_levels.len(), 3, problems);
    }
}
