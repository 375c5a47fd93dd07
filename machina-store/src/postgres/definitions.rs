//! What instances publish: written whole, read whole, word for word.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use machina_core::{Definitions, Error, InstanceId, Result, ServiceId, Tag};
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use sqlx::PgConnection;

use super::error::database_error;
use super::statement::{as_rows, execute_listed, fetch_all, get_json, get_parsed, json, time, with_rows};
use crate::conflict;
use crate::published::{self, Head, Other, Publishing};
use crate::record::Columns as _;

/// What an instance was seen to publish.
pub(super) type Seen<'a> = (ServiceId, InstanceId, &'a Definitions);

#[derive(Serialize)]
struct PublishedRow<'a> {
    id: InstanceId,
    service_id: ServiceId,
    protocol_version: &'a str,
    server_info: &'a Value,
    instructions: Option<&'a str>,
    capabilities: &'a Value,
    definitions_listed_at: String,
    published: String,
}

const PUBLISH: &str = "\
    UPDATE instances AS i SET protocol_version = r.protocol_version, server_info = r.server_info, \
        instructions = r.instructions, capabilities = r.capabilities, \
        definitions_listed_at = r.definitions_listed_at, published = (r.published #>> '{}')::json \
    FROM json_populate_recordset(NULL::instances, $1::json) AS r \
    WHERE i.id = r.id AND i.service_id = r.service_id RETURNING i.id::text";

#[derive(Serialize)]
struct ToolRow<'a> {
    instance_id: InstanceId,
    position: usize,
    service_id: ServiceId,
    name: &'a str,
    title: Option<&'a str>,
    description: &'a str,
    input_schema: &'a RawValue,
    output_schema: Option<&'a RawValue>,
    tags: Vec<Tag>,
    hash: &'a str,
    definition: &'a str,
}

const INSERT_TOOLS: &str = "\
    INSERT INTO tools (instance_id, position, service_id, name, title, description, input_schema, output_schema, \
        tags, hash, definition) \
    SELECT instance_id, position, service_id, name, title, description, input_schema, output_schema, \
        tags, hash, (definition #>> '{}')::json \
    FROM json_populate_recordset(NULL::tools, $1::json)";

#[derive(Serialize)]
struct OtherRow<'a> {
    instance_id: InstanceId,
    #[serde(flatten)]
    other: Other<'a>,
}

const INSERT_OTHERS: &str = "\
    INSERT INTO definitions (instance_id, kind, position, name, definition) \
    SELECT instance_id, kind, position, name, (definition #>> '{}')::json \
    FROM json_populate_recordset(NULL::definitions, $1::json)";

/// Replaces what instances were last seen to publish, each of them one time.
pub(super) async fn put(connection: &mut PgConnection, seen: &[Seen<'_>]) -> Result<()> {
    let mut known = HashSet::new();
    for row in with_rows(connection, PUBLISH, as_rows(seen.iter().map(published))?).await? {
        known.insert(get_parsed::<InstanceId>(&row, "id")?);
    }
    if let Some((service, instance, _)) = seen.iter().find(|(_, instance, _)| !known.contains(instance)) {
        return Err(conflict::no_instance(*service, *instance));
    }
    let ids: Vec<String> = seen.iter().map(|(_, instance, _)| instance.to_string()).collect();
    execute_listed(connection, "DELETE FROM tools WHERE instance_id = ANY ($1::uuid[])", &ids).await?;
    execute_listed(connection, "DELETE FROM definitions WHERE instance_id = ANY ($1::uuid[])", &ids).await?;
    with_rows(connection, INSERT_TOOLS, as_rows(seen.iter().flat_map(tools))?).await?;
    with_rows(connection, INSERT_OTHERS, as_rows(seen.iter().flat_map(others))?).await?;
    Ok(())
}

fn published<'a>((service_id, id, definitions): &Seen<'a>) -> Result<PublishedRow<'a>> {
    let head = Head {
        protocol_version: definitions.protocol_version.clone(),
        server_info: definitions.server_info.clone(),
        instructions: definitions.instructions.clone(),
        capabilities: definitions.capabilities.clone(),
        listed_at: definitions.listed_at,
    };
    Ok(PublishedRow {
        id: *id,
        service_id: *service_id,
        protocol_version: &definitions.protocol_version,
        server_info: &definitions.server_info,
        instructions: definitions.instructions.as_deref(),
        capabilities: &definitions.capabilities,
        definitions_listed_at: time(definitions.listed_at),
        published: json(&head)?,
    })
}

fn tools<'a>((service, instance, definitions): &Seen<'a>) -> impl Iterator<Item = Result<ToolRow<'a>>> + use<'a> {
    let (service_id, instance_id) = (*service, *instance);
    definitions.tools.iter().enumerate().map(move |(position, tool)| {
        Ok(ToolRow {
            instance_id,
            position,
            service_id,
            name: tool.name().as_str(),
            title: tool.title(),
            description: tool.description(),
            input_schema: raw(tool.input_schema_text())?,
            output_schema: tool.output_schema_text().map(raw).transpose()?,
            tags: tool.tags(),
            hash: tool.hash(),
            definition: tool.definition_text(),
        })
    })
}

/// JSON that is written as it is.
fn raw(json: &str) -> Result<&RawValue> {
    serde_json::from_str(json).map_err(|error| Error::internal("a schema is no JSON").caused_by(error))
}

fn others<'a>((_, instance, definitions): &Seen<'a>) -> impl Iterator<Item = Result<OtherRow<'a>>> + use<'a> {
    let instance_id = *instance;
    published::others(definitions).map(move |other| Ok(OtherRow { instance_id, other: other? }))
}

/// What every instance was last seen to publish.
pub(super) async fn load(connection: &mut PgConnection) -> Result<BTreeMap<InstanceId, Arc<Definitions>>> {
    let published = "SELECT id::text, published::text FROM instances WHERE published IS NOT NULL";
    let mut publishing = Publishing::default();
    for row in fetch_all(connection, published).await? {
        publishing.begin(get_parsed(&row, "id")?, get_json(&row, "published")?);
    }
    let tools = "SELECT instance_id::text, name, hash, definition::text FROM tools ORDER BY instance_id, position";
    let mut rows = sqlx::query(tools).fetch(&mut *connection);
    while let Some(row) = rows.try_next().await.map_err(database_error)? {
        let id = get_parsed(&row, "instance_id")?;
        publishing.add_tool(id, row.text("name")?, row.text("hash")?, row.text("definition")?);
    }
    drop(rows);
    let others =
        "SELECT instance_id::text, kind, definition::text FROM definitions ORDER BY instance_id, kind, position";
    fetch_all(connection, others).await?.iter().try_for_each(|row| publishing.add_other(row))?;
    Ok(publishing.finish())
}
