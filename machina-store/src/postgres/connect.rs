//! Connections. What is wrong with an address is found out with the first one,
//! and said with what would be right; the pool makes the others when it needs them.

use std::io::ErrorKind;
use std::time::Duration;

use machina_core::{Error, Result};
use sqlx::postgres::{PgDatabaseError, PgPoolOptions};
use sqlx::{ConnectOptions, PgConnection, PgPool};

use super::address::PostgresAddress;
use super::error::{database_error, within};
use super::version;

/// How long a connection may be idle before it is closed.
const IDLE_TIMEOUT: Duration = Duration::from_secs(600);

/// The first connection, to a server that is new enough.
pub(super) async fn first(address: &PostgresAddress) -> Result<PgConnection> {
    address.check_files()?;
    let connecting = async {
        let mut connection = address.options.connect().await.map_err(|error| unusable(address, error))?;
        version::check(&mut connection, address).await?;
        Ok(connection)
    };
    let place = address.place();
    within(address.connect_timeout, connecting).await.map_err(|error| {
        let known = error.message().contains(&place);
        if known { error } else { Error::unavailable(format!("store: `{place}`: {}", error.message())) }
    })
}

/// An error of connecting: the server's word for what is wrong, and the place.
fn unusable(address: &PostgresAddress, error: sqlx::Error) -> Error {
    let place = address.place();
    let user = address.options.get_username();
    let invalid = |detail: String| Error::invalid_field("store", format!("`{place}` {detail}"));
    let code = error.as_database_error().and_then(|said| said.try_downcast_ref::<PgDatabaseError>());
    match code.map(PgDatabaseError::code) {
        Some("28P01" | "28000") => invalid(format!("does not let the user `{user}` in: wrong password or user name")),
        Some("3D000") => invalid("is no database of this server: it must be made first, with `createdb`".to_owned()),
        Some("42501") => invalid(format!("does not let the user `{user}` connect")),
        _ => match error {
            sqlx::Error::Tls(error) => {
                invalid(format!("cannot be reached as `sslmode` and `sslrootcert` demand: {error}"))
            }
            sqlx::Error::Configuration(error) => invalid(format!("cannot be used: {error}")),
            // What TLS finds wrong with the other side comes as an error of reading.
            sqlx::Error::Io(error) if error.kind() == ErrorKind::InvalidData => {
                invalid(format!("cannot be reached as `sslmode` and `sslrootcert` demand: {error}"))
            }
            sqlx::Error::Io(error) => Error::unavailable(format!("store: `{place}` cannot be reached: {error}")),
            other => {
                let error = database_error(other);
                Error::new(error.kind(), format!("store: `{place}`: {}", error.message()))
            }
        },
    }
}

/// Connections as they are needed, each looked at before it is used.
pub(super) fn pool(address: &PostgresAddress) -> PgPool {
    options(address).max_connections(address.connections_max).connect_lazy_with(address.options.clone())
}

/// The one connection that listens.
pub(super) fn listening(address: &PostgresAddress) -> PgPool {
    options(address).max_connections(1).max_lifetime(None).connect_lazy_with(address.options.clone())
}

fn options(address: &PostgresAddress) -> PgPoolOptions {
    PgPoolOptions::new().acquire_timeout(address.connect_timeout).idle_timeout(IDLE_TIMEOUT)
}
