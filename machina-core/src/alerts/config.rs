//! `[alerts]`: which alerts there are, how grave they become, and whom they reach.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::alert::AlertRule;
use super::hours::QuietHours;
use crate::error::{Error, Problem, Result};
use crate::model::{AlertLevel, Sensitive, SensitiveMap, from_json, length};
use crate::parameters::{DAY, HOUR, MINUTE, SECOND, between, count};

/// How many channels, and how many windows of quiet hours, there may be.
const LIST_MAX: usize = 32;

/// Which alerts there are, how grave they become, and whom they reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AlertsConfig {
    /// Whether anyone is told of a service that does not say otherwise.
    pub enabled: bool,
    /// What messages say they come from, to tell several Machinas apart.
    pub source: String,
    /// What is looked for.
    pub rules: Vec<AlertRule>,
    /// How long a service must have been down; 0 s to 1 day.
    #[serde(with = "crate::parameters::required")]
    pub down_after: Duration,
    /// How long an alert lasts until it is critical; 0 s to 7 days.
    #[serde(with = "crate::parameters::required")]
    pub critical_after: Duration,
    /// How long an alert lasts until it is an emergency; not less than
    /// `critical_after`, at most 7 days.
    #[serde(with = "crate::parameters::required")]
    pub emergency_after: Duration,
    /// For how long further changes of what a service publishes are gathered
    /// after one was told; 1 s to 1 day.
    #[serde(with = "crate::parameters::required")]
    pub definition_window: Duration,
    /// How often an alert that still fires is told again; 0 s for never, or 1 min
    /// to 7 days.
    #[serde(with = "crate::parameters::required")]
    pub reminder_interval: Duration,
    /// How long one attempt to deliver a message may take; 1 s to 1 min.
    #[serde(with = "crate::parameters::required")]
    pub delivery_timeout: Duration,
    /// How many attempts a message may have, 1 to 10, before its channel is left
    /// alone for a while.
    pub attempts_max: u32,
    /// How many messages a channel gets in a minute, 1 to 1000; the last of them
    /// sums up all that would follow.
    pub messages_per_minute_max: u32,
    /// How many alerts there may be at a time, 1 to 100000.
    pub firing_max: u32,
    /// How many alerts that are over are remembered, 1 to 10000.
    pub recent_max: u32,
    /// Whom alerts reach.
    pub channels: Vec<AlertChannel>,
    /// When little is sent.
    pub quiet_hours: Vec<QuietHours>,
}

impl Default for AlertsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            source: "machina".to_owned(),
            rules: AlertRule::ALL.to_vec(),
            down_after: MINUTE,
            critical_after: MINUTE * 5,
            emergency_after: MINUTE * 30,
            definition_window: MINUTE * 10,
            reminder_interval: Duration::ZERO,
            delivery_timeout: SECOND * 10,
            attempts_max: 4,
            messages_per_minute_max: 20,
            firing_max: 10_000,
            recent_max: 200,
            channels: Vec::new(),
            quiet_hours: Vec::new(),
        }
    }
}

/// Someone who is told, and how: one of `webhook`, `slack` and `smtp`, or a
/// [`Notifier`](super::Notifier) of the program that has this name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AlertChannel {
    /// The unique name: letters, digits, `-` and `_`, at most 64.
    pub name: String,
    /// The least level that is sent.
    #[serde(default)]
    pub minimum_level: AlertLevel,
    /// How many messages it gets in a minute, where it is not as
    /// `alerts.messages_per_minute_max` says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_minute_max: Option<u32>,
    /// A program that takes the message as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub webhook: Option<WebhookTarget>,
    /// Slack, Mattermost, Discord (`…/slack`), or what takes the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack: Option<SlackTarget>,
    /// Mail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smtp: Option<SmtpTarget>,
}

/// A program that takes messages as JSON over HTTP.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WebhookTarget {
    /// Where to; its path may be a secret, so it is not shown.
    pub url: Sensitive,
    /// What each message is signed with; not signed without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<Sensitive>,
    /// Headers that are sent along, such as `Authorization`.
    #[serde(default, skip_serializing_if = "SensitiveMap::is_empty")]
    pub headers: SensitiveMap,
    /// A PEM file of certificates that are trusted as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// An incoming webhook of Slack, or what takes the same.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SlackTarget {
    /// Where to; its path is a secret, so it is not shown.
    pub url: Sensitive,
    /// A PEM file of certificates that are trusted as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

/// How the connection to a mail server is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SmtpTls {
    /// It begins in the clear and must become TLS before anything is said.
    #[default]
    Starttls,
    /// It is TLS from the beginning.
    Implicit,
    /// Not at all: for a server on this machine. No password is sent over it.
    None,
}

/// A mail server, and the mail that is sent over it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SmtpTarget {
    /// The name of the server.
    pub host: String,
    /// Its port: 587, or 465 for implicit TLS, or 25 without TLS by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// How the connection is protected.
    #[serde(default)]
    pub tls: SmtpTls,
    /// Who sends, where the server asks for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// The password of `username`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Sensitive>,
    /// The address that mails come from, such as `Machina <machina@example.com>`.
    pub from: String,
    /// The addresses that they go to; at most 50.
    pub to: Vec<String>,
    /// A PEM file of certificates that are trusted as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
}

impl AlertChannel {
    /// A channel of this name, for a [`Notifier`](super::Notifier) of that name.
    pub fn new(name: impl Into<String>) -> Self {
        let (name, minimum_level) = (name.into(), AlertLevel::default());
        Self { name, minimum_level, messages_per_minute_max: None, webhook: None, slack: None, smtp: None }
    }

    /// Reads a channel from a JSON value.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid), naming the field and showing no value.
    pub fn from_value(value: Value) -> Result<Self> {
        let channel: Self = from_json(value)?;
        let mut problems = Vec::new();
        channel.check("", &mut problems);
        if problems.is_empty() { Ok(channel) } else { Err(Error::invalid_fields(problems)) }
    }

    /// `field` is the place of the channel, with a dot at its end.
    fn check(&self, field: &str, problems: &mut Vec<Problem>) {
        let mut wrong = |name: &str, detail: &str| {
            problems.push(Problem { field: format!("{field}{name}"), detail: detail.to_owned() });
        };
        let letters = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
        if !(1..=64).contains(&self.name.len()) || !self.name.chars().all(letters) {
            wrong("name", "must have 1 to 64 letters, digits, `-` and `_`");
        }
        let targets = [self.webhook.is_some(), self.slack.is_some(), self.smtp.is_some()];
        if targets.iter().filter(|there| **there).count() > 1 {
            wrong("webhook", "must be the only one of webhook, slack and smtp");
        }
        if let Some(target) = &self.webhook {
            check_url("webhook.url", &target.url, &mut wrong);
            if target.secret.as_ref().is_some_and(|secret| secret.expose().len() < 16 && secret.is_secret()) {
                wrong("webhook.secret", "must have at least 16 characters");
            }
        }
        if let Some(target) = &self.slack {
            check_url("slack.url", &target.url, &mut wrong);
        }
        if let Some(target) = &self.smtp {
            target.check(&mut wrong);
        }
        let most = format!("{field}messages_per_minute_max");
        count(&most, self.messages_per_minute_max, 1, 1000, problems);
    }
}

impl SmtpTarget {
    fn check(&self, wrong: &mut impl FnMut(&str, &str)) {
        let in_hosts = |c: char| c.is_ascii_alphanumeric() || "-._:[]${}".contains(c);
        if self.host.is_empty() || !self.host.chars().all(in_hosts) {
            wrong("smtp.host", "must be the name or the address of a server");
        }
        if self.port == Some(0) {
            wrong("smtp.port", "must be 1 to 65535");
        }
        if self.username.is_some() != self.password.is_some() {
            wrong("smtp.password", "must be there if `username` is, and only then");
        }
        if self.password.is_some() && self.tls == SmtpTls::None {
            wrong("smtp.tls", "must be starttls or implicit where there is a password");
        }
        if !self.from.contains(['@', '$']) {
            wrong("smtp.from", "must be an address such as Machina <machina@example.com>");
        }
        let addresses = self.to.iter().all(|address| address.contains(['@', '$']));
        if !addresses || !(1..=50).contains(&self.to.len()) {
            wrong("smtp.to", "must be 1 to 50 addresses such as ops@example.com");
        }
    }
}

/// A placeholder is filled in later, and checked then.
fn check_url(field: &str, url: &Sensitive, wrong: &mut impl FnMut(&str, &str)) {
    let text = url.expose();
    let good = url::Url::parse(text).is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host());
    if !good && !text.contains("${") {
        wrong(field, "must be an http:// or https:// address");
    }
}

impl AlertsConfig {
    /// Appends a problem for every value that is out of its range.
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        let week = DAY * 7;
        between("alerts.down_after", Some(self.down_after), Duration::ZERO, DAY, problems);
        between("alerts.critical_after", Some(self.critical_after), Duration::ZERO, week, problems);
        between("alerts.emergency_after", Some(self.emergency_after), self.critical_after, week, problems);
        between("alerts.definition_window", Some(self.definition_window), SECOND, DAY, problems);
        let reminder = Some(self.reminder_interval).filter(|interval| !interval.is_zero());
        between("alerts.reminder_interval", reminder, MINUTE, week, problems);
        between("alerts.delivery_timeout", Some(self.delivery_timeout), SECOND, HOUR / 60, problems);
        count("alerts.attempts_max", Some(self.attempts_max), 1, 10, problems);
        count("alerts.messages_per_minute_max", Some(self.messages_per_minute_max), 1, 1000, problems);
        count("alerts.firing_max", Some(self.firing_max), 1, 100_000, problems);
        count("alerts.recent_max", Some(self.recent_max), 1, 10_000, problems);
        length("alerts.source", Some(&self.source), 100, problems);
        for (field, entries) in
            [("alerts.channels", self.channels.len()), ("alerts.quiet_hours", self.quiet_hours.len())]
        {
            if entries > LIST_MAX {
                let detail = format!("must have at most {LIST_MAX} entries, has {entries}");
                problems.push(Problem { field: field.to_owned(), detail });
            }
        }
        self.check_lists(problems);
    }

    fn check_lists(&self, problems: &mut Vec<Problem>) {
        for (index, channel) in self.channels.iter().enumerate() {
            channel.check(&format!("alerts.channels[{index}]."), problems);
            if self.channels[..index].iter().any(|before| before.name == channel.name) {
                let detail = format!("must be unique, and `{}` is there twice", channel.name.escape_debug());
                problems.push(Problem { field: format!("alerts.channels[{index}].name"), detail });
            }
        }
        for (index, hours) in self.quiet_hours.iter().enumerate() {
            let field = format!("alerts.quiet_hours[{index}]");
            hours.check(&field, problems);
            for name in hours.channels.iter().filter(|name| self.channel(name).is_none()) {
                let detail = format!("must name channels, and there is no `{}`", name.escape_debug());
                problems.push(Problem { field: format!("{field}.channels"), detail });
            }
        }
    }

    /// The channel of this name.
    #[must_use]
    pub fn channel(&self, name: &str) -> Option<&AlertChannel> {
        self.channels.iter().find(|channel| channel.name == name)
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
