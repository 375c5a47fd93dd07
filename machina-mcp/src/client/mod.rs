//! Towards MCP servers: child processes, Streamable HTTP, WebSockets and the HTTP +
//! SSE of 2024-11-05, in both eras of the protocol. [`connectors`] gives one [`machina_core::Connector`] for each.
//!
//! The message layer is our own, not rmcp's client, for four reasons that are
//! correctness and not taste: rmcp's typed lists drop unknown fields and fail as
//! a whole over one malformed tool; it does not tell how far a failed request
//! had come; it repeats requests and takes up sessions by itself, where only the
//! retry classifier may repeat; and its wait for a silent older server is fixed
//! and without a way back when the process has ended.

mod child;
mod config;
mod connectors;
mod conversation;
mod definitions;
mod duplex;
mod duplex_connectors;
mod environment;
mod events;
mod group;
pub(crate) mod guard;
mod handshake;
mod http_answer;
mod http_check;
mod http_direct;
mod http_link;
mod http_response;
mod isolation;
mod junk;
pub(crate) mod lines;
mod link;
pub(crate) mod param_headers;
mod pending;
mod pipes;
mod ring;
mod secrets;
mod session;
mod shepherd;
mod shepherd_process;
mod shepherd_program;
mod spawner;
mod sse;
mod sse_link;
mod status;
mod stdio;
mod supervisor;
mod websocket;
mod wire;

pub use config::{ClientConfig, HttpConfig, StdioConfig};
pub use connectors::{HttpConnector, StdioConnector, connectors};
pub use duplex_connectors::{SseConnector, WebSocketConnector};
pub use environment::Environment;
pub use shepherd_process::run_shepherd;
pub use shepherd_program::ShepherdProgram;
