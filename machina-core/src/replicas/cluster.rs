//! Several registries over one store under paused time, each behind a line to the
//! store that a test can cut, and instances whose truth a test sets.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use crate::config::Config;
use crate::connect::Target;
use crate::error::Result;
use crate::health::{Health, Observation, ProbeOutcome, ProbePlan, Prober};
use crate::machina::Machina;
use crate::memory::MemoryStore;
use crate::model::{HttpEndpoint, Instance, InstanceId, Revision, ServiceSpec};
use crate::shards::{Held, Leases, ReplicaId};
use crate::store::{Backend, Batch, Changes, Image, Store};

/// One probe: when, by which replica, of which instance.
pub(super) type Probe = (Instant, usize, InstanceId);

/// What is true, and who looked.
#[derive(Debug, Default)]
pub(super) struct World {
    down: Mutex<BTreeSet<InstanceId>>,
    probes: Mutex<Vec<Probe>>,
}

impl World {
    pub(super) fn set_down(&self, instance: InstanceId, down: bool) {
        let mut all = self.down.lock().unwrap();
        if down {
            all.insert(instance)
        } else {
            all.remove(&instance)
        };
    }

    pub(super) fn is_down(&self, instance: InstanceId) -> bool {
        self.down.lock().unwrap().contains(&instance)
    }

    /// The probes since then.
    pub(super) fn probes(&self, since: Instant) -> Vec<Probe> {
        self.probes.lock().unwrap().iter().filter(|(at, ..)| *at >= since).copied().collect()
    }
}

#[derive(Debug)]
struct Eye {
    replica: usize,
    world: Arc<World>,
}

#[async_trait]
impl Prober for Eye {
    async fn probe(&self, target: &Target, _: &ProbePlan) -> Observation {
        let instance = target.instance.id;
        self.world.probes.lock().unwrap().push((Instant::now(), self.replica, instance));
        tokio::time::sleep(Duration::from_millis(5)).await;
        match self.world.is_down(instance) {
            true => Observation::new(ProbeOutcome::Fail { hard: true }, "it is down"),
            false => Observation::pass(Duration::from_millis(5)),
        }
    }
}

/// The way of one replica to the store.
#[derive(Debug)]
pub(super) struct Line {
    store: Mutex<Arc<MemoryStore>>,
    cut: AtomicBool,
    stalled: AtomicBool,
    /// No wake-up comes through.
    deaf: AtomicBool,
    /// When the store last renewed the leases over it.
    renewed: Mutex<Option<Instant>>,
}

impl Line {
    pub(super) fn to(store: &Arc<MemoryStore>) -> Arc<Self> {
        let store = Mutex::new(Arc::clone(store));
        let [cut, stalled, deaf] = [(); 3].map(|()| AtomicBool::new(false));
        Arc::new(Self { store, cut, stalled, deaf, renewed: Mutex::default() })
    }

    /// Nothing gets through, and nobody says so.
    pub(super) fn cut(&self, cut: bool) {
        self.cut.store(cut, Ordering::Relaxed);
    }

    /// What is asked gets through when it stalls no more, if anyone still waits.
    pub(super) fn stall(&self, stalled: bool) {
        self.stalled.store(stalled, Ordering::Relaxed);
    }

    pub(super) fn deafen(&self) {
        self.deaf.store(true, Ordering::Relaxed);
    }

    /// Waits until the leases are renewed the next time.
    pub(super) async fn renewal(&self) {
        let before = *self.renewed.lock().unwrap();
        while *self.renewed.lock().unwrap() == before {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// From now on it leads to another store.
    pub(super) fn lead_to(&self, store: &Arc<MemoryStore>) {
        *self.store.lock().unwrap() = Arc::clone(store);
    }

    async fn reach(&self) -> Arc<MemoryStore> {
        while self.cut.load(Ordering::Relaxed) {
            pending::<()>().await;
        }
        while self.stalled.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        self.store.lock().unwrap().clone()
    }
}

#[async_trait]
impl Store for Line {
    async fn load(&self) -> Result<Image> {
        self.reach().await.load().await
    }
    async fn commit(&self, batch: &Batch) -> Result<Revision> {
        self.reach().await.commit(batch).await
    }
    async fn changes(&self, after: Revision) -> Result<Changes> {
        self.reach().await.changes(after).await
    }
    async fn changed(&self) -> Result<()> {
        if self.deaf.load(Ordering::Relaxed) {
            return pending().await;
        }
        self.reach().await.changed().await
    }
}

#[async_trait]
impl Leases for Line {
    async fn hold(&self, replica: ReplicaId, ttl: Duration) -> Result<Held> {
        let held = self.reach().await.hold(replica, ttl).await;
        *self.renewed.lock().unwrap() = Some(Instant::now());
        held
    }
    async fn release(&self, replica: ReplicaId) -> Result<()> {
        self.reach().await.release(replica).await
    }
    async fn hint(&self, instances: &[InstanceId]) -> Result<()> {
        self.reach().await.hint(instances).await
    }
    async fn hinted(&self) -> Result<Vec<InstanceId>> {
        self.reach().await.hinted().await
    }
}

/// Replicas over one store.
#[derive(Debug)]
pub(super) struct Cluster {
    pub(super) store: Arc<MemoryStore>,
    pub(super) world: Arc<World>,
    pub(super) replicas: Vec<Machina>,
    pub(super) lines: Vec<Arc<Line>>,
    pub(super) instances: Vec<Instance>,
    config: Config,
}

impl Cluster {
    /// So many replicas, which have shared the shards out, and so many services
    /// `s0`, `s1`, … of one instance each, all of them known to be healthy.
    pub(super) async fn of(replicas: usize, services: usize) -> Self {
        let ids = (0..services).map(|_| InstanceId::generate());
        Self::with(Config::default(), replicas, ids.collect()).await
    }

    /// The same, with these instances.
    pub(super) async fn with(config: Config, replicas: usize, ids: Vec<InstanceId>) -> Self {
        let mut cluster = Self::empty(config);
        for _ in 0..replicas {
            cluster.join().await;
        }
        for (index, id) in ids.into_iter().enumerate() {
            let mut instance = Instance::new(HttpEndpoint::new(format!("http://i{index}.x/mcp")));
            instance.id = id;
            cluster.add(instance).await;
        }
        cluster.settle().await;
        cluster
    }

    pub(super) fn empty(config: Config) -> Self {
        let (store, world) = (Arc::new(MemoryStore::new()), Arc::default());
        Self { store, world, replicas: Vec::new(), lines: Vec::new(), instances: Vec::new(), config }
    }

    /// Another replica.
    pub(super) async fn join(&mut self) {
        let (replica, line) = (self.replicas.len(), Line::to(&self.store));
        let machina = self.open(replica, &line, |builder| builder).await;
        self.replicas.push(machina);
        self.lines.push(line);
    }

    pub(super) async fn open(
        &self,
        replica: usize,
        line: &Arc<Line>,
        with: impl FnOnce(crate::Builder) -> crate::Builder,
    ) -> Machina {
        let backend = Backend { store: line.clone(), journal: self.store.clone(), ..Backend::of(MemoryStore::new()) };
        let eye = Eye { replica, world: Arc::clone(&self.world) };
        let builder = Machina::builder().config(self.config.clone()).seed(replica as u64 + 7).prober(Arc::new(eye));
        with(builder.backend(backend.shared(line.clone()))).open().await.unwrap()
    }

    /// Registers the next service, at any replica.
    pub(super) async fn add(&mut self, instance: Instance) {
        let index = self.instances.len();
        let spec = ServiceSpec::new(&format!("s{index}")).unwrap().instance(instance.clone());
        self.replicas[index % self.replicas.len()].register(spec).await.unwrap();
        self.instances.push(instance);
    }

    /// Waits until each shard has its holder and everyone agrees.
    pub(super) async fn settle(&self) {
        let all = |machina: &Machina| machina.standing().replica.unwrap().shards;
        let begun = Instant::now();
        loop {
            let held: Vec<u32> = self.replicas.iter().map(all).collect();
            let share = u32::from(crate::SHARDS).div_ceil(u32::try_from(held.len()).unwrap());
            let whole = held.iter().sum::<u32>() == u32::from(crate::SHARDS);
            if whole && held.iter().all(|shards| *shards <= share) && self.disagreement().is_none() {
                return;
            }
            assert!(begun.elapsed() < Duration::from_secs(60), "{held:?} shards; {:?}", self.disagreement());
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The replica that looks after an instance.
    pub(super) fn holder(&self, instance: InstanceId) -> usize {
        let owns = |machina: &Machina| machina.system().core.replicas.owns(instance);
        self.replicas.iter().position(owns).expect("somebody looks after it")
    }

    /// As `kill -9` does it: nothing is said to anyone.
    pub(super) fn kill(&mut self, replica: usize) {
        let core = &self.replicas[replica].system().core;
        core.monitor_tasks.cancel();
        core.tasks.cancel();
        self.replicas.remove(replica);
        self.lines.remove(replica).cut(true);
    }

    pub(super) fn health(&self, replica: usize, instance: InstanceId) -> Option<Health> {
        let view = self.replicas[replica].view();
        let seen = view.owner(instance)?.instance(instance)?.1;
        let (shown, known) = (&seen.health, seen.cell.health());
        assert_eq!((shown.state, &shown.reason), (known.state, &known.reason), "readers see something else");
        Some(Health::clone(&known))
    }

    /// Something that is not true, or on which two replicas do not agree.
    pub(super) fn disagreement(&self) -> Option<String> {
        for instance in &self.instances {
            let seen: Vec<_> = (0..self.replicas.len()).map(|replica| self.health(replica, instance.id)).collect();
            let states: Vec<_> = seen.iter().map(|health| health.as_ref().map(|health| health.state)).collect();
            let up = !self.world.is_down(instance.id);
            if states.iter().any(|state| *state != states[0] || state.is_none_or(|state| state.is_up() != up)) {
                return Some(format!("{} is up: {up}, and is seen as {states:?}", instance.id));
            }
        }
        None
    }

    /// Waits until everyone knows what is true.
    pub(super) async fn agree_within(&self, limit: Duration) {
        let begun = Instant::now();
        while let Some(disagreement) = self.disagreement() {
            assert!(begun.elapsed() <= limit, "{disagreement} after {limit:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// By how many replicas an instance was probed within any `window` since then,
    /// at most.
    pub(super) fn probers_within(&self, since: Instant, window: Duration) -> usize {
        let mut of: BTreeMap<InstanceId, Vec<(Instant, usize)>> = BTreeMap::new();
        for (at, replica, instance) in self.world.probes(since) {
            of.entry(instance).or_default().push((at, replica));
        }
        let most = |probes: &Vec<(Instant, usize)>| {
            let within = |from: Instant| probes.iter().filter(move |(at, _)| *at >= from && *at < from + window);
            probes.iter().map(|(at, _)| within(*at).map(|(_, who)| who).collect::<BTreeSet<_>>().len()).max()
        };
        of.values().filter_map(most).max().unwrap_or(0)
    }

    /// The longest time since then for which nobody probed an instance.
    pub(super) fn longest_gap(&self, since: Instant) -> Duration {
        let probes = self.world.probes(since);
        let gap = |instance: &Instance| {
            let at = probes.iter().filter(|(_, _, id)| *id == instance.id).map(|(at, ..)| *at);
            let times: Vec<Instant> = [since].into_iter().chain(at).chain([Instant::now()]).collect();
            times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
        };
        self.instances.iter().map(gap).max().unwrap_or_default()
    }
}
