//! What the probes of each instance came to over a day goes into the journal at
//! midnight UTC, and when the instance or the registry goes: samples are kept for
//! a day or so, roll-ups as long as transitions. After a crash those of the day
//! are missing; that an instance was up or down is in the transitions anyway.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::cell::Cell;
use crate::clock;
use crate::core::Core;
use crate::model::{InstanceId, ServiceName};
use crate::statistics::Tallied;
use crate::store::{Entry, What};
use crate::view::View;

/// How long the clock may have been changed unnoticed.
const LOOK_EVERY: Duration = Duration::from_secs(600);

impl Core {
    /// Rolls every instance up at each midnight UTC; runs until cancelled.
    pub(crate) async fn roll_up_daily(self: Arc<Self>) {
        let mut day = day_of(clock::now());
        loop {
            let now = clock::now();
            if day_of(now) != day {
                day = day_of(now);
                let cells = cells(&self.view()).into_iter();
                let roll_ups = cells.filter_map(move |(name, instance, cell)| roll_up(&name, instance, &cell, now));
                self.recorder.record_all(roll_ups).await;
            }
            tokio::time::sleep(until_midnight(now).min(LOOK_EVERY)).await;
        }
    }
}

fn cells(view: &View) -> Vec<(ServiceName, InstanceId, Arc<Cell>)> {
    let mut cells = Vec::new();
    for service in view.services() {
        let name = service.service().name();
        cells.extend(service.instances().map(|(one, seen)| (name.clone(), one.id, Arc::clone(&seen.cell))));
    }
    cells
}

/// What the probes of an instance came to until `now`, since that was last asked; `None`
/// if there was none.
pub(crate) fn roll_up(service: &ServiceName, instance: InstanceId, cell: &Cell, now: Timestamp) -> Option<Entry> {
    let tallied = cell.statistics.tally.take();
    let passes = tallied.passes();
    if passes + tallied.failures == 0 {
        return None;
    }
    let Tallied { failures, durations } = tallied;
    // What midnight ends belongs to the day before.
    let since = start_of_day(now.checked_sub(Duration::from_secs(1)).unwrap_or(now));
    Some(Entry {
        at: now,
        service: Some(service.clone()),
        instance: Some(instance),
        what: What::Rollup { since, passes, failures, durations },
    })
}

const DAY_SECONDS: i64 = 24 * 3600;

fn day_of(at: Timestamp) -> i64 {
    at.as_second().div_euclid(DAY_SECONDS)
}

fn start_of_day(at: Timestamp) -> Timestamp {
    Timestamp::from_second(day_of(at) * DAY_SECONDS).unwrap_or(at)
}

fn until_midnight(now: Timestamp) -> Duration {
    let left = (day_of(now) + 1) * DAY_SECONDS - now.as_second();
    Duration::from_secs(left.unsigned_abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_day_begins_and_ends_at_midnight_utc() {
        let late = at("2026-11-21T23:59:30Z");
        assert_eq!(until_midnight(late), Duration::from_secs(30));
        assert_eq!(start_of_day(late), at("2026-11-21T00:00:00Z"));
        assert_eq!(until_midnight(at("2026-11-21T00:00:00Z")), Duration::from_secs(24 * 3600));
        assert_ne!(day_of(late), day_of(at("2026-11-22T00:00:00Z")));
    }
}
