//! What instances publish: written whole, read whole, word for word.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use machina_core::{Definitions, InstanceId, Result, ServiceId, Tool};
use sea_query::{Expr, ExprTrait, Order, Query};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use super::statement::{database_error, execute, fetch, get, get_json, get_parsed, insert, json, time, unreadable};
use crate::conflict;
use crate::published::{self, Head, Other, Publishing};

/// Replaces what `instance` was last seen to publish.
pub(super) async fn put(
    connection: &mut SqliteConnection,
    service: ServiceId,
    instance: InstanceId,
    definitions: &Definitions,
) -> Result<()> {
    let id = instance.to_string();
    let mut update = Query::update();
    update
        .table("instances")
        .values([
            ("protocol_version", definitions.protocol_version.as_str().into()),
            ("server_info", json(&definitions.server_info)?.into()),
            ("instructions", definitions.instructions.clone().into()),
            ("capabilities", json(&definitions.capabilities)?.into()),
            ("definitions_listed_at", time(definitions.listed_at).into()),
        ])
        .and_where(Expr::col("id").eq(id.as_str()))
        .and_where(Expr::col("service_id").eq(service.to_string()));
    if execute(connection, &update).await? == 0 {
        return Err(conflict::no_instance(service, instance));
    }
    for table in ["tools", "definitions"] {
        let mut delete = Query::delete();
        delete.from_table(table).and_where(Expr::col("instance_id").eq(id.as_str()));
        execute(connection, &delete).await?;
    }
    for (position, tool) in definitions.tools.iter().enumerate() {
        put_tool(connection, service, &id, position, tool).await?;
    }
    for other in published::others(definitions) {
        put_other(connection, &id, other?).await?;
    }
    Ok(())
}

async fn put_tool(
    connection: &mut SqliteConnection,
    service: ServiceId,
    instance_id: &str,
    position: usize,
    tool: &Tool,
) -> Result<()> {
    let columns = [
        ("instance_id", instance_id.into()),
        ("position", (position as u64).into()),
        ("service_id", service.to_string().into()),
        ("name", tool.name().as_str().into()),
        ("title", tool.title().into()),
        ("description", tool.description().into()),
        ("input_schema", tool.input_schema_text().into()),
        ("output_schema", tool.output_schema_text().into()),
        ("tags", json(&tool.tags())?.into()),
        ("hash", tool.hash().into()),
        ("definition", tool.definition_text().into()),
    ];
    execute(connection, &insert("tools", columns)).await.map(drop)
}

async fn put_other(connection: &mut SqliteConnection, instance_id: &str, other: Other<'_>) -> Result<()> {
    let columns = [
        ("instance_id", instance_id.into()),
        ("kind", other.kind.into()),
        ("position", (other.position as u64).into()),
        ("name", other.name.into()),
        ("definition", other.definition.into()),
    ];
    execute(connection, &insert("definitions", columns)).await.map(drop)
}

/// What every instance was last seen to publish.
pub(super) async fn load(connection: &mut SqliteConnection) -> Result<BTreeMap<InstanceId, Arc<Definitions>>> {
    let mut select = Query::select();
    select
        .columns(["id", "protocol_version", "server_info", "instructions", "capabilities", "definitions_listed_at"])
        .from("instances")
        .and_where(Expr::col("definitions_listed_at").is_not_null());
    let mut publishing = Publishing::default();
    for row in fetch(connection, &select).await? {
        publishing.begin(get_parsed(&row, "id")?, head(&row)?);
    }
    load_tools(connection, &mut publishing).await?;
    let mut select = Query::select();
    select.columns(["instance_id", "kind", "definition"]).from("definitions");
    select.order_by("instance_id", Order::Asc).order_by("position", Order::Asc);
    fetch(connection, &select).await?.iter().try_for_each(|row| publishing.add_other(row))?;
    Ok(publishing.finish())
}

/// A row for each instance and not for each tool, as the driver takes ten times as long
/// for a row as the database does. JSON and names have no control characters.
const TOOLS: &str = "SELECT instance_id, \
    group_concat(name || char(31) || hash || char(31) || definition, char(30) ORDER BY position) AS tools \
    FROM tools GROUP BY instance_id";

/// One row after the other: all at once need more memory than what is made of them.
async fn load_tools(connection: &mut SqliteConnection, publishing: &mut Publishing) -> Result<()> {
    let mut rows = sqlx::query(TOOLS).fetch(connection);
    while let Some(row) = rows.try_next().await.map_err(database_error)? {
        let (id, tools) = (get_parsed(&row, "instance_id")?, get::<&str>(&row, "tools")?);
        for tool in tools.split('\x1e') {
            let mut parts = tool.splitn(3, '\x1f');
            let (Some(name), Some(hash), Some(definition)) = (parts.next(), parts.next(), parts.next()) else {
                return Err(unreadable("tools", "a tool has no definition"));
            };
            publishing.add_tool(id, name, hash, definition);
        }
    }
    Ok(())
}

fn head(row: &SqliteRow) -> Result<Head> {
    Ok(Head {
        protocol_version: get(row, "protocol_version")?,
        server_info: get_json(row, "server_info")?,
        instructions: get(row, "instructions")?,
        capabilities: get_json(row, "capabilities")?,
        listed_at: get_parsed(row, "definitions_listed_at")?,
    })
}
