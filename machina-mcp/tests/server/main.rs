//! Machina as an MCP server in front of hosts that no one here wrote, and of bare
//! ones that see every byte.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod carried;
mod first_list;
mod flat;
mod groups;
mod host;
mod http;
mod library;
mod logs;
mod passthrough;
mod served;
mod stdio;
mod streams;
mod upstream;
mod websocket;
