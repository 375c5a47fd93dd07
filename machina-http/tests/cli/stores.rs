//! `store`: copying, backing up and bringing back.

use serde_json::{Value, json};

use crate::world::{Served, World};

/// A home whose store knows the small server as `small`.
async fn with_small() -> World {
    let world = World::new();
    let hosts = world.hosts("hosts.json", json!({"small": world.server(&[])}));
    world.on_store(&["import", &hosts]).await.ended(0);
    world
}

/// What a copy keeps of the services.
async fn services(world: &World, store: &str) -> Vec<[Value; 4]> {
    let services = world.run(&["services", "--json", "--store", store]).await.ended(0).json();
    let kept = ["id", "name", "created_at", "updated_by"];
    services.as_array().unwrap().iter().map(|service| kept.map(|field| service[field].clone())).collect()
}

#[tokio::test]
async fn a_store_is_copied_and_copied_again() {
    let world = with_small().await;
    let copy = ["store", "copy", "sqlite:here.db", "sqlite:there.db"];
    let ran = world.run(&copy).await.ended(0).says(&["services", "journal entries", "sqlite:there.db", "sha256 "]);
    ran.complains(&["services and groups: 1 of 1", "journal entries: "]);
    assert_eq!(services(&world, "sqlite:there.db").await, services(&world, "sqlite:here.db").await);
    let again = world.run(&[&copy[..], &["--json"]].concat()).await.ended(0);
    assert_eq!(again.stderr, "", "programs are not told how far it is");
    let again = again.json();
    assert_eq!(again["services"], json!({"total": 1, "before": 1}), "{again}");
    assert_eq!(again["sha256"].as_str().unwrap().len(), 64);
}

#[tokio::test]
async fn other_content_is_overwritten_only_when_asked() {
    let world = with_small().await;
    let hosts = world.hosts("others.json", json!({"other": world.server(&[])}));
    world.run(&["import", &hosts, "--store", "sqlite:there.db"]).await.ended(0);
    let copy = ["store", "copy", "sqlite:here.db", "sqlite:there.db"];
    world.run(&copy).await.ended(7).complains(&["other content: service `other`", "--replace"]);
    world.run(&[&copy[..], &["--replace"]].concat()).await.ended(0);
    assert_eq!(services(&world, "sqlite:there.db").await, services(&world, "sqlite:here.db").await);
}

#[tokio::test]
async fn what_cannot_be_copied_is_said() {
    let world = with_small().await;
    for (from, to, code, says) in [
        ("sqlite:typo.db", "sqlite:there.db", 2, "typo.db` cannot be read"),
        ("sqlite:here.db", "sqlite:here.db", 2, "to: is the store that is copied"),
        ("sqlite:here.db", "memory:", 2, "`to` must be a store that lasts"),
        ("mysql://u:hunter2@h/d", "sqlite:there.db", 2, "from: must be"),
    ] {
        let ran = world.run(&["store", "copy", from, to]).await.ended(code).complains(&[says]);
        assert!(!ran.stderr.contains("hunter2"), "{ran:?}");
    }
    assert!(!world.path("typo.db").exists() && !world.path("there.db").exists());
}

#[tokio::test]
async fn a_served_store_is_backed_up_and_not_restored() {
    let world = with_small().await;
    let mut served = Served::start(&world, &[]).await;
    served.until("Settled in").await;
    let backup = ["store", "backup", "backup.db"];
    let made = world.on_store(&backup).await.ended(0).says(&["backup.db: ", "1 services, 5 tools", "sha256 "]);
    let (_, sha256) = made.stdout.trim_end().rsplit_once("sha256 ").unwrap();
    world.on_store(&backup).await.ended(2).complains(&["is there already"]);
    world.run(&["store", "copy", "sqlite:here.db", "sqlite:there.db"]).await.ended(0);
    world.run(&["store", "copy", "sqlite:there.db", "sqlite:here.db"]).await.ended(4).complains(&["stop it and copy"]);
    let restore = ["store", "restore", "backup.db", "--sha256", sha256];
    world.on_store(&restore).await.ended(4).complains(&["is open in process", "stop it first"]);
    served.signal("TERM").await;
    assert_eq!(served.ended().await, 0);

    world.on_store(&["remove", "small"]).await.ended(0);
    world.on_store(&["store", "restore", "backup.db", "--sha256", "00"]).await.ended(2).complains(&["is meant"]);
    let restored = world.on_store(&[&restore[..], &["--json"]].concat()).await.ended(0).json();
    assert_eq!(
        (&restored["restored"]["sha256"], &restored["restored"]["content"]["tools"]),
        (&json!(sha256), &json!(5))
    );
    let kept = restored["restored"]["kept"].as_str().unwrap();
    assert!(kept.contains("here.db.before-"), "{kept}");
    world.on_store(&["service", "small"]).await.ended(0);
    world.run(&["services", "--store", &format!("sqlite:{kept}")]).await.ended(0).says(&["There are no services"]);
}

#[tokio::test]
async fn only_sqlite_stores_are_backed_up() {
    let world = World::new();
    world.run(&["store", "backup", "b.db", "--store", "memory:"]).await.ended(2).complains(&["only a SQLite store"]);
    world.on_store(&["store", "backup", "b.db"]).await.ended(2).complains(&["here.db` cannot be read"]);
    world.on_store(&["store", "restore", "b.db"]).await.ended(2).complains(&["b.db` cannot be read"]);
    assert!(!world.path("here.db").exists());
}
