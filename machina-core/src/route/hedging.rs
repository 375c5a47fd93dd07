//! When a slow call is also sent to a second instance, so that the faster answer
//! wins: only where the operator lists the tool and it is trusted to be read-only,
//! only after longer than nearly all calls take, and only for a small share of
//! them. Pure; the race itself is in `call.rs`.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::eligible::reads_only;
use crate::model::RoutingParameters;
use crate::view::ServiceView;

/// How many second calls may be saved up.
const SAVED_MAX: u64 = 5;

/// Second calls that may still be sent, in hundredths: each call adds its share.
#[derive(Debug, Default)]
pub(crate) struct HedgeAllowance(AtomicU64);

impl HedgeAllowance {
    /// A call came in that might be sent twice.
    pub(crate) fn deposit(&self, parameters: &RoutingParameters) {
        let share = u64::from(parameters.hedge_percentage);
        // The function always has a next value.
        let _ = self
            .0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| Some((saved + share).min(SAVED_MAX * 100)));
    }

    /// Takes one second call out; `false` when there is none left.
    pub(crate) fn withdraw(&self) -> bool {
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |saved| saved.checked_sub(100)).is_ok()
    }
}

/// After how long a call of `tool` is sent to a second instance too; `None` for
/// tools of which none is.
pub(super) fn hedge_delay(view: &ServiceView, tool: Option<&str>) -> Option<Duration> {
    let policy = &view.service().spec.routing_policy;
    if policy.hedged_tools.is_empty() {
        return None;
    }
    let tool = tool.filter(|tool| policy.hedged_tools.iter().any(|name| name == tool))?;
    let usual = view.usual_duration(tool).unwrap_or_default();
    reads_only(view, tool).then(|| usual.max(view.routing.hedge_delay))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_call_in_twenty_is_sent_twice_at_most() {
        let (allowance, parameters) = (HedgeAllowance::default(), RoutingParameters::default());
        assert!(!allowance.withdraw(), "not the first call");
        let sent = (0..1000).filter(|_| {
            allowance.deposit(&parameters);
            allowance.withdraw()
        });
        assert_eq!(sent.count(), 50);
        (0..1000).for_each(|_| allowance.deposit(&parameters));
        assert_eq!((0..10).filter(|_| allowance.withdraw()).count(), 5, "few are saved up");
        let never = RoutingParameters { hedge_percentage: 0, ..parameters };
        (0..1000).for_each(|_| allowance.deposit(&never));
        assert!(!allowance.withdraw());
    }
}
