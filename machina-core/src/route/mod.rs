//! Routing: which instance takes a call, and what happens when it fails.

mod balance;
mod call;
mod classify;
mod eligible;
mod options;
mod outbound;
mod report;

pub(crate) use balance::Ewma;
pub use balance::{Balancer, CallKey, Candidate, PeakEwma, RoundRobin};
pub(crate) use call::{Carried, Route, carry};
pub use classify::{Decision, Failure, decide};
pub(crate) use eligible::explain;
pub use eligible::{Candidacy, Explanation, Standing};
pub use options::CallOptions;
pub use outbound::UpstreamRequest;
pub use report::{Attempt, CallReport};
