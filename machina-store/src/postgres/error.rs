//! What errors of the server and the driver mean here. They are told by the
//! server's code and its one line of message: the rest of what it says may quote
//! a row, and a row may hold a secret.

use std::time::Duration;

use machina_core::{Error, Result};
use sqlx::postgres::PgDatabaseError;

use crate::conflict;

/// What an error of the driver means while the store is in use.
pub(super) fn database_error(error: sqlx::Error) -> Error {
    match error {
        sqlx::Error::Database(database) => match database.try_downcast_ref::<PgDatabaseError>() {
            Some(database) => said_by_server(database),
            None => Error::internal("the store failed"),
        },
        sqlx::Error::PoolClosed => Error::unavailable("the store is closed"),
        sqlx::Error::PoolTimedOut => Error::unavailable(
            "the PostgreSQL server cannot be reached, or all connections to it are busy (`connections_max`)",
        ),
        sqlx::Error::Io(error) => {
            Error::unavailable(format!("the connection to the PostgreSQL server is gone: {error}"))
        }
        sqlx::Error::Tls(error) => Error::unavailable(format!("the PostgreSQL server cannot be trusted: {error}")),
        sqlx::Error::Protocol(message) if message.contains("closed") => {
            Error::unavailable(format!("the connection to the PostgreSQL server is gone: {message}"))
        }
        other => Error::internal(format!("the store failed: {other}")),
    }
}

fn said_by_server(error: &PgDatabaseError) -> Error {
    let (code, message) = (error.code(), error.message());
    let unavailable = |what: &str| Error::unavailable(format!("{what}: {message} ({code})"));
    match code {
        "23505" if let Some(name) = taken_name(error) => conflict::name_is_taken(name),
        "23505" | "23503" => Error::conflict(format!("the store refused the change: {message}")),
        "22P05" | "22021" => {
            Error::invalid(format!("a value holds a character that PostgreSQL cannot keep: {message}"))
        }
        "25006" => unavailable("the PostgreSQL server takes no changes now (it is read-only, or a standby)"),
        "53100" => unavailable("the disk of the PostgreSQL server is full"),
        "53300" => unavailable("the PostgreSQL server has no connection to spare"),
        "55P03" | "40001" | "40P01" => unavailable("the store is busy"),
        "57014" => unavailable("the PostgreSQL server did not finish in time"),
        "42501" => unavailable("the PostgreSQL server refuses this user"),
        _ => match &code[..2.min(code.len())] {
            // Connections, authorisation, a database that went away, resources, an operator, the system.
            "08" | "28" | "3D" | "53" | "57" | "58" | "25" => unavailable("the PostgreSQL server cannot be used now"),
            _ => Error::internal(format!("the store failed: {message} ({code})")),
        },
    }
}

/// The name of a service that is in the way of another, where that is what is wrong.
fn taken_name(error: &PgDatabaseError) -> Option<&str> {
    let detail = error.detail().filter(|_| error.constraint() == Some("services_name_key"))?;
    detail.split_once("=(")?.1.split_once(')').map(|(name, _)| name)
}

/// Passes on what came of a use of a connection within a time; without an answer
/// nothing is known of the connection.
pub(super) async fn within<T>(limit: Duration, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| {
        let message = format!("the PostgreSQL server did not answer within {} s", limit.as_secs());
        Err(Error::unavailable(message))
    })
}
