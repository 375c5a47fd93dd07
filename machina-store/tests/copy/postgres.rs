//! From a SQLite file to PostgreSQL, and back.

use machina_core::ErrorKind;
use machina_store::Count;

use crate::histories::history;
use crate::schema::{Schema, server};
use crate::world::{CONFIGURATIONS, SERVICES, World, copy};

#[tokio::test]
async fn everything_goes_there_and_back() {
    let (world, schema) = (World::full().await, Schema::new());
    let there = copy(&world.url("from.db"), &schema.url(), false).await.unwrap();
    assert_eq!(there.services, Count { total: SERVICES as u64, before: 0 });
    assert_eq!((there.replies.total, &*there.left_out), (3, &[][..]));
    let again = copy(&world.url("from.db"), &schema.url(), false).await.unwrap();
    assert_eq!((&again.sha256, again.entries.before), (&there.sha256, there.entries.total));

    let back = copy(&schema.url(), &world.url("to.db"), false).await.unwrap();
    assert_eq!(back.sha256, there.sha256);
    assert_eq!(back.configurations, Count { total: CONFIGURATIONS as u64, before: 0 });
    assert_eq!(history(&world, "to.db").await, history(&world, "from.db").await);
    let (from, mut to) = (world.kept("from.db").await, world.kept("to.db").await);
    to.replies.clone_from(&from.replies);
    assert_eq!(to.at(there.revision).entries, from.at(there.revision).entries);
    let whole = world.copy(false).await.unwrap();
    assert_eq!((whole.sha256, whole.services.before), (there.sha256, SERVICES as u64));
}

#[tokio::test]
async fn the_history_of_configurations_goes_there_whole_or_is_refused() {
    let (world, schema) = (World::full().await, Schema::new());
    let there = copy(&world.url("from.db"), &schema.url(), false).await.unwrap();
    let count = "SELECT count(*) FROM service_configs AS c JOIN services AS s ON s.id = c.service_id \
                 WHERE c.revision = s.revision";
    assert_eq!(schema.row(count).await, CONFIGURATIONS.to_string());
    schema
        .run("DELETE FROM service_configs WHERE id NOT IN (SELECT max(id) FROM service_configs GROUP BY service_id)")
        .await;
    let again = copy(&world.url("from.db"), &schema.url(), false).await.unwrap();
    assert_eq!((again.sha256, schema.row(count).await), (there.sha256.clone(), CONFIGURATIONS.to_string()));

    schema.run("UPDATE service_configs SET updated_by = 'mallory'").await;
    let error = copy(&world.url("from.db"), &schema.url(), false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.message().contains("history of the configuration"), "{error}");
    assert_eq!(copy(&world.url("from.db"), &schema.url(), true).await.unwrap().sha256, there.sha256);

    let other = Schema::new();
    let onward = copy(&schema.url(), &other.url(), false).await.unwrap();
    assert_eq!((onward.sha256, onward.configurations.total), (there.sha256, CONFIGURATIONS as u64));
}

#[tokio::test]
async fn other_content_is_refused_or_replaced() {
    let (world, schema) = (World::full().await, Schema::new());
    let other = World::full().await;
    copy(&other.url("from.db"), &schema.url(), false).await.unwrap();
    let error = copy(&world.url("from.db"), &schema.url(), false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "{error}");
    assert!(error.message().contains("--replace"), "{error}");
    let replaced = copy(&world.url("from.db"), &schema.url(), true).await.unwrap();
    assert_eq!(copy(&world.url("from.db"), &schema.url(), false).await.unwrap().sha256, replaced.sha256);
}

#[tokio::test]
async fn a_second_copy_to_a_database_brings_what_changed_since() {
    let schema = Schema::new();
    crate::since::assert_changes_follow(&World::full().await, &schema.url()).await;
}

#[tokio::test]
async fn a_database_is_not_copied_to_itself() {
    let schema = Schema::new();
    let error = copy(&schema.url(), &schema.url(), true).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(error.message().contains("is the store that is copied"), "{error}");
}

#[tokio::test]
async fn a_database_without_tables_gets_none_by_being_read() {
    let (world, schema) = (World::empty(), Schema::new());
    for _ in 0..2 {
        let error = copy(&schema.url(), &world.url("to.db"), false).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
        assert!(error.message().contains("is no store of Machina"), "{error}");
    }
    assert_eq!(world.files(), [""; 0]);
}

#[tokio::test]
async fn a_server_that_is_not_there_or_lets_nobody_in_is_said() {
    let world = World::full().await;
    let away = "postgres://machina:hunter2@127.0.0.1:1/machina?connect_timeout=1s";
    let error = copy(&world.url("from.db"), away, false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    let mut wrong: url::Url = server().parse().unwrap();
    wrong.set_password(Some("hunter2")).unwrap();
    let error = copy(wrong.as_str(), &world.url("to.db"), false).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(!error.to_string().contains("hunter2"), "{error}");
    assert_eq!(world.files(), ["from.db", "from.db.lock"], "the target was made before the source was there");
}
