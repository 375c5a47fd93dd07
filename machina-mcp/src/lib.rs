//! MCP in both directions. Towards servers: [`client`] reaches them as child
//! processes and over Streamable HTTP, in both eras of the protocol. Towards
//! hosts and their files: the other modules.
//!
//! This crate translates and decides nothing: which instance gets a call, and
//! whether a failed one is tried again, is `machina-core`'s affair. What it owes
//! the core is the truth about how far a failed call had come.

pub mod client;
pub mod formats;
pub mod registry;
pub mod server;
