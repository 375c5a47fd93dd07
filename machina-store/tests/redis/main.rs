//! Redis beside a store, against real servers: one that all share
//! (`MACHINA_TEST_REDIS_URL`), and one for each test that kills its own.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod loss;
mod patient;
#[path = "../support/ports.rs"]
mod ports;
mod secrets;
mod server;
#[path = "../support/started.rs"]
mod started;
mod suite;
mod tls;
mod waking;
