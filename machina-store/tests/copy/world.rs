//! A directory with a store in it that holds something of everything.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use machina_core::{
    Backend, Batch, Change, Claim, Definitions, Entry, EntryKind, Group, GroupSpec, Image, InstanceId, JournalQuery,
    Keep, Remembered, Reply, ReplyKey, Revision, Service, ServiceId, ServiceSpec, Timestamp, Tool, What,
};
use machina_store::{Copied, CopyOptions, CopyProgress};
use serde_json::json;
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tempfile::TempDir;

/// How many services the store has.
pub(crate) const SERVICES: usize = 30;
/// How many rows the history of their configurations has: three more of every third.
pub(crate) const CONFIGURATIONS: usize = SERVICES + SERVICES.div_ceil(3) * 3;
/// How many calls its journal has: more than two pages.
pub(crate) const CALLS: usize = 2_345;

/// Makes a file of today one of schema 4.
pub(crate) const SCHEMA_4: &str = "DELETE FROM _sqlx_migrations WHERE version >= 5; DROP TABLE health_rollups; \
    DROP INDEX health_checks_by_kind; DROP INDEX alerts_by_instance; DROP INDEX audit_by_instance; \
    DROP VIEW tool_executions; CREATE VIEW tool_executions AS SELECT id FROM calls; \
    ALTER TABLE calls DROP COLUMN tried; ALTER TABLE calls DROP COLUMN arguments";

pub(crate) struct World {
    directory: TempDir,
}

/// Everything that a store keeps.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Kept {
    pub(crate) image: Image,
    pub(crate) entries: Vec<Entry>,
    pub(crate) replies: Vec<Remembered>,
}

impl World {
    pub(crate) fn empty() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    /// With a full store at `from.db`.
    pub(crate) async fn full() -> Self {
        let world = Self::empty();
        let backend = machina_store::open(&world.url("from.db")).await.unwrap();
        fill(&backend).await;
        backend.store.close().await.unwrap();
        world
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn url(&self, name: &str) -> String {
        format!("sqlite:{}", self.path(name).display())
    }

    pub(crate) async fn open(&self, name: &str) -> Backend {
        machina_store::open(&self.url(name)).await.unwrap()
    }

    /// Opens a store for as long as `work` takes.
    pub(crate) async fn with<T>(&self, name: &str, work: impl AsyncFnOnce(&Backend) -> T) -> T {
        let backend = self.open(name).await;
        let done = work(&backend).await;
        backend.store.close().await.unwrap();
        done
    }

    pub(crate) async fn kept(&self, name: &str) -> Kept {
        self.with(name, async |backend| kept(backend).await).await
    }

    /// Copies `from.db` to `to.db`.
    pub(crate) async fn copy(&self, replace: bool) -> machina_core::Result<Copied> {
        copy(&self.url("from.db"), &self.url("to.db"), replace).await
    }

    /// The names of what is in the directory.
    pub(crate) fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path()).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Changes a database from outside.
    pub(crate) async fn tamper(&self, name: &str, sql: &'static str) {
        tamper(&self.path(name), sql).await;
    }
}

pub(crate) async fn tamper(path: &Path, sql: &'static str) {
    let mut connection = SqliteConnectOptions::new().filename(path).create_if_missing(true).connect().await.unwrap();
    sqlx::raw_sql(sql).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
}

pub(crate) async fn copy(from: &str, to: &str, replace: bool) -> machina_core::Result<Copied> {
    let progress = |_: CopyProgress| {};
    machina_store::copy(from, to, CopyOptions { replace, progress: &progress }).await
}

impl Kept {
    /// The same at another revision: every store has its own.
    pub(crate) fn at(mut self, revision: Revision) -> Self {
        self.image.revision = revision;
        for service in &mut self.image.services {
            *service = Arc::new(Service { revision, ..Service::clone(service) });
        }
        for group in &mut self.image.groups {
            *group = Arc::new(group.at_revision(revision));
        }
        self
    }
}

/// Everything that a store keeps; the journal of each kind oldest first.
pub(crate) async fn kept(backend: &Backend) -> Kept {
    let mut entries = Vec::new();
    for kind in EntryKind::ALL {
        let query = JournalQuery { limit: 100_000, ..JournalQuery::of(*kind) };
        entries.extend(backend.journal.read(&query).await.unwrap().entries.into_iter().rev());
    }
    let replies = backend.replies.list(None, 1000).await.unwrap();
    Kept { image: backend.store.load().await.unwrap(), entries, replies }
}

async fn fill(backend: &Backend) {
    for number in 0..SERVICES {
        let (service, definitions) = service(number);
        let (id, instance) = (service.id, service.spec.instances[0].id);
        let what =
            What::Audit { principal: "alice".to_owned(), action: "register".to_owned(), detail: json!({"b": 1}) };
        let batch = Batch {
            changes: vec![
                Change::PutService(Arc::new(service)),
                Change::PutDefinitions { service: id, instance, definitions },
                Change::PutGroup(Arc::new(group(number))),
            ],
            entries: vec![entry(number, what)],
            ..Batch::default()
        };
        backend.store.commit(&batch).await.unwrap();
    }
    configure(backend).await;
    backend.journal.append(&journal()).await.unwrap();
    for (key, keep) in [("whole", Some(Keep::Whole)), ("status", Some(Keep::Status)), ("begun", None)] {
        let claim = claim(key);
        backend.replies.begin(&claim).await.unwrap();
        let reply =
            Reply { status: 201, headers: vec![("etag".to_owned(), "\"é\"".to_owned())], body: vec![0, 255, 10] };
        if let Some(keep) = keep {
            backend.replies.finish(&claim.key, &reply, keep).await.unwrap();
        }
    }
}

/// Changes the configuration of every third service, and back.
async fn configure(backend: &Backend) {
    let services = backend.store.load().await.unwrap().services;
    for (number, service) in services.into_iter().enumerate().step_by(3) {
        let mut service = Service::clone(&service);
        for value in ["x", "y", "x"] {
            service.spec.config.insert("a".to_owned(), json!({"y": value, "b": [1.50, null, "é"]}));
            service.updated_at += Duration::from_secs(number as u64 + 1);
            service.updated_by = format!("bob-{value}");
            let batch = Batch { changes: vec![Change::PutService(Arc::new(service.clone()))], ..Batch::default() };
            backend.store.commit(&batch).await.unwrap();
        }
    }
}

pub(crate) fn claim(key: &str) -> Claim {
    let key = ReplyKey { tenant: "acme".to_owned(), principal: "alice".to_owned(), key: key.to_owned() };
    let at = machina_core::now();
    Claim { key, request: "r".to_owned(), at, until: at + Duration::from_secs(3600) }
}

pub(crate) fn time(seconds: usize) -> Timestamp {
    Timestamp::from_millisecond(1_750_000_000_123).unwrap() + Duration::from_secs(seconds as u64)
}

/// A service with a secret, and what its instance publishes.
pub(crate) fn service(number: usize) -> (Service, Arc<Definitions>) {
    let json = json!({
        "name": format!("s{number}"), "tags": ["b", "a"], "config": {"z": 1, "a": {"y": 2.50, "b": 3}},
        "env": {"TOKEN": format!("canary-{number}")}, "admin_state": "maintenance", "admin_reason": "ä new disk",
        "instances": [{"id": InstanceId::generate(), "weight": 3, "zone": "b", "lease_ttl": "1m 30s",
                       "stdio": {"command": "serve", "args": ["--token", "canary"], "env": {"KEY": "canary"}}}],
    });
    let at = time(number);
    let service = Service {
        id: ServiceId::generate(),
        spec: ServiceSpec::from_value(json).unwrap(),
        revision: Revision::ZERO,
        created_at: at,
        updated_at: at + Duration::from_millis(7),
        updated_by: "alice".to_owned(),
    };
    let schema = json!({"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "number"}}});
    let tool = |name: String| Arc::new(Tool::parse(json!({"name": name, "inputSchema": schema, "x": [1, 2]})).unwrap());
    let definitions = Definitions {
        protocol_version: "2025-11-25".to_owned(),
        server_info: json!({"name": "s", "a": null}),
        instructions: Some("do".to_owned()),
        capabilities: json!({"tools": {}}),
        tools: (0..5).map(|tool_number| tool(format!("t{number}-{tool_number}"))).collect(),
        rejected: Vec::new(),
        prompts: vec![json!({"name": "p"})],
        resources: vec![json!({"uri": "file:///x", "name": "r"})],
        resource_templates: Vec::new(),
        listed_at: at,
    };
    (service, Arc::new(definitions))
}

pub(crate) fn group(number: usize) -> Group {
    let spec =
        json!({"name": format!("g{}", number % 7), "members": [{"service": format!("s{number}"), "tools": ["t*"]}]});
    Group::new(GroupSpec::from_value(spec).unwrap(), time(number), "alice")
}

pub(crate) fn entry(number: usize, what: What) -> Entry {
    let service = Some(format!("s{}", number % SERVICES).parse().unwrap());
    Entry { at: time(number), service, instance: None, what }
}

/// Entries of each kind; pages of calls.
fn journal() -> Vec<Entry> {
    let text = str::to_owned;
    let call = |number: usize| What::Call {
        tool: format!("t{number}"),
        principal: text("bob"),
        duration_ms: number as f64 / 7.0,
        attempts: 1,
        success: !number.is_multiple_of(3),
        error: number.is_multiple_of(3).then(|| text("timeout")),
        tried: Vec::new(),
        arguments: None,
    };
    let mut entries: Vec<Entry> = (0..CALLS).map(|number| entry(number, call(number))).collect();
    for number in 0..40 {
        entries.push(entry(number, What::Sample { outcome: text("pass"), response_time_ms: Some(1.25), error: None }));
        let (from, to, reason) = (text("healthy"), text("suspect"), text("it \"timed\" out"));
        entries.push(Entry {
            instance: Some(InstanceId::generate()),
            ..entry(number, What::Transition { from, to, reason })
        });
        let rollup = What::Rollup { since: time(0), passes: 3, failures: 1, durations: vec![1, 2, 0] };
        entries.push(entry(number, rollup));
    }
    entries
}
