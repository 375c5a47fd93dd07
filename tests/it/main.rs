//! The integration tests: rules about the sources, and Machina end to end on
//! servers that are real and misbehave.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "tests of quantities print them")]

mod eras;
mod failover;
mod fixture;
mod fleet;
mod hosts;
mod lifecycle;
mod misbehaviour;
mod peers;
mod serve;
mod tidy;
