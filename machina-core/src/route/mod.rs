//! Routing: which instance takes a call, and what happens when it fails.

mod affinity;
mod attempt;
mod balance;
mod breaker;
mod budget;
mod cache;
mod call;
mod cell;
mod classify;
mod eligible;
mod explain;
mod hedging;
mod latency;
mod limits;
mod options;
mod outbound;
mod race;
mod report;
mod traffic;
mod waiting;

pub use balance::{Balancer, CallKey, Candidate, LeastOutstanding, PeakEwma, RoundRobin, WeightedRandom};
pub use breaker::BreakerState;
pub(crate) use cache::Recall;
pub(crate) use call::{Carried, Route, carry};
pub(crate) use cell::RouteCell;
pub use classify::{Decision, Failure, decide};
pub use eligible::{Locality, Standing};
pub(crate) use explain::explain;
pub use explain::{Candidacy, Explanation};
pub use options::CallOptions;
pub use outbound::UpstreamRequest;
pub use report::{Attempt, CallReport};
pub(crate) use traffic::Traffic;
