//! Many simulated instances under one registry, and what is seen of both: when
//! each instance was asked for something, and what the registry says of it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use machina_core::testing::{Deed, Onlooker, SimConnector};
use machina_core::{
    Backend, Config, EventKind, HealthParameters, HealthState, Instance, InstanceId, Machina, MemoryStore, Mutation,
    Next, ReasonCode, ServiceSpec, Tasks,
};
use tokio::time::Instant;

/// What the registry said of an instance at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Change {
    /// When.
    pub at: Instant,
    /// Which instance, by its place in the fleet.
    pub place: usize,
    /// What it was before.
    pub from: HealthState,
    /// What it is.
    pub to: HealthState,
    /// Why.
    pub code: ReasonCode,
}

impl Change {
    /// Whether soft evidence takes an instance down here that was up.
    #[must_use]
    pub fn is_soft_ejection(&self) -> bool {
        self.from.is_up() && self.to == HealthState::Unhealthy && self.code == ReasonCode::Failing
    }
}

/// What was seen.
#[derive(Debug, Default)]
pub struct Seen {
    /// Every change of health, in order.
    pub changes: Vec<Change>,
    /// When self-preservation began (`true`) or ended.
    pub alarms: Vec<(Instant, bool)>,
    /// How often the registry was too fast for its reader.
    pub missed: u32,
    /// When each instance was last asked for something.
    last: HashMap<Box<str>, Instant>,
    /// The longest time that each was not asked for anything.
    gaps: HashMap<Box<str>, Duration>,
    /// How many probes began in each tenth of a second since the beginning.
    pub herd: Vec<u32>,
    /// How many calls reached an instance.
    pub calls: u64,
    begun: Option<Instant>,
}

#[derive(Debug, Default)]
struct Watcher(Mutex<Seen>);

impl Watcher {
    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Onlooker for Watcher {
    fn saw(&self, location: &str, deed: Deed<'_>) {
        let now = Instant::now();
        let mut seen = self.seen();
        match deed {
            Deed::Began(contact) => {
                if contact == machina_core::testing::Contact::Probe {
                    let tenth = seen.begun.map_or(0, |begun| begun.elapsed().as_millis() / 100);
                    let tenth = usize::try_from(tenth).unwrap_or(0);
                    if seen.herd.len() <= tenth {
                        seen.herd.resize(tenth + 1, 0);
                    }
                    seen.herd[tenth] += 1;
                }
                let last = seen.last.insert(location.into(), now);
                let gap = last.map_or(Duration::ZERO, |last| now - last);
                let longest = seen.gaps.entry(location.into()).or_default();
                *longest = gap.max(*longest);
            }
            Deed::Ended { .. } => drop(seen.last.insert(location.into(), now)),
            Deed::Executed { .. } => seen.calls += 1,
        }
    }
}

/// A registry and its instances.
#[derive(Debug)]
pub struct Fleet {
    /// The registry.
    pub machina: Machina,
    /// What the instances are made by.
    pub sims: SimConnector,
    /// The instances, service by service.
    pub instances: Vec<Instance>,
    /// What holds for the health of each.
    pub parameters: HealthParameters,
    watcher: Arc<Watcher>,
    /// What runs beside.
    pub tasks: Tasks,
}

/// The configuration of a fleet: the defaults, with room for all its events and
/// little history.
#[must_use]
pub fn config() -> Config {
    let mut config = Config::default();
    config.limits.events_max = 1_000_000;
    config.journal.entries_max = 10;
    config
}

impl Fleet {
    /// `services` services named `s0` and so on, each with as many instances, all
    /// of them healthy. `change` may change what is declared.
    ///
    /// # Panics
    /// When the registry does not open, or an instance does not become healthy.
    pub async fn open(
        seed: u64,
        services: usize,
        each: usize,
        config: Config,
        change: impl Fn(&mut ServiceSpec),
    ) -> Self {
        let sims = SimConnector::seeded(seed);
        let made = |service: usize| (0..each).map(move |one| format!("i{service}-{one}"));
        let instances: Vec<Instance> = (0..services).flat_map(made).map(|name| sims.instance(&name)).collect();
        let fleet = Self::of(seed, sims, instances, Backend::of(MemoryStore::default()), config).await;
        let specs = fleet.instances.chunks(each).enumerate().map(|(index, instances)| {
            let spec = ServiceSpec::new(&format!("s{index}")).expect("a valid name");
            let mut spec = instances.iter().fold(spec, |spec, one| spec.instance(one.clone()));
            change(&mut spec);
            Mutation::Register(spec)
        });
        let specs: Vec<_> = specs.collect();
        fleet.machina.apply(specs).await.expect("the services are registered");
        let patience = 2 * fleet.parameters.interval;
        tokio::time::sleep(patience).await;
        let unwell = fleet.states().iter().filter(|state| **state != HealthState::Healthy).count();
        assert_eq!(unwell, 0, "all are healthy at the beginning");
        fleet
    }

    /// A registry of what `backend` holds, and those instances.
    ///
    /// # Panics
    /// When the registry does not open.
    pub async fn of(seed: u64, sims: SimConnector, instances: Vec<Instance>, backend: Backend, config: Config) -> Self {
        let watcher = Arc::new(Watcher::default());
        watcher.seen().begun = Some(Instant::now());
        sims.watch(Arc::clone(&watcher) as Arc<dyn Onlooker>);
        let builder = Machina::builder().seed(seed).connector(Arc::new(sims.clone()));
        let machina = builder.config(config).backend(backend).open().await.expect("a registry in memory opens");
        let parameters = machina.config().health.under(&machina_core::HealthPolicy::default());
        let fleet = Self { machina, sims, instances, parameters, watcher, tasks: Tasks::new() };
        fleet.listen();
        fleet
    }

    fn listen(&self) {
        let ids = self.instances.iter().enumerate().map(|(place, instance)| (instance.id, place));
        let ids: HashMap<InstanceId, usize> = ids.collect();
        let (mut events, watcher) = (self.machina.watch(), Arc::clone(&self.watcher));
        self.tasks.spawn("listen", async move {
            loop {
                let event = match events.next().await {
                    Next::Event(event) => event,
                    Next::Resync => {
                        watcher.seen().missed += 1;
                        continue;
                    }
                };
                let at = Instant::now();
                match &event.kind {
                    EventKind::HealthChanged { instance, from, to, reason } => {
                        if let Some(place) = ids.get(instance).copied() {
                            let change = Change { at, place, from: *from, to: *to, code: reason.code };
                            watcher.seen().changes.push(change);
                        }
                    }
                    EventKind::SelfPreservation { active, .. } => watcher.seen().alarms.push((at, *active)),
                    _ => {}
                }
            }
        });
    }

    /// What was seen since the last [`Fleet::forget`].
    pub fn seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.watcher.seen())
    }

    /// Begins to count anew.
    pub fn forget(&self) {
        let mut seen = self.watcher.seen();
        let now = Instant::now();
        let last = seen.last.keys().map(|location| (location.clone(), now)).collect();
        *seen = Seen { last, begun: Some(now), ..Seen::default() };
    }

    /// What the registry says of each instance.
    #[must_use]
    pub fn states(&self) -> Vec<HealthState> {
        let view = self.machina.view();
        let state = |instance: &Instance| {
            let known = view.owner(instance.id).and_then(|service| service.instance(instance.id));
            known.map_or(HealthState::Unknown, |(_, seen)| seen.health.state)
        };
        self.instances.iter().map(state).collect()
    }

    /// How long after `since` each of the first `count` instances was found to be
    /// in a state that `wanted` names; the longest of them, and how many were not.
    #[must_use]
    pub fn found(&self, count: usize, since: Instant, wanted: impl Fn(HealthState) -> bool) -> (Duration, usize) {
        self.seen(|seen| {
            let first = |place: usize| {
                let changes = seen.changes.iter().filter(|change| change.place == place && change.at >= since);
                changes.filter(|change| wanted(change.to)).map(|change| change.at - since).next()
            };
            let found: Vec<_> = (0..count).map(first).collect();
            let longest = found.iter().flatten().max().copied().unwrap_or_default();
            (longest, found.iter().filter(|found| found.is_none()).count())
        })
    }

    /// The longest time in which one of the instances from `first` on was not
    /// asked for anything.
    #[must_use]
    pub fn longest_gap(&self, first: usize) -> Duration {
        let now = Instant::now();
        self.seen(|seen| {
            let gap = |instance: &Instance| {
                let location = instance.endpoint.location();
                let open = seen.last.get(&*location).map_or(Duration::ZERO, |last| now - *last);
                seen.gaps.get(&*location).copied().unwrap_or_default().max(open)
            };
            self.instances[first..].iter().map(gap).max().unwrap_or_default()
        })
    }

    /// Ends it all.
    pub async fn close(self) {
        self.tasks.cancel();
        self.machina.close().await;
    }
}
