//! A whole registry under paused time, with simulated instances that change as a
//! test says.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Config;
use crate::event::{EventKind, EventStream, Next};
use crate::health::HealthState;
use crate::machina::Machina;
use crate::model::{Instance, InstanceId};
use crate::report::{HealthReport, ServiceHealth};
use crate::testing::registry_suite::service;
use crate::testing::{Behaviour, SimConnector};

/// Services `s0`, `s1`, … of one instance each.
pub(super) struct Ward {
    pub(super) machina: Machina,
    pub(super) sim: SimConnector,
    pub(super) instances: Vec<Instance>,
    pub(super) events: EventStream,
}

impl Ward {
    /// With `count` instances that do not share a fault, all of them healthy.
    pub(super) async fn of(config: Config, count: usize, make: impl Fn(&SimConnector, usize) -> Instance) -> Self {
        let sim = SimConnector::seeded(11);
        let machina = Machina::builder().config(config).seed(5).connector(Arc::new(sim.clone())).open().await.unwrap();
        let instances: Vec<_> = (0..count).map(|index| make(&sim, index)).collect();
        for (index, instance) in instances.iter().enumerate() {
            machina.register(service(&format!("s{index}"), &[instance])).await.unwrap();
        }
        let events = machina.watch();
        let ward = Self { machina, sim, instances, events };
        for index in 0..count {
            while ward.health(index).state != HealthState::Healthy {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        ward
    }

    pub(super) async fn http(config: Config, count: usize) -> Self {
        let ward = Self::of(config, count, |sim, index| sim.instance(&format!("host-{index}"))).await;
        // Nothing tells but the probes.
        ward.instances.iter().for_each(|instance| ward.sim.set_held(instance, false));
        ward
    }

    pub(super) fn health(&self, index: usize) -> HealthReport {
        let view = self.machina.get(&format!("s{index}")).unwrap();
        ServiceHealth::from(&*view).health
    }

    pub(super) fn set(&self, index: usize, behaviour: Behaviour) {
        self.sim.set(&self.instances[index], behaviour);
    }

    /// How long it takes until an instance is in `state`, from now.
    pub(super) async fn until(&mut self, index: usize, state: HealthState) -> Duration {
        let began = Instant::now();
        let wanted = self.instances[index].id;
        loop {
            if let Next::Event(event) = self.events.next().await
                && let EventKind::HealthChanged { instance, to, .. } = &event.kind
                && (*instance, *to) == (wanted, state)
            {
                return began.elapsed();
            }
        }
    }

    /// What was told since the last look.
    pub(super) fn told(&mut self) -> Vec<EventKind> {
        std::iter::from_fn(|| self.events.try_next())
            .map(|next| match next {
                Next::Event(event) => event.kind.clone(),
                Next::Resync => panic!("a gap"),
            })
            .collect()
    }
}

pub(super) fn went(told: &[EventKind], state: HealthState) -> Vec<InstanceId> {
    let of = |kind: &EventKind| match kind {
        EventKind::HealthChanged { instance, to, .. } if *to == state => Some(*instance),
        _ => None,
    };
    told.iter().filter_map(of).collect()
}

pub(super) fn preservation(told: &[EventKind]) -> Vec<bool> {
    let of = |kind: &EventKind| match kind {
        EventKind::SelfPreservation { active, .. } => Some(*active),
        _ => None,
    };
    told.iter().filter_map(of).collect()
}
