//! What a replica hints at, as notifications: kept nowhere, and lost where nobody
//! listens.

use machina_core::{InstanceId, Result};
use sqlx::PgConnection;

use super::error::database_error;

/// The channel of hints.
pub(super) const CHANNEL: &str = "machina_hint";

/// How many instances one notification names: it may have 8,000 bytes.
const AT_ONCE: usize = 200;

/// Tells whoever listens of these instances.
pub(super) async fn give(connection: &mut PgConnection, instances: &[InstanceId]) -> Result<()> {
    for some in instances.chunks(AT_ONCE) {
        let named: Vec<String> = some.iter().map(ToString::to_string).collect();
        let told = sqlx::query("SELECT pg_notify($1, $2)").bind(CHANNEL).bind(named.join(","));
        told.execute(&mut *connection).await.map_err(database_error)?;
    }
    Ok(())
}

/// The instances that a notification names, but for what is none.
pub(super) fn read(payload: &str) -> Vec<InstanceId> {
    payload.split(',').filter_map(|id| id.parse().ok()).collect()
}
