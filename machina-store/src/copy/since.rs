//! What was changed in the source after the target was copied from it. Every change of a
//! service or a group has an audit entry in its own transaction. So a target whose newest
//! one is in the source has nothing of its own, and what the source has later ones of is
//! newer there.

use std::collections::HashSet;

use machina_core::{Backend, Entry, EntryKind, JournalQuery, Result, ServiceName, What};
use serde_json::Value;

use super::content;

/// How many entries are read at once.
const PAGE: u32 = 1000;

/// What of the target gives way to what the source has.
#[derive(Debug, Default)]
pub(super) struct Since {
    everything: bool,
    services: HashSet<ServiceName>,
    groups: HashSet<String>,
}

impl Since {
    /// Whatever is in the way is to be replaced.
    pub(super) fn everything() -> Self {
        Self { everything: true, ..Self::default() }
    }

    /// Looks through the audit entries of the source for the newest of the target.
    pub(super) async fn read(from: &Backend, to: &Backend) -> Result<Self> {
        let query = JournalQuery { limit: 1, ..JournalQuery::of(EntryKind::Audit) };
        let Some(newest) = to.journal.read(&query).await?.entries.pop() else { return Ok(Self::default()) };
        let (mut since, mut query) = (Self::default(), JournalQuery { limit: PAGE, ..query });
        loop {
            let page = from.journal.read(&query).await?;
            for entry in page.entries {
                if content::is_same_entry(&entry, &newest)? {
                    return Ok(since);
                }
                since.add(entry);
            }
            query.before = page.next;
            if query.before.is_none() {
                return Ok(Self::default());
            }
        }
    }

    fn add(&mut self, entry: Entry) {
        self.services.extend(entry.service);
        if let What::Audit { detail, .. } = entry.what
            && let Some(group) = detail.get("group").and_then(Value::as_str)
        {
            self.groups.insert(group.to_owned());
        }
    }

    pub(super) fn has_service(&self, name: &ServiceName) -> bool {
        self.everything || self.services.contains(name)
    }

    pub(super) fn has_group(&self, name: &str) -> bool {
        self.everything || self.groups.contains(name)
    }
}
