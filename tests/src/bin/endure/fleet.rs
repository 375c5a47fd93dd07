//! A farm, and a registry in this process that knows its instances as services.

use std::collections::HashMap;
use std::time::Duration;

use machina_core::{
    Config, EventKind, HealthState, Instance, InstanceId, Machina, Mutation, Next, RoutingPolicy, ServiceSpec, Tasks,
};
use machina_tests::{Farm, open, settled};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::time::Instant;

/// How long all instances may take to be known.
const SETTLING: Duration = Duration::from_secs(180);
/// How many services are registered at once.
const BATCH: usize = 500;

/// The services and where their instances are in the farm.
pub(crate) struct Fleet {
    pub(crate) farm: Farm,
    pub(crate) machina: Machina,
    pub(crate) services: usize,
    pub(crate) per_service: usize,
    numbers: HashMap<InstanceId, usize>,
}

/// An instance was found to be unhealthy, or healthy again.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Found {
    pub(crate) instance: usize,
    pub(crate) at: Instant,
    pub(crate) down: bool,
}

/// What is found from now on.
pub(crate) type Findings = Arc<Mutex<Vec<Found>>>;

impl Fleet {
    /// Starts a farm with the arguments `args`, opens a registry with `config`, and
    /// registers `services` of `per_service` instances each, which are called by
    /// `policy`. The `n`th instance of a service is that of the farm with the number
    /// `place(service, n)`.
    pub(crate) async fn start(
        (services, per_service): (usize, usize),
        args: &[&str],
        config: Config,
        policy: &RoutingPolicy,
        place: impl Fn(usize, usize) -> usize,
    ) -> Self {
        let farm = Farm::start(services * per_service, args).await;
        let machina = open(config).await;
        let specs: Vec<Mutation> = (0..services)
            .map(|service| {
                let mut spec = ServiceSpec::new(&name(service)).expect("a valid name");
                spec.routing_policy = policy.clone();
                for nth in 0..per_service {
                    spec = spec.instance(Instance::new(farm.endpoint(place(service, nth))));
                }
                Mutation::Register(spec)
            })
            .collect();
        for batch in specs.chunks(BATCH) {
            machina.apply(batch.to_vec()).await.expect("the services can be registered");
        }
        let mut numbers = HashMap::new();
        for service in 0..services {
            let view = machina.get(&name(service)).expect("a service that was registered is there");
            let ids = view.instances().map(|(instance, _)| instance.id);
            numbers.extend(ids.enumerate().map(|(nth, id)| (id, place(service, nth))));
        }
        settled(&machina, SETTLING).await;
        Self { farm, machina, services, per_service, numbers }
    }

    /// The number in the farm of an instance.
    pub(crate) fn number(&self, id: InstanceId) -> Option<usize> {
        self.numbers.get(&id).copied()
    }

    /// How many instances there are.
    pub(crate) fn instances(&self) -> usize {
        self.services * self.per_service
    }

    /// Notes from now on what is found about the health of instances.
    pub(crate) fn watch(&self, tasks: &Tasks) -> Findings {
        let findings = Findings::default();
        let (mut events, numbers, noted) = (self.machina.watch(), self.numbers.clone(), Arc::clone(&findings));
        tasks.spawn("watch", async move {
            loop {
                let Next::Event(event) = events.next().await else { continue };
                let EventKind::HealthChanged { instance, to, .. } = &event.kind else { continue };
                let down = match to {
                    HealthState::Unhealthy => true,
                    HealthState::Healthy => false,
                    _ => continue,
                };
                let Some(instance) = numbers.get(instance).copied() else { continue };
                let found = Found { instance, at: Instant::now(), down };
                noted.lock().unwrap_or_else(PoisonError::into_inner).push(found);
            }
        });
        findings
    }
}

/// The name of a service.
pub(crate) fn name(service: usize) -> String {
    format!("service-{service}")
}
