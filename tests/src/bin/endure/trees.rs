//! T17: many children that are trees of processes, to which something happens all
//! the time. Nothing of them may be left, and nothing may grow.

use std::collections::BTreeMap;
use std::time::Duration;

use machina_core::{Config, HealthState, Instance, Machina, ServiceSpec};
use machina_tests::farm::Class;
use machina_tests::{Process, open, settled};
use rustix::process::Signal;
use tokio::time::{Instant, sleep, sleep_until};

use crate::Scale;
use crate::children::Children;
use crate::load::{Plan, Tally, offer};
use crate::random::Random;
use crate::report::{Row, megabytes};
use crate::samples::{Sample, Watch, slope};

/// How long all may take to start, and to be healthy again.
const PATIENCE: Duration = Duration::from_secs(240);
/// How long memory and files have to come to rest.
const REST: Duration = Duration::from_secs(2);
/// How much more there may be at the end for it to be called flat: files of starts
/// under way; a tenth of memory, or some MB, which an allocator keeps for itself.
const FILES_SLACK: usize = 8;
const RESIDENT_SLACK: (f64, f64) = (1.1, 8.0);
/// How long what is left after a close is waited for.
const CLOSED: Duration = Duration::from_secs(2);

/// What happens to a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    KillShell,
    KillServer,
    StopShell,
    StopServer,
    Junk,
    Flood,
}

const EVENTS: [(Event, usize); 6] = [
    (Event::KillShell, 2),
    (Event::KillServer, 2),
    (Event::StopShell, 1),
    (Event::StopServer, 1),
    (Event::Junk, 2),
    (Event::Flood, 2),
];

/// The size of a run.
pub(crate) struct Size {
    pub(crate) trees: usize,
    events_per_minute: u32,
    pub(crate) lasting: Duration,
    rate: u32,
    pub(crate) config: Config,
    pub(crate) node: bool,
}

impl Size {
    pub(crate) fn of(scale: &Scale) -> Self {
        let mut config = Config::default();
        let seconds = Duration::from_secs;
        let (trees, events_per_minute, lasting, rate) = match scale.short {
            false => (200, 50, 300, 50),
            true => {
                config.health.interval = seconds(1);
                config.health.fast_interval = Duration::from_millis(200);
                config.health.timeout = Duration::from_millis(500);
                config.health.confirm_timeout = Duration::from_millis(500);
                config.health.passive_window = Duration::ZERO;
                // Of so few, two that are stopped at a time are many.
                config.health.self_preservation_percentage = 100;
                (12, 120, 10, 20)
            }
        };
        Self {
            trees: scale.services.unwrap_or(trees),
            events_per_minute,
            lasting: scale.lasting.unwrap_or(seconds(lasting)),
            rate: scale.rate.unwrap_or(rate),
            config,
            node: !scale.short,
        }
    }
}

/// What happened to the trees, and what was seen of them meanwhile.
pub(crate) struct Seen {
    events: BTreeMap<Event, usize>,
    pub(crate) tally: Tally,
    pub(crate) zombies: usize,
    pub(crate) orphans: usize,
    pub(crate) before: Sample,
    pub(crate) after: Sample,
    pub(crate) samples: Vec<Sample>,
    /// Trees that are not healthy again, though they had the time.
    unhealthy: Vec<String>,
}

/// Runs it.
pub(crate) async fn run(scale: &Scale) -> Row {
    let size = Size::of(scale);
    let children = Children::of("T17", size.node);
    let machina = open(size.config.clone()).await;
    let names = register(&machina, &children, size.trees).await;
    settled(&machina, PATIENCE).await;
    let seen = endure(&machina, &children, &names, &size, scale.seed).await;
    machina.close().await;
    let closed = Instant::now();
    while !children.alive().is_empty() && closed.elapsed() < CLOSED {
        sleep(Duration::from_millis(20)).await;
    }
    let left = children.alive().len();
    seen.row(&size, &children, left, scale.seed)
}

/// Registers trees as services of one instance each.
pub(crate) async fn register(machina: &Machina, children: &Children, trees: usize) -> Vec<String> {
    let names: Vec<String> = (0..trees).map(|tree| format!("tree-{tree}")).collect();
    for name in &names {
        let mut spec = ServiceSpec::new(name).expect("a valid name").instance(Instance::new(children.endpoint()));
        spec.routing_policy.trust_annotations = Some(true);
        machina.register(spec).await.expect("a tree can be registered");
    }
    names
}

/// Lets things happen to `names` for as long as the size says, and waits until all
/// are well again.
pub(crate) async fn endure(machina: &Machina, children: &Children, names: &[String], size: &Size, seed: u64) -> Seen {
    sleep(REST).await;
    let before = Sample::now();
    let watch = Watch::start(children.mark());
    let plan = Plan {
        services: names.to_vec(),
        rate: size.rate,
        mix: vec![(Class::ReadOnly, 1)],
        takes: (Duration::ZERO, Duration::from_millis(5)),
        seed,
    };
    let load = Box::pin(offer(machina, &plan, size.lasting));
    let (tally, events) = tokio::join!(load, disturb(machina, names, size, seed));
    let unhealthy = recovered(machina, names).await;
    sleep(REST).await;
    let after = Sample::now();
    let (strays, samples) = watch.finish().await;
    Seen {
        events,
        tally,
        zombies: strays.zombies_most,
        orphans: strays.orphans_most,
        before,
        after,
        samples,
        unhealthy,
    }
}

/// Does something to a tree, again and again.
async fn disturb(machina: &Machina, names: &[String], size: &Size, seed: u64) -> BTreeMap<Event, usize> {
    let mut random = Random::new(seed ^ 0x7ee5);
    let pause = Duration::from_secs(60) / size.events_per_minute;
    let (started, mut done, mut number) = (Instant::now(), BTreeMap::new(), 0);
    while started.elapsed() + pause < size.lasting {
        number += 1;
        sleep_until(started + pause * number).await;
        let (name, event) = (&names[random.below(names.len())], random.pick(&EVENTS));
        if happen(machina, name, event).await {
            *done.entry(event).or_default() += 1;
        }
    }
    done
}

/// Whether the tree was there for it to happen to.
async fn happen(machina: &Machina, name: &str, event: Event) -> bool {
    let health = machina.health(name).await.expect("a registered service has a health");
    let shell = health.instances.first().and_then(|instance| instance.process_id).and_then(Process::of);
    let Some(shell) = shell else { return false };
    let Some(server) = shell.descendants().last().copied() else { return false };
    match event {
        Event::KillShell => shell.signal(Signal::KILL),
        Event::KillServer => server.signal(Signal::KILL),
        Event::StopShell => shell.signal(Signal::STOP),
        Event::StopServer => server.signal(Signal::STOP),
        Event::Junk => server.signal(Signal::USR2),
        Event::Flood => server.signal(Signal::HUP),
    }
    true
}

/// Waits until all are healthy; those that are not in time.
async fn recovered(machina: &Machina, names: &[String]) -> Vec<String> {
    let started = Instant::now();
    loop {
        let mut ill = Vec::new();
        for name in names {
            let health = machina.health(name).await.expect("a registered service has a health").health;
            // A shell that is stopped under a server that works harms nobody.
            if health.state != HealthState::Healthy {
                ill.push(format!("{name}: {} ({})", health.state.as_str(), health.reason.message));
            }
        }
        if ill.is_empty() || started.elapsed() > PATIENCE {
            return ill;
        }
        sleep(Duration::from_millis(200)).await;
    }
}

impl Seen {
    /// Whether anything happened to a tree.
    pub(crate) fn was_disturbed(&self) -> bool {
        self.events.values().any(|count| *count > 0)
    }

    /// Whether files and memory are at the end what they were.
    pub(crate) fn is_flat(&self) -> bool {
        let files = self.after.files <= self.before.files + FILES_SLACK;
        let (before, after) = (megabytes(self.before.resident), megabytes(self.after.resident));
        files && after <= (before * RESIDENT_SLACK.0).max(before + RESIDENT_SLACK.1)
    }

    /// What must never be.
    pub(crate) fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        for (count, what) in [(self.zombies, "zombies"), (self.orphans, "orphans")] {
            if count > 0 {
                broken.push(format!("{count} {what} were there for longer than it takes to end them"));
            }
        }
        if self.samples.is_empty() {
            broken.push("nobody looked at the processes".to_owned());
        }
        broken.extend(self.unhealthy.iter().map(|ill| format!("not healthy again: {ill}")));
        broken
    }

    /// What happened, and what was seen.
    pub(crate) fn details(&self) -> Vec<String> {
        let mut details = vec![
            format!("events: {:?}", self.events),
            format!("calls: {}", self.tally.summary()),
            format!("before: {}; after: {}", self.before, self.after),
            format!("RSS slope over {} samples: {:.1} MB/h", self.samples.len(), slope(&self.samples)),
        ];
        details.extend(self.tally.kinds());
        details
    }

    fn row(&self, size: &Size, children: &Children, left: usize, seed: u64) -> Row {
        let mut broken = self.broken();
        if left > 0 {
            broken.push(format!("{left} processes are left {CLOSED:?} after the close"));
        }
        let events: usize = self.events.values().sum();
        let mut details = vec![format!(
            "{} trees (sh → {}), {} random events a minute for {:?}, seed {seed}",
            size.trees,
            children.leaf(),
            size.events_per_minute,
            size.lasting,
        )];
        details.extend(self.details());
        Row {
            name: "T17",
            figure: format!(
                "{} trees, {events} events: zombies {}, orphans {}, fds {} → {}, RSS {:.1} → {:.1} MB, left after close \
                 {left}",
                size.trees,
                self.zombies,
                self.orphans,
                self.before.files,
                self.after.files,
                megabytes(self.before.resident),
                megabytes(self.after.resident),
            ),
            target: "0 zombies, 0 orphans, fds and RSS flat",
            met: broken.is_empty() && self.is_flat(),
            broken,
            details,
        }
    }
}
