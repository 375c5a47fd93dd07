//! What simulated instances tell about what is done to them, so that a test can
//! compare what Machina says with what was.

use std::fmt;

use serde_json::{Map, Value};
use tokio::time::Instant;

use crate::error::Error;

/// What is asked of an instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Contact {
    /// A session.
    Connect,
    /// An answer to a probe.
    Probe,
    /// What it publishes.
    List,
    /// A call, or another request.
    Call,
}

/// How a contact ended.
#[derive(Debug, Clone, Copy)]
pub enum Ending<'a> {
    /// With what was asked for.
    Answered,
    /// Without.
    Failed(&'a Error),
    /// Whoever asked did not wait any longer.
    CutOff,
}

/// What happened at an instance.
#[derive(Debug, Clone, Copy)]
pub enum Deed<'a> {
    /// It was asked for something.
    Began(Contact),
    /// That ended.
    Ended {
        /// What it was.
        contact: Contact,
        /// When it began.
        began: Instant,
        /// How it ended.
        ending: Ending<'a>,
    },
    /// It executed a call.
    Executed {
        /// The tool, or the method of another request.
        tool: &'a str,
        /// The arguments.
        arguments: &'a Map<String, Value>,
    },
}

/// Is told what happens at each instance, in order.
pub trait Onlooker: fmt::Debug + Send + Sync {
    /// `deed` happened at the instance at `location`. Must not call the
    /// connector.
    fn saw(&self, location: &str, deed: Deed<'_>);
}
