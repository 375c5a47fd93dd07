//! Puts a registry together: takes the trait objects, loads the store, starts
//! the tasks.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::access::{Principal, Scoped};
use crate::config::Config;
use crate::connect::Connector;
use crate::core::Core;
use crate::error::Result;
use crate::event::Events;
use crate::health::{Command, Monitor, Patient, Prober, SessionProber, run};
use crate::lease::LeaseTimers;
use crate::machina::Machina;
use crate::memory::MemoryStore;
use crate::model::InstanceId;
use crate::recorder::{self, Recorder};
use crate::replies;
use crate::sessions::Sessions;
use crate::store::Backend;
use crate::tasks::Tasks;
use crate::tool_index::{LexicalIndex, ToolIndex};
use crate::view::View;

/// How far apart the first probes of instances that are known already are.
const SPREAD_EACH: Duration = Duration::from_millis(20);

/// What a registry is made of. Everything has a default: without a store it
/// lives in memory, without connectors it only keeps records.
#[derive(Debug, Default)]
pub struct Builder {
    config: Config,
    backend: Option<Backend>,
    connectors: Vec<Arc<dyn Connector>>,
    prober: Option<Arc<dyn Prober>>,
    index: Option<Arc<dyn ToolIndex>>,
    unmonitored: bool,
}

impl Builder {
    /// Sets the configuration.
    #[must_use]
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets where declarations and history are kept.
    #[must_use]
    pub fn backend(mut self, backend: Backend) -> Self {
        self.backend = Some(backend);
        self
    }

    /// Adds a connector; the first that handles an endpoint is used.
    #[must_use]
    pub fn connector(mut self, connector: Arc<dyn Connector>) -> Self {
        self.connectors.push(connector);
        self
    }

    /// Adds several connectors.
    #[must_use]
    pub fn connectors(mut self, connectors: impl IntoIterator<Item = Arc<dyn Connector>>) -> Self {
        self.connectors.extend(connectors);
        self
    }

    /// Checks instances in another way than by asking them.
    #[must_use]
    pub fn prober(mut self, prober: Arc<dyn Prober>) -> Self {
        self.prober = Some(prober);
        self
    }

    /// Searches tools in another way than by words.
    #[must_use]
    pub fn tool_index(mut self, index: Arc<dyn ToolIndex>) -> Self {
        self.index = Some(index);
        self
    }

    /// Leaves the instances alone until they are called: for a program that
    /// opens a registry only to read or change its records.
    #[must_use]
    pub fn without_monitor(mut self) -> Self {
        self.unmonitored = true;
        self
    }

    /// Loads the store and starts the registry.
    ///
    /// # Errors
    /// [`Invalid`](crate::ErrorKind::Invalid) for a configuration out of range;
    /// whatever the store says.
    ///
    /// # Panics
    /// When called outside a tokio runtime.
    pub async fn open(self) -> Result<Machina> {
        self.config.validate()?;
        let backend = self.backend.unwrap_or_else(|| Backend::of(MemoryStore::default()));
        let Backend { store, journal, replies } = backend;
        let image = store.load().await?;
        let config = self.config;
        let (tasks, monitor_tasks) = (Tasks::new(), Tasks::new());
        let (notices, noticed) = Monitor::notices();
        let sessions = Sessions::new(self.connectors, config.sessions.clone(), notices, tasks.clone());
        let default_prober = || Arc::new(SessionProber { sessions: sessions.clone() }) as Arc<dyn Prober>;
        let (recorder, queue) = Recorder::new(&config.journal);
        let (monitor, commands) = Monitor::new();
        let core = Arc::new(Core {
            view: ArcSwap::from_pointee(View::default()),
            publishing: Mutex::new(()),
            committing: tokio::sync::Mutex::new(()),
            store,
            journal: Arc::clone(&journal),
            replies: Arc::clone(&replies),
            recorder,
            prober: self.prober.unwrap_or_else(default_prober),
            sessions: sessions.clone(),
            monitor: monitor.clone(),
            leases: LeaseTimers::default(),
            events: Arc::new(Events::new(config.limits.events_max as usize)),
            index: self.index.unwrap_or_else(|| Arc::new(LexicalIndex::default())),
            tasks: tasks.clone(),
            monitor_tasks: monitor_tasks.clone(),
            config,
        });
        core.restore(&image);
        tasks.spawn("write journal", recorder::write(queue, Arc::clone(&journal)));
        monitor_tasks.spawn("trim journal", recorder::trim(journal, core.config.journal.clone()));
        monitor_tasks.spawn("trim replies", replies::trim(replies));
        monitor_tasks.spawn("close idle sessions", async move { sessions.close_idle().await });
        monitor_tasks.spawn("follow the store", Arc::clone(&core).follow());
        if !self.unmonitored {
            let patient = Arc::clone(&core) as Arc<dyn Patient>;
            let probes_max = core.config.health.probes_max;
            let schedule = run(patient, monitor, commands, noticed, probes_max, monitor_tasks.clone());
            monitor_tasks.spawn("monitor", schedule);
            monitor_tasks.spawn("expire leases", Arc::clone(&core).expire_leases());
            core.watch_all().await;
        }
        Ok(Machina::of(Scoped { core, principal: Arc::new(Principal::system()) }))
    }
}

impl Core {
    /// Watches every instance that is loaded: those that were never seen at
    /// once, the others spread out, so that a start is no herd of probes.
    async fn watch_all(&self) {
        let view = self.view();
        let mut known: u32 = 0;
        let interval = self.config.health.interval;
        for service in view.services() {
            for (instance, seen) in service.instances() {
                let delay = if seen.definitions.is_some() {
                    known += 1;
                    (SPREAD_EACH * known).min(interval).mul_f64(fraction(instance.id))
                } else {
                    Duration::ZERO
                };
                if service.service().spec.admin_state.is_probed() && instance.admin_state.is_probed() {
                    self.monitor.tell(Command::Watch { instance: instance.id, delay }).await;
                }
            }
        }
    }
}

/// A number between 0 and 1 that is spread evenly over instances.
fn fraction(instance: InstanceId) -> f64 {
    let bytes = instance.as_uuid().as_bytes();
    f64::from(u16::from_be_bytes([bytes[14], bytes[15]])) / f64::from(u16::MAX)
}
