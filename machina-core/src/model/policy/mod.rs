//! What may be set per service about its health checks, its calls and its
//! sessions. An absent field means the default of the whole registry (see
//! [`crate::Config`]).

mod alerting;
mod endpoints;
mod health;
mod routing;
mod session;

pub use alerting::{AlertLevel, AlertPolicy};
pub use endpoints::HealthEndpoint;
pub use health::{Canary, HealthConfig, HealthLevel, HealthParameters, HealthPolicy};
pub use routing::{BalancerKind, Pinning, RoutingConfig, RoutingParameters, RoutingPolicy, TimeLimit};
pub use session::{SessionParameters, SessionPolicy, SessionsConfig, StartPolicy};

use crate::error::Problem;

/// Appends a problem if `text` has more than `most` characters.
pub(crate) fn length(field: &str, text: Option<&str>, most: usize, problems: &mut Vec<Problem>) {
    let length = text.unwrap_or_default().chars().count();
    if length > most {
        let detail = format!("must have at most {most} characters, has {length}");
        problems.push(Problem { field: field.to_owned(), detail });
    }
}

/// Appends a problem if a list has more than `most` entries.
fn entries(field: &str, count: usize, most: usize, problems: &mut Vec<Problem>) {
    if count > most {
        let detail = format!("must have at most {most} entries, has {count}");
        problems.push(Problem { field: field.to_owned(), detail });
    }
}
