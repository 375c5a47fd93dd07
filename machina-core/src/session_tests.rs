//! Sessions and evidence, under paused time: what a reviewer once broke.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::json;

use super::*;
use crate::connect::Target;
use crate::error::ErrorKind;
use crate::health::{HealthState, Observation, ProbePlan, Prober, Status};
use crate::model::{BalancerKind, Instance, Sensitive};
use crate::testing::registry_suite::{Subject, call, service, settle};
use crate::testing::{Behaviour, SimConnector};

async fn open(config: Config) -> Subject<Machina> {
    let sim = SimConnector::default();
    let registry = Machina::builder().config(config).connector(Arc::new(sim.clone())).open().await.unwrap();
    Subject { registry, sim }
}

async fn echo(subject: &Subject<Machina>) -> Result<CallReport> {
    subject.registry.call(&call("a", "echo", json!({})), &CallOptions::default()).await
}

#[tokio::test(start_paused = true)]
async fn a_process_that_nobody_calls_is_stopped_and_starts_again_with_the_next_call() {
    let mut config = Config::default();
    config.sessions.idle_timeout = Duration::from_secs(60);
    let subject = open(config).await;
    let process = subject.sim.process("one");
    subject.registry.register(service("a", &[&process])).await.unwrap();
    settle(&subject.registry, "a", Status::Healthy).await;
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert_eq!((subject.sim.open_sessions(&process), subject.sim.connections(&process)), (0, 1));
    assert_eq!(subject.registry.get("a").unwrap().status(), Status::Healthy, "stopped by us, not dead");
    echo(&subject).await.unwrap();
    assert_eq!(subject.sim.connections(&process), 2);
    for _ in 0..10 {
        tokio::time::sleep(Duration::from_secs(30)).await;
        echo(&subject).await.unwrap();
    }
    assert_eq!(subject.sim.connections(&process), 2, "a process that is called stays");
}

#[tokio::test(start_paused = true)]
async fn another_environment_means_another_process() {
    let subject = open(Config::default()).await;
    let process = subject.sim.process("one");
    let mut spec = service("a", &[&process]);
    subject.registry.register(spec.clone()).await.unwrap();
    settle(&subject.registry, "a", Status::Healthy).await;
    spec.env.insert("TOKEN".into(), Sensitive::secret("rotated"));
    let changed = subject.registry.update("a", spec, None).await.unwrap();
    assert_ne!(changed.instances().next().unwrap().0.id, process.id);
    settle(&subject.registry, "a", Status::Healthy).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!((subject.sim.open_sessions(&process), subject.sim.connections(&process)), (1, 2));
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_is_not_opened_again() {
    let subject = open(Config::default()).await;
    let instance = subject.sim.instance("one");
    subject.registry.register(service("a", &[&instance])).await.unwrap();
    settle(&subject.registry, "a", Status::Healthy).await;
    subject.registry.set_admin_state("a", None, AdminState::Disabled).await.unwrap();
    subject.registry.check("a").await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((subject.sim.open_sessions(&instance), subject.sim.connections(&instance)), (0, 1));
    subject.registry.set_admin_state("a", None, AdminState::Enabled).await.unwrap();
    echo(&subject).await.unwrap();
    assert_eq!(subject.sim.connections(&instance), 2);
}

#[tokio::test(start_paused = true)]
async fn one_failure_that_many_callers_see_counts_once() {
    let subject = open(Config::default()).await;
    let instance = subject.sim.instance("one");
    subject.registry.register(service("a", &[&instance])).await.unwrap();
    settle(&subject.registry, "a", Status::Healthy).await;
    subject.sim.set_latency(&instance, Duration::from_millis(100));
    subject.sim.set(&instance, Behaviour::LoseAnswers);
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..10 {
        let registry = subject.registry.clone();
        calls.spawn(async move { registry.call(&call("a", "add", json!({})), &CallOptions::default()).await });
    }
    for outcome in calls.join_all().await {
        assert_eq!(outcome.unwrap_err().kind(), ErrorKind::Lost);
    }
    let health = subject.registry.health("a").await.unwrap().instances.remove(0).health;
    assert!(health.state.is_up(), "{health:?}");
}

#[tokio::test(start_paused = true)]
async fn a_batch_may_free_a_name_and_take_it() {
    let subject = open(Config::default()).await;
    let first = subject.registry.register(service("a", &[])).await.unwrap().service().id;
    let name = ServiceName::new("a").unwrap();
    let again = vec![Mutation::Deregister { name, expected: None }, Mutation::Register(service("a", &[]))];
    subject.registry.apply(again).await.unwrap();
    assert_ne!(subject.registry.get("a").unwrap().service().id, first);
}

#[tokio::test(start_paused = true)]
async fn each_service_takes_turns_of_its_own() {
    let subject = open(Config::default()).await;
    let instances: Vec<Instance> = ["a1", "a2", "b1", "b2"].map(|name| subject.sim.instance(name)).into();
    for (name, pair) in [("a", &instances[..2]), ("b", &instances[2..])] {
        let mut spec = service(name, &[&pair[0], &pair[1]]);
        spec.routing_policy.balancer = Some(BalancerKind::RoundRobin);
        subject.registry.register(spec).await.unwrap();
        settle(&subject.registry, name, Status::Healthy).await;
    }
    for _ in 0..4 {
        for name in ["a", "b"] {
            let request = call(name, "echo", json!({}));
            subject.registry.call(&request, &CallOptions::default()).await.unwrap();
        }
    }
    let executions: Vec<u64> = instances.iter().map(|instance| subject.sim.executions(instance)).collect();
    assert_eq!(executions, [2, 2, 2, 2]);
}

/// Panics at its second probe.
#[derive(Debug, Default)]
struct Faulty(AtomicU32);

#[async_trait]
impl Prober for Faulty {
    async fn probe(&self, _: &Target, _: &ProbePlan) -> Observation {
        assert_ne!(self.0.fetch_add(1, Ordering::Relaxed), 1, "the fault of this test");
        Observation::pass(Duration::from_millis(1))
    }
}

#[tokio::test(start_paused = true)]
async fn a_prober_that_panics_does_not_leave_its_instance_unwatched() {
    let prober = Arc::new(Faulty::default());
    let registry = Machina::builder().prober(prober.clone()).open().await.unwrap();
    let sim = SimConnector::default();
    registry.register(service("a", &[&sim.instance("one")])).await.unwrap();
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(prober.0.load(Ordering::Relaxed) >= 4);
    assert_eq!(registry.get("a").unwrap().instances().next().unwrap().1.health.state, HealthState::Healthy);
}

/// Counts the probes.
#[derive(Debug, Default)]
struct Probes(AtomicU32);

impl crate::testing::Onlooker for Probes {
    fn saw(&self, _: &str, deed: crate::testing::Deed<'_>) {
        let began = matches!(deed, crate::testing::Deed::Began(crate::testing::Contact::Probe));
        self.0.fetch_add(u32::from(began), Ordering::Relaxed);
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_does_not_replace_the_next_one_however_short_the_interval() {
    let mut config = Config::default();
    config.health.interval = Duration::from_secs(5);
    assert!(config.health.passive_window > config.health.interval);
    let subject = open(config).await;
    let probes = Arc::new(Probes::default());
    subject.sim.watch(Arc::clone(&probes) as Arc<dyn crate::testing::Onlooker>);
    let instance = subject.sim.instance("one");
    subject.registry.register(service("a", &[&instance])).await.unwrap();
    tokio::time::sleep(Duration::from_secs(100)).await;
    let probes = probes.0.load(Ordering::Relaxed);
    assert!(probes >= 20, "{probes} in 100 s");
}
