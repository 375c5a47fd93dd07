//! The history of configurations goes with the services, whichever databases it is.

use std::sync::Arc;

use machina_core::{Batch, Change, ErrorKind};
use machina_store::Count;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection, Row};

use crate::world::{CONFIGURATIONS, World};

/// How many rows a query finds.
async fn rows(world: &World, name: &str, sql: &'static str) -> usize {
    let mut connection = SqliteConnectOptions::new().filename(world.path(name)).connect().await.unwrap();
    let rows = sqlx::query(sql).fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    rows.len()
}

/// What a person reads in the file: every row as text, oldest first of each service.
pub(crate) async fn history(world: &World, name: &str) -> Vec<String> {
    let mut connection = SqliteConnectOptions::new().filename(world.path(name)).connect().await.unwrap();
    let rows = sqlx::query(
        "SELECT c.service_id || service_name || c.required || c.build_priority || c.enabled || environment_vars \
         || (SELECT group_concat(key || type || coalesce(atom, ''), ',') FROM \
                (SELECT * FROM json_tree(c.config) ORDER BY fullkey)) \
         || c.updated_by || c.updated_at FROM service_configs AS c ORDER BY c.service_id, c.id",
    );
    let rows = rows.fetch_all(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    rows.iter().map(|row| row.get(0)).collect()
}

#[tokio::test]
async fn every_row_is_copied_in_its_order() {
    let world = World::full().await;
    world.copy(false).await.unwrap();
    let copied = history(&world, "to.db").await;
    assert_eq!(copied.len(), CONFIGURATIONS);
    assert_eq!(copied, history(&world, "from.db").await);
    // The revisions are those of the store that they are in now.
    let foreign = "SELECT c.revision FROM service_configs AS c JOIN services AS s ON s.id = c.service_id \
                   WHERE c.revision <> s.revision";
    assert_eq!(rows(&world, "to.db", foreign).await, 0);
}

#[tokio::test]
async fn what_did_not_change_since_is_not_written_again() {
    let world = World::full().await;
    world.copy(false).await.unwrap();
    let before = history(&world, "to.db").await;
    world
        .with("to.db", async |backend| {
            for service in backend.store.load().await.unwrap().services {
                let mut service = machina_core::Service::clone(&service);
                service.spec.description = "told anew".to_owned();
                let changes = vec![Change::PutService(Arc::new(service))];
                backend.store.commit(&Batch { changes, ..Batch::default() }).await.unwrap();
            }
        })
        .await;
    assert_eq!(history(&world, "to.db").await, before);
}

#[tokio::test]
async fn the_row_that_a_service_came_with_gives_way() {
    let world = World::full().await;
    let first = world.copy(false).await.unwrap();
    let only_last =
        "DELETE FROM service_configs WHERE id NOT IN (SELECT max(id) FROM service_configs GROUP BY service_id)";
    world.tamper("to.db", only_last).await;
    let second = world.copy(false).await.unwrap();
    assert_eq!(second.sha256, first.sha256);
    assert!(second.configurations.before < second.configurations.total, "{second:?}");
    assert_eq!(history(&world, "to.db").await, history(&world, "from.db").await);
}

#[tokio::test]
async fn another_history_is_refused_and_kept_or_replaced() {
    let world = World::full().await;
    let first = world.copy(false).await.unwrap();
    let another = "INSERT INTO service_configs (service_id, service_name, required, build_priority, enabled, \
                       environment_vars, config, revision, updated_by, updated_at) \
                   SELECT id, name, 1, 'LOW', 1, '{}', '{}', 1, 'mallory', '2026-01-01T00:00:00.000Z' FROM services \
                   ORDER BY id LIMIT 1";
    world.tamper("to.db", another).await;
    let before = history(&world, "to.db").await;
    let error = world.copy(false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    let message = error.message();
    assert!(message.contains("the history of the configuration of service `s"), "{error}");
    assert!(message.contains("--replace"), "{error}");
    assert_eq!(history(&world, "to.db").await, before, "a refused copy changed the target");
    assert_eq!(world.copy(true).await.unwrap().sha256, first.sha256);
    assert_eq!(history(&world, "to.db").await, history(&world, "from.db").await);
}

#[tokio::test]
async fn a_history_that_is_gone_in_the_source_is_none_in_the_target() {
    let world = World::full().await;
    world.tamper("from.db", "DELETE FROM service_configs").await;
    let copied = world.copy(false).await.unwrap();
    assert_eq!(copied.configurations, Count::default());
    assert_eq!(history(&world, "to.db").await, [""; 0]);
}
