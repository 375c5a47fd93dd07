//! Who may do what.

mod principal;
mod scoped;

pub use principal::{Principal, Role};
pub use scoped::Scoped;
