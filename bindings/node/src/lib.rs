//! The native half of the npm package `machina`: carries JSON between JavaScript
//! and the facade, and promises to tasks of tokio. It holds no rule of the registry
//! and no shape of its answers; the public layer is `index.js`.
//!
//! Refuses to keep Node alive for what nobody awaits, and to call into a thread of
//! Node that is ending.

#![allow(unsafe_code, reason = "what the macros of napi write to register functions and classes with Node")]
#![allow(unreachable_pub, reason = "what the macros of napi show to Node has to be public")]
#![cfg_attr(test, allow(dead_code, reason = "the macros of napi register nothing in a build for tests"))]

mod cancel;
mod execution;
mod failure;
mod guard;
mod handle;
mod log;
mod told;
mod watch;
