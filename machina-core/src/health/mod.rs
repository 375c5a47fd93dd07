//! Health: what is known about each instance, and why.

mod check;
mod monitor;
mod probe;
mod state;
mod uptime;

pub(crate) use check::SessionProber;
pub(crate) use monitor::{Command, Monitor, Patient, run};
pub use probe::{Observation, ProbeOutcome, Prober};
pub(crate) use state::{Effects, HealthEvent, Machine, probe_delay, step};
pub use state::{Evidence, Health, HealthParameters, HealthState, Reason, ReasonCode, Status};
pub(crate) use uptime::Uptime;
