//! The registry API as hosts and other registries meet it: over HTTP.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod hostile;
mod serve;
mod support;
mod sync;
