//! Towards MCP hosts: Machina as an MCP server, over stdio and Streamable HTTP,
//! in both eras of the protocol on one endpoint. Five tools reach every tool of
//! every service, so that a host spends few tokens however many there are; in
//! flat mode, each of those tools is listed by itself instead.
//!
//! Like the client's, the message layer is our own: rmcp's typed results drop
//! what they do not know, and a result is carried as the upstream wrote it.
//! Adapters decide nothing: each tool asks the [`Scoped`](machina_core::Scoped)
//! handle once and translates the answer.

mod arguments;
mod changes;
mod config;
mod definitions;
mod errors;
mod exposure;
mod flat;
mod flat_names;
mod gateway;
mod http;
mod http_body;
mod http_headers;
mod http_sessions;
mod in_flight;
mod protocol;
mod resources;
mod rpc;
mod stdio;
mod tools;

pub use config::HttpServerConfig;
pub use exposure::{Exposure, ToolMode, ToolPrefix};
pub use http::{StreamableHttp, streamable_http};
pub use http_body::AnswerBody;
pub use stdio::{serve_io, serve_stdio};
