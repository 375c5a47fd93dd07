//! Routing: which instance takes a call, and what happens when it fails.

mod balance;
mod call;
mod classify;
mod eligible;

pub(crate) use balance::Ewma;
pub use balance::{Balancer, CallKey, Candidate, PeakEwma, RoundRobin};
pub use call::{Attempt, CallOptions, CallReport};
pub(crate) use call::{Route, call};
pub use classify::{Decision, Failure, decide};
pub(crate) use eligible::explain;
pub use eligible::{Candidacy, Explanation, Standing};
