//! The rows of the table that a simulation gives, each by its name.

mod detection;
mod load;
mod losses;
mod outages;
mod profiles;
mod start;
mod traffic;

use std::time::Duration;

use super::Row;

/// How much is simulated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// Seconds, even without optimisation.
    Short,
    /// As much as the table asks for.
    Long,
}

impl Size {
    pub(super) const fn of<T: Copy>(self, short: T, long: T) -> T {
        match self {
            Self::Short => short,
            Self::Long => long,
        }
    }
}

type Measure = fn(u64, Size) -> Vec<Row>;

/// Each row, or part of one after a dash, and what measures it.
pub const ROWS: [(&str, Measure); 17] = [
    ("T1", losses::scattered),
    ("T2", losses::bursts),
    ("T3", outages::outage),
    ("T4", outages::stall),
    ("T5", detection::killed),
    ("T6", detection::black_holes),
    ("T7", detection::wedged),
    ("T8", detection::alive),
    ("T9-P1", profiles::accuracy::<0>),
    ("T9-P2", profiles::accuracy::<1>),
    ("T9-P3", profiles::accuracy::<2>),
    ("T9-P4", profiles::accuracy::<3>),
    ("T11", traffic::fails_fast),
    ("T12", traffic::grey),
    ("T15", load::all_down),
    ("T16", load::overload),
    ("T24", start::herd),
];

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
