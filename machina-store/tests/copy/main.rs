//! Copying a store to another, backing one up, and bringing one back.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

mod backups;
mod copies;
mod histories;
#[cfg(feature = "postgres")]
mod postgres;
mod refusals;
mod restores;
#[cfg(feature = "postgres")]
#[path = "../postgres/schema.rs"]
#[allow(dead_code, reason = "it serves other tests, too")]
mod schema;
mod since;
mod world;
