//! Everything, as of one snapshot.

use std::sync::Arc;

use machina_core::{Image, Result};
use sqlx::{Connection, PgConnection};

use super::error::database_error;
use super::statement::{get, get_revision, unreadable};
use super::{definitions, groups, health, services};

const SNAPSHOT: &str = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY";

/// A snapshot keeps nobody waiting, and making records of thousands of rows takes its time.
const PATIENCE: [&str; 2] =
    ["SET LOCAL statement_timeout = '5min'", "SET LOCAL idle_in_transaction_session_timeout = '5min'"];

/// Which content the database has: another after it was replaced from outside,
/// also by a dump of its own.
pub(super) async fn generation(connection: &mut PgConnection) -> Result<String> {
    let found = "SELECT generation::text || '/' || tableoid::text AS generation FROM meta";
    let row = sqlx::query(found).fetch_optional(connection).await.map_err(database_error)?;
    get(&row.ok_or_else(|| unreadable("generation", "there is none"))?, "generation")
}

/// Loads the image, and the generation that it is of.
pub(super) async fn load(connection: &mut PgConnection) -> Result<(Image, String)> {
    let mut transaction = connection.begin_with(SNAPSHOT).await.map_err(database_error)?;
    for sql in PATIENCE {
        sqlx::query(sql).execute(&mut *transaction).await.map_err(database_error)?;
    }
    let generation = generation(&mut transaction).await?;
    let row = sqlx::query("SELECT revision FROM meta").fetch_one(&mut *transaction).await.map_err(database_error)?;
    let mut image = Image { revision: get_revision(&row, "revision")?, ..Image::default() };
    image.services = services::load(&mut transaction).await?.into_iter().map(Arc::new).collect();
    image.definitions = definitions::load(&mut transaction).await?;
    image.groups = groups::load(&mut transaction).await?;
    health::load(&mut transaction, &mut image).await?;
    transaction.commit().await.map_err(database_error)?;
    Ok((image, generation))
}
