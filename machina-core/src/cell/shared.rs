//! What a cell takes from elsewhere: the health that the replica reports which
//! looks after the instance, and heartbeats that came to another one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{Cell, Recorded};
use crate::clock;
use crate::health::{Health, HealthEvent, HealthState, Reason, ReasonCode, Told};

impl Cell {
    /// The health of the instance as the store has it, if it has any.
    pub(crate) fn shared(&self) -> Option<Arc<Health>> {
        self.observed().shared.clone()
    }

    /// This is in the store now, and was written by whoever looks after the instance.
    pub(crate) fn set_shared(&self, health: Arc<Health>) {
        self.observed().shared = Some(health);
    }

    /// Another replica looks after the instance and says how it is: what was seen
    /// from here does not count any more. Returns what readers see of that.
    pub(crate) fn tell(&self, health: &Arc<Health>) -> Option<Recorded> {
        let now = Instant::now();
        let mut observed = self.observed();
        observed.shared = Some(Arc::clone(health));
        let told = Told {
            sequence: self.ticket(),
            state: health.state,
            failures: health.consecutive_failures,
            hard: health.reason.code == ReasonCode::Down,
            since: now.checked_sub(age(health.since)).unwrap_or(now),
        };
        let flapped = observed.health.flapping;
        let mut effects = observed.step(&HealthEvent::Told(told), now);
        // Whether it flaps is for the other to say.
        effects.flapping = (flapped != health.flapping).then_some(health.flapping);
        let visible = observed.health != *health;
        observed.health = Arc::clone(health);
        observed.start_slowly(effects, now);
        self.starts_slowly.store(observed.slow_start.is_some(), Ordering::Relaxed);
        if effects.transition.is_some_and(|(_, to)| matches!(to, HealthState::Suspect | HealthState::Unhealthy)) {
            self.routing.doubt();
        }
        visible.then(|| observed.recorded(effects, true))
    }

    /// Another replica has checked the instance then and found nothing new; says
    /// whether readers would see that.
    pub(crate) fn seen_at(&self, last_check: Timestamp) -> bool {
        let mut observed = self.observed();
        let later = |health: &Health| health.last_check.is_none_or(|known| known < last_check);
        if let Some(shared) = observed.shared.as_mut().filter(|shared| later(shared)) {
            Arc::make_mut(shared).last_check = Some(last_check);
        }
        let visible = later(&observed.health);
        if visible {
            Arc::make_mut(&mut observed.health).last_check = Some(last_check);
        }
        visible
    }

    /// A heartbeat came to another replica, or before this process began: the
    /// lease begins anew `ago`, unless it did later. Returns when it runs out, if
    /// that is another time now.
    pub(crate) fn heard(&self, at: Timestamp, ago: Duration) -> Option<Instant> {
        let now = Instant::now();
        let mut observed = self.observed();
        let lease = observed.lease.as_mut()?;
        let renewed = now.checked_sub(ago).unwrap_or(now);
        lease.hear(renewed, at).then(|| lease.until())
    }

    /// An instance whose lease ran out was heard of: it is back.
    pub(crate) fn come_back(&self) -> Option<Recorded> {
        self.observed().turn(&HealthEvent::Returned { sequence: self.ticket() }, Reason::default())
    }
}

/// How long ago that was, by the clock of this machine.
pub(crate) fn age(at: Timestamp) -> Duration {
    Duration::try_from(clock::now().duration_since(at)).unwrap_or_default()
}
