//! Wall time, for records only. Everything that waits or measures uses
//! `tokio::time`, which tests can pause; by wall time only the age of what is in the
//! journal is decided.

use jiff::{Timestamp, Unit};

/// The current wall time in UTC, to the millisecond: precise enough for a
/// record, and the same text in every store.
#[allow(clippy::disallowed_methods, reason = "this is the one place that reads the wall clock")]
#[must_use]
pub fn now() -> Timestamp {
    Timestamp::now().round(Unit::Millisecond).unwrap_or(Timestamp::UNIX_EPOCH)
}
