//! One alert, and what makes it the same as another.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

use crate::model::{AlertLevel, InstanceId, ServiceName};

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AlertRule {
    /// No instance of a service answers, for longer than `alerts.down_after`.
    ServiceDown,
    /// The process of an instance ends again and again.
    CrashLoop,
    /// An instance goes down and comes back again and again.
    Flapping,
    /// An instance publishes other tools, prompts or resources than before.
    DefinitionChanged,
    /// So much fails at once that Machina takes the fault to be its own.
    SelfPreservation,
}

impl AlertRule {
    /// Every rule.
    pub const ALL: &'static [Self] =
        &[Self::ServiceDown, Self::CrashLoop, Self::Flapping, Self::DefinitionChanged, Self::SelfPreservation];

    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ServiceDown => "service_down",
            Self::CrashLoop => "crash_loop",
            Self::Flapping => "flapping",
            Self::DefinitionChanged => "definition_changed",
            Self::SelfPreservation => "self_preservation",
        }
    }

    /// The least and the highest level that an alert of the rule has. Only what
    /// stops a whole service may wake someone.
    pub(super) const fn levels(self) -> (AlertLevel, AlertLevel) {
        match self {
            Self::ServiceDown => (AlertLevel::Warning, AlertLevel::Emergency),
            Self::CrashLoop => (AlertLevel::Warning, AlertLevel::Critical),
            Self::Flapping | Self::DefinitionChanged => (AlertLevel::Warning, AlertLevel::Warning),
            Self::SelfPreservation => (AlertLevel::Critical, AlertLevel::Critical),
        }
    }

    /// Whether it goes on until it is over. What is a moment has no end to tell of.
    pub(super) const fn lasts(self) -> bool {
        !matches!(self, Self::DefinitionChanged)
    }
}

/// What an alert is about: while one fires, no other with this key does.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AlertKey {
    pub(super) service: Option<ServiceName>,
    pub(super) rule: AlertRule,
    pub(super) instance: Option<InstanceId>,
}

/// Something that a person should know, from when it is first worth telling
/// until it is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Alert {
    /// Its identity; another one each time that it fires anew.
    pub id: Uuid,
    /// What was looked for.
    pub rule: AlertRule,
    /// How grave it is by now.
    pub level: AlertLevel,
    /// The service concerned; none for what concerns Machina itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// The instance concerned, where it is not the whole service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// What is the matter, in one line.
    pub summary: String,
    /// Since when it is so.
    pub since: Timestamp,
    /// When the alert fired.
    pub fired_at: Timestamp,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<Timestamp>,
    /// How it came to be over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolution: Option<String>,
    /// The channels that are told; all of them if none is named.
    #[serde(skip)]
    pub(super) channels: Arc<[String]>,
}

impl Alert {
    pub(super) fn key(&self) -> AlertKey {
        AlertKey { service: self.service.clone(), rule: self.rule, instance: self.instance }
    }

    /// The same, over.
    pub(super) fn over(&self, at: Timestamp, resolution: &str) -> Self {
        Self { resolved_at: Some(at), resolution: Some(one_line(resolution)), ..self.clone() }
    }

    /// The identity of an alert with this key that fires at this time as the
    /// `count`-th: in order of time, and of the count within a millisecond.
    pub(super) fn identity(key: &AlertKey, fired_at: Timestamp, count: u16) -> Uuid {
        let service = key.service.as_ref().map(ServiceName::as_str).unwrap_or_default();
        let instance = key.instance.map(|id| id.to_string()).unwrap_or_default();
        let hash = Sha256::digest(format!("{}\n{service}\n{instance}", key.rule.as_str()));
        let mut bytes = [0; 10];
        bytes.copy_from_slice(&hash[..10]);
        bytes[..2].copy_from_slice(&(count & 0x0fff).to_be_bytes());
        let milliseconds = u64::try_from(fired_at.as_millisecond()).unwrap_or_default();
        uuid::Builder::from_unix_timestamp_millis(milliseconds, &bytes).into_uuid()
    }
}

/// How long the text of an alert is at most, in characters.
const TEXT_MAX: usize = 500;

/// `text` as one line of bounded length: part of it comes from others.
pub(super) fn one_line(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut line: String = plain.take(TEXT_MAX).collect();
    if text.chars().nth(TEXT_MAX).is_some() {
        line.push('…');
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_of_others_is_one_line_of_bounded_length() {
        assert_eq!(one_line("a\r\nSubject: b\u{7}"), "a  Subject: b ");
        assert_eq!(one_line(&"x".repeat(600)).chars().count(), TEXT_MAX + 1);
    }

    #[test]
    fn an_identity_is_that_of_the_key_and_the_moment() {
        let key = |rule| AlertKey { service: Some("a".parse().unwrap()), rule, instance: None };
        let at = |text: &str| text.parse().unwrap();
        let (early, late): (Timestamp, Timestamp) = (at("2026-01-01T00:00:00Z"), at("2026-01-01T00:00:01Z"));
        let id = Alert::identity(&key(AlertRule::Flapping), early, 7);
        assert_eq!(id, Alert::identity(&key(AlertRule::Flapping), early, 7));
        assert_ne!(id, Alert::identity(&key(AlertRule::CrashLoop), early, 7));
        assert!(id < Alert::identity(&key(AlertRule::Flapping), early, 8));
        assert!(id < Alert::identity(&key(AlertRule::CrashLoop), late, 0));
        assert_eq!(id.get_version_num(), 7);
    }
}
