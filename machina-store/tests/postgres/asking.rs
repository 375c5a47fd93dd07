//! What `docs/guide/stores.md` says to ask in psql is asked, and is answered.

use machina_core::{Change, Entry, Health, HealthState, InstanceId, ServiceName, Timestamp, What};
use sqlx::{AssertSqlSafe, Column as _, Row as _};

use super::making::{audit, batch, put, put_tools, service};
use super::schema::Schema;

/// A section of the guide to stores, without its heading.
pub(crate) fn section(heading: &str) -> String {
    let guide = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/guide/stores.md")).unwrap();
    let (_, rest) = guide.split_once(&format!("\n## {heading}\n")).expect("there is such a section");
    rest.split("\n## ").next().unwrap().to_owned()
}

/// The statements of a section.
fn statements(section: &str) -> Vec<String> {
    let blocks = section.split("```sql\n").skip(1).map(|block| block.split("```").next().unwrap());
    blocks.flat_map(|block| block.split_terminator(";\n")).map(str::to_owned).collect()
}

fn entry(service: &ServiceName, instance: InstanceId, what: What) -> Entry {
    Entry { at: machina_core::now(), service: Some(service.clone()), instance: Some(instance), what }
}

/// A store in which there is an answer to everything.
async fn filled() -> Schema {
    let schema = Schema::new();
    let backend = schema.open().await;
    let mut a = service("weather");
    a.spec.tags = vec!["eu".parse().unwrap()];
    a.spec.admin_state = machina_core::AdminState::Enabled;
    a.spec.admin_reason = None;
    let (name, instance) = (a.name().clone(), a.spec.instances[0].id);
    let mut health = Health::unknown(Timestamp::UNIX_EPOCH);
    health.state = HealthState::Unhealthy;
    let say = Change::PutHealth { service: a.id, instance, health: health.into() };
    let mut changes = batch([put(&a), put_tools(&a, 0, 3), say]);
    changes.entries.push(audit());
    backend.store.commit(&changes).await.unwrap();
    let text = str::to_owned;
    let call = What::Call {
        tool: text("forecast"),
        principal: text("bob"),
        duration_ms: 12.5,
        attempts: 1,
        success: false,
        error: Some(text("timeout")),
        tried: Vec::new(),
        arguments: None,
    };
    let transition = What::Transition { from: text("healthy"), to: text("unhealthy"), reason: text("it timed out") };
    let sample = What::Sample { outcome: text("fail"), response_time_ms: Some(3.5), error: Some(text("refused")) };
    let entries = [call, transition, sample].map(|what| entry(&name, instance, what));
    backend.journal.append(&entries).await.unwrap();
    schema.run("UPDATE tools SET name = 'forecast' WHERE position = 1").await;
    schema
}

#[tokio::test]
async fn every_question_of_the_guide_is_answered() {
    let schema = filled().await;
    let statements = statements(&section("Asking in psql"));
    assert!(statements.len() >= 5, "{statements:?}");
    let mut connection = schema.connection().await;
    for sql in statements {
        let rows = sqlx::query(AssertSqlSafe(sql.clone())).fetch_all(&mut connection).await;
        let rows = rows.unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert!(!rows.is_empty(), "no answer to: {sql}");
        let columns: Vec<_> = rows[0].columns().iter().map(|column| column.name().to_owned()).collect();
        assert!(!columns.contains(&"?column?".to_owned()), "a column without a name: {sql}");
    }
}

/// What the section names is there.
#[tokio::test]
async fn every_table_of_the_guide_is_there() {
    let schema = filled().await;
    let section = section("Asking in psql");
    let rows = section.lines().filter_map(|line| line.strip_prefix("| `")).filter_map(|line| line.split(" |").next());
    let names: Vec<&str> = rows.flat_map(|cell| cell.split(", ")).map(|name| name.trim_matches('`')).collect();
    assert!(names.len() >= 15, "{names:?}");
    for name in names {
        assert_eq!(schema.row(&format!("SELECT to_regclass('{name}') IS NOT NULL")).await, "true", "{name}");
    }
}
