//! When the instances that are there at the start are first probed: each at its own
//! moment of the interval, so that ten thousand of them are no herd.

use std::hash::BuildHasher as _;
use std::time::Duration;

use foldhash::quality::FixedState;

use super::monitor::Command;
use crate::core::Core;
use crate::model::{Instance, InstanceId};
use crate::view::InstanceView;

/// A few instances are not spread over the whole interval: so far apart on
/// average is far enough.
const APART: Duration = Duration::from_millis(20);

/// The moment within `interval` at which an instance is first probed: the same for
/// the same `epoch`, and spread evenly over the instances. Fewer begin in the last
/// tenth, where those that were first are probed again already.
#[allow(clippy::cast_precision_loss, reason = "32 bits fit")]
fn phase(instance: InstanceId, epoch: u64, interval: Duration) -> Duration {
    let hash = FixedState::with_seed(epoch).hash_one(instance);
    let share = |bits: u64| (bits & 0xffff_ffff) as f64 / (1_u64 << 32) as f64;
    interval.mul_f64(share(hash >> 32) * 0.1f64.mul_add(share(hash), 0.9))
}

/// Whether it was seen before, here or by another replica.
fn is_known(seen: &InstanceView) -> bool {
    seen.definitions.is_some() || seen.cell.shared().is_some()
}

/// Within which time an instance has its first probe. One that another replica
/// looked after until now has not been probed for a while.
fn turn(seen: &InstanceView) -> Duration {
    match seen.cell.shared() {
        Some(_) => seen.cell.probe_delay() / 2,
        None => seen.cell.parameters().interval,
    }
}

impl Core {
    /// Watches every one of these instances: those that were never seen at once,
    /// the others each at its moment.
    pub(crate) async fn watch_all(&self, these: impl Fn(InstanceId) -> bool) {
        let (view, epoch) = (self.view(), self.random.any());
        let all = view.services().flat_map(|service| service.instances());
        let known = all.filter(|(instance, seen)| these(instance.id) && is_known(seen));
        let spread = APART.saturating_mul(u32::try_from(known.count()).unwrap_or(u32::MAX));
        for service in view.services().filter(|service| service.service().spec.admin_state.is_probed()) {
            let these = |instance: &Instance| instance.admin_state.is_probed() && these(instance.id);
            for (instance, seen) in service.instances().filter(|(instance, _)| these(instance)) {
                let within = turn(seen).min(spread);
                let delay = if is_known(seen) { phase(instance.id, epoch, within) } else { Duration::ZERO };
                self.monitor.tell(Command::Watch { instance: instance.id, delay }).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ten_thousand_instances_are_spread_evenly_and_another_epoch_spreads_them_anew() {
        const INTERVAL: Duration = Duration::from_secs(30);
        let instances: Vec<_> = (0..10_000).map(|_| InstanceId::generate()).collect();
        let mut slots = [0_u32; 30];
        for instance in &instances {
            let at = phase(*instance, 1, INTERVAL);
            assert!(at < INTERVAL && at == phase(*instance, 1, INTERVAL));
            slots[usize::try_from(at.as_secs()).unwrap()] += 1;
        }
        assert!(slots[..27].iter().all(|slot| (270..440).contains(slot)), "{slots:?}");
        assert!(slots[27..].is_sorted_by(|one, next| one > next) && slots[29] < 150, "{slots:?}");
        let moved = instances.iter().filter(|one| phase(**one, 1, INTERVAL) != phase(**one, 2, INTERVAL));
        assert!(moved.count() > 9_990);
    }

    #[test]
    fn no_interval_is_no_phase() {
        assert_eq!(phase(InstanceId::generate(), 1, Duration::ZERO), Duration::ZERO);
    }
}
