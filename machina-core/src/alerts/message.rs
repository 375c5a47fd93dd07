//! What is said: one message about one alert, or one that sums up many.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::alert::{Alert, AlertRule};
use crate::model::AlertLevel;

/// Why a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum AlertMessageKind {
    /// An alert fires.
    Firing,
    /// It still does, and is graver by now.
    Escalated,
    /// It still does.
    Reminder,
    /// It is over.
    Resolved,
    /// Several alerts in one message: there are too many, or they were held back.
    Summary,
    /// Nothing happened: someone wants to see that the channel works.
    Test,
}

impl AlertMessageKind {
    /// The word in JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Firing => "firing",
            Self::Escalated => "escalated",
            Self::Reminder => "reminder",
            Self::Resolved => "resolved",
            Self::Summary => "summary",
            Self::Test => "test",
        }
    }
}

/// One message to one channel. Its JSON is the body that a webhook gets.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AlertMessage {
    /// Its identity: the same each time that its delivery is tried.
    pub id: Uuid,
    /// Why it is sent.
    pub kind: AlertMessageKind,
    /// Which Machina says it, as `alerts.source` has it.
    pub source: String,
    /// How grave it is: the highest level of the alerts in it.
    pub level: AlertLevel,
    /// All of it in one line, for people.
    pub text: String,
    /// When it was made.
    pub at: Timestamp,
    /// The alerts that it is about, the gravest first; at most [`Self::ALERTS_MAX`].
    pub alerts: Vec<Arc<Alert>>,
    /// How many more it is about.
    pub omitted: usize,
}

impl AlertMessage {
    /// How many alerts a message lists.
    pub const ALERTS_MAX: usize = 20;

    /// A message that only shows that the channel works.
    pub(super) fn test(source: &str, id: Uuid, at: Timestamp) -> Self {
        let text = format!("[test] {source}: this channel works; nothing has happened");
        let (kind, level) = (AlertMessageKind::Test, AlertLevel::Warning);
        Self { id, kind, source: source.to_owned(), level, text, at, alerts: Vec::new(), omitted: 0 }
    }

    /// The message about one alert.
    pub(super) fn about(kind: AlertMessageKind, alert: &Arc<Alert>, source: &str, id: Uuid, at: Timestamp) -> Self {
        let (level, alerts) = (alert.level, vec![Arc::clone(alert)]);
        Self { id, kind, source: source.to_owned(), level, text: line(kind, alert, at), at, alerts, omitted: 0 }
    }

    /// The message that sums up several: those that fire, then those that are over.
    pub(super) fn summary(alerts: &[Arc<Alert>], why: &str, source: &str, id: Uuid, at: Timestamp) -> Self {
        let level = alerts.iter().filter(|alert| alert.resolved_at.is_none()).map(|alert| alert.level).max();
        let level = level.unwrap_or_default();
        let word = if alerts.iter().all(|alert| alert.resolved_at.is_some()) { "resolved" } else { level.as_str() };
        let text = format!("[{word}] {}{why}", counted(alerts));
        let mut listed = alerts.to_vec();
        listed.sort_by_key(|alert| (alert.resolved_at.is_some(), std::cmp::Reverse(alert.level), alert.since));
        let omitted = listed.len().saturating_sub(Self::ALERTS_MAX);
        listed.truncate(Self::ALERTS_MAX);
        let kind = AlertMessageKind::Summary;
        Self { id, kind, source: source.to_owned(), level, text, at, alerts: listed, omitted }
    }
}

/// One alert in one line.
fn line(kind: AlertMessageKind, alert: &Alert, at: Timestamp) -> String {
    let (level, summary) = (alert.level.as_str(), &alert.summary);
    let lasted = lasting(alert.since, alert.resolved_at.unwrap_or(at));
    match kind {
        AlertMessageKind::Resolved => {
            let resolution = alert.resolution.as_deref().unwrap_or("it is over");
            format!("[resolved] {summary}: {resolution}, after {lasted}")
        }
        AlertMessageKind::Escalated | AlertMessageKind::Reminder => format!("[{level}] {summary} (for {lasted} now)"),
        _ if alert.rule.lasts() => format!("[{level}] {summary} (for {lasted})"),
        _ => format!("[{level}] {summary}"),
    }
}

/// How many alerts of each rule there are.
fn counted(alerts: &[Arc<Alert>]) -> String {
    let count = |over: bool| {
        let mut rules: BTreeMap<AlertRule, usize> = BTreeMap::new();
        for alert in alerts.iter().filter(|alert| alert.resolved_at.is_some() == over) {
            *rules.entry(alert.rule).or_default() += 1;
        }
        rules.iter().map(|(rule, count)| format!("{count} {}", rule.as_str())).collect::<Vec<_>>().join(", ")
    };
    match (count(false), count(true)) {
        (firing, over) if over.is_empty() => format!("{} alerts: {firing}", alerts.len()),
        (firing, over) if firing.is_empty() => format!("{} alerts are over: {over}", alerts.len()),
        (firing, over) => format!("{} alerts: {firing}; over: {over}", alerts.len()),
    }
}

/// How long it lasted, in words such as `5m 3s`.
fn lasting(since: Timestamp, until: Timestamp) -> String {
    let lasted = until.duration_since(since).max(SignedDuration::ZERO);
    format!("{:#}", SignedDuration::from_secs(lasted.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn alert(rule: AlertRule, level: AlertLevel, service: &str) -> Alert {
        let since = "2026-01-01T00:00:00Z".parse().unwrap();
        Alert {
            id: Uuid::nil(),
            rule,
            level,
            service: Some(service.parse().unwrap()),
            instance: None,
            summary: format!("`{service}` is down"),
            since,
            fired_at: since,
            resolved_at: None,
            resolution: None,
            channels: Arc::default(),
        }
    }

    #[test]
    fn a_line_says_what_and_for_how_long() {
        let at = "2026-01-01T00:05:03.5Z".parse().unwrap();
        let down = Arc::new(alert(AlertRule::ServiceDown, AlertLevel::Critical, "a"));
        let text = |kind, alert: &Arc<Alert>| AlertMessage::about(kind, alert, "m", Uuid::nil(), at).text;
        assert_eq!(text(AlertMessageKind::Firing, &down), "[critical] `a` is down (for 5m 3s)");
        assert_eq!(text(AlertMessageKind::Escalated, &down), "[critical] `a` is down (for 5m 3s now)");
        let over = Arc::new(down.over("2026-01-01T00:01:00Z".parse().unwrap(), "it answers again"));
        assert_eq!(text(AlertMessageKind::Resolved, &over), "[resolved] `a` is down: it answers again, after 1m");
        let changed = Arc::new(alert(AlertRule::DefinitionChanged, AlertLevel::Warning, "a"));
        assert_eq!(text(AlertMessageKind::Firing, &changed), "[warning] `a` is down");
    }

    #[test]
    fn a_summary_counts_all_and_lists_the_gravest() {
        let mut alerts: Vec<Arc<Alert>> = (0..30)
            .map(|number| Arc::new(alert(AlertRule::ServiceDown, AlertLevel::Warning, &format!("s{number}"))))
            .collect();
        alerts.push(Arc::new(alert(AlertRule::CrashLoop, AlertLevel::Critical, "loop")));
        let at = "2026-01-01T00:01:00Z".parse().unwrap();
        let message = AlertMessage::summary(&alerts, ", held back", "m", Uuid::nil(), at);
        assert_eq!(message.text, "[critical] 31 alerts: 30 service_down, 1 crash_loop, held back");
        assert_eq!(message.alerts[0].rule, AlertRule::CrashLoop);
        assert_eq!((message.alerts.len(), message.omitted), (20, 11));
        let over: Vec<_> = alerts.iter().map(|alert| Arc::new(alert.over(at, "up"))).collect();
        let message = AlertMessage::summary(&over, "", "m", Uuid::nil(), at);
        assert_eq!(message.text, "[resolved] 31 alerts are over: 30 service_down, 1 crash_loop");
        let mixed = [Arc::clone(&alerts[0]), Arc::clone(&over[30])];
        let message = AlertMessage::summary(&mixed, "", "m", Uuid::nil(), at);
        assert_eq!(message.text, "[warning] 2 alerts: 1 service_down; over: 1 crash_loop");
    }
}
