//! The health of instances as the replica said that looks after them, and their
//! last heartbeats. Whether that replica may say so was decided before.

use std::collections::HashSet;
use std::sync::Arc;

use machina_core::{Health, Image, InstanceId, ReasonCode, Result, Seen, ServiceId, Timestamp};
use serde::Serialize;
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

use super::statement::{as_rows, fetch_all, get, get_json, get_parsed, json, time, utc, with_rows};
use crate::conflict;

/// What was said of an instance.
pub(super) type Said<'a> = (ServiceId, InstanceId, &'a Health);

#[derive(Serialize)]
struct HealthRow<'a> {
    service_id: ServiceId,
    instance_id: InstanceId,
    state: &'a str,
    reason_code: ReasonCode,
    reason: &'a str,
    since: String,
    last_check: Option<String>,
    response_time_ms: Option<f64>,
    consecutive_failures: u32,
    flapping: bool,
    body: String,
}

const UPSERT: &str = "\
    INSERT INTO instance_health AS h (instance_id, state, reason_code, reason, since, last_check, response_time_ms, \
        consecutive_failures, flapping, body) \
    SELECT i.id, r.state, r.reason_code, r.reason, r.since, r.last_check, r.response_time_ms, \
        r.consecutive_failures, r.flapping, r.body::json \
    FROM json_to_recordset($1::json) AS r (service_id uuid, instance_id uuid, state text, reason_code text, \
        reason text, since timestamptz, last_check timestamptz, response_time_ms float8, \
        consecutive_failures bigint, flapping boolean, body text) \
    JOIN instances AS i ON i.id = r.instance_id AND i.service_id = r.service_id \
    ON CONFLICT (instance_id) DO UPDATE SET (state, reason_code, reason, since, last_check, response_time_ms, \
        consecutive_failures, flapping, body) = ROW (EXCLUDED.state, EXCLUDED.reason_code, EXCLUDED.reason, \
        EXCLUDED.since, EXCLUDED.last_check, EXCLUDED.response_time_ms, EXCLUDED.consecutive_failures, \
        EXCLUDED.flapping, EXCLUDED.body) \
    RETURNING h.instance_id::text";

/// Replaces what is known of instances, each of them one time.
pub(super) async fn put(connection: &mut PgConnection, said: &[Said<'_>]) -> Result<()> {
    let mut known = HashSet::new();
    for row in with_rows(connection, UPSERT, as_rows(said.iter().map(row))?).await? {
        known.insert(get_parsed::<InstanceId>(&row, "instance_id")?);
    }
    match said.iter().find(|(_, instance, _)| !known.contains(instance)) {
        Some((service, instance, _)) => Err(conflict::no_instance(*service, *instance)),
        None => Ok(()),
    }
}

fn row<'a>((service_id, instance_id, health): &Said<'a>) -> Result<HealthRow<'a>> {
    Ok(HealthRow {
        service_id: *service_id,
        instance_id: *instance_id,
        state: health.state.as_str(),
        reason_code: health.reason.code,
        reason: &health.reason.message,
        since: time(health.since),
        last_check: health.last_check.map(time),
        response_time_ms: health.response_time_ms,
        consecutive_failures: health.consecutive_failures,
        flapping: health.flapping,
        body: json(health)?,
    })
}

const CHECKED: &str = "\
    UPDATE instance_health AS h SET last_check = r.last_check \
    FROM (SELECT instance, max(last_check) AS last_check \
          FROM json_to_recordset($1::json) AS r (instance uuid, last_check timestamptz) GROUP BY instance) AS r \
    WHERE h.instance_id = r.instance AND h.body IS NOT NULL \
        AND (h.last_check < r.last_check OR (h.last_check IS NULL AND r.last_check IS NOT NULL))";

const HEARD: &str = "\
    INSERT INTO instance_health AS h (instance_id, last_heartbeat) \
    SELECT i.id, max(r.heartbeat) FROM json_to_recordset($1::json) AS r (instance uuid, heartbeat timestamptz) \
    JOIN instances AS i ON i.id = r.instance WHERE r.heartbeat IS NOT NULL GROUP BY i.id \
    ON CONFLICT (instance_id) DO UPDATE SET last_heartbeat = greatest(h.last_heartbeat, EXCLUDED.last_heartbeat)";

/// Of two times the later counts; of what is not declared nothing is kept.
pub(super) async fn see(connection: &mut PgConnection, all: &[Seen]) -> Result<()> {
    with_rows(connection, CHECKED, as_rows(all.iter().map(Ok))?).await?;
    with_rows(connection, HEARD, as_rows(all.iter().map(Ok))?).await?;
    Ok(())
}

const LOAD: &str = concat!(
    "SELECT instance_id::text, body::text, ",
    utc!("last_check"),
    " AS last_check, ",
    utc!("last_heartbeat"),
    " AS last_heartbeat FROM instance_health"
);

/// Adds what is known of instances to `image`.
pub(super) async fn load(connection: &mut PgConnection, image: &mut Image) -> Result<()> {
    for row in fetch_all(connection, LOAD).await? {
        let id = get_parsed(&row, "instance_id")?;
        if get::<Option<&str>>(&row, "body")?.is_some() {
            let mut health: Health = get_json(&row, "body")?;
            health.last_check = health.last_check.max(optional_time(&row, "last_check")?);
            image.health.insert(id, Arc::new(health));
        }
        if let Some(at) = optional_time(&row, "last_heartbeat")? {
            image.heartbeats.insert(id, at);
        }
    }
    Ok(())
}

fn optional_time(row: &PgRow, column: &str) -> Result<Option<Timestamp>> {
    get::<Option<&str>>(row, column)?.map(|_| get_parsed(row, column)).transpose()
}
