use serde_json::json;
use tokio::time::advance;

use super::*;
use crate::egress::Reach;
use crate::health::Monitor;
use crate::model::{HealthParameters, Instance, SensitiveMap, ServiceName, ToolName};
use crate::tasks::Tasks;
use crate::testing::{Behaviour, SimConnector};

const PASS: ProbeOutcome = ProbeOutcome::Pass;
const SOFT: ProbeOutcome = ProbeOutcome::Fail { hard: false };
const HARD: ProbeOutcome = ProbeOutcome::Fail { hard: true };

/// A prober of the instances of a simulation.
struct Lab {
    sim: SimConnector,
    prober: SessionProber,
    instance: Instance,
    plan: ProbePlan,
}

impl Lab {
    fn new() -> Self {
        Self::of(|sim| sim.instance("one"))
    }

    fn of(make: impl Fn(&SimConnector) -> Instance) -> Self {
        let (sim, random) = (SimConnector::default(), Arc::new(Random::seeded(3)));
        let connectors: Vec<Arc<dyn crate::connect::Connector>> = vec![Arc::new(sim.clone())];
        let (notices, _) = Monitor::notices();
        let sessions = Sessions::new(connectors, Duration::from_secs(1), Arc::clone(&random), notices, Tasks::new());
        let instance = make(&sim);
        sessions.admit([(instance.id, None)]);
        Self { sim, prober: SessionProber::new(sessions, random), instance, plan: ProbePlan::default() }
    }

    async fn probe(&self) -> Observation {
        let target = Target {
            service: ServiceName::new("a").unwrap(),
            instance: self.instance.clone(),
            env: SensitiveMap::new(),
            era: None,
            timeout: Duration::from_secs(2),
            reach: Reach::inside(),
        };
        self.prober.probe(&target, &self.plan).await
    }

    /// What a probe saw, and how long it took.
    async fn timed(&self) -> (ProbeOutcome, Duration) {
        let began = Instant::now();
        (self.probe().await.outcome, began.elapsed())
    }

    fn set(&self, behaviour: Behaviour) {
        self.sim.set(&self.instance, behaviour);
    }

    fn endpoints(&mut self, endpoints: &[&str], expected: &[u16]) {
        self.plan.endpoints = endpoints.iter().map(|endpoint| HealthEndpoint::parse(endpoint).unwrap()).collect();
        self.plan.expected_status = expected.to_vec();
    }

    fn canary(&mut self, tool: &str, arguments: serde_json::Value) {
        let arguments = arguments.as_object().unwrap().clone();
        self.plan.canary = Some(Canary { tool: ToolName::new(tool).unwrap(), arguments });
    }
}

fn between(least_ms: u64, took: Duration, most_ms: u64) -> bool {
    (least_ms..=most_ms).contains(&u64::try_from(took.as_millis()).unwrap())
}

#[tokio::test(start_paused = true)]
async fn an_answer_is_a_pass_with_its_time() {
    let lab = Lab::new();
    lab.sim.set_latency(&lab.instance, Duration::from_millis(40));
    let seen = lab.probe().await;
    assert_eq!((seen.outcome, seen.message.as_str(), seen.canary), (PASS, "", None));
    assert_eq!(seen.response_time.unwrap().as_millis(), 40);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_takes_half_of_its_time_is_slow() {
    let lab = Lab::new();
    lab.probe().await;
    lab.sim.set_latency(&lab.instance, Duration::from_millis(2_600));
    let seen = lab.probe().await;
    assert_eq!((seen.outcome, seen.message.as_str()), (ProbeOutcome::Degraded, "it took 2.6s to answer"));
    assert_eq!(seen.response_time.unwrap().as_millis(), 2_600);
}

/// One attempt of 5 s, 250 to 500 ms later another one of 3 s over a new connection.
#[tokio::test(start_paused = true)]
async fn silence_is_confirmed_over_a_new_connection() {
    let lab = Lab::new();
    lab.probe().await;
    lab.set(Behaviour::Wedged);
    let (seen, took) = lab.timed().await;
    // Connections to it are not made either, for which there are 2 s.
    assert!(seen == SOFT && between(7_250, took, 7_505), "{seen:?} {took:?}");

    lab.set(Behaviour::Up);
    lab.probe().await;
    lab.set(Behaviour::Wedged);
    let connections = lab.sim.connections(&lab.instance);
    let recovering = async {
        tokio::time::sleep(Duration::from_millis(5_100)).await;
        lab.set(Behaviour::Up);
    };
    let ((seen, took), ()) = tokio::join!(lab.timed(), recovering);
    assert!(seen == PASS && between(5_250, took, 5_510), "{seen:?} {took:?}");
    assert_eq!(lab.sim.connections(&lab.instance), connections + 1);
}

#[tokio::test(start_paused = true)]
async fn it_is_confirmed_as_often_as_the_policy_says() {
    for (retries, least, most) in [(0, 5_000, 5_005), (2, 9_500, 10_010)] {
        let mut lab = Lab::new();
        lab.plan.parameters = HealthParameters { retries, ..HealthParameters::default() };
        lab.probe().await;
        lab.sim.set_latency(&lab.instance, Duration::from_secs(60));
        let (seen, took) = lab.timed().await;
        assert!(seen == SOFT && between(least, took, most), "{retries}: {seen:?} {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_the_next_probe_has_a_connection_of_its_own() {
    let mut lab = Lab::new();
    lab.plan.parameters.retries = 0;
    lab.probe().await;
    lab.set(Behaviour::Wedged);
    assert_eq!(lab.probe().await.outcome, SOFT);
    lab.set(Behaviour::Up);
    assert_eq!(lab.probe().await.outcome, PASS);
    assert_eq!(lab.sim.connections(&lab.instance), 2);
}

#[tokio::test(start_paused = true)]
async fn refused_twice_is_final_and_takes_no_time() {
    for retries in [0, 1] {
        let mut lab = Lab::new();
        lab.plan.parameters.retries = retries;
        lab.set(Behaviour::Killed);
        let (seen, took) = lab.timed().await;
        assert!(seen == HARD && between(250, took, 505), "{retries}: {seen:?} {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn refused_once_is_not() {
    let lab = Lab::new();
    lab.set(Behaviour::Killed);
    let back = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        lab.set(Behaviour::Up);
    };
    let (seen, ()) = tokio::join!(lab.probe(), back);
    assert_eq!(seen.outcome, PASS);
}

#[tokio::test(start_paused = true)]
async fn a_process_is_asked_once() {
    let lab = Lab::of(|sim| sim.process("one"));
    lab.probe().await;
    lab.set(Behaviour::Wedged);
    let (seen, took) = lab.timed().await;
    assert!(seen == SOFT && between(5_000, took, 5_005), "{seen:?} {took:?}");
    assert_eq!(lab.sim.connections(&lab.instance), 1, "and not started anew for it");
}

/// T4 in small: whatever failed while we stood still says nothing.
#[tokio::test(start_paused = true)]
async fn who_is_late_himself_concludes_nothing() {
    let lab = Lab::new();
    // In the first attempt, in the pause after it, in the second attempt.
    for pause in [1_000, 5_100, 6_000] {
        lab.set(Behaviour::Up);
        lab.probe().await;
        lab.sim.set_latency(&lab.instance, Duration::from_secs(60));
        let stall = async {
            tokio::time::sleep(Duration::from_millis(pause)).await;
            advance(Duration::from_secs(20)).await;
        };
        let (seen, ()) = tokio::join!(lab.probe(), stall);
        assert_eq!(seen.outcome, ProbeOutcome::Inconclusive, "{}", seen.message);
        assert!(seen.message.starts_with("Machina itself was late by 1"), "{}", seen.message);
        lab.sim.set_latency(&lab.instance, Duration::ZERO);
    }
    lab.set(Behaviour::Killed);
    let (seen, ()) = tokio::join!(lab.probe(), advance(Duration::from_millis(900)));
    assert_eq!(seen.outcome, HARD, "less than a second late is in time");
}

#[tokio::test(start_paused = true)]
async fn who_wants_credentials_is_asked_once() {
    let lab = Lab::new();
    lab.probe().await;
    lab.set(Behaviour::Unauthorised);
    let (seen, took) = lab.timed().await;
    assert!(seen == ProbeOutcome::AuthRequired && took < Duration::from_millis(10), "{seen:?} {took:?}");
    assert_eq!(lab.sim.connections(&lab.instance), 1);
}

#[tokio::test(start_paused = true)]
async fn a_canary_must_succeed() {
    let mut lab = Lab::new();
    lab.canary("echo", json!({"text": "x"}));
    let seen = lab.probe().await;
    assert_eq!((seen.outcome, seen.canary, lab.sim.executions(&lab.instance)), (PASS, Some(true), 1));

    lab.canary("add", json!({"fail": true}));
    let seen = lab.probe().await;
    assert_eq!((seen.outcome, seen.canary), (SOFT, Some(false)));
    assert_eq!(seen.message, "canary `add`: the tool says that it failed", "and not what it says");
    assert_eq!(lab.sim.connections(&lab.instance), 1, "it answers, so its connection is kept");

    lab.canary("echo", json!({}));
    lab.set(Behaviour::Reject);
    let seen = lab.probe().await;
    assert_eq!((seen.outcome, seen.message.as_str()), (SOFT, "canary `echo`: invalid params"));
    lab.set(Behaviour::Busy);
    assert_eq!(lab.probe().await.outcome, ProbeOutcome::Degraded);
    lab.set(Behaviour::Status(403));
    lab.plan.canary = None;
    assert_eq!(lab.probe().await.outcome, ProbeOutcome::AuthRequired);
}

#[tokio::test(start_paused = true)]
async fn a_canary_is_part_of_the_attempt_and_of_its_time() {
    let mut lab = Lab::new();
    lab.canary("echo", json!({}));
    lab.plan.parameters.retries = 0;
    lab.probe().await;
    lab.sim.set_workers(&lab.instance, 0);
    let (seen, took) = lab.timed().await;
    assert!(seen == SOFT && between(4_999, took, 5_005), "{seen:?} {took:?}");
}

#[tokio::test(start_paused = true)]
async fn endpoints_must_answer_as_expected() {
    let mut lab = Lab::new();
    for (path, status) in [("/ok", 204), ("/gone", 404), ("/down", 503), ("/busy", 429), ("/secret", 401)] {
        lab.sim.set_status(path, status);
    }
    let degraded = ProbeOutcome::Degraded;
    let cases: [(&[&str], &[u16], ProbeOutcome, &str); 9] = [
        (&["/ok"], &[], PASS, ""),
        (&["/ok", "/gone"], &[204, 404], PASS, ""),
        (&["/ok"], &[200], SOFT, "/ok: answered with HTTP status 204"),
        (&["/ok", "/down"], &[], SOFT, "/down: answered with HTTP status 503"),
        (&["/busy", "/ok"], &[], degraded, "/busy: answered with HTTP status 429"),
        (&["/busy", "/down"], &[], SOFT, "/down: answered with HTTP status 503"),
        (&["/secret"], &[], ProbeOutcome::AuthRequired, "/secret: answered with HTTP status 401"),
        (&["/secret"], &[200], SOFT, "/secret: answered with HTTP status 401"),
        (&["tcp://a.example:1"], &[], SOFT, "tcp://a.example:1: nothing is there"),
    ];
    for (endpoints, expected, outcome, message) in cases {
        lab.endpoints(endpoints, expected);
        let seen = lab.probe().await;
        assert_eq!((seen.outcome, seen.message.as_str()), (outcome, message), "{endpoints:?} {expected:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_says_nothing_has_the_time_of_the_attempt() {
    let mut lab = Lab::new();
    lab.sim.set_status("/silent", 0);
    lab.endpoints(&["/silent", "/silent"], &[]);
    let (seen, took) = lab.timed().await;
    assert!(seen == SOFT && between(8_250, took, 8_510), "{seen:?} {took:?}");
    assert_eq!(lab.probe().await.message, "/silent: no answer within 3s");
}

/// Looks at nothing but sessions.
#[derive(Debug)]
struct Blind(SimConnector);

#[async_trait]
impl crate::connect::Connector for Blind {
    fn handles(&self, endpoint: &Endpoint) -> bool {
        self.0.handles(endpoint)
    }

    async fn connect(&self, target: &Target) -> Result<Arc<dyn Session>> {
        self.0.connect(target).await
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_is_looked_at_by_whoever_can() {
    let mut lab = Lab::new();
    lab.sim.set_status("/ok", 200);
    for (others, outcome) in [(false, ProbeOutcome::Degraded), (true, PASS)] {
        let mut connectors: Vec<Arc<dyn crate::connect::Connector>> = vec![Arc::new(Blind(lab.sim.clone()))];
        connectors.extend(others.then(|| Arc::new(lab.sim.clone()) as Arc<dyn crate::connect::Connector>));
        let random = Arc::new(Random::seeded(3));
        let (notices, _) = Monitor::notices();
        let sessions = Sessions::new(connectors, Duration::from_secs(1), Arc::clone(&random), notices, Tasks::new());
        sessions.admit([(lab.instance.id, None)]);
        lab.prober = SessionProber::new(sessions, random);
        lab.endpoints(&["/ok"], &[]);
        let seen = lab.probe().await;
        assert_eq!(seen.outcome, outcome, "{}", seen.message);
        let message = if others { "" } else { "/ok: no connector can look at `/ok`" };
        assert_eq!(seen.message, message);
    }
}
