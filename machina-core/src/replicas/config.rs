//! How the processes that share a store divide the work.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::error::Problem;
use crate::parameters::{HOUR, MILLISECOND, MINUTE, SECOND, between};

/// How the processes that share a store divide the work. The same for all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ReplicasConfig {
    /// How long a replica that falls silent keeps the instances that it looks
    /// after, before others take them; 1 s to 10 min. It stops looking after them
    /// itself when half of that is over.
    #[serde(with = "crate::parameters::required")]
    pub lease_ttl: Duration,
    /// How often it says that it is there; 100 ms to a third of `lease_ttl`.
    #[serde(with = "crate::parameters::required")]
    pub renew_interval: Duration,
    /// What is shown counts as stale when the store has not said for so long that
    /// it is the latest; 2 s to 1 h.
    #[serde(with = "crate::parameters::required")]
    pub stale_after: Duration,
}

impl Default for ReplicasConfig {
    fn default() -> Self {
        Self { lease_ttl: SECOND * 15, renew_interval: SECOND * 5, stale_after: SECOND * 5 }
    }
}

impl ReplicasConfig {
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        between("replicas.lease_ttl", Some(self.lease_ttl), SECOND, MINUTE * 10, problems);
        between("replicas.stale_after", Some(self.stale_after), SECOND * 2, HOUR, problems);
        let most = self.lease_ttl / 3;
        if !(MILLISECOND * 100..=most).contains(&self.renew_interval) {
            let detail =
                format!("must be 100ms to {most:?}, a third of replicas.lease_ttl, is {:?}", self.renew_interval);
            problems.push(Problem { field: "replicas.renew_interval".to_owned(), detail });
        }
    }

    /// How long the store may take to renew the leases, or to take what is told
    /// the others: several attempts fit into the time for which they count.
    pub(crate) fn patience(&self) -> Duration {
        self.renew_interval.min(self.lease_ttl / 4)
    }

    /// When that is tried again if it failed.
    pub(crate) fn retry_after(&self) -> Duration {
        (self.renew_interval / 5).min(SECOND)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_value_has_its_range() {
        let wrong = |config: ReplicasConfig| {
            let mut problems = Vec::new();
            config.check(&mut problems);
            problems.into_iter().map(|problem| problem.field).collect::<Vec<_>>()
        };
        let config = ReplicasConfig::default();
        assert!(wrong(config.clone()).is_empty());
        let longer = SECOND * 5 + MILLISECOND;
        assert_eq!(wrong(ReplicasConfig { renew_interval: longer, ..config.clone() }), ["replicas.renew_interval"]);
        assert_eq!(wrong(ReplicasConfig { stale_after: SECOND, ..config.clone() }), ["replicas.stale_after"]);
        let short = ReplicasConfig { lease_ttl: MILLISECOND * 900, renew_interval: MILLISECOND * 300, ..config };
        assert_eq!(wrong(short), ["replicas.lease_ttl"]);
    }
}
