//! The history of configurations in `service_configs`: see [`crate::configurations`].

use async_trait::async_trait;
use machina_core::{Result, ServiceId};
use serde::Serialize;
use serde_json::Value;
use sqlx::{Connection, PgConnection};

use super::PostgresStore;
use super::error::{database_error, within};
use super::statement::{Rows, as_rows, execute_listed, time, utc, with_rows};
use crate::configurations::{Configuration, Configurations, History, ROWS_MAX, histories};

/// What changed is added, what did not is not.
const APPEND: &str = "\
    INSERT INTO service_configs (service_id, service_name, required, build_priority, enabled, environment_vars, \
        config, revision, updated_by, updated_at) \
    SELECT r.service_id, r.service_name, r.required, r.build_priority, r.enabled, r.environment_vars, r.config, \
        r.revision, r.updated_by, r.updated_at \
    FROM json_to_recordset($1::json) AS r (service_id uuid, service_name text, required boolean, build_priority text, \
        enabled boolean, environment_vars jsonb, config jsonb, revision bigint, updated_by text, updated_at timestamptz) \
    LEFT JOIN LATERAL ( \
        SELECT * FROM service_configs AS c WHERE c.service_id = r.service_id ORDER BY c.id DESC LIMIT 1 \
    ) AS latest ON true \
    WHERE (latest.required, latest.build_priority, latest.enabled, latest.environment_vars, latest.config) \
        IS DISTINCT FROM (r.required, r.build_priority, r.enabled, r.environment_vars, r.config)";

const TRIM: &str = "\
    DELETE FROM service_configs WHERE id IN ( \
        SELECT id FROM ( \
            SELECT id, row_number() OVER (PARTITION BY service_id ORDER BY id DESC) AS place FROM service_configs \
            WHERE service_id = ANY ($1::uuid[]) \
        ) AS numbered WHERE place > $2)";

/// Appends the configurations of services, of which those in `old` had some before.
pub(super) async fn append(connection: &mut PgConnection, rows: Rows, old: &[String]) -> Result<()> {
    with_rows(connection, APPEND, rows).await?;
    if old.is_empty() {
        return Ok(());
    }
    let trim = sqlx::query(TRIM).bind(old).bind(i64::from(ROWS_MAX));
    trim.execute(connection).await.map_err(database_error).map(drop)
}

const LIST: &str = concat!(
    "SELECT service_id::text, service_name, required, build_priority, enabled, environment_vars::text, config::text, \
     updated_by, ",
    utc!("updated_at"),
    " AS updated_at FROM service_configs WHERE service_id IN ( \
     SELECT id FROM services AS s WHERE ($1::uuid IS NULL OR id > $1::uuid) \
     AND EXISTS (SELECT FROM service_configs AS c WHERE c.service_id = s.id) ORDER BY id LIMIT $2) \
     ORDER BY service_id, service_configs.id"
);

const CLEAR: &str = "DELETE FROM service_configs WHERE service_id = ANY ($1::uuid[])";

const INSERT: &str = "\
    INSERT INTO service_configs (service_id, service_name, required, build_priority, enabled, environment_vars, \
        config, revision, updated_by, updated_at) \
    SELECT r.service_id, r.service_name, r.required, r.build_priority, r.enabled, r.environment_vars, r.config, \
        s.revision, r.updated_by, r.updated_at \
    FROM json_to_recordset($1::json) AS r (position bigint, service_id uuid, service_name text, required boolean, \
        build_priority text, enabled boolean, environment_vars jsonb, config jsonb, updated_by text, \
        updated_at timestamptz) \
    JOIN services AS s ON s.id = r.service_id ORDER BY r.service_id, r.position";

#[derive(Serialize)]
struct Row<'a> {
    position: usize,
    service_id: ServiceId,
    service_name: &'a str,
    required: bool,
    build_priority: &'a str,
    enabled: bool,
    environment_vars: &'a Value,
    config: &'a Value,
    updated_by: &'a str,
    updated_at: String,
}

fn row(service_id: ServiceId, position: usize, one: &Configuration) -> Row<'_> {
    Row {
        position,
        service_id,
        service_name: &one.service_name,
        required: one.required,
        build_priority: &one.build_priority,
        enabled: one.enabled,
        environment_vars: &one.environment_vars,
        config: &one.config,
        updated_by: &one.updated_by,
        updated_at: time(one.updated_at),
    }
}

async fn replace(connection: &mut PgConnection, histories: &[History]) -> Result<()> {
    let ids: Vec<String> = histories.iter().map(|history| history.service.to_string()).collect();
    let rows = histories.iter().flat_map(|History { service, rows }| {
        rows.iter().enumerate().map(|(position, one)| Ok(row(*service, position, one)))
    });
    let rows = as_rows(rows)?;
    let mut transaction = connection.begin().await.map_err(database_error)?;
    execute_listed(&mut transaction, CLEAR, &ids).await?;
    with_rows(&mut transaction, INSERT, rows).await?;
    transaction.commit().await.map_err(database_error)
}

async fn list(connection: &mut PgConnection, after: Option<ServiceId>, services: u32) -> Result<Vec<History>> {
    let list = sqlx::query(LIST).bind(after.map(|id| id.to_string())).bind(i64::from(services));
    histories(&list.fetch_all(connection).await.map_err(database_error)?)
}

#[async_trait]
impl Configurations for PostgresStore {
    async fn list(&self, after: Option<ServiceId>, services: u32) -> Result<Vec<History>> {
        let mut connection = self.acquire().await?;
        let listed = within(self.patience, list(&mut connection, after, services)).await;
        super::settle(connection, listed)
    }

    async fn replace(&self, histories: &[History]) -> Result<()> {
        let mut connection = self.acquire().await?;
        let replaced = within(self.patience, replace(&mut connection, histories)).await;
        super::settle(connection, replaced)
    }
}
