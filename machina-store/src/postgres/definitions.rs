//! What instances publish: written whole, read whole, word for word.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use futures_util::TryStreamExt as _;
use machina_core::{Definitions, InstanceId, RejectedTool, Result, ServiceId, Tag, Timestamp, Tool};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

use super::error::database_error;
use super::statement::{as_rows, execute_listed, fetch_all, get, get_json, get_parsed, json, time, with_rows};
use crate::conflict;
use crate::known_tools::KnownTools;

/// What an instance was seen to publish.
pub(super) type Seen<'a> = (ServiceId, InstanceId, &'a Definitions);

/// Definitions but for their lists.
#[derive(Serialize, Deserialize)]
struct Head {
    protocol_version: String,
    server_info: Value,
    instructions: Option<String>,
    capabilities: Value,
    listed_at: Timestamp,
}

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
    input_schema: &'a Value,
    output_schema: Option<&'a Value>,
    tags: Vec<Tag>,
    hash: &'a str,
    definition: String,
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
    kind: &'static str,
    position: usize,
    name: Option<&'a str>,
    definition: String,
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
            input_schema: tool.input_schema(),
            output_schema: tool.definition().get("outputSchema").filter(|schema| !schema.is_null()),
            tags: tool.tags(),
            hash: tool.hash(),
            definition: json(tool.definition())?,
        })
    })
}

fn others<'a>((_, instance, definitions): &Seen<'a>) -> impl Iterator<Item = Result<OtherRow<'a>>> + use<'a> {
    let instance_id = *instance;
    let lists = [
        ("prompt", &definitions.prompts),
        ("resource", &definitions.resources),
        ("resource_template", &definitions.resource_templates),
    ];
    let listed = lists.into_iter().flat_map(move |(kind, list)| {
        list.iter().enumerate().map(move |(position, one)| {
            Ok(OtherRow { instance_id, kind, position, name: one["name"].as_str(), definition: json(one)? })
        })
    });
    let rejected = definitions.rejected.iter().enumerate().map(move |(position, one)| {
        let (kind, name) = ("rejected_tool", one.name.as_deref());
        Ok(OtherRow { instance_id, kind, position, name, definition: json(one)? })
    });
    listed.chain(rejected)
}

/// What every instance was last seen to publish.
pub(super) async fn load(connection: &mut PgConnection) -> Result<BTreeMap<InstanceId, Arc<Definitions>>> {
    let published = "SELECT id::text, published::text FROM instances WHERE published IS NOT NULL";
    let mut found: HashMap<InstanceId, Definitions> = HashMap::new();
    for row in fetch_all(connection, published).await? {
        found.insert(get_parsed(&row, "id")?, without_lists(get_json(&row, "published")?));
    }
    let tools = "SELECT instance_id::text, name, definition::text FROM tools ORDER BY instance_id, position";
    let mut known = KnownTools::default();
    let mut rows = sqlx::query(tools).fetch(&mut *connection);
    while let Some(row) = rows.try_next().await.map_err(database_error)? {
        if let Some(definitions) = found.get_mut(&get_parsed(&row, "instance_id")?) {
            add_tool(definitions, &row, &mut known)?;
        }
    }
    drop(rows);
    let others =
        "SELECT instance_id::text, kind, definition::text FROM definitions ORDER BY instance_id, kind, position";
    for row in fetch_all(connection, others).await? {
        if let Some(definitions) = found.get_mut(&get_parsed(&row, "instance_id")?) {
            add_other(definitions, &row)?;
        }
    }
    Ok(found.into_iter().map(|(id, definitions)| (id, Arc::new(definitions))).collect())
}

fn without_lists(head: Head) -> Definitions {
    Definitions {
        protocol_version: head.protocol_version,
        server_info: head.server_info,
        instructions: head.instructions,
        capabilities: head.capabilities,
        tools: Vec::new(),
        rejected: Vec::new(),
        prompts: Vec::new(),
        resources: Vec::new(),
        resource_templates: Vec::new(),
        listed_at: head.listed_at,
    }
}

/// A tool that an earlier version accepted and this one does not is rejected
/// like any other; it hides none of its siblings.
fn add_tool(definitions: &mut Definitions, row: &PgRow, known: &mut KnownTools) -> Result<()> {
    let text: &str = get(row, "definition")?;
    if let Some(tool) = known.get(text) {
        definitions.tools.push(tool);
        return Ok(());
    }
    match Tool::parse(get_json(row, "definition")?).map(Arc::new) {
        Ok(tool) => {
            known.put(text, &tool);
            definitions.tools.push(tool);
        }
        Err(error) => {
            let (name, reason) = (Some(get(row, "name")?), error.message().to_owned());
            definitions.rejected.push(RejectedTool { name, reason });
        }
    }
    Ok(())
}

fn add_other(definitions: &mut Definitions, row: &PgRow) -> Result<()> {
    match get::<&str>(row, "kind")? {
        "prompt" => definitions.prompts.push(get_json(row, "definition")?),
        "resource" => definitions.resources.push(get_json(row, "definition")?),
        "resource_template" => definitions.resource_templates.push(get_json(row, "definition")?),
        _ => definitions.rejected.push(get_json(row, "definition")?),
    }
    Ok(())
}
