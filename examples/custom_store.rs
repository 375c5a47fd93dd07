//! A store of one's own: all services and groups in one JSON file, which each commit writes
//! anew. It passes the suite that Machina's own stores pass (see the tests).
//!
//! What it leaves out: history, answers that are remembered and tool definitions
//! stay in memory (tools are listed again at the next start), and nothing keeps a second process away from
//! the file. `machina_store::open` has a store that does all of that.
//!
//! ```text
//! cargo run -p machina-examples --bin custom_store -- services.json
//! ```

#![allow(clippy::print_stdout, reason = "it is there to show something")]

use std::collections::BTreeMap;
use std::io::{Error as IoError, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use machina_core::{
    Backend, Batch, ChangeLog, Changes, Error, Group, GroupSpec, Image, Journal, Machina, MemoryReplies, MemoryStore,
    Result, Revision, Service, ServiceId, ServiceSpec, Store, Timestamp,
};
use tokio::io::AsyncWriteExt;
use tokio::sync::Mutex;

/// One service in the file. A serialised `ServiceSpec` shows no secret, so the
/// secrets stand beside it: whoever may read the file may read them.
type Record = (ServiceId, Revision, Timestamp, Timestamp, String, ServiceSpec, BTreeMap<String, String>);

fn record(service: &Arc<Service>) -> Record {
    let Service { id, spec, revision, created_at, updated_at, updated_by } = Service::clone(service);
    let secrets = spec.secrets();
    (id, revision, created_at, updated_at, updated_by, spec, secrets)
}

fn service((id, revision, created_at, updated_at, updated_by, mut spec, secrets): Record) -> Arc<Service> {
    spec.restore_secrets(&secrets);
    Arc::new(Service { id, spec, revision, created_at, updated_at, updated_by })
}

/// One group in the file.
type GroupRecord = (Revision, Timestamp, Timestamp, String, GroupSpec);

fn group_record(group: &Arc<Group>) -> GroupRecord {
    (group.revision, group.created_at, group.updated_at, group.updated_by.clone(), group.spec().clone())
}

fn group((revision, created_at, updated_at, updated_by, spec): GroupRecord) -> Arc<Group> {
    let mut group = Group::new(spec, created_at, updated_by).at_revision(revision);
    group.updated_at = updated_at;
    Arc::new(group)
}

/// Keeps services and groups in a JSON file.
#[derive(Debug)]
struct JsonFile {
    path: PathBuf,
    held: Mutex<(Image, ChangeLog)>,
    history: Arc<MemoryStore>,
}

/// Opens the file at `path`; one that is not there is an empty store.
async fn open(path: &Path) -> Result<Backend> {
    let mut image = Image::default();
    match tokio::fs::read(path).await {
        Ok(text) => {
            let file = serde_json::from_slice::<(Revision, Vec<Record>, Vec<GroupRecord>)>(&text);
            let (revision, services, groups) = file.map_err(|error| unusable(path, &IoError::from(error)))?;
            let (services, groups) = (services.into_iter().map(service), groups.into_iter().map(group));
            image = Image { revision, services: services.collect(), groups: groups.collect(), ..image };
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => return Err(unusable(path, &error)),
    }
    let log = ChangeLog::new(image.revision, ChangeLog::CHANGES_MAX);
    let history = Arc::new(MemoryStore::new());
    let store = JsonFile { path: path.to_owned(), held: Mutex::new((image, log)), history: history.clone() };
    Ok(Backend {
        store: Arc::new(store),
        journal: history,
        replies: Arc::new(MemoryReplies::new()),
        leases: None,
        scratch: None,
    })
}

fn unusable(path: &Path, error: &IoError) -> Error {
    Error::internal(format!("the store {} cannot be used: {error}", path.display()))
}

impl JsonFile {
    /// Writes a new file and puts it in the place of the old one, so that there
    /// is a whole one at every moment.
    async fn save(&self, image: &Image) -> std::io::Result<()> {
        let records: Vec<Record> = image.services.iter().map(record).collect();
        let groups: Vec<GroupRecord> = image.groups.iter().map(group_record).collect();
        let (text, new) = (serde_json::to_vec(&(image.revision, records, groups))?, self.path.with_extension("new"));
        let mut file =
            tokio::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new).await?;
        file.write_all(&text).await?;
        file.sync_all().await?;
        tokio::fs::rename(&new, &self.path).await
    }
}

#[async_trait]
impl Store for JsonFile {
    async fn load(&self) -> Result<Image> {
        Ok(self.held.lock().await.0.clone())
    }

    async fn commit(&self, batch: &Batch) -> Result<Revision> {
        let mut held = self.held.lock().await;
        // On a copy: a batch that is refused, or cannot be written, leaves no trace.
        let copy = MemoryStore::holding(&held.0)?;
        let revision = copy.commit(batch).await?;
        let image = copy.load().await?;
        self.save(&image).await.map_err(|error| unusable(&self.path, &error))?;
        if let Changes::Tail(tail) = copy.changes(held.0.revision).await? {
            held.1.record(revision, tail.into_iter().map(|(_, change)| change));
        }
        held.0 = image;
        self.history.append(&batch.entries).await?;
        Ok(revision)
    }

    async fn changes(&self, after: Revision) -> Result<Changes> {
        Ok(self.held.lock().await.1.after(after))
    }

    /// No one else writes to this file.
    async fn changed(&self) -> Result<()> {
        std::future::pending().await
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let path = std::env::args().nth(1).unwrap_or_else(|| "services.json".to_owned());
    let machina = Machina::builder().backend(open(Path::new(&path)).await?).open().await?;
    let number = machina.view().len() + 1;
    let registered = machina.register(ServiceSpec::new(&format!("service-{number}"))?).await?;
    println!("{path} is at revision {}; its services:", machina.view().revision());
    for view in machina.view().services() {
        println!("  {} since {}", view.service().name(), view.service().created_at);
    }
    println!("registered now: {}", registered.service().name());
    machina.close().await;
    Ok(())
}

#[cfg(test)]
mod tests {
    use machina_core::{Endpoint, StdioEndpoint};
    use tempfile::TempDir;

    use super::*;

    /// A store in a directory that lives as long as it.
    struct Kept(Backend, TempDir);

    impl AsRef<Backend> for Kept {
        fn as_ref(&self) -> &Backend {
            &self.0
        }
    }

    async fn empty() -> Kept {
        let directory = tempfile::tempdir().unwrap();
        Kept(open(&directory.path().join("services.json")).await.unwrap(), directory)
    }

    machina_core::store_suite!(empty().await);

    #[tokio::test]
    async fn what_was_committed_is_there_again_secrets_included() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("services.json");
        let machina = Machina::builder().backend(open(&path).await.unwrap()).open().await.unwrap();
        let endpoint = StdioEndpoint::new("none", ["--token", "hunter2"]);
        let spec = ServiceSpec::new("a").unwrap().instance(machina_core::Instance::new(endpoint));
        machina.register(spec).await.unwrap();
        machina.close().await;

        let before = machina.view();
        let again = open(&path).await.unwrap().store.load().await.unwrap();
        assert_eq!(again.revision, before.revision());
        assert_eq!(&again.services[0], before.get("a").unwrap().service());
        let Endpoint::Stdio(stdio) = &again.services[0].spec.instances[0].endpoint else { panic!("not stdio") };
        assert_eq!(stdio.args[1].expose(), "hunter2");
    }

    #[tokio::test]
    async fn what_cannot_be_written_did_not_happen() {
        let Kept(backend, directory) = empty().await;
        let machina = Machina::builder().backend(backend).open().await.unwrap();
        directory.close().unwrap();
        let refused = machina.register(ServiceSpec::new("a").unwrap()).await.unwrap_err();
        assert_eq!(refused.kind(), machina_core::ErrorKind::Internal);
        assert!(machina.view().is_empty());
    }

    #[tokio::test]
    async fn a_file_of_something_else_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("services.json");
        std::fs::write(&path, "{}").unwrap();
        let refused = open(&path).await.unwrap_err();
        assert!(refused.message().contains("services.json"), "{refused}");
    }
}
