//! Services and their instances: the declaration whole, for Machina; its fields,
//! for people; the secrets in a table of their own. Any number at once.

use std::collections::{BTreeMap, HashSet};

use machina_core::{AdminState, Error, Instance, InstanceId, Result, Revision, Service, ServiceId, Tag};
use serde::Serialize;
use serde_json::{Map, Value};
use sqlx::PgConnection;

use super::configs;
use super::error::database_error;
use super::statement::{as_rows, execute_listed, fetch_all, get, get_parsed, json, time, utc, with_rows};
use crate::conflict;
use crate::declared::{self, Secrets};

#[derive(Serialize)]
struct ServiceRow<'a> {
    id: ServiceId,
    name: &'a str,
    title: Option<&'a str>,
    description: &'a str,
    version: Option<&'a str>,
    build_type: &'a str,
    origin: &'a str,
    required: bool,
    build_priority: &'a str,
    enabled: bool,
    admin_state: &'a str,
    admin_reason: Option<&'a str>,
    category: Option<&'a str>,
    tags: &'a [Tag],
    capabilities: &'a [String],
    environment: Option<&'a str>,
    tenant: Option<&'a str>,
    access_level: &'a str,
    owner: Option<&'a str>,
    repository_url: Option<&'a str>,
    documentation_url: Option<&'a str>,
    config: &'a Map<String, Value>,
    labels: &'a BTreeMap<String, String>,
    metadata: &'a Map<String, Value>,
    body: String,
    revision: Revision,
    created_at: String,
    updated_at: String,
    updated_by: &'a str,
    // For the history of configurations.
    service_id: ServiceId,
    service_name: &'a str,
    environment_vars: Value,
}

const UPSERT_SERVICES: &str = "\
    INSERT INTO services (id, name, title, description, version, build_type, origin, required, build_priority, \
        enabled, admin_state, admin_reason, category, tags, capabilities, environment, tenant, access_level, owner, \
        repository_url, documentation_url, config, labels, metadata, body, revision, created_at, updated_at, updated_by) \
    SELECT id, name, title, description, version, build_type, origin, required, build_priority, \
        enabled, admin_state, admin_reason, category, tags, capabilities, environment, tenant, access_level, owner, \
        repository_url, documentation_url, config, labels, metadata, (body #>> '{}')::json, revision, created_at, \
        updated_at, updated_by \
    FROM json_populate_recordset(NULL::services, $1::json) \
    ON CONFLICT (id) DO UPDATE SET (name, title, description, version, build_type, origin, required, build_priority, \
        enabled, admin_state, admin_reason, category, tags, capabilities, environment, tenant, access_level, owner, \
        repository_url, documentation_url, config, labels, metadata, body, revision, created_at, updated_at, updated_by) \
        = ROW (EXCLUDED.name, EXCLUDED.title, EXCLUDED.description, EXCLUDED.version, EXCLUDED.build_type, \
        EXCLUDED.origin, EXCLUDED.required, EXCLUDED.build_priority, EXCLUDED.enabled, EXCLUDED.admin_state, \
        EXCLUDED.admin_reason, EXCLUDED.category, EXCLUDED.tags, EXCLUDED.capabilities, EXCLUDED.environment, \
        EXCLUDED.tenant, EXCLUDED.access_level, EXCLUDED.owner, EXCLUDED.repository_url, EXCLUDED.documentation_url, \
        EXCLUDED.config, EXCLUDED.labels, EXCLUDED.metadata, EXCLUDED.body, EXCLUDED.revision, EXCLUDED.created_at, \
        EXCLUDED.updated_at, EXCLUDED.updated_by) \
    RETURNING id::text, xmax = 0 AS is_new";

/// Not as JSON, in which a NUL would be replaced: it is refused here.
const INSERT_SECRETS: &str = "\
    INSERT INTO secrets (service_id, place, value) SELECT * FROM unnest ($1::uuid[], $2::text[], $3::text[])";

#[derive(Serialize)]
struct InstanceRow<'a> {
    id: InstanceId,
    service_id: ServiceId,
    position: usize,
    endpoint_kind: &'a str,
    location: String,
    weight: u32,
    region: Option<&'a str>,
    zone: Option<&'a str>,
    labels: &'a BTreeMap<String, String>,
    admin_state: &'a str,
    admin_reason: Option<&'a str>,
    lease_ttl_ms: Option<u64>,
}

const UPSERT_INSTANCES: &str = "\
    INSERT INTO instances (id, service_id, position, endpoint_kind, location, weight, region, zone, labels, \
        admin_state, admin_reason, lease_ttl_ms) \
    SELECT id, service_id, position, endpoint_kind, location, weight, region, zone, labels, \
        admin_state, admin_reason, lease_ttl_ms \
    FROM json_populate_recordset(NULL::instances, $1::json) \
    ON CONFLICT (id) DO UPDATE SET (position, endpoint_kind, location, weight, region, zone, labels, admin_state, \
        admin_reason, lease_ttl_ms) = ROW (EXCLUDED.position, EXCLUDED.endpoint_kind, EXCLUDED.location, \
        EXCLUDED.weight, EXCLUDED.region, EXCLUDED.zone, EXCLUDED.labels, EXCLUDED.admin_state, \
        EXCLUDED.admin_reason, EXCLUDED.lease_ttl_ms) \
        WHERE instances.service_id = EXCLUDED.service_id \
    RETURNING id::text";

/// What an instance published goes with it, by foreign keys.
const DELETE_OTHER_INSTANCES: &str = "\
    DELETE FROM instances WHERE service_id = ANY ($1::uuid[]) \
        AND (service_id, id) NOT IN (SELECT * FROM unnest ($2::uuid[], $3::uuid[]))";

/// Makes or replaces services, each of them one time.
pub(super) async fn put(connection: &mut PgConnection, services: &[&Service], revision: Revision) -> Result<()> {
    let rows: Vec<ServiceRow<'_>> = services.iter().map(|service| row(service, revision)).collect::<Result<_>>()?;
    let ids: Vec<String> = services.iter().map(|service| service.id.to_string()).collect();
    let mut old = Vec::new();
    for row in with_rows(connection, UPSERT_SERVICES, as_rows(rows.iter().map(Ok))?).await? {
        if !get::<bool>(&row, "is_new")? {
            old.push(get::<String>(&row, "id")?);
        }
    }
    if !old.is_empty() {
        execute_listed(connection, "DELETE FROM secrets WHERE service_id = ANY ($1::uuid[])", &old).await?;
        delete_other_instances(connection, &ids, services).await?;
    }
    put_secrets(connection, services).await?;
    put_instances(connection, services).await?;
    configs::append(connection, as_rows(rows.iter().map(Ok))?, &old).await
}

fn row(service: &Service, revision: Revision) -> Result<ServiceRow<'_>> {
    let spec = &service.spec;
    let environment_vars =
        serde_json::to_value(&spec.env).map_err(|error| Error::internal("`env` has no JSON form").caused_by(error))?;
    Ok(ServiceRow {
        id: service.id,
        name: spec.name.as_str(),
        title: spec.title.as_deref(),
        description: &spec.description,
        version: spec.version.as_deref(),
        build_type: spec.build_type.as_str(),
        origin: spec.origin.as_str(),
        required: spec.required,
        build_priority: spec.build_priority.as_str(),
        enabled: spec.admin_state == AdminState::Enabled,
        admin_state: spec.admin_state.as_str(),
        admin_reason: spec.admin_reason.as_deref(),
        category: spec.category.as_deref(),
        tags: &spec.tags,
        capabilities: &spec.capabilities,
        environment: spec.environment.as_deref(),
        tenant: spec.tenant.as_deref(),
        access_level: spec.access_level.as_str(),
        owner: spec.owner.as_deref(),
        repository_url: spec.repository_url.as_deref(),
        documentation_url: spec.documentation_url.as_deref(),
        config: &spec.config,
        labels: &spec.labels,
        metadata: &spec.metadata,
        body: json(spec)?,
        revision,
        created_at: time(service.created_at),
        updated_at: time(service.updated_at),
        updated_by: &service.updated_by,
        service_id: service.id,
        service_name: spec.name.as_str(),
        environment_vars,
    })
}

async fn put_secrets(connection: &mut PgConnection, services: &[&Service]) -> Result<()> {
    let (mut ids, mut places, mut values) = (Vec::new(), Vec::new(), Vec::new());
    for service in services {
        for (place, value) in service.spec.secrets() {
            ids.push(service.id.to_string());
            places.push(place);
            values.push(value);
        }
    }
    if ids.is_empty() {
        return Ok(());
    }
    let insert = sqlx::query(INSERT_SECRETS).bind(ids).bind(places).bind(values);
    insert.execute(connection).await.map_err(database_error).map(drop)
}

async fn delete_other_instances(connection: &mut PgConnection, ids: &[String], services: &[&Service]) -> Result<()> {
    let declared = || services.iter().flat_map(|service| service.spec.instances.iter().map(|one| (service.id, one.id)));
    let owners: Vec<String> = declared().map(|(service, _)| service.to_string()).collect();
    let instances: Vec<String> = declared().map(|(_, instance)| instance.to_string()).collect();
    let delete = sqlx::query(DELETE_OTHER_INSTANCES).bind(ids).bind(owners).bind(instances);
    delete.execute(connection).await.map_err(database_error).map(drop)
}

async fn put_instances(connection: &mut PgConnection, services: &[&Service]) -> Result<()> {
    let mut rows = Vec::new();
    let mut declared = HashSet::new();
    for service in services {
        for (position, instance) in service.spec.instances.iter().enumerate() {
            if !declared.insert(instance.id) {
                return Err(conflict::instance_of_another(instance.id));
            }
            rows.push(instance_row(service.id, position, instance));
        }
    }
    for row in with_rows(connection, UPSERT_INSTANCES, as_rows(rows.into_iter().map(Ok))?).await? {
        declared.remove(&get_parsed(&row, "id")?);
    }
    declared.into_iter().next().map_or(Ok(()), |id| Err(conflict::instance_of_another(id)))
}

fn instance_row(service_id: ServiceId, position: usize, instance: &Instance) -> InstanceRow<'_> {
    InstanceRow {
        id: instance.id,
        service_id,
        position,
        endpoint_kind: instance.endpoint.kind(),
        location: instance.endpoint.location(),
        weight: instance.weight,
        region: instance.region.as_deref(),
        zone: instance.zone.as_deref(),
        labels: &instance.labels,
        admin_state: instance.admin_state.as_str(),
        admin_reason: instance.admin_reason.as_deref(),
        lease_ttl_ms: instance.lease_ttl.and_then(|ttl| u64::try_from(ttl.as_millis()).ok()),
    }
}

/// Removes services and all that belongs to them.
pub(super) async fn delete(connection: &mut PgConnection, ids: &[String]) -> Result<()> {
    execute_listed(connection, "DELETE FROM services WHERE id = ANY ($1::uuid[])", ids).await
}

const LOAD: &str = concat!(
    "SELECT id::text, body::text, revision, ",
    utc!("created_at"),
    " AS created_at, ",
    utc!("updated_at"),
    " AS updated_at, updated_by FROM services ORDER BY id"
);

/// Every service, secrets in place.
pub(super) async fn load(connection: &mut PgConnection) -> Result<Vec<Service>> {
    let secrets = Secrets::of(&fetch_all(connection, "SELECT service_id::text, place, value FROM secrets").await?)?;
    let rows = fetch_all(connection, LOAD).await?;
    rows.iter().map(|row| declared::service(row, &secrets)).collect()
}
