//! Everything, as of one snapshot.

use std::sync::Arc;

use machina_core::{Image, Result, Revision};
use sea_query::{Order, Query};
use sqlx::{Connection, SqliteConnection};

use super::statement::{database_error, fetch, fetch_first, get_revision, unreadable};
use super::{definitions, groups};
use crate::declared::{self, Secrets};

/// The last revision that was committed.
pub(super) async fn revision(connection: &mut SqliteConnection) -> Result<Revision> {
    let row = fetch_first(connection, Query::select().column("revision").from("meta")).await?;
    let row = row.ok_or_else(|| unreadable("revision", "there is none"))?;
    get_revision(&row, "revision")
}

/// Loads the image.
pub(super) async fn load(connection: &mut SqliteConnection) -> Result<Image> {
    let mut transaction = connection.begin().await.map_err(database_error)?;
    let revision = revision(&mut transaction).await?;
    let mut secrets = Query::select();
    secrets.columns(["service_id", "place", "value"]).from("secrets");
    let secrets = Secrets::of(&fetch(&mut transaction, &secrets).await?)?;
    let mut select = Query::select();
    select.columns(["id", "body", "revision", "created_at", "updated_at", "updated_by"]).from("services");
    let rows = fetch(&mut transaction, select.order_by("id", Order::Asc)).await?;
    let services = rows.iter().map(|row| declared::service(row, &secrets).map(Arc::new)).collect::<Result<_>>()?;
    let definitions = definitions::load(&mut transaction).await?;
    let groups = groups::load(&mut transaction).await?;
    transaction.commit().await.map_err(database_error)?;
    Ok(Image { revision, services, definitions, groups, ..Image::default() })
}
