//! The journal of many services does not grow beyond what is stated: the samples
//! that are kept, and those that came since old ones were removed. The whole day
//! of 10,000 services is `cargo bench -p machina-benches --bench journal`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::path::Path;
use std::time::Duration;

use machina_core::{Entry, EntryKind, InstanceId, JournalConfig, JournalQuery, Timestamp, What};

const INSTANCES: u64 = 500;
/// Removals, each after the probes of ten minutes at one in 30 s.
const REMOVALS: u64 = 12;
const PROBES_BETWEEN: u64 = 20;
/// How long a sample is in the file, with its indexes.
const BYTES_OF_SAMPLE: u64 = 450;

fn bytes(directory: &Path) -> u64 {
    std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

#[tokio::test]
async fn the_journal_stays_within_its_stated_size() {
    let directory = tempfile::tempdir().unwrap();
    let backend = machina_store::open(&format!("sqlite:{}", directory.path().join("m.db").display())).await.unwrap();
    let config = JournalConfig { samples_max: INSTANCES * 20, ..JournalConfig::default() };
    let instances: Vec<InstanceId> = (0..INSTANCES).map(|_| InstanceId::generate()).collect();
    let mut now = Timestamp::from_second(1_750_000_000).unwrap();
    let mut most = 0;
    for _ in 0..REMOVALS {
        for _ in 0..PROBES_BETWEEN {
            let sample = |(number, instance): (usize, &InstanceId)| Entry {
                at: now,
                service: Some(format!("service-{number:05}").parse().unwrap()),
                instance: Some(*instance),
                what: What::Sample { outcome: "pass".to_owned(), response_time_ms: Some(12.3456), error: None },
            };
            let entries: Vec<Entry> = instances.iter().enumerate().map(sample).collect();
            backend.journal.append(&entries).await.unwrap();
            now += Duration::from_secs(30);
        }
        most = most.max(bytes(directory.path()));
        backend.journal.trim(EntryKind::Sample, config.retention(EntryKind::Sample, INSTANCES, now)).await.unwrap();
    }
    let query = JournalQuery { limit: 1_000_000, ..JournalQuery::of(EntryKind::Sample) };
    let kept = backend.journal.read(&query).await.unwrap().entries;
    assert_eq!(kept.len() as u64, INSTANCES * 20, "each instance has its share");
    let probes = INSTANCES * PROBES_BETWEEN * REMOVALS;
    let at_once = INSTANCES * (20 + PROBES_BETWEEN);
    let stated = at_once * BYTES_OF_SAMPLE + 8 * 1024 * 1024;
    eprintln!("{probes} probes: {} samples kept, {most} bytes at most; stated: {stated}", kept.len());
    assert!(most <= stated, "{most} bytes are more than {stated}");
    backend.store.close().await.unwrap();
}
