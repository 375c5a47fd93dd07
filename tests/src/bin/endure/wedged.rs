//! T7: servers whose processes and sockets are as alive as can be, and that do not
//! work: they must be found by what only a working server answers.

use std::collections::BTreeMap;
use std::time::Duration;

use machina_core::{Config, EventKind, HealthState, Instance, Machina, Next, RoutingPolicy, ServiceSpec};
use machina_tests::farm::{Behaviour, Order};
use machina_tests::{Farm, Process, settled};
use rustix::process::Signal;
use tokio::time::{Instant, timeout_at};

use crate::Scale;
use crate::fleet::{Fleet, name};
use crate::report::{Row, shown, spread};

/// How many of each kind.
const OF_EACH: usize = 4;
/// How many work, so that it is not taken for a fault of the prober.
const GOOD: usize = 150;
const GOOD_SHORT: usize = 110;
/// How long the children may take to start.
const STARTING: Duration = Duration::from_secs(60);
/// What the machine may add to the bound of the configuration: it is shared.
const SLACK: Duration = Duration::from_secs(2);
/// … before it is a failure of a short run, beside which others run.
const SLACK_SHORT: Duration = Duration::from_secs(10);

/// When a wedged instance must be found at the latest: it has just passed, then
/// each attempt of a probe and each confirmation takes all of its time.
fn bound(config: &Config) -> Duration {
    let health = &config.health;
    let failure = health.timeout + (health.confirm_delay * 2 + health.confirm_timeout) * health.retries;
    health.interval + failure * health.failure_threshold + health.fast_interval * (health.failure_threshold - 1)
}

/// Runs it.
pub(crate) async fn run(scale: &Scale) -> Row {
    let mut config = Config::default();
    if scale.short {
        config.health.interval = Duration::from_secs(2);
        config.health.fast_interval = Duration::from_millis(200);
        config.health.timeout = Duration::from_millis(300);
        config.health.confirm_timeout = Duration::from_millis(300);
        config.health.confirm_delay = Duration::from_millis(100);
        config.health.passive_window = Duration::ZERO;
        // On a machine that has other things to do, some that work are late too.
        config.health.self_preservation_percentage = 100;
    }
    let bound = bound(&config);
    let (good, latest) = if scale.short { (GOOD_SHORT, bound + SLACK_SHORT) } else { (GOOD, bound + SLACK) };
    let fleet =
        Fleet::start((good + 3 * OF_EACH, 1), &[], config, &RoutingPolicy::default(), |service, _| service).await;
    for child in 0..OF_EACH {
        let spec = ServiceSpec::new(&format!("child-{child}")).expect("a valid name");
        let instance = Instance::new(Farm::stdio_spec(&[]));
        fleet.machina.register(spec.instance(instance)).await.expect("a child can be registered");
    }
    settled(&fleet.machina, STARTING).await;
    let took = wedge(&fleet, latest + SLACK_SHORT).await;
    fleet.machina.close().await;
    row(&took, (bound, latest), good)
}

/// Wedges instances of each kind, and waits until they are found; how long it took.
async fn wedge(fleet: &Fleet, patience: Duration) -> BTreeMap<&'static str, Vec<Option<Duration>>> {
    let mut kinds: BTreeMap<String, &'static str> = BTreeMap::new();
    let mut orders = Vec::new();
    let ways = [("200 without MCP", Behaviour::Wedged), ("hangs", Behaviour::Hang), ("never answers", Behaviour::Mute)];
    for (way, (kind, behaviour)) in ways.into_iter().enumerate() {
        for nth in 0..OF_EACH {
            let instance = way * OF_EACH + nth;
            kinds.insert(name(instance), kind);
            orders.push(Order { instance, behaviour });
        }
    }
    let mut events = fleet.machina.watch();
    let started = Instant::now();
    fleet.farm.order(&orders).await;
    for child in 0..OF_EACH {
        let name = format!("child-{child}");
        process(&fleet.machina, &name).await.signal(Signal::STOP);
        kinds.insert(name, "stopped child");
    }
    let mut took: BTreeMap<&'static str, Vec<Option<Duration>>> = BTreeMap::new();
    while !kinds.is_empty() {
        let Ok(next) = timeout_at(started + patience, events.next()).await else { break };
        let Next::Event(event) = next else { continue };
        let EventKind::HealthChanged { to: HealthState::Unhealthy, .. } = &event.kind else { continue };
        let service = event.service.as_ref().map(ToString::to_string).unwrap_or_default();
        if let Some(kind) = kinds.remove(&service) {
            took.entry(kind).or_default().push(Some(started.elapsed()));
        }
    }
    for kind in kinds.into_values() {
        took.entry(kind).or_default().push(None);
    }
    took
}

async fn process(machina: &Machina, name: &str) -> Process {
    let health = machina.health(name).await.expect("a registered service has a health");
    let process = health.instances.first().and_then(|instance| instance.process_id).and_then(Process::of);
    process.expect("a healthy child has a process")
}

fn row(
    took: &BTreeMap<&'static str, Vec<Option<Duration>>>,
    (bound, latest): (Duration, Duration),
    good: usize,
) -> Row {
    let all: Vec<Option<Duration>> = took.values().flatten().copied().collect();
    let found: Vec<Duration> = all.iter().flatten().copied().collect();
    let slowest = found.iter().max().copied().unwrap_or_default();
    let mut broken = Vec::new();
    if found.len() < all.len() {
        broken.push(format!("{} were not found within {}", all.len() - found.len(), shown(latest + SLACK_SHORT)));
    }
    if slowest > latest {
        broken.push(format!("one was found after {}, which is beyond {}", shown(slowest), shown(latest)));
    }
    let lines = took.iter().map(|(kind, times)| {
        let found: Vec<Duration> = times.iter().flatten().copied().collect();
        format!("{kind}: {} of {} found; {}", found.len(), times.len(), spread(found))
    });
    Row {
        name: "T7",
        figure: format!(
            "{} of {} wedged found, the last after {} (bound of the configuration {})",
            found.len(),
            all.len(),
            shown(slowest),
            shown(bound)
        ),
        target: "found ≤ 75 s at the defaults",
        met: broken.is_empty() && slowest <= Duration::from_secs(75).min(bound + SLACK),
        details: std::iter::once(format!("{good} others work")).chain(lines).collect(),
        broken,
    }
}
