//! When the instances that are there at the start are first probed: each at its own
//! moment of the interval, so that ten thousand of them are no herd.

use std::hash::BuildHasher as _;
use std::time::Duration;

use foldhash::quality::FixedState;

use super::monitor::Command;
use crate::core::Core;
use crate::model::InstanceId;

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

impl Core {
    /// Watches every instance that is loaded: those that were never seen at
    /// once, the others each at its moment.
    pub(crate) async fn watch_all(&self) {
        let (view, epoch) = (self.view(), self.random.any());
        let known =
            view.services().flat_map(|service| service.instances()).filter(|(_, seen)| seen.definitions.is_some());
        let spread = APART.saturating_mul(u32::try_from(known.count()).unwrap_or(u32::MAX));
        for service in view.services().filter(|service| service.service().spec.admin_state.is_probed()) {
            for (instance, seen) in service.instances().filter(|(instance, _)| instance.admin_state.is_probed()) {
                let within = seen.cell.parameters().interval.min(spread);
                let known = seen.definitions.is_some();
                let delay = if known { phase(instance.id, epoch, within) } else { Duration::ZERO };
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
