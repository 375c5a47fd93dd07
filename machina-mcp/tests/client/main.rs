//! The connectors against real processes and real sockets that misbehave.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]
#![allow(clippy::print_stdout, reason = "tests of quantities print them")]

mod duplex;
mod http;
mod http_faults;
mod http_server;
mod http_support;
mod ports;
mod reach;
mod stdio;
mod stdio_ends;
mod stdio_faults;
mod stdio_floods;
mod stdio_support;
