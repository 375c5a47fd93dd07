//! Groups: the declaration whole, for Machina; and its fields, for people.

use std::collections::HashMap;
use std::sync::Arc;

use machina_core::{Group, GroupName, Result, Revision, ToolMode, ToolPrefix};
use serde::Serialize;
use sqlx::PgConnection;

use super::statement::{
    as_rows, execute_listed, fetch_all, fetch_listed, get_parsed, get_revision, json, time, utc, with_rows,
};
use crate::declared;

#[derive(Serialize)]
struct GroupRow<'a> {
    name: &'a str,
    title: Option<&'a str>,
    description: &'a str,
    tenant: Option<&'a str>,
    mode: ToolMode,
    prefix: ToolPrefix,
    body: String,
    revision: Revision,
    created_at: String,
    updated_at: String,
    updated_by: &'a str,
}

const UPSERT: &str = "\
    INSERT INTO tool_groups (name, title, description, tenant, mode, prefix, body, revision, created_at, updated_at, \
        updated_by) \
    SELECT name, title, description, tenant, mode, prefix, (body #>> '{}')::json, revision, created_at, updated_at, \
        updated_by \
    FROM json_populate_recordset(NULL::tool_groups, $1::json) \
    ON CONFLICT (name) DO UPDATE SET (title, description, tenant, mode, prefix, body, revision, created_at, \
        updated_at, updated_by) = ROW (EXCLUDED.title, EXCLUDED.description, EXCLUDED.tenant, EXCLUDED.mode, \
        EXCLUDED.prefix, EXCLUDED.body, EXCLUDED.revision, EXCLUDED.created_at, EXCLUDED.updated_at, \
        EXCLUDED.updated_by)";

#[derive(Serialize)]
struct MemberRow<'a> {
    group_name: &'a str,
    position: usize,
    service: &'a str,
    tools: Option<Vec<&'a str>>,
}

const INSERT_MEMBERS: &str = "\
    INSERT INTO tool_group_members (group_name, position, service, tools) \
    SELECT group_name, position, service, tools FROM json_populate_recordset(NULL::tool_group_members, $1::json)";

/// Makes or replaces groups, each of them one time.
pub(super) async fn put(connection: &mut PgConnection, groups: &[&Group], revision: Revision) -> Result<()> {
    with_rows(connection, UPSERT, as_rows(groups.iter().map(|group| row(group, revision)))?).await?;
    let names: Vec<String> = groups.iter().map(|group| group.name().to_string()).collect();
    let clear = "DELETE FROM tool_group_members WHERE group_name = ANY ($1::text[])";
    execute_listed(connection, clear, &names).await?;
    with_rows(connection, INSERT_MEMBERS, as_rows(groups.iter().flat_map(|group| members(group)))?).await?;
    Ok(())
}

fn row(group: &Group, revision: Revision) -> Result<GroupRow<'_>> {
    let spec = group.spec();
    Ok(GroupRow {
        name: spec.name.as_str(),
        title: spec.title.as_deref(),
        description: &spec.description,
        tenant: spec.tenant.as_deref(),
        mode: spec.mode,
        prefix: spec.prefix,
        body: json(spec)?,
        revision,
        created_at: time(group.created_at),
        updated_at: time(group.updated_at),
        updated_by: &group.updated_by,
    })
}

fn members(group: &Group) -> impl Iterator<Item = Result<MemberRow<'_>>> {
    let group_name = group.name().as_str();
    group.spec().members.iter().enumerate().map(move |(position, member)| {
        let tools = member.tools.as_ref().map(|tools| tools.iter().map(|tool| tool.as_str()).collect());
        Ok(MemberRow { group_name, position, service: member.service.as_str(), tools })
    })
}

/// Removes groups; their members go with them, by foreign key.
pub(super) async fn delete(connection: &mut PgConnection, names: &[String]) -> Result<()> {
    execute_listed(connection, "DELETE FROM tool_groups WHERE name = ANY ($1::text[])", names).await
}

const LOAD: &str = concat!(
    "SELECT body::text, revision, ",
    utc!("created_at"),
    " AS created_at, ",
    utc!("updated_at"),
    " AS updated_at, updated_by FROM tool_groups ORDER BY name"
);

/// Every group, by name.
pub(super) async fn load(connection: &mut PgConnection) -> Result<Vec<Arc<Group>>> {
    fetch_all(connection, LOAD).await?.iter().map(|row| declared::group(row).map(Arc::new)).collect()
}

/// The revisions of the groups of these names.
pub(super) async fn revisions(connection: &mut PgConnection, names: &[String]) -> Result<HashMap<GroupName, Revision>> {
    let rows =
        fetch_listed(connection, "SELECT name, revision FROM tool_groups WHERE name = ANY ($1::text[])", names).await?;
    rows.iter().map(|row| Ok((get_parsed(row, "name")?, get_revision(row, "revision")?))).collect()
}
