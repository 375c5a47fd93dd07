//! The binary `machina`, run as a person or a script runs it, with a small real
//! MCP server behind it.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod alerts;
mod egress;
mod follow;
mod foreign;
mod mcp;
#[path = "../support/ports.rs"]
mod ports;
mod registry;
mod server;
mod settings;
mod store;
mod stores;
mod upstream;
mod world;
