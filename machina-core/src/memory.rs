//! A store and journal that keep everything in this process and forget it with
//! the process: for tests, for trying things out, and for hosts that declare
//! their services anew at each start. It refuses to grow without limit. Several
//! registries in one process may share it, as replicas do.

mod shards;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use imbl::OrdMap;
use jiff::Timestamp;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::change_log::ChangeLog;
use crate::error::{Error, Result};
use crate::health::Health;
use crate::model::{Definitions, Group, GroupName, InstanceId, Revision, Service, ServiceId, ServiceName};
use crate::shards::{Held, Hints, Leases, ReplicaId, ShardLease};
use crate::store::{
    Batch, Change, Changes, Entry, EntryKind, Image, Journal, JournalPage, JournalQuery, Precondition, Retention, Seen,
    Store,
};

use self::shards::Shards;

/// Keeps everything in memory: the last 1,024 changes, the last 10,000 journal
/// entries of each kind.
#[derive(Debug)]
pub struct MemoryStore {
    inner: Mutex<Inner>,
    committed: Notify,
    hints: Hints,
}

#[derive(Debug)]
struct Inner {
    state: State,
    log: ChangeLog,
    journal: BTreeMap<EntryKind, VecDeque<(i64, Entry)>>,
    last_entry: i64,
    shards: Shards,
}

/// Cheap to clone: a commit works on a copy and swaps it in.
#[derive(Debug, Clone, Default)]
struct State {
    services: OrdMap<ServiceId, Arc<Service>>,
    ids: OrdMap<ServiceName, ServiceId>,
    owners: OrdMap<InstanceId, ServiceId>,
    definitions: OrdMap<InstanceId, Arc<Definitions>>,
    groups: OrdMap<GroupName, Arc<Group>>,
    health: OrdMap<InstanceId, Arc<Health>>,
    heartbeats: OrdMap<InstanceId, Timestamp>,
}

impl MemoryStore {
    /// How many journal entries of each kind are kept, whatever the retention.
    pub const ENTRIES_MAX: usize = 10_000;

    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        let log = ChangeLog::new(Revision::ZERO, ChangeLog::CHANGES_MAX);
        let (state, journal, shards) = (State::default(), BTreeMap::new(), Shards::new());
        let inner = Inner { state, log, journal, last_entry: 0, shards };
        Self { inner: Mutex::new(inner), committed: Notify::new(), hints: Hints::default() }
    }

    /// A store that begins with `image` and an empty journal: for a store of
    /// one's own that checks its batches on a copy.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when two services of the image
    /// have one name, or one instance.
    pub fn holding(image: &Image) -> Result<Self> {
        let store = Self::new();
        let mut inner = store.lock();
        image.services.iter().try_for_each(|service| inner.state.put(Arc::clone(service)))?;
        inner.state.definitions.extend(image.definitions.clone());
        inner.state.groups.extend(image.groups.iter().map(|group| (group.name().clone(), Arc::clone(group))));
        inner.state.health.extend(image.health.clone());
        inner.state.heartbeats.extend(image.heartbeats.clone());
        inner.log = ChangeLog::new(image.revision, ChangeLog::CHANGES_MAX);
        drop(inner);
        Ok(store)
    }

    /// State is swapped in whole, so it is sound even after a panic.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryStore {
    fn default() -> Self {
        Self::new()
    }
}

impl State {
    fn check(&self, precondition: &Precondition) -> Result<()> {
        match precondition {
            Precondition::Absent(name) if self.ids.contains_key(name) => Err(name_is_taken(name)),
            Precondition::AtRevision(id, expected) => match self.services.get(id) {
                None => Err(Error::conflict(format!("service {id} does not exist any more"))),
                Some(service) if service.revision != *expected => Err(Error::conflict(format!(
                    "service `{}` is at revision {}, not {expected}",
                    service.name(),
                    service.revision
                ))),
                Some(_) => Ok(()),
            },
            Precondition::Exists(id) if !self.services.contains_key(id) => {
                Err(Error::conflict(format!("service {id} does not exist any more")))
            }
            Precondition::GroupAbsent(name) if self.groups.contains_key(name) => {
                Err(Error::conflict(format!("there is already a group named `{name}`")))
            }
            Precondition::GroupAtRevision(name, expected) => match self.groups.get(name) {
                None => Err(Error::conflict(format!("the group `{name}` does not exist any more"))),
                Some(group) if group.revision != *expected => {
                    let now = group.revision;
                    Err(Error::conflict(format!("the group `{name}` is at revision {now}, not {expected}")))
                }
                Some(_) => Ok(()),
            },
            Precondition::Holds { .. }
            | Precondition::Absent(_)
            | Precondition::Exists(_)
            | Precondition::GroupAbsent(_) => Ok(()),
        }
    }

    /// Applies `change` and returns it as it is remembered.
    fn apply(&mut self, change: &Change, revision: Revision) -> Result<Change> {
        match change {
            Change::PutService(service) => {
                let service = Arc::new(Service { revision, ..service.as_ref().clone() });
                self.put(Arc::clone(&service))?;
                return Ok(Change::PutService(service));
            }
            Change::DeleteService { id, .. } => self.remove(*id),
            Change::PutDefinitions { service, instance, definitions } => {
                self.check_owner(*service, *instance)?;
                self.definitions.insert(*instance, Arc::clone(definitions));
            }
            Change::PutGroup(group) => {
                let group = Arc::new(group.at_revision(revision));
                self.groups.insert(group.name().clone(), Arc::clone(&group));
                return Ok(Change::PutGroup(group));
            }
            Change::DeleteGroup(name) => drop(self.groups.remove(name)),
            Change::PutHealth { service, instance, health } => {
                self.check_owner(*service, *instance)?;
                self.health.insert(*instance, Arc::clone(health));
            }
            Change::Seen(all) => all.iter().for_each(|seen| self.see(seen)),
        }
        Ok(change.clone())
    }

    fn check_owner(&self, service: ServiceId, instance: InstanceId) -> Result<()> {
        if self.owners.get(&instance) == Some(&service) {
            return Ok(());
        }
        Err(Error::conflict(format!("service {service} has no instance {instance}")))
    }

    fn see(&mut self, seen: &Seen) {
        if !self.owners.contains_key(&seen.instance) {
            return;
        }
        if let Some(health) = self.health.get_mut(&seen.instance)
            && seen.last_check > health.last_check
        {
            Arc::make_mut(health).last_check = seen.last_check;
        }
        if let Some(at) = seen.heartbeat {
            let latest = self.heartbeats.entry(seen.instance).or_insert(at);
            *latest = at.max(*latest);
        }
    }

    fn put(&mut self, service: Arc<Service>) -> Result<()> {
        if self.ids.get(service.name()).is_some_and(|id| *id != service.id) {
            return Err(name_is_taken(service.name()));
        }
        let instances: BTreeSet<InstanceId> = service.spec.instances.iter().map(|instance| instance.id).collect();
        if let Some(taken) = instances.iter().find(|id| self.owners.get(*id).is_some_and(|owner| *owner != service.id))
        {
            return Err(Error::conflict(format!("instance {taken} belongs to another service")));
        }
        if let Some(before) = self.services.get(&service.id).cloned() {
            self.ids.remove(before.name());
            for gone in before.spec.instances.iter().filter(|instance| !instances.contains(&instance.id)) {
                self.forget(gone.id);
            }
        }
        self.owners.extend(instances.into_iter().map(|instance| (instance, service.id)));
        self.ids.insert(service.name().clone(), service.id);
        self.services.insert(service.id, service);
        Ok(())
    }

    fn remove(&mut self, id: ServiceId) {
        let Some(service) = self.services.remove(&id) else { return };
        self.ids.remove(service.name());
        service.spec.instances.iter().for_each(|instance| self.forget(instance.id));
    }

    fn forget(&mut self, instance: InstanceId) {
        self.owners.remove(&instance);
        self.definitions.remove(&instance);
        self.health.remove(&instance);
        self.heartbeats.remove(&instance);
    }
}

fn name_is_taken(name: &ServiceName) -> Error {
    Error::conflict(format!("there is already a service named `{name}`")).with(|c| c.service = Some(name.to_string()))
}

impl Inner {
    fn check(&self, precondition: &Precondition) -> Result<()> {
        let Precondition::Holds { shard, replica, epoch } = *precondition else {
            return self.state.check(precondition);
        };
        if self.shards.holds(replica, ShardLease { shard, epoch }, Instant::now()) {
            return Ok(());
        }
        Err(Error::conflict(format!("replica {replica} does not hold shard {shard} at epoch {epoch}")))
    }

    fn append(&mut self, entries: &[Entry]) {
        for entry in entries {
            self.last_entry += 1;
            let kept = self.journal.entry(entry.what.kind()).or_default();
            if kept.len() == MemoryStore::ENTRIES_MAX {
                kept.pop_front();
            }
            kept.push_back((self.last_entry, entry.clone()));
        }
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for MemoryStore {
    async fn load(&self) -> Result<Image> {
        let (revision, state) = {
            let inner = self.lock();
            (inner.log.latest(), inner.state.clone())
        };
        let services = state.services.values().cloned().collect();
        let groups = state.groups.values().cloned().collect();
        Ok(Image {
            revision,
            services,
            definitions: state.definitions.into_iter().collect(),
            groups,
            health: state.health.into_iter().collect(),
            heartbeats: state.heartbeats.into_iter().collect(),
        })
    }

    async fn commit(&self, batch: &Batch) -> Result<Revision> {
        let revision = {
            let mut inner = self.lock();
            batch.preconditions.iter().try_for_each(|precondition| inner.check(precondition))?;
            let mut state = inner.state.clone();
            let revision = inner.log.latest().next();
            let changes: Vec<Change> =
                batch.changes.iter().map(|change| state.apply(change, revision)).collect::<Result<_>>()?;
            inner.state = state;
            inner.log.record(revision, changes);
            inner.append(&batch.entries);
            revision
        };
        self.committed.notify_waiters();
        Ok(revision)
    }

    async fn changes(&self, after: Revision) -> Result<Changes> {
        Ok(self.lock().log.after(after))
    }

    async fn changed(&self) -> Result<()> {
        self.committed.notified().await;
        Ok(())
    }

    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Journal for MemoryStore {
    async fn append(&self, entries: &[Entry]) -> Result<()> {
        self.lock().append(entries);
        Ok(())
    }

    async fn read(&self, query: &JournalQuery) -> Result<JournalPage> {
        let inner = self.lock();
        let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
        let wanted = |(id, entry): &&(i64, Entry)| {
            query.before.is_none_or(|before| *id < before)
                && query.since.is_none_or(|since| entry.at >= since)
                && query.service.as_ref().is_none_or(|service| entry.service.as_ref() == Some(service))
                && query.instance.is_none_or(|instance| entry.instance == Some(instance))
        };
        let mut found = inner.journal.get(&query.kind).into_iter().flatten().rev().filter(wanted);
        let mut page = JournalPage::default();
        let mut last = None;
        for (id, entry) in found.by_ref().take(limit) {
            page.entries.push(entry.clone());
            last = Some(*id);
        }
        page.next = last.filter(|_| found.next().is_some());
        Ok(page)
    }

    async fn trim(&self, kind: EntryKind, retention: Retention) -> Result<u64> {
        let mut inner = self.lock();
        let Some(kept) = inner.journal.get_mut(&kind) else { return Ok(0) };
        let before = kept.len();
        let mut counts: BTreeMap<Option<InstanceId>, u64> = BTreeMap::new();
        let mut keep = |entry: &Entry| {
            let per_instance = kind.is_per_instance();
            let count = counts.entry(entry.instance.filter(|_| per_instance)).or_default();
            let good = entry.at >= retention.before && *count < retention.count_max;
            *count += u64::from(good);
            good
        };
        let newest_first: Vec<(i64, Entry)> = kept.drain(..).rev().filter(|(_, entry)| keep(entry)).collect();
        kept.extend(newest_first.into_iter().rev());
        Ok((before - kept.len()) as u64)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Leases for MemoryStore {
    async fn hold(&self, replica: ReplicaId, ttl: Duration) -> Result<Held> {
        Ok(self.lock().shards.hold(replica, ttl, Instant::now()))
    }

    async fn release(&self, replica: ReplicaId) -> Result<()> {
        self.lock().shards.release(replica);
        Ok(())
    }

    async fn hint(&self, instances: &[InstanceId]) -> Result<()> {
        self.hints.give(instances.to_vec());
        Ok(())
    }

    async fn hinted(&self) -> Result<Vec<InstanceId>> {
        Ok(self.hints.next().await)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Backend;

    crate::store_suite!(Backend::of(MemoryStore::new()));

    mod shared {
        use super::*;

        fn shared() -> Backend {
            let store = Arc::new(MemoryStore::new());
            let backend = Backend { store: store.clone(), journal: store.clone(), ..Backend::of(MemoryStore::new()) };
            backend.shared(store)
        }

        crate::leases_suite!(shared());
    }

    #[tokio::test]
    async fn the_journal_is_bounded() {
        let store = MemoryStore::new();
        let what = crate::What::Sample { outcome: "pass".to_owned(), response_time_ms: None, error: None };
        let entry = Entry { at: crate::now(), service: None, instance: None, what };
        store.append(&vec![entry; MemoryStore::ENTRIES_MAX + 5]).await.unwrap();
        assert_eq!(store.lock().journal[&EntryKind::Sample].len(), MemoryStore::ENTRIES_MAX);
    }

    #[tokio::test]
    async fn a_store_can_begin_with_an_image() {
        let first = MemoryStore::new();
        let service = |name: &str| {
            let spec = crate::ServiceSpec::new(name).unwrap();
            let (id, now) = (ServiceId::generate(), crate::now());
            let service = Service {
                id,
                spec,
                revision: Revision(0),
                created_at: now,
                updated_at: now,
                updated_by: "x".to_owned(),
            };
            Arc::new(service)
        };
        let batch = Batch { changes: vec![Change::PutService(service("a"))], ..Batch::default() };
        first.commit(&batch).await.unwrap();
        let mut image = first.load().await.unwrap();
        let second = MemoryStore::holding(&image).unwrap();
        assert_eq!(second.load().await.unwrap(), image);
        assert_eq!(second.changes(Revision(0)).await.unwrap(), Changes::Reload);
        assert_eq!(second.commit(&Batch::default()).await.unwrap(), Revision(2));
        image.services.push(service("a"));
        assert_eq!(MemoryStore::holding(&image).unwrap_err().kind(), crate::ErrorKind::Conflict);
    }

    #[tokio::test]
    async fn a_commit_wakes_who_waits() {
        let store = MemoryStore::new();
        let batch = Batch::default();
        let (woken, committed) = tokio::join!(biased; store.changed(), store.commit(&batch));
        assert!(woken.is_ok() && committed.is_ok());
    }
}
