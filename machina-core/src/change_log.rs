//! The latest changes of a store, in memory and bounded: what a store that
//! lives in one process answers [`Store::changes`](crate::Store::changes) from.
//! It never answers with a gap: where it does not know, it says reload.

use std::collections::VecDeque;

use crate::model::Revision;
use crate::store::{Change, Changes};

/// The latest changes, whole batches only.
#[derive(Debug)]
pub struct ChangeLog {
    /// Every change after this revision is here.
    floor: Revision,
    latest: Revision,
    changes: VecDeque<(Revision, Change)>,
    changes_max: usize,
}

impl ChangeLog {
    /// How many changes Machina's own stores remember.
    pub const CHANGES_MAX: usize = 1024;

    /// An empty log for a store that stands at `revision`, which will remember
    /// at most `changes_max` changes.
    #[must_use]
    pub const fn new(revision: Revision, changes_max: usize) -> Self {
        Self { floor: revision, latest: revision, changes: VecDeque::new(), changes_max }
    }

    /// The last revision that was recorded.
    #[must_use]
    pub const fn latest(&self) -> Revision {
        self.latest
    }

    /// Records the changes that were committed as `revision`. A revision that
    /// does not follow the last one empties the log first.
    pub fn record(&mut self, revision: Revision, changes: impl IntoIterator<Item = Change>) {
        if revision != self.latest.next() {
            self.changes.clear();
            self.floor = Revision(revision.0.saturating_sub(1));
        }
        self.latest = revision;
        self.changes.extend(changes.into_iter().map(|change| (revision, change)));
        while self.changes.len() > self.changes_max {
            if let Some((forgotten, _)) = self.changes.pop_front() {
                self.floor = forgotten;
            }
        }
        while self.changes.front().is_some_and(|(revision, _)| *revision <= self.floor) {
            self.changes.pop_front();
        }
    }

    /// What was committed after `after`, or that it is no longer (or not yet) known.
    #[must_use]
    pub fn after(&self, after: Revision) -> Changes {
        if after < self.floor || after > self.latest {
            return Changes::Reload;
        }
        let first = self.changes.partition_point(|(revision, _)| *revision <= after);
        Changes::Tail(self.changes.range(first..).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{ServiceId, ServiceName};

    fn change() -> Change {
        Change::DeleteService { id: ServiceId::generate(), name: ServiceName::new("a").unwrap() }
    }

    fn revisions(changes: Changes) -> Option<Vec<u64>> {
        match changes {
            Changes::Tail(tail) => Some(tail.iter().map(|(revision, _)| revision.0).collect()),
            Changes::Reload => None,
        }
    }

    #[test]
    fn a_batch_is_remembered_whole_or_not_at_all() {
        let mut log = ChangeLog::new(Revision(10), 3);
        log.record(Revision(11), [change(), change()]);
        log.record(Revision(12), [change()]);
        assert_eq!(revisions(log.after(Revision(10))), Some(vec![11, 11, 12]));
        log.record(Revision(13), [change()]);
        assert_eq!(revisions(log.after(Revision(10))), None);
        assert_eq!(revisions(log.after(Revision(11))), Some(vec![12, 13]));
        assert_eq!(revisions(log.after(Revision(13))), Some(vec![]));
    }

    #[test]
    fn what_it_does_not_know_is_a_reload() {
        let mut log = ChangeLog::new(Revision(10), 3);
        assert_eq!(revisions(log.after(Revision(9))), None);
        assert_eq!(revisions(log.after(Revision(11))), None);
        log.record(Revision(11), [change()]);
        log.record(Revision(13), [change()]);
        assert_eq!(revisions(log.after(Revision(11))), None);
        assert_eq!(revisions(log.after(Revision(12))), Some(vec![13]));
        assert_eq!(log.latest(), Revision(13));
    }
}
