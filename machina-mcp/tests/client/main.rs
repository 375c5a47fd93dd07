//! The connectors against real processes and real sockets that misbehave.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod duplex;
mod http;
mod http_faults;
mod http_server;
mod http_support;
mod stdio;
mod stdio_faults;
mod stdio_support;
