//! Processes that end, hang and are kept warm, under paused time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::json;
use tokio::time::Instant;

use crate::error::{ErrorKind, Outcome, Result};
use crate::event::{EventKind, EventStream, Next};
use crate::health::{HealthState, Status};
use crate::machina::Machina;
use crate::model::{AdminState, Instance, ServiceSpec, SessionPolicy, StartPolicy};
use crate::route::CallOptions;
use crate::testing::registry_suite::{call, service, settle};
use crate::testing::{Behaviour, Contact, Deed, Onlooker, SimConnector};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// When each instance was asked for a session.
#[derive(Debug, Default)]
struct Starts(Mutex<Vec<(String, Instant)>>);

impl Onlooker for Starts {
    fn saw(&self, location: &str, deed: Deed<'_>) {
        if matches!(deed, Deed::Began(Contact::Connect)) {
            self.0.lock().unwrap().push((location.to_owned(), Instant::now()));
        }
    }
}

impl Starts {
    fn of(&self, instance: &Instance) -> Vec<Instant> {
        let starts = self.0.lock().unwrap();
        starts.iter().filter(|(location, _)| *location == instance.endpoint.location()).map(|(_, at)| *at).collect()
    }
}

struct Subject {
    machina: Machina,
    sim: SimConnector,
    starts: Arc<Starts>,
    events: EventStream,
    told: Vec<EventKind>,
}

impl Subject {
    async fn open() -> Self {
        let (sim, starts) = (SimConnector::seeded(7), Arc::<Starts>::default());
        sim.watch(starts.clone());
        let machina = Machina::builder().seed(7).connector(Arc::new(sim.clone())).open().await.unwrap();
        let events = machina.watch();
        Self { machina, sim, starts, events, told: Vec::new() }
    }

    /// A service of these processes, healthy.
    async fn with(policy: SessionPolicy, processes: &[&str]) -> (Self, Vec<Instance>) {
        let subject = Self::open().await;
        let processes: Vec<_> = processes.iter().map(|name| subject.sim.process(name)).collect();
        let mut spec = ServiceSpec { session_policy: policy, ..service("a", &processes.iter().collect::<Vec<_>>()) };
        spec.routing_policy.restart_hold = Some(Duration::ZERO);
        subject.machina.register(spec).await.unwrap();
        settle(&subject.machina, "a", Status::Healthy).await;
        (subject, processes)
    }

    fn state(&self) -> HealthState {
        self.machina.get("a").unwrap().instances().next().unwrap().1.health.state
    }

    /// Waits until the first instance is in that state; returns how long it took.
    async fn reaches(&self, state: HealthState, patience: Duration) -> Duration {
        let began = Instant::now();
        while self.state() != state {
            assert!(began.elapsed() <= patience, "{:?} after {patience:?}", self.state());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        began.elapsed()
    }

    async fn echo(&self) -> Result<()> {
        self.machina.call(&call("a", "echo", json!({})), &CallOptions::default()).await.map(drop)
    }

    /// What was told since the last time.
    fn told(&mut self) -> Vec<EventKind> {
        self.listen();
        std::mem::take(&mut self.told)
    }

    fn listen(&mut self) {
        while let Some(next) = self.events.try_next() {
            let Next::Event(event) = next else { panic!("too many events") };
            self.told.push(event.kind.clone());
        }
    }

    /// Ends a process, and waits until that is told.
    async fn end(&mut self, process: &Instance) {
        let downs = |told: &[EventKind]| {
            let down = |kind: &&EventKind| matches!(kind, EventKind::HealthChanged { to: HealthState::Unhealthy, .. });
            told.iter().filter(down).count()
        };
        self.listen();
        let before = downs(&self.told);
        self.sim.exit(process);
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(5)).await;
            self.listen();
            if downs(&self.told) > before {
                return;
            }
        }
        panic!("nobody noticed: {:?}", self.told);
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_ends_is_started_at_once_and_then_not_so_soon() {
    let (mut subject, processes) = Subject::with(SessionPolicy::default(), &["one"]).await;
    for (round, longest) in [0, 1, 2, 4, 8, 16, 32, 60].into_iter().enumerate() {
        let (ended, before) = (Instant::now(), subject.starts.of(&processes[0]).len());
        subject.end(&processes[0]).await;
        while subject.starts.of(&processes[0]).len() == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let after = subject.starts.of(&processes[0])[before] - ended;
        assert!(after <= SECOND * longest + SECOND / 10, "restart {round} after {after:?}, not {longest} s");
        subject.reaches(HealthState::Healthy, MINUTE).await;
    }
    assert_eq!(subject.sim.connections(&processes[0]), 9);
}

#[tokio::test(start_paused = true)]
async fn neither_a_call_nor_a_check_starts_a_process_before_its_time() {
    let (subject, processes) = Subject::with(SessionPolicy::default(), &["one"]).await;
    subject.sim.set(&processes[0], Behaviour::Killed);
    subject.reaches(HealthState::Unhealthy, SECOND).await;
    tokio::time::sleep(MINUTE).await;
    let mut held_back = 0;
    let began = Instant::now();
    while began.elapsed() < MINUTE {
        let wait = subject.machina.system().core.sessions.restart_wait(processes[0].id);
        let starts = subject.starts.of(&processes[0]).len();
        let error = subject.echo().await.unwrap_err();
        subject.machina.check("a").await.unwrap();
        if let Some(wait) = wait.filter(|wait| *wait > SECOND) {
            held_back += 1;
            assert_eq!(subject.starts.of(&processes[0]).len(), starts, "held back for {wait:?}");
            assert_eq!((error.kind(), error.context().outcome), (ErrorKind::Unavailable, Some(Outcome::NotExecuted)));
            assert!(error.context().retry_after_ms.is_some(), "{error:?}");
        }
        tokio::time::sleep(SECOND).await;
    }
    assert!(held_back > 20, "{held_back}");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_does_not_stay_is_only_started_now_and_then() {
    let (mut subject, processes) = Subject::with(SessionPolicy::default(), &["one"]).await;
    let began = Instant::now();
    subject.sim.set(&processes[0], Behaviour::Killed);
    let looped = subject.reaches(HealthState::CrashLoop, MINUTE * 10).await;
    let starts = subject.starts.of(&processes[0]);
    assert_eq!(starts.iter().filter(|at| **at >= began).count(), 10, "the first end, and ten starts: {looped:?}");
    let health = subject.machina.health("a").await.unwrap();
    assert_eq!((health.status, health.health.state), (Status::Unhealthy, HealthState::CrashLoop));
    let reason = &health.health.reason.message;
    assert_eq!(reason, "the process does not start; the process ended 11 times within 600s and is started every 300s");
    let entered = |kind: &EventKind| matches!(kind, EventKind::HealthChanged { to: HealthState::CrashLoop, .. });
    assert_eq!(subject.told().iter().filter(|kind| entered(kind)).count(), 1);

    let error = subject.echo().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.context().retry_after_ms.is_some_and(|ms| (250_000..=300_000).contains(&ms)), "{error:?}");

    let began = Instant::now();
    tokio::time::sleep(MINUTE * 61).await;
    let starts: Vec<_> = subject.starts.of(&processes[0]).into_iter().filter(|at| *at > began).collect();
    assert_eq!(starts.len(), 12, "every five minutes of an hour");
    assert_eq!(subject.state(), HealthState::CrashLoop);
    assert!(!subject.told().iter().any(EventKind::is_of_health), "nothing new");

    subject.sim.set(&processes[0], Behaviour::Up);
    subject.reaches(HealthState::Healthy, MINUTE * 5 + SECOND * 10).await;
    subject.echo().await.unwrap();
    let left = subject.told();
    let to_healthy = |kind: &EventKind| {
        matches!(kind, EventKind::HealthChanged { from: HealthState::CrashLoop, to: HealthState::Healthy, .. })
    };
    assert_eq!(left.iter().filter(|kind| to_healthy(kind)).count(), 1, "{left:?}");
    subject.sim.exit(&processes[0]);
    subject.reaches(HealthState::CrashLoop, SECOND).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_was_switched_off_and_on_begins_anew() {
    let (subject, processes) = Subject::with(SessionPolicy::default(), &["one"]).await;
    subject.sim.set(&processes[0], Behaviour::Killed);
    subject.reaches(HealthState::CrashLoop, MINUTE * 10).await;
    subject.sim.set(&processes[0], Behaviour::Up);
    for admin_state in [AdminState::Disabled, AdminState::Enabled] {
        subject.machina.set_admin_state("a", None, admin_state).await.unwrap();
    }
    subject.reaches(HealthState::Healthy, SECOND * 10).await;
}

#[tokio::test(start_paused = true)]
async fn a_process_that_comes_and_goes_flaps_and_says_so() {
    let (mut subject, processes) = Subject::with(SessionPolicy::default(), &["one"]).await;
    for _ in 0..4 {
        subject.end(&processes[0]).await;
        subject.reaches(HealthState::Healthy, MINUTE).await;
    }
    let health = subject.machina.health("a").await.unwrap();
    assert!(health.health.flapping && health.instances[0].health.flapping, "{health:?}");
    let id = processes[0].id;
    assert!(subject.told().contains(&EventKind::FlappingBegan { instance: id, downs: 4 }));
    tokio::time::sleep(MINUTE * 16).await;
    assert!(!subject.machina.health("a").await.unwrap().health.flapping);
    assert!(subject.told().contains(&EventKind::FlappingEnded { instance: id }));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_is_there_and_does_not_answer_is_ended_and_started_anew() {
    let (subject, processes) = Subject::with(SessionPolicy::default(), &["one"]).await;
    subject.sim.set(&processes[0], Behaviour::Wedged);
    subject.reaches(HealthState::Unhealthy, MINUTE * 2).await;
    tokio::time::sleep(SECOND / 10).await;
    assert_eq!(subject.sim.open_sessions(&processes[0]), 0, "it was ended");
    subject.sim.set(&processes[0], Behaviour::Up);
    subject.reaches(HealthState::Healthy, MINUTE).await;
    assert_eq!(subject.sim.connections(&processes[0]), 2);
}

fn lazy(warm: u32) -> SessionPolicy {
    SessionPolicy {
        start: Some(StartPolicy::Lazy),
        warm: Some(warm),
        idle_timeout: Some(MINUTE),
        ..SessionPolicy::default()
    }
}

#[tokio::test(start_paused = true)]
async fn as_many_processes_are_kept_warm_as_the_service_says() {
    let (subject, processes) = Subject::with(lazy(1), &["one", "two"]).await;
    tokio::time::sleep(MINUTE * 10).await;
    let open = || processes.iter().map(|process| subject.sim.open_sessions(process)).collect::<Vec<_>>();
    assert_eq!(open(), [1, 0], "the other was stopped when nobody called it");
    subject.sim.exit(&processes[0]);
    tokio::time::sleep(SECOND).await;
    assert_eq!(open(), [1, 0], "started again");

    subject.sim.set(&processes[0], Behaviour::Killed);
    subject.reaches(HealthState::CrashLoop, MINUTE * 10).await;
    tokio::time::sleep(MINUTE).await;
    assert_eq!(open(), [0, 1], "another takes its place");

    let mut spec = subject.machina.get("a").unwrap().service().spec.clone();
    spec.session_policy.warm = Some(0);
    subject.machina.update("a", spec, None).await.unwrap();
    tokio::time::sleep(MINUTE * 2).await;
    assert_eq!(open(), [0, 0]);
}

#[tokio::test(start_paused = true)]
async fn each_service_says_how_long_its_processes_may_be_idle() {
    let subject = Subject::open().await;
    let processes = ["one", "two"].map(|name| subject.sim.process(name));
    for (name, process, minutes) in [("a", &processes[0], 2), ("b", &processes[1], 5)] {
        let mut spec = service(name, &[process]);
        spec.session_policy.idle_timeout = Some(MINUTE * minutes);
        subject.machina.register(spec).await.unwrap();
        settle(&subject.machina, name, Status::Healthy).await;
    }
    let open = || processes.iter().map(|process| subject.sim.open_sessions(process)).collect::<Vec<_>>();
    tokio::time::sleep(MINUTE * 2 - SECOND * 2).await;
    assert_eq!(open(), [1, 1]);
    tokio::time::sleep(SECOND * 5).await;
    assert_eq!(open(), [0, 1]);
    tokio::time::sleep(MINUTE * 3).await;
    assert_eq!(open(), [0, 0]);
}
