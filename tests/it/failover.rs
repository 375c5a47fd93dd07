//! The main promise: the instance in use is killed with `kill -9`, again and
//! again, under load, and callers get what the repeat table promises them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use machina_core::{
    CallOptions, CallReport, Config, Endpoint, Error, HealthState, Instance, InstanceId, Machina, Outcome, ServiceSpec,
};
use machina_tests::{Fixture, JournalFile, Process, call, open, settled, wait_until};
use rustix::process::Signal;
use serde_json::json;
use tokio::time::Instant;

const CALLS: usize = 1_000;
const AT_ONCE: usize = 8;
/// After how many finished calls the instance in use is killed.
const KILLS: [usize; 4] = [150, 400, 600, 800];
const SOON: Duration = Duration::from_secs(20);

/// One service with two instances: a child process, and a server over HTTP.
struct Pair {
    machina: Machina,
    fixture: Fixture,
    args: Vec<String>,
    over_http: InstanceId,
    over_stdio: InstanceId,
}

/// What happened to the calls.
struct Tally {
    /// The answer to each call, by its number.
    answers: BTreeMap<usize, Result<CallReport, Error>>,
    slowest: Duration,
    kills: Vec<&'static str>,
}

impl Pair {
    async fn start(journal: &JournalFile) -> Self {
        let args = ["--journal", journal.path().to_str().unwrap()];
        let fixture = Fixture::http_kept(&args).await;
        let (http, stdio) = (Instance::new(fixture.endpoint()), Instance::new(Fixture::stdio_spec(&args)));
        let mut spec = ServiceSpec::new("pair").unwrap().instance(http).instance(stdio);
        spec.routing_policy.trust_annotations = Some(true);
        let machina = open(Config::default()).await;
        let registered = machina.register(spec).await.unwrap();
        let [over_http, over_stdio] = ["http", "stdio"].map(|kind| {
            let mut instances = registered.instances().filter(|(instance, _)| instance.endpoint.kind() == kind);
            instances.next().unwrap().0.id
        });
        settled(&machina, SOON).await;
        let args = args.map(ToOwned::to_owned).to_vec();
        Self { machina, fixture, args, over_http, over_stdio }
    }

    /// Kills the instance that answered last with SIGKILL. One over HTTP comes
    /// back at the same address, as under a service manager; a child process is
    /// up to Machina.
    async fn kill(&mut self, in_use: InstanceId) -> &'static str {
        if in_use == self.over_http {
            self.fixture.kill().await;
            let address = self.fixture.authority().to_owned();
            let args: Vec<&str> = self.args.iter().map(String::as_str).collect();
            tokio::time::sleep(Duration::from_millis(500)).await;
            self.fixture = Fixture::http_at(&address, &args).await;
            return "http";
        }
        let process = wait_until(SOON, "the instance in use has a process", async || {
            let health = self.machina.health("pair").await.unwrap();
            let seen = health.instances.into_iter().find(|instance| instance.id == self.over_stdio).unwrap();
            seen.process_id.and_then(Process::of).ok_or_else(|| format!("{seen:?}"))
        })
        .await;
        process.signal(Signal::KILL);
        "stdio"
    }

    /// Makes [`CALLS`] calls of `tool`, [`AT_ONCE`] at a time, each with its
    /// number as the argument `id`, and kills the instance in use meanwhile.
    async fn under_fire(&mut self, tool: &str, ms: u64) -> Tally {
        let (finished, last) = (AtomicUsize::new(0), Mutex::new(self.over_http));
        let machina = self.machina.clone();
        let one = async |number: usize| {
            let started = Instant::now();
            let call = call("pair", tool, json!({"id": number.to_string(), "ms": ms}));
            let answer = machina.call(&call, &CallOptions::default()).await;
            if let Ok(report) = &answer {
                *last.lock().unwrap() = report.instance;
            }
            finished.fetch_add(1, Ordering::AcqRel);
            (number, answer, started.elapsed())
        };
        let calls = stream::iter(0..CALLS).map(one).buffer_unordered(AT_ONCE).collect::<Vec<_>>();
        let killer = async {
            let mut kills = Vec::new();
            for after in KILLS {
                wait_until(Duration::from_secs(120), "enough calls are through", async || {
                    let count = finished.load(Ordering::Acquire);
                    if count >= after { Ok(()) } else { Err(format!("{count} are")) }
                })
                .await;
                let in_use = *last.lock().unwrap();
                kills.push(self.kill(in_use).await);
            }
            kills
        };
        let (calls, kills) = tokio::join!(calls, killer);
        let slowest = calls.iter().map(|(_, _, took)| *took).max().unwrap_or_default();
        Tally { answers: calls.into_iter().map(|(number, answer, _)| (number, answer)).collect(), slowest, kills }
    }

    /// Both instances come back by themselves, and nothing is left behind.
    async fn recover_and_close(self) {
        wait_until(SOON, "both instances are healthy again", async || {
            let health = self.machina.health("pair").await.unwrap();
            let states: Vec<_> = health.instances.iter().map(|instance| instance.health.state).collect();
            if states == [HealthState::Healthy; 2] { Ok(()) } else { Err(format!("{health:#?}")) }
        })
        .await;
        self.machina.close().await;
    }
}

impl Tally {
    fn failed(&self) -> impl Iterator<Item = (&usize, &Error)> {
        self.answers.iter().filter_map(|(number, answer)| Some((number, answer.as_ref().err()?)))
    }

    fn print(&self, what: &str, endpoints: &Pair) {
        let answered: Vec<_> = self.answers.values().flatten().collect();
        let by = |id| answered.iter().filter(|report| report.instance == id).count();
        println!(
            "{what}: {} calls, kill -9 of {:?}, {} failed, {} answered after failing over, slowest {:.0?}; \
             answered by http {}, by stdio {}",
            self.answers.len(),
            self.kills,
            self.failed().count(),
            answered.iter().filter(|report| report.attempts.len() > 1).count(),
            self.slowest,
            by(endpoints.over_http),
            by(endpoints.over_stdio),
        );
        let mut why = BTreeMap::<String, usize>::new();
        for attempt in answered.iter().flat_map(|report| &report.attempts) {
            if let (Some(error), Some(phase)) = (attempt.error, attempt.phase) {
                let kind = if attempt.instance == endpoints.over_http { "http" } else { "stdio" };
                *why.entry(format!("{kind} {error:?} {phase:?}")).or_default() += 1;
            }
        }
        println!("{what}: attempts that failed before an answer: {why:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_read_only_call_fails_when_the_instance_in_use_is_killed() {
    let directory = tempfile::tempdir().unwrap();
    let journal = JournalFile::new(directory.path().join("journal"));
    let mut pair = Pair::start(&journal).await;
    let tally = pair.under_fire("sleep", 5).await;
    tally.print("read-only", &pair);
    let failed: Vec<_> = tally.failed().collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(tally.answers.len(), CALLS);
    let repeated = tally.answers.values().flatten().filter(|report| report.attempts.len() > 1).count();
    assert!(repeated > 0, "no call was in flight at a kill: this test shows nothing");
    let executed = journal.executions("sleep").unwrap();
    assert_eq!(executed.len(), CALLS, "every call was executed");
    pair.recover_and_close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_other_call_is_executed_twice_and_every_doubt_is_admitted() {
    let directory = tempfile::tempdir().unwrap();
    let journal = JournalFile::new(directory.path().join("journal"));
    let mut pair = Pair::start(&journal).await;
    let tally = pair.under_fire("increment", 5).await;
    tally.print("not idempotent", &pair);
    let executed = journal.executions("increment").unwrap();
    let times = |number: usize| executed.get(&number.to_string()).copied().unwrap_or_default();
    let twice: Vec<_> = executed.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "executed more than once: {twice:?}");
    let mut unknown = Vec::new();
    for (number, answer) in &tally.answers {
        let Err(error) = answer else {
            assert_eq!(times(*number), 1, "call {number} was answered");
            continue;
        };
        match error.context().outcome {
            Some(Outcome::Unknown) => unknown.push(times(*number)),
            Some(Outcome::NotExecuted) => assert_eq!(times(*number), 0, "call {number}: {error:?}"),
            outcome => panic!("call {number} failed with the outcome {outcome:?}: {error:?}"),
        }
    }
    let in_doubt = unknown.len();
    let ran: usize = unknown.iter().sum();
    println!("not idempotent: {in_doubt} unknown outcomes, of which {ran} had run; 0 executed twice");
    assert!(in_doubt > 0, "no call was in flight at a kill: this test shows nothing");
    assert!(in_doubt <= KILLS.len() * AT_ONCE, "more in doubt than can have been in flight: {in_doubt}");
    pair.recover_and_close().await;
}

#[tokio::test]
async fn an_idempotency_key_lets_a_call_be_repeated() {
    let directory = tempfile::tempdir().unwrap();
    let journal = JournalFile::new(directory.path().join("journal"));
    let pair = Pair::start(&journal).await;
    let dies = call("pair", "exit", json!({"code": 1, "id": "plain"}));
    let error = pair.machina.call(&dies, &CallOptions::default()).await.unwrap_err();
    assert_eq!((error.context().outcome, error.context().attempts), (Some(Outcome::Unknown), Some(1)), "{error:?}");
    assert_eq!(journal.executions("exit").unwrap()["plain"], 1);

    let keyed = CallOptions { idempotency_key: Some("k".into()), ..CallOptions::default() };
    let aborts = call("pair", "abort_connection", json!({"id": "keyed"}));
    let error = pair.machina.call(&aborts, &keyed).await.unwrap_err();
    assert!(error.context().attempts > Some(1), "{error:?}");
    assert_eq!(error.context().outcome, Some(Outcome::Unknown));
    pair.machina.close().await;
}

#[tokio::test]
async fn a_service_without_a_living_instance_says_so() {
    let mut fixture = Fixture::http(&[]).await;
    let machina = open(Config::default()).await;
    let spec = ServiceSpec::new("one").unwrap().instance(Instance::new(fixture.endpoint()));
    assert!(matches!(spec.instances[0].endpoint, Endpoint::Http(_)));
    machina.register(spec).await.unwrap();
    settled(&machina, SOON).await;
    fixture.kill().await;
    let error = machina.call(&call("one", "increment", json!({"id": "a"})), &CallOptions::default()).await.unwrap_err();
    assert_eq!(error.context().outcome, Some(Outcome::NotExecuted), "{error:?}");
    wait_until(Duration::from_secs(15), "it is found to be down", async || {
        let state = machina.health("one").await.unwrap().health.state;
        if state == HealthState::Unhealthy { Ok(()) } else { Err(state.as_str().to_owned()) }
    })
    .await;
    machina.close().await;
}
