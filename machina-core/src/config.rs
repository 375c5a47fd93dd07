//! Everything that can be set about the core, as plain data with defaults. Every
//! loop, queue, cache and retry has its limit here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::access::CommandTemplate;
use crate::alerts::AlertsConfig;
use crate::egress::EgressConfig;
use crate::error::{Error, Problem, Result};
use crate::model::{HealthConfig, RoutingConfig, SessionsConfig};
use crate::parameters::{DAY, HOUR, between, count};
use crate::replicas::ReplicasConfig;

/// The configuration of the core. In TOML, each field is a table:
///
/// ```toml
/// [health]
/// interval = "30s"
/// [sessions]
/// idle_timeout = "15m"
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How health is found out, where a service does not say otherwise.
    pub health: HealthConfig,
    /// How calls are carried out, where a service does not say otherwise.
    pub routing: RoutingConfig,
    /// How sessions with instances are kept.
    pub sessions: SessionsConfig,
    /// How much history is kept.
    pub journal: JournalConfig,
    /// How large things may become.
    pub limits: LimitsConfig,
    /// What those outside the process may do.
    pub access: AccessConfig,
    /// Where services may be that were registered from outside.
    pub egress: EgressConfig,
    /// Who is told of what, and when.
    pub alerts: AlertsConfig,
    /// How the processes that share a store divide the work.
    pub replicas: ReplicasConfig,
}

/// How much history is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JournalConfig {
    /// How long health transitions, calls and audit entries are kept.
    #[serde(with = "crate::parameters::required")]
    pub keep: Duration,
    /// How long samples of probes are kept.
    #[serde(with = "crate::parameters::required")]
    pub keep_samples: Duration,
    /// How many entries of each kind are kept, whatever their age; for samples
    /// and transitions, of each instance.
    pub entries_max: u64,
    /// How many samples are kept of all instances together. Each has an equal
    /// share, and at least 20.
    pub samples_max: u64,
    /// How many entries may wait to be written; more are dropped and counted.
    pub queue_max: u32,
    /// Whether the arguments of calls are kept, if they are no longer than 16 KiB. They
    /// may hold what nobody else should read; only admins see them.
    pub keep_arguments: bool,
}

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            keep: DAY * 90,
            keep_samples: DAY,
            entries_max: 100_000,
            samples_max: 1_000_000,
            queue_max: 10_000,
            keep_arguments: false,
        }
    }
}

/// How large things may become.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// How many services there may be.
    pub services_max: u32,
    /// How many instances a service may have; at most 64.
    pub instances_max: u32,
    /// How many mutations one `apply` may have.
    pub batch_max: u32,
    /// How many past events can be replayed.
    pub events_max: u32,
    /// How many groups there may be.
    pub groups_max: u32,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self { services_max: 100_000, instances_max: 64, batch_max: 10_000, events_max: 10_000, groups_max: 1000 }
    }
}

/// What those outside the process may do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessConfig {
    /// Whether they may register instances that are commands: whoever can do
    /// that can run any program as the user that runs Machina. Also lets them
    /// register endpoints with placeholders, which read its environment.
    pub allow_stdio_registration: bool,
    /// Commands that administrators among them may register all the same.
    pub command_templates: Vec<CommandTemplate>,
    /// How many calls a minute each principal may make; 0 for any number.
    pub calls_per_minute: u32,
    /// How many of them may come at once.
    pub calls_burst: u32,
}

impl Default for AccessConfig {
    fn default() -> Self {
        Self { allow_stdio_registration: false, command_templates: Vec::new(), calls_per_minute: 0, calls_burst: 60 }
    }
}

impl Config {
    /// Checks that every value lies in its range.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) with every wrong field at once.
    pub fn validate(&self) -> Result<()> {
        let mut problems = Vec::new();
        self.health.check(&mut problems);
        self.routing.check(&mut problems);
        self.sessions.check(&mut problems);
        self.alerts.check(&mut problems);
        self.replicas.check(&mut problems);
        for (field, value) in [("journal.keep", self.journal.keep), ("journal.keep_samples", self.journal.keep_samples)]
        {
            between(field, Some(value), HOUR, DAY * 3650, &mut problems);
        }
        let counts = [
            ("journal.queue_max", self.journal.queue_max, 10_000_000),
            ("limits.services_max", self.limits.services_max, 10_000_000),
            ("limits.instances_max", self.limits.instances_max, 64),
            ("limits.batch_max", self.limits.batch_max, 1_000_000),
            ("limits.events_max", self.limits.events_max, 10_000_000),
            ("limits.groups_max", self.limits.groups_max, 100_000),
        ];
        for (field, value, most) in counts {
            count(field, Some(value), 1, most, &mut problems);
        }
        count("access.calls_per_minute", Some(self.access.calls_per_minute), 0, 1_000_000, &mut problems);
        count("access.calls_burst", Some(self.access.calls_burst), 1, 100_000, &mut problems);
        for (index, template) in self.access.command_templates.iter().enumerate() {
            template.check(&format!("access.command_templates[{index}]."), &mut problems);
        }
        let journal = &self.journal;
        for (field, value) in
            [("journal.entries_max", journal.entries_max), ("journal.samples_max", journal.samples_max)]
        {
            if value == 0 {
                problems.push(Problem { field: field.into(), detail: "must be at least 1, is 0".into() });
            }
        }
        if problems.is_empty() { Ok(()) } else { Err(Error::invalid_fields(problems)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_valid_and_read_back() {
        let config = Config::default();
        config.validate().unwrap();
        let json = serde_json::to_value(&config).unwrap();
        assert_eq!(json["health"]["interval"], "30s");
        assert_eq!(serde_json::from_value::<Config>(json).unwrap(), config);
    }

    #[test]
    fn every_wrong_field_is_named() {
        let mut config = Config::default();
        config.health.interval = Duration::ZERO;
        config.limits.instances_max = 65;
        config.journal.entries_max = 0;
        let error = config.validate().unwrap_err();
        let fields: Vec<_> = error.context().problems.iter().map(|p| p.field.as_str()).collect();
        assert_eq!(fields, ["health.interval", "limits.instances_max", "journal.entries_max"]);
    }
}
