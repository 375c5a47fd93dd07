//! Who may do what.

mod commands;
mod edit;
mod principal;
mod requests;
mod scoped;

pub use principal::{Principal, Role};
pub use scoped::Scoped;
