use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::config::Config;
use crate::error::Error;
use crate::health::{HealthState, Status};
use crate::machina::Machina;
use crate::memory::MemoryStore;
use crate::model::ServiceSpec;
use crate::store::{Backend, JournalPage, JournalQuery, What};
use crate::testing::registry_suite::{service, settle};
use crate::testing::{SimConnector, answered_call};

/// A journal that is away for so many appends, and takes nothing that is `bad`.
#[derive(Debug, Default)]
struct Faulty {
    store: Arc<MemoryStore>,
    away: AtomicU64,
    appended: Mutex<Vec<usize>>,
}

#[async_trait]
impl Journal for Faulty {
    async fn append(&self, entries: &[Entry]) -> Result<()> {
        let away = self.away.load(Ordering::SeqCst);
        if away > 0 {
            self.away.store(away - 1, Ordering::SeqCst);
            return Err(Error::unavailable("the store is away"));
        }
        if entries.iter().any(|entry| matches!(&entry.what, What::Call { tool, .. } if tool == "bad")) {
            return Err(Error::internal("the store takes no such entry"));
        }
        self.appended.lock().unwrap().push(entries.len());
        self.store.append(entries).await
    }

    async fn read(&self, query: &JournalQuery) -> Result<JournalPage> {
        self.store.read(query).await
    }

    async fn trim(&self, kind: EntryKind, retention: Retention) -> Result<u64> {
        Journal::trim(&*self.store, kind, retention).await
    }
}

fn call(tool: &str) -> Entry {
    Entry { at: clock::now(), service: None, instance: None, what: answered_call(tool, "alice") }
}

fn config(queue_max: u32) -> JournalConfig {
    JournalConfig { queue_max, ..JournalConfig::default() }
}

/// The tools of all calls that were written, oldest first.
async fn written(journal: &Faulty) -> Vec<String> {
    let query = JournalQuery { limit: 10_000, ..JournalQuery::of(EntryKind::Call) };
    let entries = journal.read(&query).await.unwrap().entries.into_iter().rev();
    let tool = |entry: Entry| match entry.what {
        What::Call { tool, .. } => tool,
        other => panic!("{other:?}"),
    };
    entries.map(tool).collect()
}

/// Records these calls, and writes until all are written or given up.
async fn write_all(journal: &Arc<Faulty>, tools: &[String]) -> u64 {
    let (recorder, queue) = Recorder::new(&config(10_000));
    tools.iter().for_each(|tool| recorder.record(call(tool)));
    let dropped = Arc::clone(&recorder.dropped);
    drop(recorder);
    write(queue, Arc::clone(journal) as Arc<dyn Journal>).await;
    dropped.load(Ordering::Relaxed)
}

#[tokio::test(start_paused = true)]
async fn what_there_is_no_room_for_is_dropped_and_counted() {
    let (recorder, queue) = Recorder::new(&config(3));
    (0..5).for_each(|number| recorder.record(call(&format!("t{number}"))));
    assert_eq!(recorder.dropped(), 2);
    drop(recorder);
    let journal = Arc::new(Faulty::default());
    write(queue, Arc::clone(&journal) as Arc<dyn Journal>).await;
    assert_eq!(written(&journal).await, ["t0", "t1", "t2"]);
}

#[tokio::test(start_paused = true)]
async fn entries_wait_for_a_store_that_is_away() {
    let journal = Arc::new(Faulty { away: AtomicU64::new(20), ..Faulty::default() });
    let tools: Vec<String> = (0..50).map(|number| format!("t{number}")).collect();
    assert_eq!(write_all(&journal, &tools).await, 0);
    assert_eq!(written(&journal).await, tools);
}

#[tokio::test(start_paused = true)]
async fn an_entry_that_is_not_taken_costs_no_other() {
    let journal = Arc::new(Faulty::default());
    let mut tools: Vec<String> = (0..700).map(|number| format!("t{number}")).collect();
    tools[123] = "bad".to_owned();
    tools[699] = "bad".to_owned();
    assert_eq!(write_all(&journal, &tools).await, 2);
    tools.retain(|tool| tool != "bad");
    assert_eq!(written(&journal).await, tools);
}

#[tokio::test(start_paused = true)]
async fn batches_are_bounded_and_full_ones_follow_at_once() {
    let journal = Arc::new(Faulty::default());
    let tools: Vec<String> = (0..2500).map(|number| format!("t{number}")).collect();
    let began = tokio::time::Instant::now();
    write_all(&journal, &tools).await;
    assert_eq!(*journal.appended.lock().unwrap(), [BATCH_MAX, BATCH_MAX, 500]);
    assert!(began.elapsed() <= GATHER, "{:?}", began.elapsed());
}

#[tokio::test(start_paused = true)]
async fn audit_entries_are_never_dropped() {
    let store = Arc::new(MemoryStore::new());
    let journal = Arc::new(Faulty { store: Arc::clone(&store), away: AtomicU64::new(u64::MAX), ..Faulty::default() });
    let backend =
        Backend { store, journal: Arc::clone(&journal) as Arc<dyn Journal>, ..Backend::of(MemoryStore::new()) };
    let registry = Machina::builder().config(Config { journal: config(1), ..Config::default() }).backend(backend);
    let registry = registry.without_monitor().open().await.unwrap();
    for number in 0..40 {
        registry.system().core.recorder.record(call("t"));
        registry.register(ServiceSpec::new(&format!("s{number}")).unwrap()).await.unwrap();
    }
    assert!(registry.dropped_journal_entries() > 0, "the queue of one entry was never full");
    let audit = registry.journal(&JournalQuery::of(EntryKind::Audit)).await.unwrap();
    assert_eq!(audit.entries.len(), 40);
}

#[tokio::test(start_paused = true)]
async fn many_entries_of_one_origin_leave_room_for_others() {
    let journal = Arc::new(Faulty { away: AtomicU64::new(3), ..Faulty::default() });
    let (recorder, queue) = Recorder::new(&config(40));
    let many: Vec<Entry> = (0..1000).map(|number| call(&format!("m{number}"))).collect();
    let writing = write(queue, Arc::clone(&journal) as Arc<dyn Journal>);
    let recording = async {
        let recorder = recorder;
        let others = async {
            for number in 0..100 {
                recorder.record(call(&format!("o{number}")));
                tokio::time::sleep(GATHER).await;
            }
        };
        tokio::join!(recorder.record_all(many), others);
        assert_eq!(recorder.dropped(), 0);
    };
    tokio::join!(writing, recording);
    let of = |all: &[String], origin: char| all.iter().filter(|tool| tool.starts_with(origin)).count();
    let all = written(&journal).await;
    assert_eq!((of(&all, 'm'), of(&all, 'o')), (1000, 100));
}

#[tokio::test(start_paused = true)]
async fn a_registry_that_closes_says_so_of_every_instance() {
    let sim = SimConnector::default();
    let store = Arc::new(MemoryStore::new());
    let backend = Backend { journal: store.clone(), ..Backend::of(MemoryStore::new()) };
    let registry = Machina::builder().config(Config { journal: config(8), ..Config::default() }).backend(backend);
    let registry = registry.connector(Arc::new(sim.clone())).open().await.unwrap();
    let instances: Vec<_> = (0..50).map(|number| sim.instance(&format!("i{number}"))).collect();
    registry.register(service("a", &instances.iter().collect::<Vec<_>>())).await.unwrap();
    settle(&registry, "a", Status::Healthy).await;
    while registry.get("a").unwrap().instances().any(|(_, seen)| seen.health.state != HealthState::Healthy) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    registry.close().await;
    let count = async |kind| {
        let page = store.read(&JournalQuery { limit: 1000, ..JournalQuery::of(kind) }).await.unwrap();
        let closed =
            |entry: &&Entry| matches!(&entry.what, What::Transition { reason, .. } if reason.ends_with("closed"));
        match kind {
            EntryKind::Transition => page.entries.iter().filter(closed).count(),
            _ => page.entries.len(),
        }
    };
    assert_eq!((count(EntryKind::Transition).await, count(EntryKind::Rollup).await), (50, 50));
}

#[test]
fn instances_share_the_samples_that_are_kept() {
    let now = clock::now();
    let config = JournalConfig::default();
    let samples = |instances| config.retention(EntryKind::Sample, instances, now);
    assert_eq!(samples(10_000).count_max, 100);
    assert_eq!(samples(1_000_000).count_max, SAMPLES_LEAST);
    assert_eq!(samples(0).count_max, config.entries_max);
    assert_eq!(samples(1).before, now - config.keep_samples);
    let transitions = config.retention(EntryKind::Transition, 10_000, now);
    assert_eq!((transitions.before, transitions.count_max), (now - config.keep, config.entries_max));
}
