//! What the behaviour suite cannot see: the tables, and what happens when the
//! disk is full.

use std::sync::Arc;
use std::time::Duration;

use machina_core::{
    Batch, Change, Changes, Definitions, Entry, EntryKind, ErrorKind, Instance, InstanceId, Journal, JournalQuery,
    Revision, Service, ServiceId, ServiceSpec, Store, Timestamp, Tool, What,
};
use serde_json::json;
use sqlx::Row;
use tempfile::TempDir;

use super::SqliteStore;

async fn store() -> (TempDir, SqliteStore) {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteStore::open(&directory.path().join("machina.db")).await.unwrap();
    (directory, store)
}

fn service(name: &str) -> Service {
    let json = json!({
        "name": name, "tags": ["b", "a"], "required": true, "admin_state": "maintenance",
        "admin_reason": "a new disk", "config": {"z": 1, "a": 2},
        "env": {"TOKEN": "canary-1"}, "instances": [
            {"id": InstanceId::generate(), "region": "eu",
             "stdio": {"command": "serve", "args": ["--token", "canary-2", "-v"], "env": {"KEY": "canary-3"}}},
            {"id": InstanceId::generate(), "lease_ttl": "1m 30s", "admin_state": "draining", "admin_reason": "too hot",
             "http": {"url": "https://u:canary-4@h.example/mcp", "headers": {"Authorization": "canary-5"}}}],
    });
    Service {
        id: ServiceId::generate(),
        spec: ServiceSpec::from_value(json).unwrap(),
        revision: Revision::ZERO,
        created_at: Timestamp::UNIX_EPOCH,
        updated_at: Timestamp::UNIX_EPOCH,
        updated_by: "alice".to_owned(),
    }
}

fn put(service: &Service) -> Change {
    Change::PutService(Arc::new(service.clone()))
}

fn put_tools(service: &Service, instance: usize, tools: usize) -> Change {
    let tool = |index| {
        let schema = json!({"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "number"}}});
        let definition = json!({"name": format!("t{index}"), "x-unknown": true, "description": "Does it.",
                                "annotations": {"title": "It"}, "tags": ["k"], "inputSchema": schema});
        Arc::new(Tool::parse(definition).unwrap())
    };
    let definitions = Definitions {
        protocol_version: "2025-11-25".to_owned(),
        server_info: json!({"name": "s"}),
        instructions: None,
        capabilities: json!({}),
        tools: (0..tools).map(tool).collect(),
        rejected: Vec::new(),
        prompts: vec![json!({"name": "p"})],
        resources: Vec::new(),
        resource_templates: Vec::new(),
        listed_at: Timestamp::UNIX_EPOCH,
    };
    let instance: &Instance = &service.spec.instances[instance];
    Change::PutDefinitions { service: service.id, instance: instance.id, definitions: Arc::new(definitions) }
}

fn changes(changes: impl IntoIterator<Item = Change>) -> Batch {
    Batch { changes: changes.into_iter().collect(), ..Batch::default() }
}

/// The first row of `sql` as text, columns joined by `|`.
async fn row(store: &SqliteStore, sql: &'static str) -> String {
    let row = sqlx::query(sql).fetch_one(&store.writer).await.unwrap();
    let cell = |index| row.get_unchecked::<Option<String>, _>(index).unwrap_or_default();
    (0..row.len()).map(cell).collect::<Vec<_>>().join("|")
}

#[tokio::test]
async fn the_tables_speak_for_themselves() {
    let (_directory, store) = store().await;
    let a = service("a");
    store.commit(&changes([put(&a), put_tools(&a, 0, 2)])).await.unwrap();
    let at = "1970-01-01T00:00:00.000Z";
    for (sql, expected) in [
        (
            "SELECT name, required, enabled, admin_state, build_priority, tags, revision FROM services",
            r#"a|1|0|maintenance|MEDIUM|["b","a"]|1"#.to_owned(),
        ),
        ("SELECT created_at, updated_at, updated_by FROM services", format!("{at}|{at}|alice")),
        (
            "SELECT position, endpoint_kind, location, weight, region, protocol_version, definitions_listed_at \
          FROM instances WHERE position = 0",
            format!("0|stdio|serve --token ******** -v|1|eu|2025-11-25|{at}"),
        ),
        ("SELECT admin_reason FROM services", "a new disk".to_owned()),
        (
            "SELECT admin_state, admin_reason, lease_ttl_ms FROM instances WHERE position = 1",
            "draining|too hot|90000".to_owned(),
        ),
        ("SELECT admin_reason, lease_ttl_ms FROM instances WHERE position = 0", "|".to_owned()),
        (
            "SELECT name, title, description, input_schema, tags FROM tools WHERE position = 1",
            r#"t1|It|Does it.|{"type":"object","properties":{"z":{"type":"string"},"a":{"type":"number"}}}|["k"]"#
                .to_owned(),
        ),
        ("SELECT kind, name, definition FROM definitions", r#"prompt|p|{"name":"p"}"#.to_owned()),
        (
            "SELECT service_name, required, enabled, environment_vars, config, revision FROM service_configs",
            r#"a|1|0|{"TOKEN":"********"}|{"z":1,"a":2}|1"#.to_owned(),
        ),
        (
            "SELECT name, display_name, server_type, endpoint_url FROM mcp_servers",
            "a|a|community|serve --token ******** -v".to_owned(),
        ),
    ] {
        assert_eq!(row(&store, sql).await, expected, "{sql}");
    }
}

#[tokio::test]
async fn the_journal_tables_speak_for_themselves() {
    let (_directory, store) = store().await;
    let entry = |what| Entry { at: Timestamp::UNIX_EPOCH, service: Some("a".parse().unwrap()), instance: None, what };
    let text = str::to_owned;
    let what = [
        What::Sample { outcome: text("fail"), response_time_ms: Some(2.5), error: Some(text("slow")) },
        What::Transition { from: text("healthy"), to: text("suspect"), reason: text("timeout") },
        What::Call {
            tool: text("t"),
            principal: text("bob"),
            duration_ms: 7.5,
            attempts: 2,
            success: true,
            error: None,
            tried: Vec::new(),
            arguments: None,
        },
        What::Audit { principal: text("bob"), action: text("register"), detail: json!({"z": 1, "a": 2}) },
    ];
    store.append(&what.map(entry)).await.unwrap();
    let at = "1970-01-01T00:00:00.000Z";
    for (sql, expected) in [
        (
            "SELECT server, response_time_ms, error_message, checked_at FROM server_health_metrics",
            format!("a|2.5|slow|{at}"),
        ),
        (
            "SELECT service, state_before, status, reason FROM health_checks WHERE kind = 'transition'",
            text("a|healthy|suspect|timeout"),
        ),
        ("SELECT service, tool_name, duration_ms, error, executed_at FROM tool_executions", format!("a|t|7.5||{at}")),
        ("SELECT server, tool_name, invoked_at, success FROM tool_invocations", format!("a|t|{at}|1")),
        ("SELECT principal, action, detail FROM audit", text(r#"bob|register|{"z":1,"a":2}"#)),
    ] {
        assert_eq!(row(&store, sql).await, expected, "{sql}");
    }
}

#[tokio::test]
async fn secrets_are_in_their_table_and_nowhere_else() {
    let (_directory, store) = store().await;
    let a = service("a");
    store.commit(&changes([put(&a), put_tools(&a, 0, 1)])).await.unwrap();
    store.commit(&changes([put(&a)])).await.unwrap();
    let secrets = row(&store, "SELECT group_concat(value) FROM (SELECT value FROM secrets ORDER BY value)").await;
    assert_eq!(secrets, "canary-1,canary-2,canary-3,canary-5,https://u:canary-4@h.example/mcp");
    for table in ["services", "instances", "tools", "definitions", "service_configs"] {
        let sql = format!("SELECT * FROM {table}");
        let rows = sqlx::query(sqlx::AssertSqlSafe(sql)).fetch_all(&store.writer).await.unwrap();
        assert!(!rows.is_empty(), "{table}");
        for row in rows {
            let cells = (0..row.len()).filter_map(|index| row.get_unchecked::<Option<String>, _>(index));
            let found: Vec<String> = cells.filter(|cell| cell.contains("canary")).collect();
            assert!(found.is_empty(), "{table}: {found:?}");
        }
    }
}

#[tokio::test]
async fn a_configuration_is_kept_when_it_changes_and_bounded() {
    let (_directory, store) = store().await;
    let mut a = service("a");
    let count = "SELECT count(*), max(revision) FROM service_configs";
    store.commit(&changes([put(&a)])).await.unwrap();
    a.spec.description = "new".to_owned();
    store.commit(&changes([put(&a)])).await.unwrap();
    assert_eq!(row(&store, count).await, "1|1");
    for number in 0..120 {
        a.spec.config.insert("a".to_owned(), json!(number));
        store.commit(&changes([put(&a)])).await.unwrap();
    }
    assert_eq!(row(&store, count).await, "100|122");
    store.commit(&changes([Change::DeleteService { id: a.id, name: a.name().clone() }])).await.unwrap();
    assert_eq!(
        row(&store, "SELECT (SELECT count(*) FROM service_configs) + (SELECT count(*) FROM secrets)").await,
        "0"
    );
}

/// The limit is of the one connection, which is given up when it is hit: then
/// there is room again.
#[tokio::test]
async fn a_full_disk_leaves_nothing_half_written() {
    let (_directory, store) = store().await;
    let a = service("a");
    store.commit(&changes([put(&a)])).await.unwrap();
    let before = store.load().await.unwrap();
    sqlx::query("PRAGMA max_page_count = 60").fetch_one(&store.writer).await.unwrap();

    let mut large = changes([put_tools(&a, 0, 500), put(&service("b"))]);
    let what = What::Audit { principal: "bob".to_owned(), action: "register".to_owned(), detail: json!({}) };
    large.entries.push(Entry { at: Timestamp::UNIX_EPOCH, service: None, instance: None, what });
    let error = store.commit(&large).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.message().contains("full"), "{error}");
    assert_eq!(store.load().await.unwrap(), before);
    assert_eq!(store.read(&JournalQuery::of(EntryKind::Audit)).await.unwrap().entries, []);
    assert_eq!(store.changes(Revision(1)).await.unwrap(), Changes::Tail(Vec::new()));

    assert_eq!(store.commit(&large).await.unwrap(), Revision(2));
    assert_eq!(store.load().await.unwrap().services.len(), 2);
}

#[tokio::test]
async fn a_commit_whose_caller_goes_away_is_whole_or_not_there() {
    let (_directory, store) = store().await;
    let services: Vec<Service> = (0..40).map(|index| service(&format!("s{index}"))).collect();
    let batch = changes(services.iter().map(put));
    let mut abandoned = 0;
    for patience in 0..30 {
        let before = store.load().await.unwrap().revision;
        let committed = tokio::time::timeout(Duration::from_millis(patience), store.commit(&batch)).await;
        abandoned += u32::from(committed.is_err());
        // What was abandoned may still be on its way into the file.
        drop(store.writer.acquire().await.unwrap());
        let after = store.load().await.unwrap();
        assert!(after.revision == before || after.revision == before.next(), "{before} became {}", after.revision);
        assert!(after.services.iter().all(|service| service.revision == after.revision), "half a batch is there");
        match store.changes(before).await.unwrap() {
            Changes::Tail(tail) if after.revision == before => assert_eq!(tail, []),
            Changes::Tail(tail) => assert_eq!(tail.len(), services.len()),
            Changes::Reload => assert!(committed.is_err()),
        }
    }
    assert!(abandoned > 0, "every commit ended in time");
    store.commit(&batch).await.unwrap();
}

#[tokio::test]
async fn equal_tools_are_loaded_once_and_in_their_order() {
    let (_directory, store) = store().await;
    let a = service("a");
    store.commit(&changes([put(&a), put_tools(&a, 0, 2_500), put_tools(&a, 1, 2_500)])).await.unwrap();
    let image = store.load().await.unwrap();
    let tools = |instance: usize| &image.definitions[&a.spec.instances[instance].id].tools;
    assert_eq!((tools(0).len(), tools(1).len()), (2_500, 2_500));
    for (number, (one, other)) in tools(0).iter().zip(tools(1)).enumerate() {
        assert_eq!(one.name().as_str(), format!("t{number}"));
        assert!(Arc::ptr_eq(one, other));
    }
}

#[tokio::test]
async fn a_tool_that_is_no_longer_accepted_hides_no_other() {
    let (_directory, store) = store().await;
    let a = service("a");
    store.commit(&changes([put(&a), put_tools(&a, 0, 3)])).await.unwrap();
    sqlx::query("UPDATE tools SET definition = '{\"name\": \"t1\"}' WHERE name = 't1'")
        .execute(&store.writer)
        .await
        .unwrap();
    let image = store.load().await.unwrap();
    let definitions = &image.definitions[&a.spec.instances[0].id];
    assert_eq!(definitions.tools.iter().map(|tool| tool.name().as_str()).collect::<Vec<_>>(), ["t0", "t2"]);
    assert_eq!(definitions.rejected[0].name.as_deref(), Some("t1"));
}

#[tokio::test]
async fn what_cannot_be_read_is_named() {
    let (_directory, store) = store().await;
    store.commit(&changes([put(&service("a"))])).await.unwrap();
    for (sql, says) in [
        ("UPDATE services SET updated_at = 'yesterday'", "unreadable `updated_at`"),
        ("UPDATE services SET body = '{}'", "unreadable `body`"),
        ("UPDATE meta SET revision = -1", "unreadable `revision`"),
    ] {
        sqlx::query(sql).execute(&store.writer).await.unwrap();
        let error = store.load().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.message().contains(says), "{error}");
    }
}

#[tokio::test]
async fn a_commit_that_the_log_missed_is_a_reload() {
    let (_directory, store) = store().await;
    store.commit(&changes([put(&service("a"))])).await.unwrap();
    sqlx::query("UPDATE meta SET revision = 2").execute(&store.writer).await.unwrap();
    assert_eq!(store.changes(Revision(1)).await.unwrap(), Changes::Reload);
}

#[tokio::test]
async fn a_batch_of_a_thousand_services_is_quick() {
    let (_directory, store) = store().await;
    let services: Vec<Service> = (0..1000).map(|index| service(&format!("s{index}"))).collect();
    let started = tokio::time::Instant::now();
    store.commit(&changes(services.iter().map(put))).await.unwrap();
    let made = started.elapsed();
    store.commit(&changes(services.iter().map(put))).await.unwrap();
    let changed = started.elapsed() - made;
    let image = store.load().await.unwrap();
    let loaded = started.elapsed() - made - changed;
    assert_eq!(image.services.len(), 1000);
    eprintln!("1,000 services: made in {made:?}, changed in {changed:?}, loaded in {loaded:?}");
    assert!(made.as_secs() < 10, "unoptimised and on a busy machine it takes 1 s: {made:?}");
}
