//! What instances publish: written whole, read whole, word for word.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use machina_core::{Definitions, InstanceId, RejectedTool, Result, ServiceId, Tool};
use sea_query::{Expr, ExprTrait, Order, Query};
use sqlx::SqliteConnection;
use sqlx::sqlite::SqliteRow;

use crate::known_tools::KnownTools;

use super::statement::{execute, fetch, get, get_json, get_parsed, insert, json, time};
use crate::conflict;

/// How many tools are read at once.
const PAGE: u64 = 2000;

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
    put_others(connection, &id, definitions).await
}

async fn put_tool(
    connection: &mut SqliteConnection,
    service: ServiceId,
    instance_id: &str,
    position: usize,
    tool: &Tool,
) -> Result<()> {
    let output_schema = tool.definition().get("outputSchema").filter(|schema| !schema.is_null());
    let columns = [
        ("instance_id", instance_id.into()),
        ("position", (position as u64).into()),
        ("service_id", service.to_string().into()),
        ("name", tool.name().as_str().into()),
        ("title", tool.title().into()),
        ("description", tool.description().into()),
        ("input_schema", json(tool.input_schema())?.into()),
        ("output_schema", output_schema.map(json).transpose()?.into()),
        ("tags", json(&tool.tags())?.into()),
        ("hash", tool.hash().into()),
        ("definition", json(tool.definition())?.into()),
    ];
    execute(connection, &insert("tools", columns)).await.map(drop)
}

async fn put_others(connection: &mut SqliteConnection, instance_id: &str, definitions: &Definitions) -> Result<()> {
    for (kind, list) in [
        ("prompt", &definitions.prompts),
        ("resource", &definitions.resources),
        ("resource_template", &definitions.resource_templates),
    ] {
        for (position, one) in list.iter().enumerate() {
            put_other(connection, instance_id, kind, position, one["name"].as_str(), json(one)?).await?;
        }
    }
    for (position, one) in definitions.rejected.iter().enumerate() {
        put_other(connection, instance_id, "rejected_tool", position, one.name.as_deref(), json(one)?).await?;
    }
    Ok(())
}

async fn put_other(
    connection: &mut SqliteConnection,
    instance_id: &str,
    kind: &str,
    position: usize,
    name: Option<&str>,
    definition: String,
) -> Result<()> {
    let columns = [
        ("instance_id", instance_id.into()),
        ("kind", kind.into()),
        ("position", (position as u64).into()),
        ("name", name.into()),
        ("definition", definition.into()),
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
    let mut found: HashMap<String, Definitions> = HashMap::new();
    for row in fetch(connection, &select).await? {
        found.insert(get(&row, "id")?, without_lists(&row)?);
    }
    load_tools(connection, &mut found).await?;
    let mut select = Query::select();
    select.columns(["instance_id", "kind", "definition"]).from("definitions");
    select.order_by("instance_id", Order::Asc).order_by("position", Order::Asc);
    for row in fetch(connection, &select).await? {
        if let Some(definitions) = found.get_mut(get::<&str>(&row, "instance_id")?) {
            add_other(definitions, &row)?;
        }
    }
    found.into_iter().map(|(id, definitions)| Ok((id.parse()?, Arc::new(definitions)))).collect()
}

/// Page by page: rows need more memory than what is made of them.
async fn load_tools(connection: &mut SqliteConnection, found: &mut HashMap<String, Definitions>) -> Result<()> {
    let mut known = KnownTools::default();
    let mut last: Option<(String, i64)> = None;
    loop {
        let mut select = Query::select();
        select.columns(["instance_id", "position", "name", "definition"]).from("tools").limit(PAGE);
        select.order_by("instance_id", Order::Asc).order_by("position", Order::Asc);
        if let Some((instance, position)) = last {
            let place = Expr::tuple([Expr::col("instance_id"), Expr::col("position")]);
            select.and_where(place.gt(Expr::tuple([Expr::val(instance), Expr::val(position)])));
        }
        let rows = fetch(connection, &select).await?;
        for row in &rows {
            if let Some(definitions) = found.get_mut(get::<&str>(row, "instance_id")?) {
                add_tool(definitions, row, &mut known)?;
            }
        }
        let Some(row) = rows.last() else { return Ok(()) };
        last = Some((get(row, "instance_id")?, get(row, "position")?));
    }
}

fn without_lists(row: &SqliteRow) -> Result<Definitions> {
    Ok(Definitions {
        protocol_version: get(row, "protocol_version")?,
        server_info: get_json(row, "server_info")?,
        instructions: get(row, "instructions")?,
        capabilities: get_json(row, "capabilities")?,
        tools: Vec::new(),
        rejected: Vec::new(),
        prompts: Vec::new(),
        resources: Vec::new(),
        resource_templates: Vec::new(),
        listed_at: get_parsed(row, "definitions_listed_at")?,
    })
}

/// A tool that an earlier version accepted and this one does not is rejected
/// like any other; it hides none of its siblings.
fn add_tool(definitions: &mut Definitions, row: &SqliteRow, known: &mut KnownTools) -> Result<()> {
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

fn add_other(definitions: &mut Definitions, row: &SqliteRow) -> Result<()> {
    match get::<&str>(row, "kind")? {
        "prompt" => definitions.prompts.push(get_json(row, "definition")?),
        "resource" => definitions.resources.push(get_json(row, "definition")?),
        "resource_template" => definitions.resource_templates.push(get_json(row, "definition")?),
        _ => definitions.rejected.push(get_json(row, "definition")?),
    }
    Ok(())
}
