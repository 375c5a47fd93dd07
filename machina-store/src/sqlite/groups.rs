//! Groups: the declaration whole, for Machina; and its fields, for people.

use std::sync::Arc;

use machina_core::{Group, GroupName, Result, Revision, ToolMode, ToolPrefix};
use sea_query::{Expr, ExprTrait, OnConflict, Order, Query};
use sqlx::SqliteConnection;

use super::statement::{execute, fetch, fetch_first, get_revision, insert, json, time};
use crate::record::revision_value;
use crate::{conflict, declared};

/// Makes or replaces a group.
pub(super) async fn put(connection: &mut SqliteConnection, group: &Group) -> Result<()> {
    let spec = group.spec();
    let columns = [
        ("name", spec.name.as_str().into()),
        ("title", spec.title.clone().into()),
        ("description", spec.description.as_str().into()),
        ("tenant", spec.tenant.clone().into()),
        ("mode", mode(spec.mode).into()),
        ("prefix", prefix(spec.prefix).into()),
        ("body", json(spec)?.into()),
        ("revision", revision_value(group.revision)?.into()),
        ("created_at", time(group.created_at).into()),
        ("updated_at", time(group.updated_at).into()),
        ("updated_by", group.updated_by.as_str().into()),
    ];
    let others = columns.each_ref().map(|(name, _)| *name).into_iter().skip(1);
    let mut upsert = insert("tool_groups", columns.clone());
    upsert.on_conflict(OnConflict::column("name").update_columns(others).to_owned());
    execute(connection, &upsert).await?;
    let mut clear = Query::delete();
    clear.from_table("tool_group_members").and_where(Expr::col("group_name").eq(spec.name.as_str()));
    execute(connection, &clear).await?;
    for (position, member) in spec.members.iter().enumerate() {
        let columns = [
            ("group_name", spec.name.as_str().into()),
            ("position", (position as u64).into()),
            ("service", member.service.as_str().into()),
            ("tools", member.tools.as_ref().map(json).transpose()?.into()),
        ];
        execute(connection, &insert("tool_group_members", columns)).await?;
    }
    Ok(())
}

const fn mode(mode: ToolMode) -> &'static str {
    match mode {
        ToolMode::Meta => "meta",
        ToolMode::Flat => "flat",
    }
}

const fn prefix(prefix: ToolPrefix) -> &'static str {
    match prefix {
        ToolPrefix::Always => "always",
        ToolPrefix::OnCollision => "on_collision",
        ToolPrefix::None => "none",
    }
}

/// Removes a group; its members go with it, by foreign key.
pub(super) async fn delete(connection: &mut SqliteConnection, name: &GroupName) -> Result<()> {
    let mut delete = Query::delete();
    delete.from_table("tool_groups").and_where(Expr::col("name").eq(name.as_str()));
    execute(connection, &delete).await.map(drop)
}

/// The revision of the group of this name.
async fn revision(connection: &mut SqliteConnection, name: &GroupName) -> Result<Option<Revision>> {
    let mut select = Query::select();
    select.column("revision").from("tool_groups").and_where(Expr::col("name").eq(name.as_str()));
    let row = fetch_first(connection, &select).await?;
    row.map(|row| get_revision(&row, "revision")).transpose()
}

/// No group has this name.
pub(super) async fn check_absent(connection: &mut SqliteConnection, name: &GroupName) -> Result<()> {
    conflict::check_group_absent(name, revision(connection, name).await?)
}

/// The group was last changed by this revision.
pub(super) async fn check_revision(
    connection: &mut SqliteConnection,
    name: &GroupName,
    expected: Revision,
) -> Result<()> {
    conflict::check_group_revision(name, revision(connection, name).await?, expected)
}

/// Every group, by name.
pub(super) async fn load(connection: &mut SqliteConnection) -> Result<Vec<Arc<Group>>> {
    let mut select = Query::select();
    select.columns(["body", "revision", "created_at", "updated_at", "updated_by"]).from("tool_groups");
    let rows = fetch(connection, select.order_by("name", Order::Asc)).await?;
    rows.iter().map(|row| declared::group(row).map(Arc::new)).collect()
}
