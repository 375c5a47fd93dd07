//! How calls to a service are carried out (`reliability.md` §2).

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{entries, length};
use crate::error::Problem;
use crate::parameters::{DAY, HOUR, MILLISECOND, MINUTE, SECOND, between, count, parameters};

/// How an instance is picked for a call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum BalancerKind {
    /// The least expected cost: latency average × calls in flight ÷ weight.
    #[default]
    PeakEwma,
    /// One after the other.
    RoundRobin,
    /// By chance, each as often as its weight says.
    WeightedRandom,
    /// The fewest calls in flight, by weight.
    LeastOutstanding,
}

/// What happens when a tool is another one than the operator pinned, or than was
/// first seen.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Pinning {
    /// An event says so.
    #[default]
    Report,
    /// An event says so, and an instance that offers another one than was pinned
    /// gets no calls of that tool.
    Strict,
}

/// A time such as `"30s"`, where it stands in a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema), schema(value_type = String, examples("2m")))]
#[serde(transparent)]
pub struct TimeLimit(#[serde(with = "crate::parameters::required")] pub Duration);

parameters! {
    /// How calls to a service are carried out.
    policy RoutingPolicy in "routing_policy" {
        /// Tools that the operator vouches for: repeating a call of one is harmless.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        idempotent_tools: Vec<String>,
        /// Tools of which a slow call is also sent to a second instance; only
        /// those that are trusted to be read-only.
        #[serde(skip_serializing_if = "Vec::is_empty")]
        hedged_tools: Vec<String>,
        /// How long a call of a tool may take in all, where it is another time
        /// than `timeout`; 10 ms to 10 min each.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        tool_timeouts: BTreeMap<String, TimeLimit>,
        /// Tools whose answers are kept for so long, and given again to callers who ask
        /// the same; only those that are trusted to be read-only. 1 s to 1 day each.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        cached_tools: BTreeMap<String, TimeLimit>,
        /// The argument whose value decides the instance: calls with the same
        /// value go to the same one while it is up.
        #[serde(skip_serializing_if = "Option::is_none")]
        affinity_argument: Option<String>,
        /// The definitions that the operator has seen: the SHA-256 of each tool,
        /// as `GET /services/{name}/tools` shows it.
        #[serde(skip_serializing_if = "BTreeMap::is_empty")]
        pins: BTreeMap<String, String>,
    }
    /// Defaults of [`RoutingPolicy`], and where this process itself runs.
    config RoutingConfig in "routing" {
        /// How many calls an instance that is a child process works on at once.
        in_flight_max_stdio: u32 = 16,
        /// The region that this process runs in: instances there are preferred.
        region: Option<String> = None,
        /// The zone within the region.
        zone: Option<String> = None,
    }
    /// What holds for the calls of one service; see [`RoutingPolicy`].
    parameters RoutingParameters;
    durations {
        /// How long a call may take in all, retries included; 10 ms to 10 min.
        timeout = MINUTE, MILLISECOND * 10 => MINUTE * 10;
        /// How long an instance may be silent about a call: its progress begins
        /// this anew, but never `timeout`; 10 ms to 10 min.
        idle_timeout = MINUTE, MILLISECOND * 10 => MINUTE * 10;
        /// How long a call may wait for an instance with room, at most half its
        /// own time; 0 s to 1 min.
        queue_timeout = SECOND, Duration::ZERO => MINUTE;
        /// How long a call waits for the only instance while that restarts; 0 s to 1 min.
        restart_hold = SECOND * 5, Duration::ZERO => MINUTE;
        /// The time over which the share of successful calls is counted; 1 s to 5 min.
        ejection_window = SECOND * 10, SECOND => MINUTE * 5;
        /// How long an instance that fails is first ejected; 100 ms to 10 min. Each
        /// time in a row twice as long.
        ejection_time = SECOND, MILLISECOND * 100 => MINUTE * 10;
        /// How long it is ejected at most; 100 ms to 1 h.
        ejection_time_max = MINUTE, MILLISECOND * 100 => HOUR;
        /// How long an instance that says when to come back is left alone at most; 0 s to 1 h.
        retry_after_max = MINUTE, Duration::ZERO => HOUR;
        /// How long a call must have taken before a second instance is asked, at
        /// least; 1 ms to 1 min.
        hedge_delay = MILLISECOND * 50, MILLISECOND => MINUTE;
        /// What is assumed of an instance that was never called; 1 ms to 1 min.
        latency_default = MILLISECOND * 30, MILLISECOND => MINUTE;
        /// The time over which an old latency loses its weight; 100 ms to 10 min.
        latency_decay = SECOND * 10, MILLISECOND * 100 => MINUTE * 10;
        /// What counts as the latency of a failed call, so that an instance that
        /// fails fast does not look fast; 0 s to 10 min.
        failure_penalty = SECOND * 5, Duration::ZERO => MINUTE * 10;
    }
    counts {
        /// How many attempts a call may have, where repeating it is safe; 1 to 10.
        attempts_max = 3, 1 => 10;
        /// How many calls an instance works on at once; 1 to 10000. One where the
        /// server takes one at a time.
        in_flight_max = 64, 1 => 10_000;
        /// How many calls may wait for an instance with room; 0 to 100000.
        queue_max = 128, 0 => 100_000;
        /// How many calls may be repeated, in percent of all; 0 to 100.
        retry_percentage = 20, 0 => 100;
        /// How many calls a second may be repeated besides; 0 to 1000.
        retries_per_second = 3, 0 => 1000;
        /// How many failures in a row eject an instance; 1 to 1000.
        ejection_failures = 5, 1 => 1000;
        /// Below this share of successful calls, in percent, an instance is ejected; 0 to 100.
        ejection_success_percentage = 80, 0 => 100;
        /// How many calls the share must rest on; 1 to 10000.
        ejection_samples = 20, 1 => 10_000;
        /// When fewer than this share of the instances, in percent, may take calls,
        /// all are used that are not certainly down; 0 to 100.
        panic_percentage = 50, 0 => 100;
        /// When fewer than this share of the instances nearby, in percent, may take
        /// calls, those further away are used too; 0 to 100.
        locality_percentage = 70, 0 => 100;
        /// How many calls may be sent to a second instance, in percent of all; 0 to 100.
        hedge_percentage = 5, 0 => 100;
        /// How many calls a minute the service takes from all callers together; 0 for
        /// any number, to 1000000.
        calls_per_minute = 0, 0 => 1_000_000;
        /// How many of them may come at once; 1 to 100000.
        calls_burst = 60, 1 => 100_000;
    }
    words {
        /// How an instance is picked.
        balancer: BalancerKind = BalancerKind::PeakEwma;
        /// Whether the server's own `readOnlyHint` and `idempotentHint` are believed.
        /// Only then may a call whose outcome is unknown be repeated elsewhere.
        trust_annotations: bool = false;
        /// Whether the calls of one session of a host go to the same instance while that
        /// is up: for servers that remember who asked.
        session_affinity: bool = false;
        /// Whether arguments are held against the tool's schema before anything is sent.
        validate_arguments: bool = true;
        /// What happens when a tool is another one than was pinned.
        pinning: Pinning = Pinning::Report;
    }
}

impl RoutingPolicy {
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        self.check_ranges(problems);
        for (field, count) in [
            ("routing_policy.idempotent_tools", self.idempotent_tools.len()),
            ("routing_policy.hedged_tools", self.hedged_tools.len()),
            ("routing_policy.tool_timeouts", self.tool_timeouts.len()),
            ("routing_policy.cached_tools", self.cached_tools.len()),
            ("routing_policy.pins", self.pins.len()),
        ] {
            entries(field, count, 1000, problems);
        }
        for (tool, limit) in &self.tool_timeouts {
            let field = format!("routing_policy.tool_timeouts.{tool}");
            between(&field, Some(limit.0), MILLISECOND * 10, MINUTE * 10, problems);
        }
        for (tool, time) in &self.cached_tools {
            between(&format!("routing_policy.cached_tools.{tool}"), Some(time.0), SECOND, DAY, problems);
        }
        for (tool, pin) in &self.pins {
            if pin.len() != 64 || !pin.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
                let detail = "must be the SHA-256 of the definition, as 64 of 0-9 a-f".to_owned();
                problems.push(Problem { field: format!("routing_policy.pins.{tool}"), detail });
            }
        }
        length("routing_policy.affinity_argument", self.affinity_argument.as_deref(), 100, problems);
    }

    /// How long a call of `tool` may take in all.
    pub(crate) fn timeout_of(&self, tool: Option<&str>, parameters: &RoutingParameters) -> Duration {
        tool.and_then(|tool| self.tool_timeouts.get(tool)).map_or(parameters.timeout, |limit| limit.0)
    }
}

impl RoutingConfig {
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        self.check_ranges(problems);
        count("routing.in_flight_max_stdio", Some(self.in_flight_max_stdio), 1, 10_000, problems);
        length("routing.region", self.region.as_deref(), 100, problems);
        length("routing.zone", self.zone.as_deref(), 100, problems);
    }

    /// How many calls an instance of a service with `policy` works on at once.
    pub(crate) fn in_flight_max(&self, policy: &RoutingPolicy, stdio: bool) -> u32 {
        policy.in_flight_max.unwrap_or(if stdio { self.in_flight_max_stdio } else { self.in_flight_max })
    }
}
