//! A whole registry on simulated instances, and the hand that does to both what
//! the plan says. Keeps in mind what the registry was told, to compare.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::super::registry_suite::call;
use super::super::{Behaviour, SimConnector, add_tool, echo_tool};
use super::book::Book;
use super::plan::{Plan, Site, Step};
use super::truth::Truth;
use crate::config::Config;
use crate::error::Result;
use crate::event::Next;
use crate::machina::Machina;
use crate::model::{AdminState, Instance, ServiceName, ServiceSpec};
use crate::route::CallOptions;
use crate::tasks::Tasks;
use crate::write::Mutation;

/// How long the hand waits for its calls at the end.
const CALLS_PATIENCE: Duration = Duration::from_secs(60);

/// One instance, as it was made and declared.
#[derive(Debug)]
pub(super) struct Made {
    pub(super) instance: Instance,
    pub(super) site: usize,
    pub(super) declared: bool,
    pub(super) admin: AdminState,
    behaviour: Behaviour,
    latency: Duration,
    loss: f64,
    failing: f64,
}

/// One service, as it was declared.
#[derive(Debug)]
pub(super) struct Declared {
    pub(super) name: String,
    pub(super) registered: bool,
    pub(super) admin: AdminState,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) machina: Machina,
    pub(super) sims: SimConnector,
    pub(super) book: Arc<Book>,
    pub(super) made: Vec<Made>,
    pub(super) services: Vec<Declared>,
    sites: Vec<Site>,
    tasks: Tasks,
    calls: u64,
    outage_over: Option<tokio::time::Instant>,
}

impl World {
    /// A registry without services, and the instances that it will have.
    pub(super) async fn new(seed: u64, plan: &Plan) -> Result<Self> {
        let sims = SimConnector::seeded(seed);
        let config = Config::default();
        let book = Arc::new(Book::new());
        let (mut made, mut services) = (Vec::new(), Vec::new());
        for (index, site) in plan.sites.iter().enumerate() {
            let name = format!("s{index}");
            for (number, place) in site.instances.iter().enumerate() {
                let (stdio, label) = (plan.stdio[*place], format!("{name}-{number}"));
                let instance = if stdio { sims.process(&label) } else { sims.instance(&label) };
                let mut spec = ServiceSpec::new(&name)?;
                policies(&mut spec, site);
                let truth = Truth::new(label, stdio, config.health.parameters(&spec.health_policy, stdio));
                book.pages().add(instance.endpoint.location(), instance.id, truth);
                made.push(Made {
                    instance,
                    site: index,
                    declared: true,
                    admin: AdminState::Enabled,
                    behaviour: Behaviour::Up,
                    latency: Duration::from_millis(1),
                    loss: 0.0,
                    failing: 0.0,
                });
            }
            services.push(Declared { name, registered: false, admin: AdminState::Enabled });
        }
        sims.watch(Arc::clone(&book) as Arc<dyn super::super::Onlooker>);
        let machina = Machina::builder().config(config).seed(seed).connector(Arc::new(sims.clone())).open().await?;
        let sites = plan.sites.clone();
        let world =
            Self { machina, sims, book, made, services, sites, tasks: Tasks::new(), calls: 0, outage_over: None };
        world.listen();
        Ok(world)
    }

    /// Writes down whatever the registry says from now on.
    fn listen(&self) {
        let (mut events, book, machina) = (self.machina.watch(), Arc::clone(&self.book), self.machina.clone());
        self.tasks.spawn("listen", async move {
            loop {
                match events.next().await {
                    Next::Event(event) => {
                        let mut pages = book.pages();
                        // One that is declared again has another identity.
                        for (instance, _) in machina.view().services().flat_map(|service| service.instances()) {
                            pages.known_as(&instance.endpoint.location(), instance.id);
                        }
                        pages.heard(&event);
                    }
                    Next::Resync => book.pages().accuse(format_args!("events were missed")),
                }
            }
        });
    }

    /// Which instances have a fault.
    pub(super) fn faulty(&self) -> Vec<bool> {
        let flawed = |made: &Made| {
            let mishaps = made.loss > 0.0 || made.failing > 0.0;
            mishaps || made.behaviour != Behaviour::Up || made.latency > Duration::from_millis(1)
        };
        self.made.iter().map(flawed).collect()
    }

    /// Does what the plan says. `stall` lets time pass without anything running.
    pub(super) async fn carry_out<F: Future<Output = ()>>(&mut self, step: Step, stall: impl Fn(Duration) -> F) {
        self.end_outage();
        self.book.pages().note(format_args!("* {step:?}"));
        let done = match step {
            Step::Register(site) => self.register(site).await,
            Step::Deregister(site) => self.deregister(site).await,
            Step::Declare(place, declared) => self.declare(place, declared).await,
            Step::AdminService(site, state) => self.say(site, None, state).await,
            Step::AdminInstance(place, state) => self.say(self.made[place].site, Some(place), state).await,
            Step::Call { service, tool, keyed, patience } => {
                self.call(service, tool, keyed, patience);
                Ok(())
            }
            Step::Burst { service, calls } => {
                (0..calls).for_each(|_| self.call(service, "echo", false, Duration::from_secs(10)));
                Ok(())
            }
            Step::Stall(time) => {
                stall(time).await;
                self.book.pages().truths.iter_mut().for_each(Truth::interrupted);
                Ok(())
            }
            Step::Outage(time) => {
                self.outage_over = Some(tokio::time::Instant::now() + time);
                self.made.iter().for_each(|made| self.sims.set_loss(&made.instance, 1.0));
                self.book.pages().truths.iter_mut().for_each(|truth| {
                    truth.behaves(Behaviour::Up, Duration::ZERO, 1.0);
                });
                Ok(())
            }
            step => {
                self.injure(&step);
                Ok(())
            }
        };
        if let Err(error) = done {
            self.book.pages().accuse(format_args!("a change was refused: {error}"));
        }
        self.tell_truth();
    }

    /// Ends an outage whose time is over.
    pub(super) fn end_outage(&mut self) {
        if self.outage_over.is_some_and(|over| over <= tokio::time::Instant::now()) {
            self.outage_over = None;
            self.book.pages().note(format_args!("* the outage is over"));
            (0..self.made.len()).for_each(|place| self.apply(place));
        }
    }

    fn injure(&mut self, step: &Step) {
        let place = match *step {
            Step::Behave(place, behaviour) => {
                self.made[place].behaviour = behaviour;
                place
            }
            Step::Slow(place, latency) => {
                self.made[place].latency = latency;
                place
            }
            Step::Loss(place, share) => {
                self.made[place].loss = share;
                place
            }
            Step::Failing(place, share) => {
                self.made[place].failing = share;
                place
            }
            Step::Mend(place) => {
                self.mend(place);
                return;
            }
            Step::Exit(place) => {
                self.sims.exit(&self.made[place].instance);
                let mut pages = self.book.pages();
                let truth = &mut pages.truths[place];
                truth.hard = true;
                truth.interrupted();
                return;
            }
            Step::Retool(place) => {
                let more = json!({"name": format!("more{}", self.calls), "inputSchema": {"type": "object"}});
                self.sims.set_tools(&self.made[place].instance, vec![echo_tool(), add_tool(), more]);
                return;
            }
            _ => return,
        };
        self.apply(place);
    }

    pub(super) fn mend(&mut self, place: usize) {
        let made = &mut self.made[place];
        (made.behaviour, made.latency) = (Behaviour::Up, Duration::from_millis(1));
        (made.loss, made.failing) = (0.0, 0.0);
        self.apply(place);
    }

    /// Has an instance behave as it should by now.
    fn apply(&self, place: usize) {
        let made = &self.made[place];
        let loss = if self.outage_over.is_some() { 1.0 } else { made.loss };
        self.sims.set(&made.instance, made.behaviour);
        self.sims.set_latency(&made.instance, made.latency);
        self.sims.set_loss(&made.instance, loss);
        self.sims.set_failing(&made.instance, made.failing);
        self.book.pages().truths[place].behaves(made.behaviour, made.latency, loss + made.failing);
    }

    fn spec(&self, site: usize) -> Result<ServiceSpec> {
        let mut spec = ServiceSpec::new(&self.services[site].name)?;
        policies(&mut spec, &self.sites[site]);
        spec.admin_state = self.services[site].admin;
        let made = self.sites[site].instances.iter().map(|place| &self.made[*place]).filter(|made| made.declared);
        for made in made {
            let mut instance = made.instance.clone();
            instance.admin_state = made.admin;
            spec = spec.instance(instance);
        }
        Ok(spec)
    }

    async fn register(&mut self, site: usize) -> Result<()> {
        if self.services[site].registered {
            return Ok(());
        }
        self.services[site].admin = AdminState::Enabled;
        for place in self.sites[site].instances.clone() {
            (self.made[place].declared, self.made[place].admin) = (true, AdminState::Enabled);
        }
        self.services[site].registered = true;
        self.machina.register(self.spec(site)?).await.map(drop)
    }

    async fn deregister(&mut self, site: usize) -> Result<()> {
        if !std::mem::take(&mut self.services[site].registered) {
            return Ok(());
        }
        self.book.pages().truths.iter_mut().zip(&self.made).for_each(|(truth, made)| {
            if made.site == site {
                truth.forgotten();
            }
        });
        self.machina.deregister(&self.services[site].name).await.map(drop)
    }

    async fn declare(&mut self, place: usize, declared: bool) -> Result<()> {
        let site = self.made[place].site;
        if !self.services[site].registered || self.made[place].declared == declared {
            return Ok(());
        }
        self.made[place].declared = declared;
        self.made[place].admin = AdminState::Enabled;
        if !declared {
            self.book.pages().truths[place].forgotten();
        }
        let spec = self.spec(site)?;
        let view = self.machina.update(&self.services[site].name, spec, None).await?;
        // One that comes back is another instance than before.
        for (instance, _) in view.instances() {
            let location = instance.endpoint.location();
            if let Some(made) = self.made.iter_mut().find(|made| made.instance.endpoint.location() == location) {
                made.instance.id = instance.id;
            }
        }
        Ok(())
    }

    async fn say(&mut self, site: usize, place: Option<usize>, state: AdminState) -> Result<()> {
        if !self.services[site].registered || place.is_some_and(|place| !self.made[place].declared) {
            return Ok(());
        }
        match place {
            Some(place) => self.made[place].admin = state,
            None => self.services[site].admin = state,
        }
        let name = ServiceName::new(&self.services[site].name)?;
        let instance = place.map(|place| self.made[place].instance.id);
        let mutation = Mutation::SetAdminState { name, instance, admin_state: state, reason: None };
        self.machina.apply(vec![mutation]).await.map(drop)
    }

    fn call(&mut self, site: usize, tool: &'static str, keyed: bool, patience: Duration) {
        self.calls += 1;
        let number = self.calls;
        let repeatable = keyed || (tool == "echo" && self.sites[site].trusted);
        self.book.pages().called(number, repeatable);
        let request = call(&self.services[site].name, tool, json!({ "call": number }));
        let idempotency_key = keyed.then(|| format!("key-{number}"));
        let options = CallOptions { timeout: Some(patience), idempotency_key, ..CallOptions::default() };
        let (machina, book) = (self.machina.clone(), Arc::clone(&self.book));
        self.tasks.spawn("call", async move {
            let outcome = machina.call(&request, &options).await;
            book.pages().returned(number, &outcome);
        });
    }

    /// Whether the operator lets the instance be looked after, and be called.
    pub(super) fn terms(&self, place: usize) -> (bool, bool) {
        let made = &self.made[place];
        let service = &self.services[made.site];
        let there = service.registered && made.declared;
        let probed = there && service.admin.is_probed() && made.admin.is_probed();
        (probed, there && service.admin.admits_calls() && made.admin.admits_calls())
    }

    fn tell_truth(&self) {
        for place in 0..self.made.len() {
            let (probed, admitted) = self.terms(place);
            self.book.pages().truths[place].own(probed, admitted);
        }
    }

    /// Ends every fault, lets every service be used, and calls each of them.
    pub(super) async fn heal(&mut self) {
        self.outage_over = None;
        for place in 0..self.made.len() {
            self.mend(place);
        }
        for site in 0..self.services.len() {
            self.carry_out(Step::AdminService(site, AdminState::Enabled), |_| std::future::ready(())).await;
        }
        for place in 0..self.made.len() {
            self.carry_out(Step::AdminInstance(place, AdminState::Enabled), |_| std::future::ready(())).await;
        }
    }

    /// The answer of a call of a service, made here and now.
    pub(super) async fn probe_call(&mut self, site: usize) -> Result<Value> {
        self.calls += 1;
        self.book.pages().called(self.calls, false);
        let request = call(&self.services[site].name, "add", json!({ "call": self.calls }));
        let report = self.machina.call(&request, &CallOptions::default()).await?;
        Ok(Value::Object(report.result.0))
    }

    /// Waits for the calls that are still out, and ends the registry.
    pub(super) async fn close(&self) {
        self.machina.close().await;
        // The listener never ends by itself.
        self.tasks.finish(CALLS_PATIENCE).await;
    }
}

fn policies(spec: &mut ServiceSpec, site: &Site) {
    spec.health_policy.failure_threshold = site.failure_threshold;
    spec.health_policy.interval = site.interval;
    spec.routing_policy.trust_annotations = Some(site.trusted);
}
