use std::sync::Mutex;

use super::*;

/// Notes when each instance was checked; one of them never answers.
#[derive(Debug, Default)]
struct Ward {
    checks: Mutex<Vec<(InstanceId, Instant)>>,
    hangs: Option<InstanceId>,
}

#[async_trait::async_trait]
impl Patient for Ward {
    async fn check(&self, instance: InstanceId) -> Option<Duration> {
        self.checks.lock().unwrap().push((instance, Instant::now()));
        if self.hangs == Some(instance) {
            std::future::pending::<()>().await;
        }
        Some(Duration::from_secs(30))
    }

    async fn notice(&self, _: InstanceId, _: Notice) {}
}

fn start(hangs: Option<InstanceId>) -> (Arc<Ward>, Monitor, Tasks) {
    let ward = Arc::new(Ward { hangs, ..Ward::default() });
    let (monitor, commands) = Monitor::new();
    let (_, notices) = Monitor::notices();
    let tasks = Tasks::new();
    tasks.spawn("monitor", run(ward.clone(), monitor.clone(), commands, notices, 512, tasks.clone()));
    (ward, monitor, tasks)
}

impl Ward {
    fn times(&self, instance: InstanceId) -> Vec<Instant> {
        self.checks.lock().unwrap().iter().filter(|(id, _)| *id == instance).map(|(_, at)| *at).collect()
    }
}

#[tokio::test(start_paused = true)]
async fn every_instance_is_checked_once_per_interval_though_one_hangs() {
    let ids: Vec<_> = (0..20).map(|_| InstanceId::generate()).collect();
    let (ward, monitor, _tasks) = start(Some(ids[0]));
    for instance in &ids {
        monitor.tell(Command::Watch { instance: *instance, delay: Duration::ZERO }).await;
    }
    tokio::time::sleep(Duration::from_secs(301)).await;
    assert_eq!(ward.times(ids[0]).len(), 1);
    for id in &ids[1..] {
        let times = ward.times(*id);
        assert!((10..=12).contains(&times.len()), "{}", times.len());
        for pair in times.windows(2) {
            let gap = pair[1] - pair[0];
            assert!(gap >= Duration::from_secs(27) && gap <= Duration::from_millis(30_010), "{gap:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_probe_on_demand_replaces_the_timer() {
    let id = InstanceId::generate();
    let (ward, monitor, _tasks) = start(None);
    monitor.tell(Command::Watch { instance: id, delay: Duration::from_secs(20) }).await;
    monitor.tell(Command::Probe(id)).await;
    tokio::time::sleep(Duration::from_secs(25)).await;
    assert_eq!(ward.times(id).len(), 1, "the first timer is gone");
}

#[tokio::test(start_paused = true)]
async fn a_probe_asked_for_during_a_probe_follows_it() {
    let id = InstanceId::generate();
    let (ward, monitor, _tasks) = start(Some(id));
    monitor.tell(Command::Watch { instance: id, delay: Duration::ZERO }).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    monitor.tell(Command::Probe(id)).await;
    monitor.tell(Command::Done { instance: id, delay: Some(Duration::from_secs(30)) }).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(ward.times(id).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_timer_is_shortened_and_never_prolonged() {
    let id = InstanceId::generate();
    let (ward, monitor, _tasks) = start(None);
    monitor.tell(Command::Watch { instance: id, delay: Duration::from_secs(20) }).await;
    monitor.tell(Command::Within { instance: id, delay: Duration::from_secs(3) }).await;
    monitor.tell(Command::Within { instance: id, delay: Duration::from_secs(10) }).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(ward.times(id).len(), 1);
    monitor.tell(Command::Within { instance: InstanceId::generate(), delay: Duration::ZERO }).await;
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert_eq!(ward.times(id).len(), 1, "the first timer is gone, and others are not watched");
}

#[tokio::test(start_paused = true)]
async fn an_unwatched_instance_is_left_alone() {
    let id = InstanceId::generate();
    let (ward, monitor, _tasks) = start(None);
    monitor.tell(Command::Watch { instance: id, delay: Duration::from_secs(1) }).await;
    monitor.tell(Command::Unwatch(id)).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(ward.times(id).is_empty());
}
