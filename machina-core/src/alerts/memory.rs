//! What channels were told, across the end of the process: each delivered
//! message is in the journal, and the last ones are read at the start.
//!
//! Refuses to promise more than that: a message that was on its way when the
//! process ended is sent again, and so is what lies further back than is read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::alert::{Alert, AlertKey};
use super::message::AlertMessageKind;
use crate::error::Result;
use crate::store::{Entry, EntryKind, Journal, JournalQuery, What};

/// How many entries are read, in pages of this length.
const PAGES_MAX: usize = 5;
const PAGE: u32 = 1000;

/// How far back is read.
const SINCE: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What each channel was told last, and what is not over as far as it knows.
pub(super) type Recalled = BTreeMap<String, Vec<Arc<Alert>>>;

/// The entry that says that a channel was told.
pub(super) fn entry(at: Timestamp, channel: &str, message: AlertMessageKind, alert: &Alert) -> Entry {
    let (service, instance) = (alert.service.clone(), alert.instance);
    let what = What::Alert { channel: channel.to_owned(), message, alert: Box::new(alert.clone()) };
    Entry { at, service, instance, what }
}

/// Reads what channels were told.
pub(super) async fn recall(journal: &dyn Journal, now: Timestamp) -> Result<Recalled> {
    let since = now.checked_sub(SINCE).ok();
    let mut query = JournalQuery { since, limit: PAGE, ..JournalQuery::of(EntryKind::Alert) };
    let (mut recalled, mut known) = (Recalled::new(), BTreeSet::new());
    for _ in 0..PAGES_MAX {
        let page = journal.read(&query).await?;
        page.entries.into_iter().for_each(|entry| take(entry, &mut recalled, &mut known));
        query.before = page.next;
        if query.before.is_none() {
            break;
        }
    }
    Ok(recalled)
}

/// The newest entry about an alert says how it is.
fn take(entry: Entry, recalled: &mut Recalled, known: &mut BTreeSet<(String, AlertKey)>) {
    let What::Alert { channel, message, alert } = entry.what else { return };
    let fires = message != AlertMessageKind::Resolved && alert.rule.lasts();
    if known.insert((channel.clone(), alert.key())) && fires {
        recalled.entry(channel).or_default().push(Arc::new(*alert));
    }
}

/// Every alert that some channel knows of, as the one that knows most.
pub(super) fn firing(recalled: &Recalled) -> impl Iterator<Item = Alert> {
    let mut firing: BTreeMap<AlertKey, &Arc<Alert>> = BTreeMap::new();
    for alert in recalled.values().flatten() {
        let known = firing.entry(alert.key()).or_insert(alert);
        if (known.fired_at, known.level) < (alert.fired_at, alert.level) {
            *known = alert;
        }
    }
    firing.into_values().map(|alert| Alert::clone(alert))
}
