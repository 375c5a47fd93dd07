//! Machina over HTTP, in both directions.
//!
//! [`router`] serves a registry as a REST API; [`Client`] is a registry that is
//! reached by it, behind the same traits as one in the same process. Both
//! translate and hold no rule: what may be done, what is healthy and what may be
//! repeated is decided by `machina-core`.

mod alerts;
#[cfg(feature = "assemble")]
pub mod assemble;
mod client;
mod mutations;
mod problem;
mod server;
mod stored;

pub use alerts::{Resolve, notifiers, notifiers_if_possible};
pub use client::{Client, RemoteStore};
pub use mutations::mutations_from;
pub use server::{
    ConnectAnswer, ConnectRequest, Extensions, ServerConfig, Snippet, check_bind, openapi_document, router,
    router_with, serve,
};
