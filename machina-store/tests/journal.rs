//! The journal of many services does not grow beyond what is stated: the samples
//! that are kept, and those that came since old ones were removed. The whole day
//! of 10,000 services is `cargo bench -p machina-benches --bench journal`; the same
//! on PostgreSQL is in `postgres/journal.rs`.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

#[path = "support/probes.rs"]
#[allow(dead_code, reason = "it serves other tests, too")]
mod probes;

use std::path::Path;

use self::probes::{INSTANCES, PROBES_BETWEEN, Probes};

/// Removals, each after the probes of ten minutes.
const REMOVALS: u64 = 12;
/// How long a sample is in the file, with its indexes.
const BYTES_OF_SAMPLE: u64 = 450;

fn bytes(directory: &Path) -> u64 {
    std::fs::read_dir(directory).unwrap().map(|file| file.unwrap().metadata().unwrap().len()).sum()
}

#[tokio::test]
async fn the_journal_stays_within_its_stated_size() {
    let directory = tempfile::tempdir().unwrap();
    let backend = machina_store::open(&format!("sqlite:{}", directory.path().join("m.db").display())).await.unwrap();
    let (mut probes, mut most) = (Probes::new(), 0);
    for _ in 0..REMOVALS {
        for _ in 0..PROBES_BETWEEN {
            backend.journal.append(&probes.round()).await.unwrap();
        }
        most = most.max(bytes(directory.path()));
        probes.remove_old(&*backend.journal).await;
    }
    let kept = Probes::kept(&*backend.journal).await;
    let made = INSTANCES * PROBES_BETWEEN * REMOVALS;
    let stated = Probes::at_once() * BYTES_OF_SAMPLE + 8 * 1024 * 1024;
    eprintln!("{made} probes: {kept} samples kept, {most} bytes at most; stated: {stated}");
    assert!(most <= stated, "{most} bytes are more than {stated}");
    backend.store.close().await.unwrap();
}
