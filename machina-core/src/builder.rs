//! Puts a registry together: takes the trait objects, loads the store, starts
//! the tasks.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;

use crate::access::{Principal, Scoped};
use crate::alerts::{Alerts, Notifier};
use crate::config::Config;
use crate::connect::Connector;
use crate::core::Core;
use crate::error::Result;
use crate::event::Events;
use crate::followed::NoCommands;
use crate::health::{Guard, Inbox, Limits, Monitor, Patient, Prober, SessionProber, run};
use crate::lease::LeaseTimers;
use crate::machina::Machina;
use crate::memory::MemoryStore;
use crate::model::Endpoint;
use crate::native::{NativeConnector, Natives};
use crate::random::Random;
use crate::recorder::{self, Recorder};
use crate::replicas::{Freshness, Replicas};
use crate::replies;
use crate::scratch::Scratches;
use crate::sessions::Sessions;
use crate::store::Backend;
use crate::tasks::Tasks;
use crate::together::Writers;
use crate::tool_index::{LexicalIndex, ToolIndex};
use crate::view::View;

/// What a registry is made of. Everything has a default: without a store it
/// lives in memory, without connectors it only keeps records.
#[derive(Debug, Default)]
pub struct Builder {
    config: Config,
    backend: Option<Backend>,
    connectors: Vec<Arc<dyn Connector>>,
    prober: Option<Arc<dyn Prober>>,
    index: Option<Arc<dyn ToolIndex>>,
    notifiers: Vec<Arc<dyn Notifier>>,
    unmonitored: bool,
    is_follower: bool,
    random: Random,
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

    /// Adds a way to tell of alerts, under its name in `alerts.channels`.
    #[must_use]
    pub fn notifier(mut self, notifier: Arc<dyn Notifier>) -> Self {
        self.notifiers.push(notifier);
        self
    }

    /// Leaves the instances alone until they are called: for a program that
    /// opens a registry only to read or change its records.
    #[must_use]
    pub fn without_monitor(mut self) -> Self {
        self.unmonitored = true;
        self
    }

    /// The store belongs to another Machina, which this one follows: whatever is
    /// written here is written from outside, heartbeats go there, and commands that
    /// are declared there are started here only if
    /// [`AccessConfig::allow_stdio_registration`](crate::AccessConfig::allow_stdio_registration)
    /// says that commands may come from outside.
    #[must_use]
    pub fn following(mut self) -> Self {
        self.is_follower = true;
        self
    }

    /// Has everything that is left to chance happen the same way again.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.random = Random::seeded(seed);
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
        let alerts = Alerts::new(&self.config.alerts, self.notifiers)?;
        let backend = self.backend.unwrap_or_else(|| Backend::of(MemoryStore::default()));
        let Backend { store, journal, replies, leases, scratch } = backend;
        let image = store.load().await?;
        let config = self.config;
        let (tasks, monitor_tasks) = (Tasks::new(), Tasks::new());
        let (notices, noticed) = Monitor::notices();
        let random = Arc::new(self.random);
        let close_timeout = config.sessions.close_timeout;
        let natives = Natives::new(self.connectors.iter().any(|one| one.handles(&Endpoint::InProcess)));
        let mut connectors = self.connectors;
        connectors.push(Arc::new(NativeConnector(natives.clone())));
        if self.is_follower && !config.access.allow_stdio_registration {
            connectors.insert(0, Arc::new(NoCommands));
        }
        let sessions = Sessions::new(connectors, close_timeout, Arc::clone(&random), notices, tasks.clone());
        let default_prober = || Arc::new(SessionProber::new(sessions.clone(), Arc::clone(&random))) as Arc<dyn Prober>;
        let (recorder, queue) = Recorder::new(&config.journal);
        let (monitor, commands) = Monitor::new();
        let core = Arc::new(Core {
            view: ArcSwap::from_pointee(View::default()),
            publishing: Mutex::new(()),
            committing: tokio::sync::Mutex::new(()),
            writers: Writers::default(),
            store,
            journal: Arc::clone(&journal),
            replies: Arc::clone(&replies),
            scratches: Scratches::new(scratch),
            recorder,
            prober: self.prober.unwrap_or_else(default_prober),
            sessions,
            natives,
            monitor: monitor.clone(),
            leases: LeaseTimers::default(),
            replicas: Replicas::new(leases),
            freshness: Freshness::new(),
            events: Arc::new(Events::new(config.limits.events_max as usize)),
            index: self.index.unwrap_or_else(|| Arc::new(LexicalIndex::default())),
            alerts,
            guard: Guard::new(&config.health),
            random,
            tasks: tasks.clone(),
            monitor_tasks: monitor_tasks.clone(),
            is_follower: self.is_follower,
            generation: AtomicU64::new(0),
            config,
        });
        core.restore(&image);
        tasks.spawn("write journal", recorder::write(queue, journal));
        monitor_tasks.spawn("trim journal", recorder::trim(Arc::clone(&core)));
        monitor_tasks.spawn("trim replies", replies::trim(replies));
        monitor_tasks.spawn("stop idle processes", Arc::clone(&core).stop_idle());
        monitor_tasks.spawn("roll up probes", Arc::clone(&core).roll_up_daily());
        monitor_tasks.spawn("follow the store", Arc::clone(&core).follow());
        if !self.unmonitored {
            let patient = Arc::clone(&core) as Arc<dyn Patient>;
            let limits = Limits::of(&core.config.health);
            let inbox = Inbox { commands, notices: noticed };
            let schedule = run(patient, monitor, inbox, limits, Arc::clone(&core.random), monitor_tasks.clone());
            monitor_tasks.spawn("monitor", schedule);
            monitor_tasks.spawn("watch itself", Arc::clone(&core).watch_itself());
            monitor_tasks.spawn("expire leases", Arc::clone(&core).expire_leases());
            monitor_tasks.spawn("alerts", Arc::clone(&core).tell_of_alerts());
            if core.replicas.is_shared() {
                monitor_tasks.spawn("hold shards", Arc::clone(&core).hold_shards());
                monitor_tasks.spawn("tell others", Arc::clone(&core).keep_telling());
                monitor_tasks.spawn("hint others", Arc::clone(&core).hint_others());
                monitor_tasks.spawn("take hints", Arc::clone(&core).take_hints());
                monitor_tasks.spawn("remind others", Arc::clone(&core).keep_reminding());
            } else {
                core.watch_all(|_| true).await;
            }
        }
        Ok(Machina::of(Scoped { core, principal: Arc::new(Principal::system()) }))
    }
}
