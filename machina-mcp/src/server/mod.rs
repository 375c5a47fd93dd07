//! Towards MCP hosts: Machina as an MCP server, over stdio, Streamable HTTP
//! and WebSockets, in both eras of the protocol on one endpoint. Five tools reach every tool of
//! every service, so that a host spends few tokens however many there are; in
//! flat mode, each of those tools is listed by itself instead.
//!
//! Like the client's, the message layer is our own: rmcp's typed results drop
//! what they do not know, and a result is carried as the upstream wrote it.
//! Adapters decide nothing: each tool asks the [`Scoped`](machina_core::Scoped)
//! handle once and translates the answer.

mod aliases;
mod arguments;
mod audience;
mod changes;
mod config;
mod connection;
mod definitions;
mod documents;
mod errors;
mod exposure;
mod first_list;
mod flat;
mod flat_names;
mod gateway;
mod http;
mod http_body;
mod http_cors;
mod http_headers;
mod http_params;
mod http_post;
mod http_refusal;
mod http_sessions;
mod http_stream;
mod in_flight;
mod listing;
mod logging;
mod offer;
mod prompts;
mod protocol;
mod published;
mod requests;
mod resources;
mod rpc;
mod socket;
mod stdio;
mod subscriptions;
mod tools;
mod upstream;
mod uris;
mod websocket;

pub use config::HttpServerConfig;
pub use exposure::{Exposure, ToolMode, ToolPrefix};
pub use http::{StreamableHttp, streamable_http};
pub use http_body::AnswerBody;
pub use stdio::{serve_io, serve_stdio};
pub use websocket::WebSocket;
