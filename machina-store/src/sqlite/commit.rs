//! One batch, one transaction, one revision.

use std::sync::Arc;

use machina_core::{AdminState, Batch, Change, Error, Instance, Precondition, Result, Revision, Service};
use sea_query::{Expr, ExprTrait, OnConflict, Query};
use sqlx::{Connection, SqliteConnection};

use super::statement::{database_error, execute, fetch_first, get, get_revision, insert, json, time, unreadable};
use super::{configs, definitions, groups, journal};
use crate::conflict;
use crate::record::revision_value;

/// Commits `batch`; returns its revision and the changes as they are remembered.
pub(super) async fn commit(connection: &mut SqliteConnection, batch: &Batch) -> Result<(Revision, Vec<Change>)> {
    let mut transaction = connection.begin_with("BEGIN IMMEDIATE").await.map_err(database_error)?;
    let revision = next_revision(&mut transaction).await?;
    for precondition in &batch.preconditions {
        check(&mut transaction, precondition).await?;
    }
    let mut changes = Vec::with_capacity(batch.changes.len());
    for change in &batch.changes {
        changes.push(apply(&mut transaction, change, revision).await?);
    }
    journal::insert(&mut transaction, &batch.entries).await?;
    transaction.commit().await.map_err(database_error)?;
    Ok((revision, changes))
}

async fn next_revision(connection: &mut SqliteConnection) -> Result<Revision> {
    let mut update = Query::update();
    update.table("meta").value("revision", Expr::col("revision").add(1)).returning_col("revision");
    let row = fetch_first(connection, &update).await?;
    let row = row.ok_or_else(|| unreadable("revision", "there is none"))?;
    get_revision(&row, "revision")
}

async fn check(connection: &mut SqliteConnection, precondition: &Precondition) -> Result<()> {
    let mut select = Query::select();
    select.columns(["name", "revision"]).from("services");
    match precondition {
        Precondition::Absent(name) => select.and_where(Expr::col("name").eq(name.as_str())),
        Precondition::AtRevision(id, _) | Precondition::Exists(id) => {
            select.and_where(Expr::col("id").eq(id.to_string()))
        }
        Precondition::GroupAbsent(name) => return groups::check_absent(connection, name).await,
        Precondition::GroupAtRevision(name, expected) => {
            return groups::check_revision(connection, name, *expected).await;
        }
        Precondition::Holds { .. } => return Err(Error::unsupported("one process has this store to itself")),
    };
    let found = fetch_first(connection, &select).await?;
    match (precondition, found) {
        (Precondition::Absent(name), Some(_)) => Err(conflict::name_is_taken(name.as_str())),
        (Precondition::AtRevision(id, _) | Precondition::Exists(id), None) => Err(conflict::service_is_gone(*id)),
        (Precondition::AtRevision(_, expected), Some(row)) => {
            let revision = get_revision(&row, "revision")?;
            conflict::check_service_revision(get(&row, "name")?, revision, *expected)
        }
        _ => Ok(()),
    }
}

async fn apply(connection: &mut SqliteConnection, change: &Change, revision: Revision) -> Result<Change> {
    match change {
        Change::PutService(service) => {
            let service = Service { revision, ..service.as_ref().clone() };
            put_service(connection, &service).await?;
            Ok(Change::PutService(Arc::new(service)))
        }
        Change::DeleteService { id, .. } => {
            let mut delete = Query::delete();
            delete.from_table("services").and_where(Expr::col("id").eq(id.to_string()));
            execute(connection, &delete).await?;
            Ok(change.clone())
        }
        Change::PutDefinitions { service, instance, definitions } => {
            definitions::put(connection, *service, *instance, definitions).await?;
            Ok(change.clone())
        }
        Change::PutGroup(group) => {
            let group = group.at_revision(revision);
            groups::put(connection, &group).await?;
            Ok(Change::PutGroup(Arc::new(group)))
        }
        Change::DeleteGroup(name) => {
            groups::delete(connection, name).await?;
            Ok(change.clone())
        }
        _ => Err(Error::unsupported("this store does not know this kind of change")),
    }
}

async fn put_service(connection: &mut SqliteConnection, service: &Service) -> Result<()> {
    let id = service.id.to_string();
    let mut select = Query::select();
    select.column("id").from("services").and_where(Expr::col("id").eq(id.as_str()));
    let is_new = fetch_first(connection, &select).await?.is_none();
    upsert_service(connection, service).await?;
    if !is_new {
        delete_secrets(connection, &id).await?;
        delete_other_instances(connection, service).await?;
    }
    for (place, value) in service.spec.secrets() {
        let columns = [("service_id", id.as_str().into()), ("place", place.into()), ("value", value.into())];
        execute(connection, &insert("secrets", columns)).await?;
    }
    for (position, instance) in service.spec.instances.iter().enumerate() {
        upsert_instance(connection, &id, position, instance).await?;
    }
    configs::append(connection, service, is_new).await
}

async fn upsert_service(connection: &mut SqliteConnection, service: &Service) -> Result<()> {
    let spec = &service.spec;
    let columns = [
        ("id", service.id.to_string().into()),
        ("name", spec.name.as_str().into()),
        ("title", spec.title.clone().into()),
        ("description", spec.description.as_str().into()),
        ("version", spec.version.clone().into()),
        ("build_type", spec.build_type.as_str().into()),
        ("origin", spec.origin.as_str().into()),
        ("required", spec.required.into()),
        ("build_priority", spec.build_priority.as_str().into()),
        ("enabled", (spec.admin_state == AdminState::Enabled).into()),
        ("admin_state", spec.admin_state.as_str().into()),
        ("admin_reason", spec.admin_reason.clone().into()),
        ("category", spec.category.clone().into()),
        ("tags", json(&spec.tags)?.into()),
        ("capabilities", json(&spec.capabilities)?.into()),
        ("environment", spec.environment.clone().into()),
        ("tenant", spec.tenant.clone().into()),
        ("access_level", spec.access_level.as_str().into()),
        ("owner", spec.owner.clone().into()),
        ("repository_url", spec.repository_url.clone().into()),
        ("documentation_url", spec.documentation_url.clone().into()),
        ("body", json(spec)?.into()),
        ("revision", revision_value(service.revision)?.into()),
        ("created_at", time(service.created_at).into()),
        ("updated_at", time(service.updated_at).into()),
        ("updated_by", service.updated_by.as_str().into()),
    ];
    let others = columns.each_ref().map(|(name, _)| *name).into_iter().skip(1);
    let mut upsert = insert("services", columns.clone());
    upsert.on_conflict(OnConflict::column("id").update_columns(others).to_owned());
    match execute(connection, &upsert).await {
        Err(error) if error.kind() == machina_core::ErrorKind::Conflict => {
            Err(conflict::name_is_taken(spec.name.as_str()))
        }
        other => other.map(drop),
    }
}

async fn delete_secrets(connection: &mut SqliteConnection, service_id: &str) -> Result<()> {
    let mut delete = Query::delete();
    delete.from_table("secrets").and_where(Expr::col("service_id").eq(service_id));
    execute(connection, &delete).await.map(drop)
}

/// What an instance published goes with it, by foreign keys.
async fn delete_other_instances(connection: &mut SqliteConnection, service: &Service) -> Result<()> {
    let kept: Vec<String> = service.spec.instances.iter().map(|instance| instance.id.to_string()).collect();
    let kept = json(&kept)?;
    let mut declared = Query::select();
    declared.column("value").from_function(sea_query::Func::cust("json_each").arg(kept), "kept");
    let mut delete = Query::delete();
    delete
        .from_table("instances")
        .and_where(Expr::col("service_id").eq(service.id.to_string()))
        .and_where(Expr::col("id").not_in_subquery(declared));
    execute(connection, &delete).await.map(drop)
}

async fn upsert_instance(
    connection: &mut SqliteConnection,
    service_id: &str,
    position: usize,
    instance: &Instance,
) -> Result<()> {
    let lease_ttl_ms = instance.lease_ttl.and_then(|ttl| u64::try_from(ttl.as_millis()).ok());
    let columns = [
        ("id", instance.id.to_string().into()),
        ("service_id", service_id.into()),
        ("position", (position as u64).into()),
        ("endpoint_kind", instance.endpoint.kind().into()),
        ("location", instance.endpoint.location().into()),
        ("weight", instance.weight.into()),
        ("region", instance.region.clone().into()),
        ("zone", instance.zone.clone().into()),
        ("labels", json(&instance.labels)?.into()),
        ("admin_state", instance.admin_state.as_str().into()),
        ("admin_reason", instance.admin_reason.clone().into()),
        ("lease_ttl_ms", lease_ttl_ms.into()),
    ];
    let others = columns.each_ref().map(|(name, _)| *name).into_iter().skip(2);
    let mut upsert = insert("instances", columns.clone());
    let own = Expr::col(("instances", "service_id")).eq(service_id);
    upsert.on_conflict(OnConflict::column("id").update_columns(others).action_and_where(own).to_owned());
    if execute(connection, &upsert).await? == 0 {
        return Err(conflict::instance_of_another(instance.id));
    }
    Ok(())
}
