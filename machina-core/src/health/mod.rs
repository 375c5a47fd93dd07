//! Health: what is known about each instance, and why.

mod check;
#[cfg(test)]
mod detection_tests;
mod faults;
mod flaps;
mod guard;
mod lag;
#[cfg(test)]
mod levels_tests;
mod monitor;
mod phase;
mod preservation;
mod probe;
mod prober;
mod recording;
mod reported;
mod restart;
mod schedule;
mod slow_start;
mod state;
mod turns;
mod uptime;
#[cfg(test)]
mod ward;

pub(crate) use guard::Guard;
pub(crate) use monitor::{Command, Inbox, Monitor, Patient, run};
pub use probe::{Observation, ProbeOutcome, ProbePlan, Prober};
pub(crate) use prober::{CALLS_PATIENCE, SessionProber};
pub use reported::{Health, HealthState, Reason, ReasonCode, Status};
pub(crate) use restart::{CrashLoop, Restarts};
pub(crate) use slow_start::SlowStart;
pub use state::Evidence;
pub(crate) use state::{Effects, HealthEvent, Machine, Told, probe_delay, step};
pub(crate) use turns::Limits;
pub(crate) use uptime::Uptime;
