//! Which PostgreSQL this is. An older one would be found out only by a statement
//! that it does not know.

use machina_core::{Error, Result};
use sqlx::PgConnection;

use super::address::PostgresAddress;
use super::error::database_error;

/// The oldest that will do, as the server counts.
const MINIMUM: u32 = 150_000;

/// Refuses a server that is too old.
pub(super) async fn check(connection: &mut PgConnection, address: &PostgresAddress) -> Result<()> {
    let found = sqlx::query_scalar("SHOW server_version_num").fetch_one(connection).await.map_err(database_error)?;
    new_enough(found, &address.place())
}

fn new_enough(found: String, place: &str) -> Result<()> {
    match found.parse() {
        Ok(MINIMUM..) => Ok(()),
        parsed => {
            let (found, needed) = (parsed.map_or(found, shown), MINIMUM / 10_000);
            let message = format!("store: `{place}` is PostgreSQL {found}, and {needed} or later is needed");
            Err(Error::unsupported(message))
        }
    }
}

/// The number as people write it.
fn shown(number: u32) -> String {
    let (major, minor) = (number / 10_000, number % 10_000);
    if major >= 10 { format!("{major}.{minor}") } else { format!("{major}.{}.{}", minor / 100, minor % 100) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use machina_core::ErrorKind;

    #[test]
    fn what_is_too_old_is_named() {
        for number in ["150000", "150014", "170002", "1000000"] {
            new_enough(number.to_owned(), "db/m").unwrap();
        }
        for (number, says) in
            [("149999", "14.9999"), ("140013", "14.13"), ("90624", "9.6.24"), ("devel", "devel"), ("-1", "-1")]
        {
            let error = new_enough(number.to_owned(), "db/m").unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unsupported);
            let expected = format!("store: `db/m` is PostgreSQL {says}, and 15 or later is needed");
            assert_eq!(error.message(), expected);
        }
    }
}
