//! Everything that can be set about the core, as plain data with defaults. Every
//! loop, queue, cache and retry has its limit here.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Problem, Result};
use crate::health::HealthParameters;
use crate::model::{BalancerKind, HealthPolicy, RoutingPolicy, between, count};

mod duration {
    pub(super) use jiff::fmt::serde::unsigned_duration::friendly::compact::required;
}

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
}

/// Defaults of [`HealthPolicy`], and the limits of the monitor.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HealthConfig {
    /// Time between two probes of an instance.
    #[serde(with = "duration::required")]
    pub interval: Duration,
    /// Time between two probes while the state of an instance is in doubt.
    #[serde(with = "duration::required")]
    pub fast_interval: Duration,
    /// How long one attempt of a probe may take.
    #[serde(with = "duration::required")]
    pub timeout: Duration,
    /// How long a new instance may take to answer for the first time.
    #[serde(with = "duration::required")]
    pub startup_grace: Duration,
    /// The same for a child process: its package may have to be downloaded.
    #[serde(with = "duration::required")]
    pub startup_grace_stdio: Duration,
    /// Soft failures in a row until an instance is unhealthy.
    pub failure_threshold: u32,
    /// Passes in a row until an unhealthy instance is healthy.
    pub success_threshold: u32,
    /// A successful call within this time replaces a probe.
    #[serde(with = "duration::required")]
    pub passive_window: Duration,
    /// Every how many probes the definitions are listed again.
    pub list_every: u32,
    /// How many probes run at once.
    pub probes_max: u32,
    /// How long an instance that registered itself is kept after its heartbeats
    /// have stopped.
    #[serde(with = "duration::required")]
    pub expired_retention: Duration,
}

impl Default for HealthConfig {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(30),
            fast_interval: Duration::from_secs(3),
            timeout: Duration::from_secs(5),
            startup_grace: Duration::from_secs(30),
            startup_grace_stdio: Duration::from_secs(120),
            failure_threshold: 4,
            success_threshold: 2,
            passive_window: Duration::from_secs(15),
            list_every: 10,
            probes_max: 512,
            expired_retention: Duration::from_secs(30 * 60),
        }
    }
}

impl HealthConfig {
    /// The parameters for an instance under `policy`.
    pub(crate) fn parameters(&self, policy: &HealthPolicy, stdio: bool) -> HealthParameters {
        let interval = policy.interval.unwrap_or(self.interval);
        let grace = if stdio { self.startup_grace_stdio } else { self.startup_grace };
        HealthParameters {
            interval,
            fast_interval: self.fast_interval.min(interval),
            timeout: policy.timeout.unwrap_or(self.timeout),
            startup_grace: policy.startup_grace.unwrap_or(grace),
            fall: policy.failure_threshold.unwrap_or(self.failure_threshold),
            rise: policy.success_threshold.unwrap_or(self.success_threshold),
        }
    }
}

/// Defaults of [`RoutingPolicy`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RoutingConfig {
    /// How an instance is picked.
    pub balancer: BalancerKind,
    /// How long a call may take in all, retries included.
    #[serde(with = "duration::required")]
    pub timeout: Duration,
    /// How many attempts a call may have where repeating it is safe.
    pub attempts_max: u32,
    /// Whether every server's `readOnlyHint` and `idempotentHint` are believed,
    /// as [`RoutingPolicy::trust_annotations`] does for one service.
    pub trust_annotations: bool,
}

impl Default for RoutingConfig {
    fn default() -> Self {
        Self {
            balancer: BalancerKind::PeakEwma,
            timeout: Duration::from_secs(60),
            attempts_max: 3,
            trust_annotations: false,
        }
    }
}

impl RoutingConfig {
    pub(crate) fn timeout(&self, policy: &RoutingPolicy) -> Duration {
        policy.timeout.unwrap_or(self.timeout)
    }
}

/// When instances that are not in use are started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StartPolicy {
    /// Each is started once, to see that it works.
    #[default]
    Eager,
    /// Only those whose tools are not known yet; the others when they are called.
    Lazy,
}

/// How sessions with instances are kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SessionsConfig {
    /// When instances are started.
    pub start: StartPolicy,
    /// A child process that was not called for this long is stopped; it starts
    /// again with the next call.
    #[serde(with = "duration::required")]
    pub idle_timeout: Duration,
    /// How long a connection to an instance that is no child process may take.
    #[serde(with = "duration::required")]
    pub connect_timeout: Duration,
    /// How long the start of a child process may take that has answered before;
    /// a new one has `health.startup_grace_stdio`.
    #[serde(with = "duration::required")]
    pub start_timeout: Duration,
    /// How long closing everything may take.
    #[serde(with = "duration::required")]
    pub close_timeout: Duration,
}

impl Default for SessionsConfig {
    fn default() -> Self {
        Self {
            start: StartPolicy::Eager,
            idle_timeout: Duration::from_secs(15 * 60),
            connect_timeout: Duration::from_secs(5),
            start_timeout: Duration::from_secs(30),
            close_timeout: Duration::from_secs(10),
        }
    }
}

/// How much history is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JournalConfig {
    /// How long health transitions, calls and audit entries are kept.
    #[serde(with = "duration::required")]
    pub keep: Duration,
    /// How long samples of probes are kept.
    #[serde(with = "duration::required")]
    pub keep_samples: Duration,
    /// How many entries of each kind are kept, whatever their age; for samples
    /// and transitions, of each instance.
    pub entries_max: u64,
    /// How many entries may wait to be written; more are dropped and counted.
    pub queue_max: u32,
}

impl Default for JournalConfig {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self { keep: 90 * DAY, keep_samples: DAY, entries_max: 100_000, queue_max: 10_000 }
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AccessConfig {
    /// Whether they may register instances that are commands: whoever can do
    /// that can run any program as the user that runs Machina. Also lets them
    /// register endpoints with placeholders, which read its environment.
    pub allow_stdio_registration: bool,
}

impl Config {
    /// Checks that every value lies in its range.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) with every wrong field at once.
    pub fn validate(&self) -> Result<()> {
        let (ms, second) = (Duration::from_millis(1), Duration::from_secs(1));
        let (hour, day) = (second * 3600, second * 86_400);
        let mut problems = Vec::new();
        let durations = [
            ("health.interval", self.health.interval, second, hour),
            ("health.fast_interval", self.health.fast_interval, 100 * ms, hour),
            ("health.timeout", self.health.timeout, 100 * ms, 60 * second),
            ("health.startup_grace", self.health.startup_grace, second, 900 * second),
            ("health.startup_grace_stdio", self.health.startup_grace_stdio, second, 900 * second),
            ("health.expired_retention", self.health.expired_retention, second, 30 * day),
            ("health.passive_window", self.health.passive_window, Duration::ZERO, hour),
            ("routing.timeout", self.routing.timeout, 10 * ms, 600 * second),
            ("sessions.idle_timeout", self.sessions.idle_timeout, second, day),
            ("sessions.connect_timeout", self.sessions.connect_timeout, 100 * ms, 60 * second),
            ("sessions.start_timeout", self.sessions.start_timeout, second, 900 * second),
            ("sessions.close_timeout", self.sessions.close_timeout, second, 60 * second),
            ("journal.keep", self.journal.keep, hour, 3650 * day),
            ("journal.keep_samples", self.journal.keep_samples, hour, 3650 * day),
        ];
        for (field, value, least, most) in durations {
            between(field, Some(value), least, most, &mut problems);
        }
        let counts = [
            ("health.failure_threshold", self.health.failure_threshold, 100),
            ("health.success_threshold", self.health.success_threshold, 100),
            ("health.list_every", self.health.list_every, 1_000_000),
            ("health.probes_max", self.health.probes_max, 100_000),
            ("routing.attempts_max", self.routing.attempts_max, 10),
            ("journal.queue_max", self.journal.queue_max, 10_000_000),
            ("limits.services_max", self.limits.services_max, 10_000_000),
            ("limits.instances_max", self.limits.instances_max, 64),
            ("limits.batch_max", self.limits.batch_max, 1_000_000),
            ("limits.events_max", self.limits.events_max, 10_000_000),
            ("limits.groups_max", self.limits.groups_max, 100_000),
        ];
        for (field, value, most) in counts {
            count(field, Some(value), most, &mut problems);
        }
        if self.journal.entries_max == 0 {
            problems.push(Problem { field: "journal.entries_max".into(), detail: "must be at least 1, is 0".into() });
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
