use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use tokio::time::Instant;

use super::*;

const INTERVAL: Duration = Duration::from_secs(30);

/// How an instance of the ward answers, and where it is.
#[derive(Debug, Clone)]
struct Bed {
    host: usize,
    /// How long a check of it takes.
    takes: Duration,
    /// When it is to be checked again.
    delay: Duration,
}

/// Notes when each instance was checked.
#[derive(Debug, Default)]
struct Ward {
    beds: HashMap<InstanceId, Bed>,
    checks: Mutex<Vec<(InstanceId, Instant, bool)>>,
    running: Mutex<BTreeMap<usize, u32>>,
    most: Mutex<(u32, u32)>,
}

impl Ward {
    fn times(&self, instance: InstanceId) -> Vec<Instant> {
        self.checks.lock().unwrap().iter().filter(|(id, ..)| *id == instance).map(|(_, at, _)| *at).collect()
    }

    fn change(&self, host: usize, begins: bool) {
        let mut running = self.running.lock().unwrap();
        let here = running.entry(host).or_default();
        *here = if begins { *here + 1 } else { *here - 1 };
        let (here, all) = (*here, running.values().sum());
        let mut most = self.most.lock().unwrap();
        *most = (most.0.max(all), most.1.max(here));
    }
}

#[async_trait::async_trait]
impl Patient for Ward {
    fn place(&self, instance: InstanceId) -> Option<Place> {
        let bed = self.beds.get(&instance)?;
        Some(Place { host: bed.host.to_string().into(), prompt: bed.takes < Duration::from_secs(1) })
    }

    async fn check(&self, instance: InstanceId, asked: bool) -> Option<Duration> {
        self.checks.lock().unwrap().push((instance, Instant::now(), asked));
        let bed = &self.beds[&instance];
        self.change(bed.host, true);
        tokio::time::sleep(bed.takes).await;
        self.change(bed.host, false);
        Some(bed.delay)
    }

    async fn notice(&self, _: InstanceId, _: Notice) {}
}

const LIMITS: Limits = Limits { all: 512, per_host: 8 };

fn start(beds: impl IntoIterator<Item = Bed>, limits: Limits) -> (Arc<Ward>, Vec<InstanceId>, Monitor, Tasks) {
    let beds: Vec<_> = beds.into_iter().map(|bed| (InstanceId::generate(), bed)).collect();
    let ids = beds.iter().map(|(id, _)| *id).collect();
    let ward = Arc::new(Ward { beds: beds.into_iter().collect(), ..Ward::default() });
    let (monitor, commands) = Monitor::new();
    let (_, notices) = Monitor::notices();
    let (tasks, random) = (Tasks::new(), Arc::new(Random::seeded(7)));
    let inbox = Inbox { commands, notices };
    tasks.spawn("monitor", run(ward.clone(), monitor.clone(), inbox, limits, random, tasks.clone()));
    (ward, ids, monitor, tasks)
}

fn prompt(host: usize) -> Bed {
    Bed { host, takes: Duration::from_millis(5), delay: INTERVAL }
}

/// One that does not answer: an attempt and its confirmation, and soon again.
fn hanging(host: usize) -> Bed {
    Bed { host, takes: Duration::from_millis(8_500), delay: Duration::from_secs(3) }
}

async fn watch(monitor: &Monitor, instance: InstanceId, delay: Duration) {
    monitor.tell(Command::Watch { instance, delay }).await;
}

fn gaps(times: &[Instant]) -> impl Iterator<Item = Duration> {
    times.windows(2).map(|pair| pair[1] - pair[0])
}

#[tokio::test(start_paused = true)]
async fn each_time_is_up_to_a_tenth_shorter_and_the_first_one_at_any_moment() {
    let (ward, ids, monitor, _tasks) = start((0..20).map(prompt), LIMITS);
    for instance in &ids {
        watch(&monitor, *instance, Duration::ZERO).await;
    }
    tokio::time::sleep(Duration::from_secs(301)).await;
    let mut first = Vec::new();
    for id in &ids {
        let times = ward.times(*id);
        assert!((10..=13).contains(&times.len()), "{}", times.len());
        first.push(times[1] - times[0]);
        for gap in gaps(&times[1..]) {
            assert!(gap >= Duration::from_secs(27) && gap <= Duration::from_millis(30_010), "{gap:?}");
        }
    }
    assert!(first.iter().min().unwrap() < &Duration::from_secs(8), "{first:?}");
    assert!(first.iter().max().unwrap() > &Duration::from_secs(22), "{first:?}");
}

/// L4: a tenth of 1,000 instances hang, among them whole hosts; the others are
/// probed in time, and so are those that hang as long as half of the places do.
#[tokio::test(start_paused = true)]
async fn every_instance_is_probed_in_time_though_some_hang() {
    let beds = (0..1_000).map(|index| match index {
        0..50 => hanging(0),
        50..100 => hanging(index),
        _ => prompt(index % 100),
    });
    let (ward, ids, monitor, _tasks) = start(beds, LIMITS);
    for (index, instance) in ids.iter().enumerate() {
        watch(&monitor, *instance, INTERVAL * u32::try_from(index).unwrap() / 1_000).await;
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    let bound = INTERVAL.mul_f64(1.1);
    for id in &ids[50..] {
        let times = ward.times(*id);
        assert!(times.len() >= 18, "{}", times.len());
        assert!(gaps(&times).all(|gap| gap <= bound), "L4: {:?}", gaps(&times).max());
    }
    // Of the fifty that hang at one host, four at a time get their turn.
    assert!(ids[..50].iter().all(|id| ward.times(*id).len() >= 4));
    let most = *ward.most.lock().unwrap();
    assert!(most.1 <= 8, "{most:?}");
}

/// However many hang, half of the places in all are left to the others.
#[tokio::test(start_paused = true)]
async fn a_network_that_hangs_delays_nobody_else() {
    let beds = (0..600).map(|index| if index < 300 { hanging(index) } else { prompt(index) });
    let (ward, ids, monitor, _tasks) = start(beds, Limits { all: 32, per_host: 8 });
    for (index, instance) in ids.iter().enumerate() {
        watch(&monitor, *instance, INTERVAL * u32::try_from(index % 300).unwrap() / 300).await;
    }
    tokio::time::sleep(Duration::from_secs(300)).await;
    for id in &ids[300..] {
        let times = ward.times(*id);
        assert!(times.len() >= 9 && gaps(&times).all(|gap| gap <= INTERVAL.mul_f64(1.1)), "{times:?}");
    }
    assert!(ids[..300].iter().all(|id| !ward.times(*id).is_empty()), "and they have their turn too");
    let most = *ward.most.lock().unwrap();
    assert!((17..=24).contains(&most.0) && most.1 == 1, "sixteen hang at a time: {most:?}");
}

/// No herd: those that were registered together do not stay together.
#[tokio::test(start_paused = true)]
async fn what_was_registered_together_is_probed_at_once_and_then_spread() {
    let (ward, ids, monitor, _tasks) = start((0..3_000).map(|index| prompt(index % 500)), LIMITS);
    let began = Instant::now();
    for instance in &ids {
        watch(&monitor, *instance, Duration::ZERO).await;
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(ids.iter().all(|id| !ward.times(*id).is_empty()), "the first time at once");
    assert!(ward.most.lock().unwrap().0 <= 512);
    tokio::time::sleep(Duration::from_secs(120)).await;
    let mut seconds = [0_u32; 121];
    for (_, at, _) in ward.checks.lock().unwrap().iter() {
        seconds[usize::try_from((*at - began).as_secs()).unwrap().min(120)] += 1;
    }
    let most = seconds[60..120].iter().max().unwrap();
    assert!(*most < 250, "about 105 a second, never a herd of 3,000: {seconds:?}");
}

#[tokio::test(start_paused = true)]
async fn a_probe_on_demand_replaces_the_timer() {
    let (ward, ids, monitor, _tasks) = start([prompt(0)], LIMITS);
    watch(&monitor, ids[0], Duration::from_secs(20)).await;
    monitor.tell(Command::Probe(ids[0])).await;
    tokio::time::sleep(Duration::from_secs(25)).await;
    let checks = ward.checks.lock().unwrap();
    assert_eq!(checks.len(), 1, "the first timer is gone");
    assert!(checks[0].2, "it was asked for");
}

#[tokio::test(start_paused = true)]
async fn a_probe_asked_for_during_a_probe_follows_it() {
    let (ward, ids, monitor, _tasks) = start([hanging(0)], LIMITS);
    watch(&monitor, ids[0], Duration::ZERO).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    monitor.tell(Command::Probe(ids[0])).await;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let checks = ward.checks.lock().unwrap();
    assert_eq!(checks.iter().map(|(.., asked)| *asked).collect::<Vec<_>>(), [false, true]);
    assert_eq!((checks[1].1 - checks[0].1).as_millis(), 8_500);
}

#[tokio::test(start_paused = true)]
async fn one_that_waits_for_its_turn_is_probed_once_for_all_who_ask() {
    let (ward, ids, monitor, _tasks) = start([hanging(0), hanging(0)], Limits { all: 1, per_host: 1 });
    watch(&monitor, ids[0], Duration::ZERO).await;
    watch(&monitor, ids[1], Duration::from_secs(1)).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    for _ in 0..3 {
        monitor.tell(Command::Probe(ids[1])).await;
    }
    tokio::time::sleep(Duration::from_secs(9)).await;
    assert_eq!(ward.times(ids[1]).len(), 1);
    assert!(ward.checks.lock().unwrap()[1].2, "and it was asked for");
}

#[tokio::test(start_paused = true)]
async fn a_timer_is_shortened_and_never_prolonged() {
    let (ward, ids, monitor, _tasks) = start([prompt(0)], LIMITS);
    watch(&monitor, ids[0], Duration::from_secs(20)).await;
    for (instance, delay) in [(ids[0], 3), (ids[0], 10), (InstanceId::generate(), 0)] {
        monitor.tell(Command::Within { instance, delay: Duration::from_secs(delay) }).await;
    }
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(ward.times(ids[0]).len(), 1);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(ward.times(ids[0]).len(), 1, "the first timer is gone, and others are not watched");
}

#[tokio::test(start_paused = true)]
async fn an_unwatched_instance_is_left_alone() {
    let (ward, ids, monitor, _tasks) = start([prompt(0), prompt(1)], LIMITS);
    watch(&monitor, ids[0], Duration::from_secs(1)).await;
    watch(&monitor, ids[1], Duration::from_secs(50)).await;
    monitor.tell(Command::Unwatch(ids[0])).await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert!(ward.times(ids[0]).is_empty());
    assert_eq!(monitor.watched(), 1);
}

#[tokio::test(start_paused = true)]
async fn one_that_nobody_knows_is_left_alone_until_it_is_unwatched() {
    let (ward, _, monitor, _tasks) = start([prompt(0)], LIMITS);
    watch(&monitor, InstanceId::generate(), Duration::ZERO).await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(ward.checks.lock().unwrap().is_empty());
    assert_eq!(monitor.watched(), 1);
}
