//! What people see with `psql`, and what no column may hold.

use machina_core::{Change, Entry, ErrorKind, Health, HealthState, Revision, Seen, Timestamp, What};
use sqlx::{AssertSqlSafe, Row as _};

use super::making::{audit, batch, plain, put, put_tools, service};
use super::schema::Schema;

const AT: &str = "1970-01-01T00:00:00";

async fn assert_rows(schema: &Schema, rows: &[(&str, &str)]) {
    for (sql, expected) in rows {
        assert_eq!(schema.row(sql).await, *expected, "{sql}");
    }
}

#[tokio::test]
async fn the_tables_speak_for_themselves() {
    let schema = Schema::new();
    let store = schema.open().await.store;
    let a = service("a");
    store.commit(&batch([put(&a), put_tools(&a, 0, 2)])).await.unwrap();
    assert_rows(&schema, &[
        (
            "SELECT name, required, enabled, admin_state, admin_reason, build_priority, tags, config, revision FROM services",
            r#"a|true|false|maintenance|a new disk|MEDIUM|["b","a"]|{"a": 2, "z": 1}|1"#,
        ),
        ("SELECT created_at AT TIME ZONE 'UTC', updated_by FROM services", &format!("{AT}|alice")),
        (
            "SELECT position, endpoint_kind, location, weight, region, protocol_version, instructions, \
             definitions_listed_at AT TIME ZONE 'UTC' FROM instances WHERE position = 0",
            &format!("0|stdio|serve --token ******** -v|1|eu|2025-11-25|Ask\u{fffd} nicely.|{AT}"),
        ),
        (
            "SELECT admin_state, admin_reason, lease_ttl_ms FROM instances WHERE position = 1",
            "draining|too hot|90000",
        ),
        ("SELECT name, title, description, tags FROM tools WHERE position = 1", "t1|It|Does\u{fffd} it.|[\"k\"]"),
        (
            "SELECT input_schema #>> '{properties,z,type}', definition::text FROM tools WHERE position = 0",
            "string|{\"name\":\"t0\",\"x-unknown\":true,\"description\":\"Does\\u0000 it.\",\"annotations\":{\"title\":\
             \"It\"},\"tags\":[\"k\"],\"inputSchema\":{\"type\":\"object\",\"properties\":{\"z\":{\"type\":\"string\"},\
             \"a\":{\"type\":\"number\"}}}}",
        ),
        ("SELECT kind, name, definition FROM definitions", r#"prompt|p|{"name":"p"}"#),
        (
            "SELECT service_name, required, enabled, environment_vars, config, revision FROM service_configs",
            r#"a|true|false|{"TOKEN": "********"}|{"a": 2, "z": 1}|1"#,
        ),
        ("SELECT config_key, config_value FROM service_config_values ORDER BY config_key DESC", "z|1"),
        ("SELECT name, display_name, server_type, endpoint_url FROM mcp_servers", "a|a|community|serve --token ******** -v"),
        ("SELECT name, status, location, protocol, instances FROM service_overview", "a|maintenance|serve --token ******** -v|stdio|2"),
    ])
    .await;
}

#[tokio::test]
async fn people_see_how_services_are() {
    let schema = Schema::new();
    let store = schema.open().await.store;
    let mut a = service("a");
    a.spec.admin_state = machina_core::AdminState::Enabled;
    a.spec.admin_reason = None;
    let instance = a.spec.instances[0].id;
    let mut health = Health::unknown(Timestamp::UNIX_EPOCH);
    let say = |health: &Health| Change::PutHealth { service: a.id, instance, health: health.clone().into() };
    store.commit(&batch([put(&a), put(&plain("b"))])).await.unwrap();
    let status = "SELECT status FROM service_overview ORDER BY name";
    assert_eq!(schema.row(status).await, "unknown");
    for (state, expected) in
        [(HealthState::Healthy, "healthy"), (HealthState::Suspect, "degraded"), (HealthState::CrashLoop, "unhealthy")]
    {
        health.state = state;
        health.reason.message = "Why\0".to_owned();
        store.commit(&batch([say(&health)])).await.unwrap();
        assert_eq!(schema.row(status).await, expected);
    }
    let heartbeat = Seen { instance, last_check: None, heartbeat: Some(Timestamp::UNIX_EPOCH) };
    store.commit(&batch([Change::Seen([heartbeat].into())])).await.unwrap();
    let seen =
        "SELECT state, status, reason, last_heartbeat AT TIME ZONE 'UTC' FROM instance_status WHERE position = 0";
    assert_eq!(schema.row(seen).await, format!("crash_loop|unhealthy|Why\u{fffd}|{AT}"));
    assert_eq!(store.load().await.unwrap().health[&instance].reason.message, "Why\0");
}

#[tokio::test]
async fn the_journal_tables_speak_for_themselves() {
    let schema = Schema::new();
    let journal = schema.open().await.journal;
    let text = str::to_owned;
    let what = [
        What::Sample { outcome: text("fail"), response_time_ms: Some(2.5), error: Some(text("sl\0ow")) },
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
    ];
    let service: Option<machina_core::ServiceName> = Some("a".parse().unwrap());
    let entries = what.map(|what| Entry { at: Timestamp::UNIX_EPOCH, service: service.clone(), instance: None, what });
    journal.append(&entries).await.unwrap();
    journal.append(&[audit()]).await.unwrap();
    assert_rows(&schema, &[
        (
            "SELECT server, response_time_ms, error_message, checked_at AT TIME ZONE 'UTC' FROM server_health_metrics",
            &format!("a|2.5|sl\u{fffd}ow|{AT}"),
        ),
        (
            "SELECT service, state_before, status, reason FROM health_checks WHERE kind = 'transition'",
            "a|healthy|suspect|timeout",
        ),
        ("SELECT service, tool_name, duration_ms, error, success FROM tool_executions", "a|t|7.5||true"),
        ("SELECT server, tool_name, success FROM tool_invocations", "a|t|true"),
        ("SELECT principal, action, detail FROM audit", r#"bob|register|{"z":1,"a":2}"#),
    ])
    .await;
}

#[tokio::test]
async fn secrets_are_in_their_columns_and_nowhere_else() {
    let schema = Schema::new();
    let store = schema.open().await.store;
    let a = service("a");
    store.commit(&batch([put(&a), put_tools(&a, 0, 1)])).await.unwrap();
    store.commit(&batch([put(&a)])).await.unwrap();
    let secrets = schema.row("SELECT string_agg(value, ',' ORDER BY value COLLATE \"C\") FROM secrets").await;
    assert_eq!(secrets, "canary-1,canary-2,canary-3,canary-5,https://u:canary-4@h.example/mcp");
    let mut connection = schema.connection().await;
    for table in ["services", "instances", "tools", "definitions", "service_configs", "changes"] {
        let columns = if table == "changes" { "t.body" } else { "t" };
        let sql = format!("SELECT {columns}::text FROM {table} AS t");
        let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await.unwrap();
        assert!(!rows.is_empty(), "{table}");
        let found: Vec<String> =
            rows.iter().map(|row| row.get(0)).filter(|row: &String| row.contains("canary")).collect();
        assert!(found.is_empty(), "{table}: {found:?}");
    }
}

#[tokio::test]
async fn what_no_text_can_hold_is_kept_in_json_and_refused_in_a_secret() {
    let schema = Schema::new();
    let store = schema.open().await.store;
    let mut a = plain("a");
    a.spec.description = "x\0y \\u0000".to_owned();
    a.spec.metadata.insert("k\0".to_owned(), "v\0".into());
    a.revision = store.commit(&batch([put(&a)])).await.unwrap();
    assert_eq!(*store.load().await.unwrap().services[0], a);
    assert_eq!(
        schema.row("SELECT description, metadata FROM services").await,
        "x\u{fffd}y \\u0000|{\"k\u{fffd}\": \"v\u{fffd}\"}"
    );

    let record = serde_json::json!({"name": "b", "env": {"TOKEN": "one\0two"}});
    let mut b = plain("b");
    b.spec = machina_core::ServiceSpec::from_value(record).unwrap();
    let error = store.commit(&batch([put(&b)])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid, "{error}");
    assert!(
        error.message().contains("a character that PostgreSQL cannot keep") && !format!("{error:?}").contains("two")
    );
    assert_eq!(store.load().await.unwrap().services.len(), 1);
}

#[tokio::test]
async fn a_configuration_is_kept_when_it_changes_and_bounded() {
    let schema = Schema::new();
    let store = schema.open().await.store;
    let (mut a, count) = (service("a"), "SELECT count(*), max(revision) FROM service_configs");
    store.commit(&batch([put(&a)])).await.unwrap();
    a.spec.description = "new".to_owned();
    store.commit(&batch([put(&a)])).await.unwrap();
    assert_eq!(schema.row(count).await, "1|1");
    for number in 0..110 {
        a.spec.config.insert("a".to_owned(), number.into());
        store.commit(&batch([put(&a)])).await.unwrap();
    }
    assert_eq!(schema.row(count).await, "100|112");
    store.commit(&batch([Change::DeleteService { id: a.id, name: a.name().clone() }])).await.unwrap();
    assert_eq!(schema.row("SELECT (SELECT count(*) FROM service_configs) + (SELECT count(*) FROM secrets)").await, "0");
}

#[tokio::test]
async fn what_cannot_be_read_is_named() {
    let schema = Schema::new();
    let store = schema.open().await.store;
    store.commit(&batch([put(&service("a"))])).await.unwrap();
    for (sql, says) in [
        ("UPDATE changes SET kind = 'dance'", "unreadable `kind`"),
        ("UPDATE services SET revision = -1", "unreadable `revision`"),
        ("UPDATE services SET body = '{}'", "unreadable `body`"),
    ] {
        schema.run(sql).await;
        let (loaded, read) = (store.load().await, store.changes(Revision::ZERO).await);
        let error = if sql.contains("changes") { read.unwrap_err() } else { loaded.unwrap_err() };
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(error.message().contains(says), "{error}");
    }
}
