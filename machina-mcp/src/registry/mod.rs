//! The API of the official MCP registry, which hosts such as VS Code browse: its
//! read side over the services here, and a copy of another such registry into
//! this one.
//!
//! Refuses to be written to over that API, and to show a secret: values of
//! environment variables and headers become inputs that a host asks its user for.

mod api;
mod config;
mod cursor;
mod failure;
mod listed;
mod listing;
mod names;
mod parameters;
mod sync;
mod tombstones;

pub use api::{RegistryApi, registry_api};
pub use config::RegistryConfig;
pub use sync::{SyncOptions, SyncOutcome, SyncReport, Synced, sync};
