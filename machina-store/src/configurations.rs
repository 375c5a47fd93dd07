//! The history of each service's configuration, which every database keeps for
//! people: a row whenever it changes. Machina itself never reads it but to copy it
//! into another database. There are no secrets in it: they are masked.

use async_trait::async_trait;
use machina_core::{Result, ServiceId, Timestamp};
use serde_json::Value;

use crate::record::{Columns, get_json, get_parsed};

/// How many rows a service keeps.
pub(crate) const ROWS_MAX: u32 = 100;

/// What a service was configured to be, from when on, and by whom. The revision is
/// left out: every store has its own.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Configuration {
    pub(crate) service_name: String,
    pub(crate) required: bool,
    pub(crate) build_priority: String,
    pub(crate) enabled: bool,
    pub(crate) environment_vars: Value,
    pub(crate) config: Value,
    pub(crate) updated_by: String,
    pub(crate) updated_at: Timestamp,
}

/// The rows of one service, oldest first.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct History {
    pub(crate) service: ServiceId,
    pub(crate) rows: Vec<Configuration>,
}

/// What keeps histories.
#[async_trait]
pub(crate) trait Configurations: Send + Sync {
    /// The histories of the next so many services that have one, in the order of
    /// their ids.
    async fn list(&self, after: Option<ServiceId>, services: u32) -> Result<Vec<History>>;

    /// Puts histories in the place of what there is of those services, which exist:
    /// all or nothing. Their rows are of the revision that the service has here.
    async fn replace(&self, histories: &[History]) -> Result<()>;
}

/// Histories of rows that are in the order of their services.
pub(crate) fn histories<R: Columns>(rows: &[R]) -> Result<Vec<History>> {
    let mut found: Vec<History> = Vec::new();
    for row in rows {
        let (service, one) = (get_parsed(row, "service_id")?, configuration(row)?);
        match found.last_mut().filter(|last| last.service == service) {
            Some(last) => last.rows.push(one),
            None => found.push(History { service, rows: vec![one] }),
        }
    }
    Ok(found)
}

fn configuration(row: &impl Columns) -> Result<Configuration> {
    Ok(Configuration {
        service_name: row.text("service_name")?.to_owned(),
        required: row.flag("required")?,
        build_priority: row.text("build_priority")?.to_owned(),
        enabled: row.flag("enabled")?,
        environment_vars: get_json(row, "environment_vars")?,
        config: get_json(row, "config")?,
        updated_by: row.text("updated_by")?.to_owned(),
        updated_at: get_parsed(row, "updated_at")?,
    })
}
