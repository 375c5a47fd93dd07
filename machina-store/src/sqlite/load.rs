//! Everything, as of one snapshot.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use machina_core::{Image, Result, Revision, Service, ServiceSpec};
use sea_query::{Order, Query};
use sqlx::sqlite::SqliteRow;
use sqlx::{Connection, SqliteConnection};

use super::commit::revision_of;
use super::statement::{database_error, fetch, fetch_first, get, get_json, get_parsed, unreadable};
use super::{definitions, groups};

/// The secrets of a service by their place.
type Secrets = BTreeMap<String, String>;

/// The last revision that was committed.
pub(super) async fn revision(connection: &mut SqliteConnection) -> Result<Revision> {
    let row = fetch_first(connection, Query::select().column("revision").from("meta")).await?;
    let row = row.ok_or_else(|| unreadable("revision", "there is none"))?;
    revision_of(get(&row, "revision")?)
}

/// Loads the image.
pub(super) async fn load(connection: &mut SqliteConnection) -> Result<Image> {
    let mut transaction = connection.begin().await.map_err(database_error)?;
    let revision = revision(&mut transaction).await?;
    let secrets = secrets(&mut transaction).await?;
    let mut select = Query::select();
    select.columns(["id", "body", "revision", "created_at", "updated_at", "updated_by"]).from("services");
    let rows = fetch(&mut transaction, select.order_by("id", Order::Asc)).await?;
    let services = rows.iter().map(|row| service(row, &secrets).map(Arc::new)).collect::<Result<_>>()?;
    let definitions = definitions::load(&mut transaction).await?;
    let groups = groups::load(&mut transaction).await?;
    transaction.commit().await.map_err(database_error)?;
    Ok(Image { revision, services, definitions, groups, ..Image::default() })
}

async fn secrets(connection: &mut SqliteConnection) -> Result<HashMap<String, Secrets>> {
    let mut found: HashMap<String, Secrets> = HashMap::new();
    for row in fetch(connection, Query::select().columns(["service_id", "place", "value"]).from("secrets")).await? {
        found.entry(get(&row, "service_id")?).or_default().insert(get(&row, "place")?, get(&row, "value")?);
    }
    Ok(found)
}

fn service(row: &SqliteRow, secrets: &HashMap<String, Secrets>) -> Result<Service> {
    let mut spec: ServiceSpec = get_json(row, "body")?;
    if let Some(secrets) = secrets.get(get::<&str>(row, "id")?) {
        spec.restore_secrets(secrets);
    }
    Ok(Service {
        id: get_parsed(row, "id")?,
        spec,
        revision: revision_of(get(row, "revision")?)?,
        created_at: get_parsed(row, "created_at")?,
        updated_at: get_parsed(row, "updated_at")?,
        updated_by: get(row, "updated_by")?,
    })
}
