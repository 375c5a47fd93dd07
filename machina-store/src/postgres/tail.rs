//! The latest changes, in a table that every replica reads: whole batches in the
//! order of their revisions, bounded in number and in bytes. It never answers with
//! a gap: where it does not know, it says reload.

use std::collections::BTreeMap;
use std::sync::Arc;

use machina_core::{
    Change, Changes, Definitions, Error, Group, GroupName, GroupSpec, Health, InstanceId, RejectedTool, Result,
    Revision, Seen, Service, ServiceId, ServiceName, ServiceSpec, Timestamp, Tool,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::postgres::PgRow;

use super::error::database_error;
use super::statement::{as_rows, get, get_json, get_revision, json, revision_value, unreadable, with_rows};

/// How many changes are kept, and how many bytes of them.
const CHANGES_MAX: i64 = 8192;
const BYTES_MAX: i64 = 64 * 1024 * 1024;

/// The channel on which a commit is announced.
pub(super) const CHANNEL: &str = "machina_changed";

/// Where the one row of counters stands within a commit.
#[derive(Debug)]
pub(super) struct Counter {
    pub(super) revision: Revision,
    /// Which batch it is.
    pub(super) batch: String,
    /// How many changes there ever were, and how many bytes of them.
    pub(super) changes: i64,
    pub(super) bytes: i64,
}

#[derive(Serialize)]
struct ChangeRow<'a> {
    number: i64,
    revision: Revision,
    batch: &'a str,
    kind: &'static str,
    /// As text within the JSON of the row, so that it arrives word for word.
    body: String,
    secrets: Option<String>,
    bytes_before: i64,
}

const INSERT: &str = "\
    INSERT INTO changes (number, revision, batch, kind, body, secrets, bytes_before) \
    SELECT number, revision, batch, kind, body::json, secrets::json, bytes_before \
    FROM json_to_recordset($1::json) AS r (number bigint, revision bigint, batch uuid, kind text, body text, \
        secrets text, bytes_before bigint)";

const ADVANCE: &str = "\
    WITH gone AS (DELETE FROM changes WHERE number <= $1 OR bytes_before < $2 RETURNING revision) \
    UPDATE meta SET changes = $3, bytes = $4, floor = greatest(floor, (SELECT coalesce(max(revision), 0) FROM gone)) \
    RETURNING pg_notify($5, $6)";

/// Remembers the changes of a batch, and announces it as one of this `run`.
pub(super) async fn record(
    connection: &mut PgConnection,
    mut counter: Counter,
    changes: &[Change],
    run: &str,
) -> Result<()> {
    let mut rows = Vec::with_capacity(changes.len());
    for change in changes {
        let (kind, body, secrets) = written(change)?;
        let length = body.len() + secrets.as_ref().map_or(0, String::len);
        let (bytes_before, revision) = (counter.bytes, counter.revision);
        counter.changes += 1;
        counter.bytes += i64::try_from(length).unwrap_or(i64::MAX);
        let number = counter.changes;
        rows.push(ChangeRow { number, revision, batch: &counter.batch, kind, body, secrets, bytes_before });
    }
    with_rows(connection, INSERT, as_rows(rows.into_iter().map(Ok))?).await?;
    sqlx::query(ADVANCE)
        .bind(counter.changes - CHANGES_MAX)
        .bind(counter.bytes - BYTES_MAX)
        .bind(counter.changes)
        .bind(counter.bytes)
        .bind(CHANNEL)
        .bind(run)
        .execute(connection)
        .await
        .map_err(database_error)
        .map(drop)
}

/// A service as it is remembered, without its revision and its secrets.
#[derive(Serialize, Deserialize)]
struct ServiceBody {
    id: ServiceId,
    spec: ServiceSpec,
    created_at: Timestamp,
    updated_at: Timestamp,
    updated_by: String,
}

#[derive(Serialize, Deserialize)]
struct GroupBody {
    spec: GroupSpec,
    created_at: Timestamp,
    updated_at: Timestamp,
    updated_by: String,
}

/// What is said of an instance: its definitions or its health.
#[derive(Serialize, Deserialize)]
struct InstanceBody<T> {
    service: ServiceId,
    instance: InstanceId,
    said: T,
}

#[derive(Deserialize)]
struct DefinitionsBody {
    protocol_version: String,
    server_info: Value,
    instructions: Option<String>,
    capabilities: Value,
    tools: Vec<ToolBody>,
    #[serde(default)]
    rejected: Vec<RejectedTool>,
    #[serde(default)]
    prompts: Vec<Value>,
    #[serde(default)]
    resources: Vec<Value>,
    #[serde(default)]
    resource_templates: Vec<Value>,
    listed_at: Timestamp,
}

#[derive(Deserialize)]
struct ToolBody {
    definition: Value,
}

/// The kind of a change, its JSON, and that of its secrets.
fn written(change: &Change) -> Result<(&'static str, String, Option<String>)> {
    Ok(match change {
        Change::PutService(service) => {
            let secrets = service.spec.secrets();
            let secrets = if secrets.is_empty() { None } else { Some(json(&secrets)?) };
            let body = ServiceBody {
                id: service.id,
                spec: service.spec.clone(),
                created_at: service.created_at,
                updated_at: service.updated_at,
                updated_by: service.updated_by.clone(),
            };
            ("put_service", json(&body)?, secrets)
        }
        Change::DeleteService { id, name } => ("delete_service", json(&(id, name))?, None),
        Change::PutDefinitions { service, instance, definitions } => {
            let body = InstanceBody { service: *service, instance: *instance, said: definitions.as_ref() };
            ("put_definitions", json(&body)?, None)
        }
        Change::PutGroup(group) => {
            let body = GroupBody {
                spec: group.spec().clone(),
                created_at: group.created_at,
                updated_at: group.updated_at,
                updated_by: group.updated_by.clone(),
            };
            ("put_group", json(&body)?, None)
        }
        Change::DeleteGroup(name) => ("delete_group", json(name)?, None),
        Change::PutHealth { service, instance, health } => {
            let body = InstanceBody { service: *service, instance: *instance, said: health.as_ref() };
            ("put_health", json(&body)?, None)
        }
        Change::Seen(all) => ("seen", json(&all.as_ref())?, None),
        _ => return Err(Error::unsupported("this store does not know this kind of change")),
    })
}

/// One statement, so one snapshot: the counter, and what came after a revision if
/// that is all there.
const READ: &str = "\
    SELECT m.revision AS latest, m.floor, m.generation::text || '/' || m.tableoid::text AS generation, \
        c.revision, c.kind, c.body::text, c.secrets::text \
    FROM meta AS m LEFT JOIN changes AS c ON c.revision > $1 AND m.floor <= $1 \
    ORDER BY c.number";

/// What was committed after `after` in the database whose `generation` is known.
pub(super) async fn read(connection: &mut PgConnection, after: Revision, generation: &str) -> Result<Changes> {
    let Ok(value) = revision_value(after) else { return Ok(Changes::Reload) };
    let rows = sqlx::query(READ).bind(value).fetch_all(connection).await.map_err(database_error)?;
    let first = rows.first().ok_or_else(|| unreadable("revision", "there is none"))?;
    let (latest, floor) = (get_revision(first, "latest")?, get_revision(first, "floor")?);
    if get::<&str>(first, "generation")? != generation || after > latest || after < floor {
        return Ok(Changes::Reload);
    }
    let mut tail = Vec::with_capacity(rows.len());
    for row in &rows {
        if get::<Option<i64>>(row, "revision")?.is_some() {
            let revision = get_revision(row, "revision")?;
            tail.push((revision, read_back(row, revision)?));
        }
    }
    Ok(Changes::Tail(tail))
}

fn read_back(row: &PgRow, revision: Revision) -> Result<Change> {
    Ok(match get::<&str>(row, "kind")? {
        "put_service" => {
            let ServiceBody { id, mut spec, created_at, updated_at, updated_by } = get_json(row, "body")?;
            if get::<Option<&str>>(row, "secrets")?.is_some() {
                spec.restore_secrets(&get_json::<BTreeMap<String, String>>(row, "secrets")?);
            }
            Change::PutService(Arc::new(Service { id, spec, revision, created_at, updated_at, updated_by }))
        }
        "delete_service" => {
            let (id, name): (ServiceId, ServiceName) = get_json(row, "body")?;
            Change::DeleteService { id, name }
        }
        "put_definitions" => {
            let InstanceBody { service, instance, said } = get_json(row, "body")?;
            Change::PutDefinitions { service, instance, definitions: Arc::new(definitions(said)) }
        }
        "put_group" => {
            let GroupBody { spec, created_at, updated_at, updated_by } = get_json(row, "body")?;
            let mut group = Group::new(spec, created_at, updated_by);
            (group.updated_at, group.revision) = (updated_at, revision);
            Change::PutGroup(Arc::new(group))
        }
        "delete_group" => Change::DeleteGroup(get_json::<GroupName>(row, "body")?),
        "put_health" => {
            let InstanceBody { service, instance, said } = get_json::<InstanceBody<Health>>(row, "body")?;
            Change::PutHealth { service, instance, health: Arc::new(said) }
        }
        "seen" => Change::Seen(get_json::<Vec<Seen>>(row, "body")?.into()),
        kind => return Err(unreadable("kind", format!("`{kind}` is none of those known"))),
    })
}

/// As in loading, a tool that this version does not accept hides no other.
fn definitions(body: DefinitionsBody) -> Definitions {
    let (mut tools, mut rejected) = (Vec::with_capacity(body.tools.len()), body.rejected);
    for ToolBody { definition } in body.tools {
        let name = definition["name"].as_str().map(str::to_owned);
        match Tool::parse(definition) {
            Ok(tool) => tools.push(Arc::new(tool)),
            Err(error) => rejected.push(RejectedTool { name, reason: error.message().to_owned() }),
        }
    }
    Definitions {
        protocol_version: body.protocol_version,
        server_info: body.server_info,
        instructions: body.instructions,
        capabilities: body.capabilities,
        tools,
        rejected,
        prompts: body.prompts,
        resources: body.resources,
        resource_templates: body.resource_templates,
        listed_at: body.listed_at,
    }
}
