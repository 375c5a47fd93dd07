//! Servers that answer wrongly, rudely, too much, or not at all.

use std::time::Duration;

use machina_core::{
    AdminState, CallOptions, Config, ErrorKind, EventKind, HealthState, Instance, InstanceHealth, Machina, Next,
    Outcome, Phase, ReasonCode, Sensitive, ServiceSpec,
};
use machina_tests::{Fixture, Process, call, changed, fastest, open, settled, wait_until, wait_until_gone};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

const SOON: Duration = Duration::from_secs(20);

/// Probes so often that a test sees several.
fn eager() -> Config {
    let mut config = Config::default();
    config.health.interval = Duration::from_secs(1);
    config.health.fast_interval = Duration::from_millis(200);
    config.health.timeout = Duration::from_millis(500);
    config.health.passive_window = Duration::ZERO;
    config.health.startup_grace_stdio = Duration::from_secs(2);
    config.sessions.connect_timeout = Duration::from_millis(500);
    config
}

fn stdio(args: &[&str]) -> Instance {
    Instance::new(Fixture::stdio_spec(args))
}

async fn register(machina: &Machina, name: &str, instance: Instance) {
    machina.register(ServiceSpec::new(name).unwrap().instance(instance)).await.unwrap();
}

async fn only(machina: &Machina, service: &str) -> InstanceHealth {
    machina.health(service).await.unwrap().instances.remove(0)
}

async fn text(machina: &Machina, service: &str, tool: &str, arguments: Value) -> String {
    machina.call(&call(service, tool, arguments), &CallOptions::default()).await.unwrap().result.text()
}

async fn reaches(machina: &Machina, service: &str, wanted: HealthState) -> InstanceHealth {
    wait_until(SOON, &format!("{service} is {}", wanted.as_str()), async || {
        let seen = only(machina, service).await;
        if seen.health.state == wanted { Ok(seen) } else { Err(format!("{seen:?}")) }
    })
    .await
}

#[tokio::test]
async fn one_malformed_tool_does_not_hide_the_others() {
    let machina = open(Config::default()).await;
    register(&machina, "odd", stdio(&["--malformed-tool", "--pages", "2"])).await;
    settled(&machina, SOON).await;
    assert_eq!(only(&machina, "odd").await.health.state, HealthState::Healthy);
    let service = machina.get("odd").unwrap();
    let names: Vec<_> = service.tools().iter().map(|offered| offered.tool.name().as_str()).collect();
    assert_eq!(names[..4], ["echo", "add", "no_type", "increment"], "a schema without a type is a schema");
    assert_eq!(names.len(), 14);
    let (_, seen) = service.instances().next().unwrap();
    let [rejected] = &seen.definitions.as_ref().unwrap().rejected[..] else { panic!("{seen:?}") };
    assert_eq!(rejected.name.as_deref(), Some("no_schema"));
    assert!(rejected.reason.contains("inputSchema"), "{rejected:?}");
    assert_eq!(text(&machina, "odd", "echo", json!({"text": "hi"})).await, "hi");
    machina.close().await;
}

#[tokio::test]
async fn junk_on_stdout_is_passed_over_and_stderr_kept() {
    let machina = open(Config::default()).await;
    register(&machina, "noisy", stdio(&["--garbage-lines", "50", "--stderr-lines", "5000"])).await;
    settled(&machina, SOON).await;
    assert_eq!(text(&machina, "noisy", "echo", json!({"text": "hi"})).await, "hi");
    let seen = only(&machina, "noisy").await;
    assert_eq!(seen.health.state, HealthState::Healthy);
    assert!(seen.stderr_tail.contains("stderr line 4999"), "{seen:?}");
    assert!(seen.stderr_tail.len() <= 64 * 1024);
    machina.close().await;
}

#[tokio::test]
async fn a_server_that_does_not_start_shows_why() {
    let machina = open(eager()).await;
    register(&machina, "dies", stdio(&["--exit-on-discover", "--era", "modern", "--stderr-lines", "3"])).await;
    register(&machina, "missing", Instance::new(machina_core::StdioEndpoint::new("no-such-command", ["x"]))).await;
    let dies = reaches(&machina, "dies", HealthState::Unhealthy).await;
    assert!(
        dies.health.reason.message.contains("stderr line 2") || dies.stderr_tail.contains("stderr line 2"),
        "{dies:?}"
    );
    let missing = reaches(&machina, "missing", HealthState::Unhealthy).await;
    assert!(missing.health.reason.message.contains("`no-such-command` not found"), "{missing:?}");
    let error = machina.call(&call("missing", "x", json!({})), &CallOptions::default()).await.unwrap_err();
    assert_eq!(error.context().outcome, Some(Outcome::NotExecuted), "{error:?}");
    machina.close().await;
}

#[tokio::test]
async fn who_wants_credentials_is_alive() {
    let server = Fixture::http(&["--require-token", "secret-token"]).await;
    let machina = open(eager()).await;
    register(&machina, "closed", Instance::new(server.endpoint())).await;
    let mut right = server.endpoint();
    right.headers.insert("Authorization".into(), Sensitive::secret("Bearer secret-token"));
    register(&machina, "open", Instance::new(right)).await;
    settled(&machina, SOON).await;
    // Long enough for what soft failures would do.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let seen = only(&machina, "closed").await;
    assert_eq!(
        (seen.health.state, seen.health.reason.code),
        (HealthState::Healthy, ReasonCode::AuthRequired),
        "{seen:?}"
    );
    let error = machina.call(&call("closed", "echo", json!({"text": "x"})), &CallOptions::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.context().upstream_status), (ErrorKind::Rejected, Some(401)), "{error:?}");
    assert_eq!(error.context().outcome, Some(Outcome::NotExecuted), "{error:?}");

    let who: Value = serde_json::from_str(&text(&machina, "open", "whoami", json!({})).await).unwrap();
    assert_eq!(who["authorization"], true);
    let shown = format!("{:?} {:?}", machina.get("open"), machina.health("open").await);
    assert!(!shown.contains("secret-token"), "{shown}");
    machina.close().await;
}

#[tokio::test]
async fn who_asks_to_slow_down_is_never_unhealthy() {
    let server = Fixture::http(&[]).await;
    let machina = open(eager()).await;
    register(&machina, "busy", Instance::new(server.endpoint())).await;
    settled(&machina, SOON).await;
    let mut events = machina.watch();
    server.set_faults(json!({"status": 429, "retry_after": 7})).await;
    let error = machina.call(&call("busy", "echo", json!({"text": "x"})), &CallOptions::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.context().phase), (ErrorKind::Overloaded, Some(Phase::Refused)), "{error:?}");
    assert_eq!(
        (error.context().retry_after_ms, error.context().upstream_status),
        (Some(7_000), Some(429)),
        "{error:?}"
    );
    tokio::time::sleep(Duration::from_secs(4)).await;
    let seen = only(&machina, "busy").await;
    assert_eq!(seen.health.reason.code, ReasonCode::Degraded, "{seen:?}");
    while let Some(next) = events.try_next() {
        let Next::Event(event) = next else { panic!("fell behind") };
        let down = matches!(&event.kind, EventKind::HealthChanged { to: HealthState::Unhealthy, .. });
        assert!(!down, "{event:?}");
    }
    server.set_faults(json!({})).await;
    assert_eq!(text(&machina, "busy", "echo", json!({"text": "hi"})).await, "hi");
    machina.close().await;
}

#[tokio::test]
async fn a_wedged_server_is_found_and_so_is_its_recovery() {
    let server = Fixture::http(&[]).await;
    let machina = open(eager()).await;
    register(&machina, "wedged", Instance::new(server.endpoint())).await;
    settled(&machina, SOON).await;
    // It takes connections and requests, and answers nothing.
    server.set_faults(json!({"silent": true})).await;
    reaches(&machina, "wedged", HealthState::Unhealthy).await;
    server.set_faults(json!({})).await;
    reaches(&machina, "wedged", HealthState::Healthy).await;
    machina.close().await;
}

#[tokio::test]
async fn a_stuck_process_is_replaced() {
    let machina = open(eager()).await;
    register(&machina, "stuck", stdio(&["--spawn-grandchild"])).await;
    settled(&machina, SOON).await;
    let process = only(&machina, "stuck").await.process_id.and_then(Process::of).unwrap();
    let mut family = process.descendants();
    family.push(process);
    process.signal(Signal::STOP);
    wait_until(SOON, "another process is healthy", async || {
        let seen = only(&machina, "stuck").await;
        let other = seen.process_id.is_some_and(|pid| pid != process.pid);
        if other && seen.health.state == HealthState::Healthy { Ok(()) } else { Err(format!("{seen:?}")) }
    })
    .await;
    wait_until_gone(SOON, &family).await;
    assert_eq!(text(&machina, "stuck", "echo", json!({"text": "hi"})).await, "hi");
    machina.close().await;
}

#[tokio::test]
async fn a_forgotten_session_is_opened_anew() {
    let server = Fixture::http(&["--era", "legacy", "--forget-sessions-after", "12"]).await;
    let machina = open(Config::default()).await;
    register(&machina, "forgetful", Instance::new(server.endpoint())).await;
    settled(&machina, SOON).await;
    for number in 1..=40 {
        assert_eq!(text(&machina, "forgetful", "increment", json!({})).await, number.to_string());
    }
    machina.close().await;
}

#[tokio::test]
async fn what_a_tool_answers_is_an_answer() {
    let server = Fixture::http(&[]).await;
    let machina = open(Config::default()).await;
    register(&machina, "http", Instance::new(server.endpoint())).await;
    register(&machina, "stdio", stdio(&[])).await;
    settled(&machina, SOON).await;
    for service in ["http", "stdio"] {
        let failed = machina.call(&call(service, "fail", json!({})), &CallOptions::default()).await.unwrap();
        assert!(failed.result.is_error(), "{service}");
        assert_eq!((failed.attempts.len(), failed.result.text().as_str()), (1, "failed as asked"));

        let broken = call(service, "protocol_error", json!({"code": -32055}));
        let error = machina.call(&broken, &CallOptions::default()).await.unwrap_err();
        assert_eq!((error.kind(), error.context().upstream_code), (ErrorKind::Rejected, Some(-32055)), "{error:?}");
        assert_eq!((error.context().attempts, error.context().outcome), (Some(1), Some(Outcome::Executed)));

        let large = text(&machina, service, "large", json!({"bytes": 3_000_000})).await;
        assert_eq!(large.len(), 3_000_000, "{service}");
        let too_large = call(service, "large", json!({"bytes": 5_000_000}));
        let error = machina.call(&too_large, &CallOptions::default()).await.unwrap_err();
        assert!(error.message().contains("4194304"), "{service}: {error:?}");
        assert_eq!(text(&machina, service, "echo", json!({"text": "hi"})).await, "hi", "{service} goes on");
    }
    machina.close().await;
}

#[tokio::test]
async fn a_call_in_flight_when_its_process_dies_is_lost_and_the_next_one_works() {
    let machina = open(Config::default()).await;
    register(&machina, "mortal", stdio(&[])).await;
    settled(&machina, SOON).await;
    let exit = call("mortal", "exit", json!({"code": 9}));
    let error = machina.call(&exit, &CallOptions::default()).await.unwrap_err();
    assert_eq!((error.kind(), error.context().phase), (ErrorKind::Lost, Some(Phase::MaybeExecuted)), "{error:?}");
    assert!(error.message().contains('9'), "the exit status is told: {error:?}");
    assert_eq!(text(&machina, "mortal", "increment", json!({})).await, "1", "another process answers");
    machina.close().await;
}

/// How long it takes until the death of a server of this transport and era is noticed.
async fn noticed(transport: &str, era: &str) -> Duration {
    let mut config = Config::default();
    // No probe finds it by chance.
    config.health.interval = Duration::from_secs(3600);
    let machina = open(config).await;
    let server = Fixture::http(&["--era", era]).await;
    let over_http = transport == "http";
    let instance = if over_http { Instance::new(server.endpoint()) } else { stdio(&["--era", era]) };
    register(&machina, "mortal", instance).await;
    settled(&machina, SOON).await;
    // The stream on which a server announces changes is opened in the background.
    changed(&machina, "mortal", SOON).await;
    let child = only(&machina, "mortal").await.process_id.and_then(Process::of);
    let process = if over_http { server.process() } else { child.unwrap() };
    let mut events = machina.watch();
    let killed = Instant::now();
    process.signal(Signal::KILL);
    let noticed = async {
        loop {
            let Next::Event(event) = events.next().await else { panic!("fell behind") };
            if matches!(&event.kind, EventKind::HealthChanged { to: HealthState::Unhealthy, .. }) {
                break killed.elapsed();
            }
        }
    };
    let took = timeout(SOON, noticed).await.unwrap_or_else(|_| panic!("{transport}-{era}: not noticed"));
    println!("death of {transport}-{era} noticed after {took:.0?}");
    machina.close().await;
    took
}

#[tokio::test]
async fn a_death_is_noticed_within_a_second() {
    for (transport, era) in [("stdio", "legacy"), ("http", "legacy"), ("stdio", "modern"), ("http", "modern")] {
        fastest(3, Duration::from_secs(1), async || noticed(transport, era).await).await;
    }
}

#[tokio::test]
async fn a_process_that_dies_again_and_again_is_back_each_time() {
    // The defaults: a healthy instance is probed every 30 s, one that is down every 3 s.
    let machina = open(Config::default()).await;
    register(&machina, "mortal", stdio(&[])).await;
    settled(&machina, SOON).await;
    let mut process = only(&machina, "mortal").await.process_id.and_then(Process::of).unwrap();
    for _ in 0..3 {
        process.signal(Signal::KILL);
        process = wait_until(Duration::from_secs(8), "another process is healthy", async || {
            let seen = only(&machina, "mortal").await;
            let other = seen.process_id.filter(|pid| *pid != process.pid && seen.health.state == HealthState::Healthy);
            other.and_then(Process::of).ok_or_else(|| format!("{seen:?}"))
        })
        .await;
    }
    machina.close().await;
}

#[tokio::test]
async fn what_the_operator_says_wins() {
    let machina = open(Config::default()).await;
    register(&machina, "off", stdio(&[])).await;
    settled(&machina, SOON).await;
    machina.set_admin_state("off", None, AdminState::Maintenance).await.unwrap();
    let echo = call("off", "echo", json!({"text": "hi"}));
    let error = machina.call(&echo, &CallOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(error.message().contains("maintenance"), "{error:?}");
    machina.set_admin_state("off", None, AdminState::Enabled).await.unwrap();
    assert_eq!(text(&machina, "off", "echo", json!({"text": "hi"})).await, "hi");
    machina.close().await;
}

#[tokio::test]
async fn a_child_sees_no_environment_but_what_it_needs() {
    let machina = open(Config::default()).await;
    let mut endpoint = Fixture::stdio_spec(&[]);
    endpoint = endpoint.env("DECLARED", "value-of-declared");
    register(&machina, "scrubbed", Instance::new(endpoint)).await;
    settled(&machina, SOON).await;
    let who: Value = serde_json::from_str(&text(&machina, "scrubbed", "whoami", json!({})).await).unwrap();
    let names: Vec<_> = who["env"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    assert!(names.contains(&"DECLARED") && names.contains(&"PATH"), "{names:?}");
    // Cargo sets many for this test; none of them is the child's business.
    assert!(!names.iter().any(|name| name.starts_with("CARGO") || name.starts_with("LD_")), "{names:?}");
    let shown = format!("{:?}", machina.get("scrubbed"));
    assert!(!shown.contains("value-of-declared"), "{shown}");
    machina.close().await;
}
