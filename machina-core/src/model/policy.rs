//! What may be set per service about its health checks and its calls. An absent
//! field means the default of the whole registry (see [`crate::Config`]).

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Problem;

pub(super) mod duration {
    //! Durations in records are text such as `"30s"` or `"1m 30s"`.
    pub(crate) use jiff::fmt::serde::unsigned_duration::friendly::compact::optional;
}

/// How the health of a service's instances is found out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct HealthPolicy {
    /// Time between two probes of an instance; 1 s to 1 h.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, examples("30s")))]
    pub interval: Option<Duration>,
    /// How long one attempt of a probe may take; 100 ms to 1 min.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, examples("5s")))]
    pub timeout: Option<Duration>,
    /// Soft failures in a row until an instance is unhealthy; 1 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
    pub failure_threshold: Option<u32>,
    /// Passes in a row until an unhealthy instance is healthy; 1 to 100.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 100))]
    pub success_threshold: Option<u32>,
    /// How long a new instance may take to answer for the first time; 1 s to 15 min.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, examples("1m")))]
    pub startup_grace: Option<Duration>,
}

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
}

/// How calls to a service are carried out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(default, deny_unknown_fields)]
pub struct RoutingPolicy {
    /// How an instance is picked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balancer: Option<BalancerKind>,
    /// How long a call may take in all, retries included; 10 ms to 10 min.
    #[serde(with = "duration::optional", skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>, examples("30s")))]
    pub timeout: Option<Duration>,
    /// How many attempts a call may have, 1 to 10, where repeating it is safe.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(minimum = 1, maximum = 10))]
    pub attempts_max: Option<u32>,
    /// Whether the server's own `readOnlyHint` and `idempotentHint` are believed.
    /// Only then may a call whose outcome is unknown be repeated elsewhere.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub trust_annotations: bool,
    /// Tools that the operator vouches for: repeating a call of one is harmless.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub idempotent_tools: Vec<String>,
}

impl HealthPolicy {
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        let second = Duration::from_secs(1);
        between("health_policy.interval", self.interval, second, second * 3600, problems);
        between("health_policy.timeout", self.timeout, second / 10, second * 60, problems);
        between("health_policy.startup_grace", self.startup_grace, second, second * 900, problems);
        count("health_policy.failure_threshold", self.failure_threshold, 100, problems);
        count("health_policy.success_threshold", self.success_threshold, 100, problems);
    }
}

impl RoutingPolicy {
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        let (least, most) = (Duration::from_millis(10), Duration::from_secs(600));
        between("routing_policy.timeout", self.timeout, least, most, problems);
        count("routing_policy.attempts_max", self.attempts_max, 10, problems);
    }
}

/// Appends a problem unless `value` lies between `least` and `most`.
pub(crate) fn between(
    field: &str,
    value: Option<Duration>,
    least: Duration,
    most: Duration,
    problems: &mut Vec<Problem>,
) {
    if let Some(value) = value.filter(|value| !(least..=most).contains(value)) {
        let detail = format!("must be {least:?} to {most:?}, is {value:?}");
        problems.push(Problem { field: field.to_owned(), detail });
    }
}

/// Appends a problem unless `value` is 1 to `most`.
pub(crate) fn count(field: &str, value: Option<u32>, most: u32, problems: &mut Vec<Problem>) {
    if let Some(value) = value.filter(|value| !(1..=most).contains(value)) {
        problems.push(Problem { field: field.to_owned(), detail: format!("must be 1 to {most}, is {value}") });
    }
}

/// Appends a problem if `text` has more than `most` characters.
pub(crate) fn length(field: &str, text: Option<&str>, most: usize, problems: &mut Vec<Problem>) {
    let length = text.unwrap_or_default().chars().count();
    if length > most {
        let detail = format!("must have at most {most} characters, has {length}");
        problems.push(Problem { field: field.to_owned(), detail });
    }
}
