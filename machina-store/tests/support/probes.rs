//! The probes of many instances, as they come to a journal.

use std::time::Duration;

use machina_core::{Entry, EntryKind, InstanceId, Journal, JournalConfig, JournalQuery, Timestamp, What};

pub(crate) const INSTANCES: u64 = 500;
/// Rounds of probes between removals: ten minutes at one in 30 s.
pub(crate) const PROBES_BETWEEN: u64 = 20;
/// How many samples of each instance are kept.
const SHARE: u64 = 20;

pub(crate) struct Probes {
    config: JournalConfig,
    instances: Vec<InstanceId>,
    now: Timestamp,
}

impl Probes {
    pub(crate) fn new() -> Self {
        Self {
            config: JournalConfig { samples_max: INSTANCES * SHARE, ..JournalConfig::default() },
            instances: (0..INSTANCES).map(|_| InstanceId::generate()).collect(),
            now: Timestamp::from_second(1_750_000_000).unwrap(),
        }
    }

    fn entry(&self, number: usize, what: What) -> Entry {
        let service = Some(format!("service-{number:05}").parse().unwrap());
        Entry { at: self.now, service, instance: Some(self.instances[number]), what }
    }

    /// A sample of each instance.
    pub(crate) fn round(&mut self) -> Vec<Entry> {
        let sample = || What::Sample { outcome: "pass".to_owned(), response_time_ms: Some(12.3456), error: None };
        let entries = (0..self.instances.len()).map(|number| self.entry(number, sample())).collect();
        self.now += Duration::from_secs(30);
        entries
    }

    /// Something that is kept for longer.
    pub(crate) fn transition(&self) -> Entry {
        let [from, to, reason] = ["healthy", "suspect", "it timed out"].map(str::to_owned);
        self.entry(0, What::Transition { from, to, reason })
    }

    /// Removes what is too much.
    pub(crate) async fn remove_old(&self, journal: &dyn Journal) {
        let retention = self.config.retention(EntryKind::Sample, INSTANCES, self.now);
        journal.trim(EntryKind::Sample, retention).await.unwrap();
    }

    /// How many samples are kept: of each instance its share.
    pub(crate) async fn kept(journal: &dyn Journal) -> u64 {
        let query = JournalQuery { limit: 1_000_000, ..JournalQuery::of(EntryKind::Sample) };
        let kept = journal.read(&query).await.unwrap().entries.len() as u64;
        assert_eq!(kept, INSTANCES * SHARE, "each instance has its share");
        kept
    }

    /// The most samples that there are at once.
    pub(crate) const fn at_once() -> u64 {
        INSTANCES * (SHARE + PROBES_BETWEEN)
    }
}
