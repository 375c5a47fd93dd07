//! What is said about alerts to those who ask.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::alert::Alert;
use crate::error::Error;
use crate::model::AlertLevel;

/// The alerts at one moment, and how the channels are.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AlertsReport {
    /// What fires, the gravest first; at most [`Self::FIRING_MAX`].
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Alert>))]
    pub firing: Vec<Arc<Alert>>,
    /// How many more fire.
    pub omitted: usize,
    /// What is over, the newest first, as far as it is remembered.
    #[cfg_attr(feature = "openapi", schema(value_type = Vec<Alert>))]
    pub recent: Vec<Arc<Alert>>,
    /// Whether nothing is sent, because what is seen may be Machina's own fault.
    pub held: bool,
    /// The channels; none for those of one tenant.
    pub channels: Vec<ChannelReport>,
}

impl AlertsReport {
    /// How many alerts that fire are listed.
    pub const FIRING_MAX: usize = 1000;
}

/// One channel, and what came of it since the start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChannelReport {
    /// Its name.
    pub name: String,
    /// How it tells: `webhook`, `slack`, `smtp`, or what a program added.
    pub kind: String,
    /// The least level that is sent.
    pub minimum_level: AlertLevel,
    /// How many messages were delivered.
    pub delivered: u64,
    /// How many were given up.
    pub failed: u64,
    /// How many alerts had to wait, for quiet hours or self-preservation.
    pub held: u64,
    /// When a message was last delivered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_delivered_at: Option<Timestamp>,
    /// Why the last message was not delivered, if it was not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_error: Option<ChannelError>,
}

/// Why a message was not delivered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChannelError {
    /// The code of the error.
    pub code: String,
    /// The error, in words; without any secret.
    pub message: String,
    /// When it was given up.
    pub at: Timestamp,
}

impl ChannelError {
    pub(super) fn of(error: &Error, at: Timestamp) -> Self {
        Self { code: error.kind().code().to_owned(), message: error.message().to_owned(), at }
    }
}

/// What came of a test message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ChannelTest {
    /// The channel.
    pub channel: String,
    /// How it tells.
    pub kind: String,
    /// Whether it took the message.
    pub delivered: bool,
    /// How long that took, in milliseconds.
    pub duration_ms: f64,
    /// Why it did not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<ChannelError>,
}

/// The alerts in numbers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AlertCounts {
    /// How many fire, by level, the least first.
    pub firing: Vec<(AlertLevel, u64)>,
    /// The channels.
    pub channels: Vec<ChannelReport>,
}
