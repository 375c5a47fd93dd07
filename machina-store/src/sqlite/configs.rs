//! The history of each service's configuration, for people: a row whenever it
//! changes. Machina itself never reads it.

use machina_core::{AdminState, Result, Service};
use sea_query::{Expr, ExprTrait, Order, Query};
use sqlx::SqliteConnection;

use super::commit::revision_value;
use super::statement::{execute, fetch_first, get, insert, json, time};

/// How many rows a service keeps.
const ROWS_MAX: u64 = 100;

/// Appends the configuration of `service`, unless it is the latest already.
pub(super) async fn append(connection: &mut SqliteConnection, service: &Service, is_new: bool) -> Result<()> {
    let spec = &service.spec;
    let (id, env, config) = (service.id.to_string(), json(&spec.env)?, json(&spec.config)?);
    let enabled = spec.admin_state == AdminState::Enabled;
    if !is_new {
        let now = (spec.required, spec.build_priority.as_str(), enabled, env.as_str(), config.as_str());
        if is_latest(connection, &id, now).await? {
            return Ok(());
        }
        trim(connection, &id).await?;
    }
    let columns = [
        ("service_id", id.into()),
        ("service_name", spec.name.as_str().into()),
        ("required", spec.required.into()),
        ("build_priority", spec.build_priority.as_str().into()),
        ("enabled", enabled.into()),
        ("environment_vars", env.into()),
        ("config", config.into()),
        ("revision", revision_value(service.revision)?),
        ("updated_by", service.updated_by.as_str().into()),
        ("updated_at", time(service.updated_at).into()),
    ];
    execute(connection, &insert("service_configs", columns)).await.map(drop)
}

async fn is_latest(
    connection: &mut SqliteConnection,
    service_id: &str,
    now: (bool, &str, bool, &str, &str),
) -> Result<bool> {
    let mut select = Query::select();
    select
        .columns(["required", "build_priority", "enabled", "environment_vars", "config"])
        .from("service_configs")
        .and_where(Expr::col("service_id").eq(service_id))
        .order_by("id", Order::Desc)
        .limit(1);
    let Some(row) = fetch_first(connection, &select).await? else { return Ok(false) };
    let latest = (
        get(&row, "required")?,
        get(&row, "build_priority")?,
        get(&row, "enabled")?,
        get(&row, "environment_vars")?,
        get(&row, "config")?,
    );
    Ok(latest == now)
}

/// Makes room for one more row.
async fn trim(connection: &mut SqliteConnection, service_id: &str) -> Result<()> {
    let mut oldest = Query::select();
    oldest
        .column("id")
        .from("service_configs")
        .and_where(Expr::col("service_id").eq(service_id))
        .order_by("id", Order::Desc)
        .limit(1)
        .offset(ROWS_MAX - 1);
    let Some(row) = fetch_first(connection, &oldest).await? else { return Ok(()) };
    let mut delete = Query::delete();
    delete
        .from_table("service_configs")
        .and_where(Expr::col("service_id").eq(service_id))
        .and_where(Expr::col("id").lte(get::<i64>(&row, "id")?));
    execute(connection, &delete).await.map(drop)
}
