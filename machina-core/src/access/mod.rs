//! Who may do what.

mod alerts;
mod commands;
mod departed;
mod discover;
mod edit;
mod egress;
mod followers;
mod groups;
mod heartbeats;
mod journal;
mod measured;
mod principal;
mod rates;
mod requests;
mod scoped;
mod search;
mod self_report;
mod templates;

pub use departed::Departed;
pub use discover::{Discovered, Reachable};
pub use groups::GroupReport;
pub use measured::Measured;
pub use principal::{Principal, Role};
pub use scoped::Scoped;
pub use templates::{CommandTemplate, Hole, TemplateArgument};
