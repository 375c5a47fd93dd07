//! Every filter of a query, and every way the store itself reads, has its index:
//! the planner of the server says so when it may not read tables from end to end.

use sqlx::{AssertSqlSafe, Row as _};

use super::schema::Schema;

/// What is asked, and the index that must answer.
const QUERIES: [(&str, &str); 31] = [
    ("SELECT FROM services WHERE name = 'a'", "services_name_key"),
    ("SELECT FROM services WHERE name LIKE 'io.github.%'", "services_name_key"),
    ("SELECT FROM services WHERE words @@ to_tsquery('simple', 'weather & fore:*')", "services_by_word"),
    ("SELECT FROM services WHERE build_type = 'docker' ORDER BY name", "services_by_build_type"),
    ("SELECT FROM services WHERE required ORDER BY name", "services_by_required"),
    ("SELECT FROM services WHERE build_priority = 'HIGH' ORDER BY name", "services_by_priority"),
    ("SELECT FROM services WHERE NOT enabled ORDER BY name", "services_by_enabled"),
    ("SELECT FROM services WHERE tags @> '{a,b}'", "services_by_tag"),
    ("SELECT FROM services WHERE capabilities @> '{tell}'", "services_by_capability"),
    ("SELECT FROM services WHERE environment = 'staging' ORDER BY name", "services_by_environment"),
    ("SELECT FROM services WHERE tenant = 'acme' ORDER BY name", "services_by_tenant"),
    ("SELECT FROM services WHERE category = 'time' ORDER BY name", "services_by_category"),
    ("SELECT FROM services ORDER BY created_at, name LIMIT 50", "services_by_created_at"),
    ("SELECT FROM services ORDER BY updated_at DESC, name DESC LIMIT 50", "services_by_updated_at"),
    ("SELECT service_id FROM instances WHERE region = 'eu'", "instances_by_region"),
    ("SELECT FROM instances WHERE service_id = gen_random_uuid() ORDER BY position", "instances_by_service"),
    ("SELECT service_id FROM tools WHERE name = 'now'", "tools_by_name"),
    ("SELECT FROM tools WHERE service_id = '01890a5d-ac96-774b-bcce-b302099a8057' ORDER BY name", "tools_by_service"),
    ("SELECT FROM tools WHERE tags @> '{k}'", "tools_by_tag"),
    ("SELECT instance_id FROM instance_health WHERE state = 'unhealthy'", "instance_health_by_state"),
    ("SELECT FROM changes WHERE revision > 7 ORDER BY revision, number", "changes_by_revision"),
    (
        "SELECT FROM health_checks WHERE kind = 'sample' AND service = 'a' ORDER BY id DESC LIMIT 9",
        "health_checks_by_service",
    ),
    ("SELECT FROM health_checks WHERE kind = 'transition' AND id < 7 ORDER BY id DESC LIMIT 9", "health_checks_pkey"),
    ("DELETE FROM health_checks WHERE id = ANY ('{7,8}') AND kind = 'sample'", "health_checks_pkey"),
    ("SELECT FROM health_checks WHERE kind = 'sample' AND checked_at < now()", "health_checks_by_time"),
    ("SELECT FROM calls WHERE tool = 'now' ORDER BY id DESC LIMIT 9", "calls_by_tool"),
    ("SELECT FROM calls WHERE service = 'a' ORDER BY id DESC LIMIT 9", "calls_by_service"),
    ("SELECT FROM audit WHERE service = 'a' ORDER BY id DESC LIMIT 9", "audit_by_service"),
    ("SELECT FROM alerts WHERE at < now()", "alerts_by_time"),
    ("SELECT FROM replies WHERE expires_at <= now()", "replies_by_expiry"),
    ("SELECT sum(bytes) FROM replies WHERE bytes > 0", "replies_by_size"),
];

#[tokio::test]
async fn every_filter_has_its_index() {
    let schema = Schema::new();
    drop(schema.open().await);
    let mut connection = schema.connection().await;
    sqlx::raw_sql("SET enable_seqscan = off; SET enable_sort = off").execute(&mut connection).await.unwrap();
    let mut wrong = Vec::new();
    for (sql, index) in QUERIES {
        let explain = AssertSqlSafe(format!("EXPLAIN {sql}"));
        let plan = sqlx::query(explain).fetch_all(&mut connection).await.unwrap();
        let plan: Vec<String> = plan.iter().map(|row| row.get(0)).collect();
        if !plan.iter().any(|line| line.contains(index)) {
            wrong.push(format!("{sql}\n{}", plan.join("\n")));
        }
    }
    assert!(wrong.is_empty(), "without their index:\n{}", wrong.join("\n\n"));
}
