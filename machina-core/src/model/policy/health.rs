//! How the health of a service's instances is found out (`reliability.md` §1:
//! the defaults come from simulations of the machine in `health/state.rs`).

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::{AlertPolicy, HealthEndpoint, entries};
use crate::error::Problem;
use crate::model::ToolName;
use crate::parameters::{DAY, HOUR, MILLISECOND, MINUTE, SECOND, between, count, parameters};

/// How deep a probe looks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum HealthLevel {
    /// The cheapest question of the protocol: `ping`, or `server/discover`. The
    /// tools are listed only when the server says that they changed.
    Ping,
    /// That, and the tools are listed every so many probes.
    #[default]
    Tools,
    /// That, and a read-only tool is called as [`HealthPolicy::canary`] says.
    Canary,
}

/// A call of a read-only tool whose answer shows that the service works.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(deny_unknown_fields)]
pub struct Canary {
    /// The tool; it must say that it is read-only.
    pub tool: ToolName,
    /// Its arguments.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = Object))]
    pub arguments: Map<String, Value>,
}

parameters! {
    /// How the health of a service's instances is found out.
    policy HealthPolicy in "health_policy" {
        /// What a probe looks at besides MCP; at most 8.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        endpoints: Vec<HealthEndpoint>,
        /// The HTTP statuses that count as well; 200 to 299 by default.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        expected_status: Vec<u16>,
        /// The call of a read-only tool that a probe of the level `canary` makes.
        #[serde(skip_serializing_if = "Option::is_none")]
        canary: Option<Canary>,
        /// When a person is told.
        #[serde(skip_serializing_if = "Option::is_none")]
        alerting: Option<AlertPolicy>,
    }
    /// Defaults of [`HealthPolicy`], and the limits of the monitor.
    config HealthConfig in "health" {
        /// [`startup_grace`](Self::startup_grace) of a child process: its package
        /// may have to be downloaded.
        #[serde(with = "crate::parameters::required")]
        startup_grace_stdio: Duration = MINUTE * 2,
        /// How long an instance that registered itself is kept after its
        /// heartbeats have stopped.
        #[serde(with = "crate::parameters::required")]
        expired_retention: Duration = MINUTE * 30,
        /// How many probes run at once.
        probes_max: u32 = 512,
        /// How many probes of instances at one host run at once.
        probes_per_host_max: u32 = 8,
        /// When more than this share of the instances, in percent, fail softly
        /// within one interval, the fault is taken to be Machina's own: no soft
        /// failure takes an instance down until that is over. 100 for never, also
        /// when Machina itself stands still.
        self_preservation_percentage: u32 = 15,
        /// While Machina's own loop is late by more than this, probes get up to
        /// eight times their time.
        #[serde(with = "crate::parameters::required")]
        lag_max: Duration = MILLISECOND * 100,
    }
    /// What holds for the instances of one service; see [`HealthPolicy`].
    parameters HealthParameters;
    durations {
        /// Time between two probes of an instance; 1 s to 1 h. Each is up to a
        /// tenth shorter, by chance.
        interval = SECOND * 30, SECOND => HOUR;
        /// Time between two probes while the state of an instance is in doubt; 100 ms to 1 h.
        fast_interval = SECOND * 3, MILLISECOND * 100 => HOUR;
        /// How long one attempt of a probe may take; 100 ms to 1 min.
        timeout = SECOND * 5, MILLISECOND * 100 => MINUTE;
        /// How long the attempt may take that confirms a failed probe over a new
        /// connection; 100 ms to 1 min.
        confirm_timeout = SECOND * 3, MILLISECOND * 100 => MINUTE;
        /// How long after a failed probe it is confirmed, at least; at most twice
        /// as long. 0 s to 10 s.
        confirm_delay = MILLISECOND * 250, Duration::ZERO => SECOND * 10;
        /// How long a new instance may take to answer for the first time; 1 s to 15 min.
        startup_grace = SECOND * 30, SECOND => MINUTE * 15;
        /// A successful call within this time replaces a probe; 0 s to 1 h.
        passive_window = SECOND * 15, Duration::ZERO => HOUR;
        /// The time over which an instance that goes down again and again is
        /// counted as flapping; 10 s to 1 day.
        flap_window = MINUTE * 10, SECOND * 10 => DAY;
        /// How long an instance counts as flapping at most after it last went
        /// down; 1 s to 1 day.
        flap_hold = MINUTE * 15, SECOND => DAY;
        /// How long an instance that came back takes to get its full share of the
        /// calls, beginning with a tenth; 0 s to 1 h. Twice as long while it flaps.
        slow_start = SECOND * 30, Duration::ZERO => HOUR;
    }
    counts {
        /// Soft failures in a row until an instance is unhealthy; 1 to 100.
        failure_threshold = 4, 1 => 100;
        /// Passes in a row until an unhealthy instance is healthy; 1 to 100.
        success_threshold = 2, 1 => 100;
        /// How often a failed probe is confirmed before it counts; 0 to 5.
        retries = 1, 0 => 5;
        /// Every how many probes the definitions are listed again; 1 to 1000000.
        list_every = 10, 1 => 1_000_000;
        /// An instance that went down more often than this within the window is
        /// flapping; 1 to 100.
        flap_threshold = 3, 1 => 100;
        /// Passes in a row until a flapping instance is healthy; 1 to 100.
        flap_success_threshold = 5, 1 => 100;
    }
    words {
        /// How deep a probe looks.
        level: HealthLevel = HealthLevel::Tools;
    }
}

impl HealthPolicy {
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        self.check_ranges(problems);
        entries("health_policy.endpoints", self.endpoints.len(), 8, problems);
        entries("health_policy.expected_status", self.expected_status.len(), 32, problems);
        if let Some(status) = self.expected_status.iter().find(|status| !(100..=599).contains(*status)) {
            let detail = format!("must be 100 to 599 each, has {status}");
            problems.push(Problem { field: "health_policy.expected_status".into(), detail });
        }
        if self.level == Some(HealthLevel::Canary) && self.canary.is_none() {
            let detail = "must say which tool to call, as `level` is canary".to_owned();
            problems.push(Problem { field: "health_policy.canary".into(), detail });
        }
        if let Some(alerting) = &self.alerting {
            alerting.check(problems);
        }
    }
}

impl HealthConfig {
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        self.check_ranges(problems);
        between("health.startup_grace_stdio", Some(self.startup_grace_stdio), SECOND, MINUTE * 15, problems);
        between("health.expired_retention", Some(self.expired_retention), SECOND, DAY * 30, problems);
        between("health.lag_max", Some(self.lag_max), MILLISECOND, MINUTE, problems);
        count("health.probes_max", Some(self.probes_max), 1, 100_000, problems);
        count("health.probes_per_host_max", Some(self.probes_per_host_max), 1, 100_000, problems);
        let share = Some(self.self_preservation_percentage);
        count("health.self_preservation_percentage", share, 1, 100, problems);
    }

    /// What holds for an instance under `policy`.
    pub(crate) fn parameters(&self, policy: &HealthPolicy, stdio: bool) -> HealthParameters {
        let general = self.under(policy);
        let grace = if stdio { self.startup_grace_stdio } else { self.startup_grace };
        HealthParameters {
            fast_interval: general.fast_interval.min(general.interval),
            startup_grace: policy.startup_grace.unwrap_or(grace),
            ..general
        }
    }
}
