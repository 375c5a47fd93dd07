//! What tests of Machina, and of code that extends it, are written with. Only
//! compiled with the feature `testing`.

pub mod leases_suite;
pub mod registry_suite;
pub mod replies_suite;
pub mod scratch_suite;
mod sim;
pub mod simulation;
pub mod store_suite;
mod watch_suite;

pub use crate::random::Random;
use crate::store::What;
pub use sim::{Behaviour, Contact, Deed, Ending, Onlooker, SimConnector, add_tool, echo_tool};

/// What the journal says of a call that was answered at the first attempt.
#[must_use]
pub fn answered_call(tool: &str, principal: &str) -> What {
    What::Call {
        tool: tool.to_owned(),
        principal: principal.to_owned(),
        duration_ms: 1.0,
        attempts: 1,
        success: true,
        error: None,
        tried: Vec::new(),
        arguments: None,
    }
}
