//! `kill -9` in the middle of writing loses nothing that was acknowledged and
//! leaves nothing half-written. A test runs itself again as the process that is
//! killed, fifty times over one file.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking, in its helpers too")]

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use machina_core::{
    Backend, Batch, Change, Definitions, Entry, EntryKind, Image, Instance, JournalQuery, Revision, Service, ServiceId,
    ServiceSpec, StdioEndpoint, Tool, What,
};
use serde_json::{Value, json};
use sqlx::sqlite::SqliteConnectOptions;
use sqlx::{ConnectOptions, Connection};
use tokio::sync::Mutex;

/// Set for the process that writes until it is killed: the file to write to.
const WRITER: &str = "MACHINA_TEST_CRASH_WRITER";
/// What a writer says before the revision of each commit that was acknowledged.
const ACKNOWLEDGED: &str = "acknowledged ";
const ROUNDS: u32 = 50;
/// Each batch puts this many services, with one audit entry each.
const BATCH: u64 = 3;
/// Batches go round these many names, so that services are made, changed and deleted.
const NAMES: u64 = 40;

/// A writer that one test starts has, until it is another program, the files open
/// that the other test has: the lock on its store too.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

#[tokio::test]
async fn nothing_acknowledged_is_lost() {
    write_if_asked().await;
    let _alone = ONE_AT_A_TIME.lock().await;
    let (seed, mut random) = Random::announced();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("machina.db");
    let (mut acknowledged, mut rounds_with_writes) = (0, 0);
    for round in 0..ROUNDS {
        let patience = Duration::from_micros(random.below(40_000));
        let last = write_and_kill("nothing_acknowledged_is_lost", &path, true, patience).await;
        rounds_with_writes += u32::from(last > acknowledged);
        acknowledged = check(&path, acknowledged.max(last), &format!("seed {seed}, round {round}")).await;
        check_integrity(&path).await;
    }
    assert_eq!(rounds_with_writes, ROUNDS, "a writer did not write");
}

#[tokio::test]
async fn a_file_whose_making_was_interrupted_opens() {
    write_if_asked().await;
    let _alone = ONE_AT_A_TIME.lock().await;
    let (seed, mut random) = Random::announced();
    for round in 0..ROUNDS / 2 {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("machina.db");
        let patience = Duration::from_micros(random.below(50_000));
        let last = write_and_kill("a_file_whose_making_was_interrupted_opens", &path, false, patience).await;
        check(&path, last, &format!("seed {seed}, round {round}")).await;
        check_integrity(&path).await;
    }
}

/// In the process that is to be killed, this never returns.
async fn write_if_asked() {
    if let Some(path) = std::env::var_os(WRITER) {
        write_until_killed(Path::new(&path)).await;
    }
}

/// Runs a writer, by running `test` in a process of its own, and kills it after
/// `patience`, counted from its first commit or from its start; returns the
/// last revision that it acknowledged.
async fn write_and_kill(test: &str, path: &Path, first_commit: bool, patience: Duration) -> u64 {
    let mut writer = Command::new(std::env::current_exe().unwrap())
        .args([test, "--exact", "--nocapture"])
        .env(WRITER, path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut output = BufReader::new(writer.stdout.take().unwrap());
    let mut said = String::new();
    while first_commit && !said.contains(ACKNOWLEDGED) && output.read_line(&mut said).unwrap() > 0 {}
    tokio::time::sleep(patience).await;
    writer.kill().unwrap();
    assert!(writer.wait().unwrap().code().is_none(), "the writer ended by itself: {said}");
    output.read_to_string(&mut said).unwrap();
    // The last line may be torn: only a complete one acknowledges.
    let lines = said.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    lines.filter_map(|line| line.strip_prefix(ACKNOWLEDGED)?.parse().ok()).max().unwrap_or_default()
}

async fn open(path: &Path) -> Backend {
    machina_store::open(&format!("sqlite:{}", path.display())).await.unwrap()
}

async fn write_until_killed(path: &Path) -> ! {
    let Backend { store, .. } = open(path).await;
    let mut image = store.load().await.unwrap();
    loop {
        let revision = image.revision.next();
        let committed = store.commit(&batch(&image, revision)).await.unwrap();
        assert_eq!(committed, revision);
        std::io::stdout().write_all(format!("{ACKNOWLEDGED}{committed}\n").as_bytes()).unwrap();
        image = store.load().await.unwrap();
    }
}

/// What the writer commits as `revision`: deletes the services of some names
/// where they exist, makes them where they don't.
fn batch(image: &Image, revision: Revision) -> Batch {
    let mut batch = Batch::default();
    for index in 0..BATCH {
        let name = format!("s{}", (revision.0 * BATCH + index) % NAMES);
        match image.services.iter().find(|service| service.name().as_str() == name) {
            Some(service) if revision.0.is_multiple_of(2) => {
                batch.changes.push(Change::DeleteService { id: service.id, name: service.name().clone() });
            }
            found => {
                let id = found.map_or_else(ServiceId::generate, |service| service.id);
                let (service, definitions) = service(id, &name, revision);
                let instance = service.spec.instances[0].id;
                batch.changes.push(Change::PutService(Arc::new(service)));
                batch.changes.push(Change::PutDefinitions { service: id, instance, definitions });
            }
        }
        let what = What::Audit { principal: "w".to_owned(), action: "put".to_owned(), detail: json!(revision) };
        batch.entries.push(Entry { at: machina_core::now(), service: None, instance: None, what });
    }
    batch
}

/// A service whose every part says by which revision it was written.
fn service(id: ServiceId, name: &str, revision: Revision) -> (Service, Arc<Definitions>) {
    let mark = revision.to_string();
    let mut spec = ServiceSpec::new(name).unwrap();
    spec = spec.instance(Instance::new(StdioEndpoint::new("serve", ["-v"]).env("TOKEN", &mark)));
    spec.description.clone_from(&mark);
    let at = machina_core::now();
    let tool = Tool::parse(json!({"name": mark, "inputSchema": {"type": "object"}})).unwrap();
    let definitions = Definitions {
        protocol_version: mark.clone(),
        server_info: Value::Null,
        instructions: None,
        capabilities: json!({}),
        tools: vec![Arc::new(tool)],
        rejected: Vec::new(),
        prompts: vec![json!({"name": mark})],
        resources: Vec::new(),
        resource_templates: Vec::new(),
        listed_at: at,
    };
    let service = Service { id, spec, revision, created_at: at, updated_at: at, updated_by: mark };
    (service, Arc::new(definitions))
}

/// Checks that the file holds everything up to `acknowledged`, whole batches
/// only; returns the revision it stands at.
async fn check(path: &Path, acknowledged: u64, context: &str) -> u64 {
    let backend = open(path).await;
    let image = backend.store.load().await.unwrap();
    let revision = image.revision.0;
    assert!(revision >= acknowledged, "{context}: {acknowledged} was acknowledged, {revision} is there");
    for service in &image.services {
        let mark = service.revision.to_string();
        let instance = &service.spec.instances[0];
        let definitions = &image.definitions[&instance.id];
        let parts = [&service.spec.description, &service.updated_by, &definitions.protocol_version];
        assert!(parts.iter().all(|part| **part == mark), "{context}: {service:?}");
        assert!(service.spec.secrets().values().eq([&mark]), "{context}: {service:?}");
        assert_eq!(definitions.tools[0].name().as_str(), mark, "{context}");
        assert_eq!(definitions.prompts, [json!({"name": mark})], "{context}");
    }
    assert_eq!(image.definitions.len(), image.services.len(), "{context}");
    let limit = u32::MAX;
    let audit = backend.journal.read(&JournalQuery { limit, ..JournalQuery::of(EntryKind::Audit) }).await.unwrap();
    assert_eq!(audit.entries.len() as u64, revision * BATCH, "{context}");
    let newest = audit.entries.first().map(|entry| entry.what.clone());
    assert!(
        matches!(newest, Some(What::Audit { detail, .. }) if detail == json!(revision)) || revision == 0,
        "{context}"
    );
    backend.store.close().await.unwrap();
    revision
}

async fn check_integrity(path: &Path) {
    let mut connection = SqliteConnectOptions::new().filename(path).connect().await.unwrap();
    let found: String = sqlx::query_scalar("PRAGMA integrity_check").fetch_one(&mut connection).await.unwrap();
    assert_eq!(found, "ok");
    let broken = sqlx::query("PRAGMA foreign_key_check").fetch_all(&mut connection).await.unwrap();
    assert!(broken.is_empty());
    let ahead: i64 = sqlx::query_scalar("SELECT count(*) FROM services WHERE revision > (SELECT revision FROM meta)")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(ahead, 0);
    connection.close().await.unwrap();
}

/// SplitMix64: reproducible from the seed that is printed.
struct Random(u64);

impl Random {
    fn announced() -> (u64, Self) {
        let seed = u64::try_from(machina_core::now().as_nanosecond()).unwrap();
        eprintln!("seed {seed}");
        (seed, Self(seed))
    }

    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (bits ^ (bits >> 31)) % end
    }
}
