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
pub use sim::{Behaviour, Contact, Deed, Ending, Onlooker, SimConnector, add_tool, echo_tool};
