//! How soon a fault is found and forgotten at the latest, as formulas of what is
//! configured (`reliability.md` §1). Tests hold what they measure against these,
//! never against a number of their own.

use std::time::Duration;

use crate::model::HealthParameters;

/// How long a probe takes at most that finds nothing: the first attempt, and
/// each further one that is to confirm it.
#[must_use]
pub fn failed_probe(parameters: &HealthParameters) -> Duration {
    parameters.timeout + parameters.retries * (2 * parameters.confirm_delay + parameters.confirm_timeout)
}

/// When an instance is down at the latest that does not answer any more and
/// gives no sign of it.
#[must_use]
pub fn black_hole(parameters: &HealthParameters) -> Duration {
    let fall = parameters.failure_threshold;
    parameters.interval + fall * failed_probe(parameters) + (fall - 1) * parameters.fast_interval
}

/// When an instance is down at the latest that refuses connections, without any
/// connection that could break.
#[must_use]
pub fn refused(parameters: &HealthParameters) -> Duration {
    parameters.interval + Duration::from_secs(1)
}

/// When an instance is down at the latest that ends its process or breaks a
/// connection.
#[must_use]
pub const fn signalled() -> Duration {
    Duration::from_secs(1)
}

/// When an instance is healthy again at the latest that went down in the last
/// five minutes: a probe that still fails, then `success_threshold` that pass.
#[must_use]
pub fn recovery(parameters: &HealthParameters) -> Duration {
    failed_probe(parameters) + parameters.success_threshold * parameters.fast_interval
}

/// The same while it counts as flapping.
#[must_use]
pub fn flapping_recovery(parameters: &HealthParameters) -> Duration {
    failed_probe(parameters) + parameters.flap_success_threshold * parameters.fast_interval
}

/// The longest time between the ends and beginnings of two probes of an instance.
#[must_use]
pub fn probe_gap(parameters: &HealthParameters) -> Duration {
    parameters.interval + parameters.interval / 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_give_the_figures_of_the_design() {
        let defaults = HealthParameters::default();
        assert_eq!(black_hole(&defaults), Duration::from_secs(73));
        assert_eq!(refused(&defaults), Duration::from_secs(31));
        assert!(recovery(&defaults) <= Duration::from_secs(15));
        assert_eq!(probe_gap(&defaults), Duration::from_secs(33));
    }
}
