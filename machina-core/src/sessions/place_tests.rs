//! One process at a time: the next is started when the one before is gone, and
//! not before its time.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::opening::vacated;
use super::slots::Slots;
use crate::SessionParameters;
use crate::connect::{CallContext, Connector, Notice, Session, Target};
use crate::error::{Error, ErrorKind, Phase, Result};
use crate::health::Status;
use crate::machina::Machina;
use crate::model::{AdminState, Definitions, Endpoint, InstanceId, ToolResult};
use crate::route::CallOptions;
use crate::testing::registry_suite::{call, service, settle};
use crate::testing::{Behaviour, SimConnector};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

/// Processes that take three seconds to end.
#[derive(Debug, Clone)]
struct Reluctant {
    sim: SimConnector,
    running: Arc<Mutex<(u32, u32)>>,
}

#[derive(Debug)]
struct ReluctantSession {
    inner: Arc<dyn Session>,
    /// While the process is there.
    runs: Mutex<Option<Running>>,
}

/// Counts a process as running until it is dropped.
#[derive(Debug)]
struct Running(Arc<Mutex<(u32, u32)>>);

impl Running {
    fn new(counts: &Arc<Mutex<(u32, u32)>>) -> Self {
        let mut running = counts.lock().unwrap();
        running.0 += 1;
        running.1 = running.1.max(running.0);
        Self(Arc::clone(counts))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.lock().unwrap().0 -= 1;
    }
}

#[async_trait]
impl Connector for Reluctant {
    fn handles(&self, endpoint: &Endpoint) -> bool {
        self.sim.handles(endpoint)
    }

    async fn connect(&self, target: &Target) -> Result<Arc<dyn Session>> {
        let inner = self.sim.connect(target).await?;
        let runs = Mutex::new(Some(Running::new(&self.running)));
        Ok(Arc::new(ReluctantSession { inner, runs }))
    }
}

#[async_trait]
impl Session for ReluctantSession {
    fn protocol_version(&self) -> &str {
        self.inner.protocol_version()
    }
    async fn definitions(&self) -> Result<Definitions> {
        self.inner.definitions().await
    }
    async fn call(&self, tool: &str, arguments: &Map<String, Value>, context: &CallContext) -> Result<ToolResult> {
        self.inner.call(tool, arguments, context).await
    }
    async fn request(&self, method: &str, params: Value, context: &CallContext) -> Result<Value> {
        self.inner.request(method, params, context).await
    }
    async fn probe(&self, timeout: Duration) -> Result<()> {
        self.inner.probe(timeout).await
    }
    async fn notice(&self) -> Notice {
        self.inner.notice().await
    }
    fn is_closed(&self) -> bool {
        self.inner.is_closed()
    }
    fn stderr_tail(&self) -> String {
        "the last words".to_owned()
    }
    async fn close(&self) {
        tokio::time::sleep(SECOND * 3).await;
        self.inner.close().await;
        drop(self.runs.lock().unwrap().take());
    }
}

#[tokio::test(start_paused = true)]
async fn no_process_is_started_before_the_one_before_it_is_gone() {
    let running = Arc::<Mutex<(u32, u32)>>::default();
    let sim = SimConnector::seeded(3);
    let reluctant = Reluctant { sim: sim.clone(), running: Arc::clone(&running) };
    let machina = Machina::builder().connector(Arc::new(reluctant)).open().await.unwrap();
    let process = sim.process("one");
    let mut spec = service("a", &[&process]);
    spec.session_policy.idle_timeout = Some(SECOND);
    machina.register(spec).await.unwrap();
    settle(&machina, "a", Status::Healthy).await;
    let echo = async || machina.call(&call("a", "echo", json!({})), &CallOptions::default()).await;

    while sim.connections(&process) == 1 {
        // It is idle after a second, and takes three to end.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        echo().await.unwrap();
    }
    for admin_state in [AdminState::Disabled, AdminState::Enabled] {
        machina.set_admin_state("a", None, admin_state).await.unwrap();
    }
    echo().await.unwrap();
    let mut spec = machina.get("a").unwrap().service().spec.clone();
    spec.session_policy.idle_timeout = None;
    machina.update("a", spec, None).await.unwrap();
    sim.set(&process, Behaviour::Wedged);
    tokio::time::sleep(MINUTE * 2).await;
    sim.set(&process, Behaviour::Up);
    // A start that is under way is still given its time.
    tokio::time::sleep(MINUTE).await;
    settle(&machina, "a", Status::Healthy).await;
    assert!(sim.connections(&process) >= 4);
    assert_eq!(running.lock().unwrap().1, 1, "never two at once");
}

#[tokio::test(start_paused = true)]
async fn a_process_that_does_not_end_is_not_waited_for_without_end() {
    let mut slots = Slots::default();
    let id = InstanceId::generate();
    let place = |slots: &mut Slots| {
        slots.admit(id, Some(SessionParameters::default()));
        Arc::clone(&slots.process(id).unwrap().place)
    };
    let held = place(&mut slots).acquire_owned().await.unwrap();
    let began = Instant::now();
    let error: Error = vacated(place(&mut slots), MINUTE).await.unwrap_err();
    assert_eq!((error.kind(), began.elapsed()), (ErrorKind::Unavailable, MINUTE));
    slots.dismiss(id);
    assert!(vacated(place(&mut slots), SECOND).await.is_err(), "it is remembered though the instance was not admitted");
    drop(held);
    drop(vacated(place(&mut slots), SECOND).await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn what_holds_a_process_back_says_why() {
    let mut slots = Slots::default();
    let id = InstanceId::generate();
    slots.admit(id, Some(SessionParameters::default()));
    let why = Error::lost("exit status 1").with(|context| context.stderr_tail = Some("no such module".to_owned()));
    for _ in 0..3 {
        slots.ended(id, 0.5, Some(why.clone()));
    }
    let error = slots.held_back(id).unwrap();
    assert_eq!(error.message(), "exit status 1; it is started again in 1.0s");
    let context = error.context();
    assert_eq!((context.phase, context.retry_after_ms), (Some(Phase::NotSent), Some(1000)));
    assert_eq!(context.stderr_tail.as_deref(), Some("no such module"));
    tokio::time::advance(SECOND).await;
    assert!(slots.held_back(id).is_none());
}
