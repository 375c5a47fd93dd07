//! The history of configurations in `service_configs`: see [`crate::configurations`].

use async_trait::async_trait;
use machina_core::{AdminState, Result, Service, ServiceId};
use sea_query::{Expr, ExprTrait, Order, Query};
use serde_json::Value;
use sqlx::{Connection, SqliteConnection};

use super::statement::{database_error, execute, fetch, fetch_first, get, get_json, insert, json, time};
use super::{SqliteStore, acquire, settle};
use crate::configurations::{Configuration, Configurations, History, ROWS_MAX, histories};
use crate::record::revision_value;

/// The columns that it is read by.
const COLUMNS: [&str; 9] = [
    "service_id",
    "service_name",
    "required",
    "build_priority",
    "enabled",
    "environment_vars",
    "config",
    "updated_by",
    "updated_at",
];

/// Appends the configuration of `service`, unless it is the latest already.
pub(super) async fn append(connection: &mut SqliteConnection, service: &Service, is_new: bool) -> Result<()> {
    let spec = &service.spec;
    let id = service.id.to_string();
    let now = Configuration {
        service_name: spec.name.as_str().to_owned(),
        required: spec.required,
        build_priority: spec.build_priority.as_str().to_owned(),
        enabled: spec.admin_state == AdminState::Enabled,
        environment_vars: serde_json::from_str(&json(&spec.env)?).unwrap_or_default(),
        config: Value::Object(spec.config.clone()),
        updated_by: service.updated_by.clone(),
        updated_at: service.updated_at,
    };
    if !is_new {
        if is_latest(connection, &id, &now).await? {
            return Ok(());
        }
        trim(connection, &id).await?;
    }
    put(connection, &id, revision_value(service.revision)?, &now).await
}

async fn put(connection: &mut SqliteConnection, service_id: &str, revision: i64, one: &Configuration) -> Result<()> {
    let columns = [
        ("service_id", service_id.into()),
        ("service_name", one.service_name.as_str().into()),
        ("required", one.required.into()),
        ("build_priority", one.build_priority.as_str().into()),
        ("enabled", one.enabled.into()),
        ("environment_vars", json(&one.environment_vars)?.into()),
        ("config", json(&one.config)?.into()),
        ("revision", revision.into()),
        ("updated_by", one.updated_by.as_str().into()),
        ("updated_at", time(one.updated_at).into()),
    ];
    execute(connection, &insert("service_configs", columns)).await.map(drop)
}

/// The order of fields makes no difference: what was copied here may have another.
async fn is_latest(connection: &mut SqliteConnection, service_id: &str, now: &Configuration) -> Result<bool> {
    let mut select = Query::select();
    select
        .columns(["required", "build_priority", "enabled", "environment_vars", "config"])
        .from("service_configs")
        .and_where(Expr::col("service_id").eq(service_id))
        .order_by("id", Order::Desc)
        .limit(1);
    let Some(row) = fetch_first(connection, &select).await? else { return Ok(false) };
    Ok(get::<bool>(&row, "required")? == now.required
        && get::<&str>(&row, "build_priority")? == now.build_priority
        && get::<bool>(&row, "enabled")? == now.enabled
        && get_json::<Value>(&row, "environment_vars")? == now.environment_vars
        && get_json::<Value>(&row, "config")? == now.config)
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
        .offset(u64::from(ROWS_MAX) - 1);
    let Some(row) = fetch_first(connection, &oldest).await? else { return Ok(()) };
    let mut delete = Query::delete();
    delete
        .from_table("service_configs")
        .and_where(Expr::col("service_id").eq(service_id))
        .and_where(Expr::col("id").lte(get::<i64>(&row, "id")?));
    execute(connection, &delete).await.map(drop)
}

async fn list(connection: &mut SqliteConnection, after: Option<ServiceId>, services: u32) -> Result<Vec<History>> {
    let mut next = Query::select();
    next.distinct().column("service_id").from("service_configs").limit(services.into());
    if let Some(after) = after {
        next.and_where(Expr::col("service_id").gt(after.to_string()));
    }
    next.order_by("service_id", Order::Asc);
    let mut select = Query::select();
    select.columns(COLUMNS).from("service_configs").and_where(Expr::col("service_id").in_subquery(next));
    select.order_by("service_id", Order::Asc).order_by("id", Order::Asc);
    histories(&fetch(connection, &select).await?)
}

async fn replace(connection: &mut SqliteConnection, histories: &[History]) -> Result<()> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(database_error)?;
    for History { service, rows } in histories {
        let id = service.to_string();
        let mut select = Query::select();
        select.column("revision").from("services").and_where(Expr::col("id").eq(id.as_str()));
        let Some(row) = fetch_first(&mut transaction, &select).await? else { continue };
        let revision: i64 = get(&row, "revision")?;
        let mut clear = Query::delete();
        clear.from_table("service_configs").and_where(Expr::col("service_id").eq(id.as_str()));
        execute(&mut transaction, &clear).await?;
        for one in rows {
            put(&mut transaction, &id, revision, one).await?;
        }
    }
    transaction.commit().await.map_err(database_error)
}

#[async_trait]
impl Configurations for SqliteStore {
    async fn list(&self, after: Option<ServiceId>, services: u32) -> Result<Vec<History>> {
        let mut connection = acquire(&self.readers).await?;
        let listed = list(&mut connection, after, services).await;
        settle(connection, listed)
    }

    async fn replace(&self, histories: &[History]) -> Result<()> {
        let mut connection = acquire(&self.writer).await?;
        let replaced = replace(&mut connection, histories).await;
        settle(connection, replaced)
    }
}
