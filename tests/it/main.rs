//! The integration tests: rules about the sources, and Machina end to end on
//! servers that are real and misbehave.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "tests of quantities print them")]

mod builtin;
mod canary;
mod cut;
mod endure;
mod eras;
mod failover;
mod farm;
mod fixture;
mod fleet;
mod hosts;
mod isolation;
mod kill;
mod lifecycle;
mod misbehaviour;
mod orphans;
mod peers;
mod replicas;
mod scenarios;
mod serve;
#[cfg(feature = "simulation")]
mod simulation;
mod supervision;
mod tidy;
