//! What a durable store must do. A store keeps what operators declared and what
//! instances were last seen to publish, a journal of what happened, and leases.
//! It refuses to interpret any of it.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::alerts::{Alert, AlertMessageKind};
use crate::error::Result;
use crate::health::Health;
use crate::model::{Definitions, Group, GroupName, InstanceId, Revision, Service, ServiceId, ServiceName};
use crate::replies::{MemoryReplies, Replies};
use crate::route::Attempt;
use crate::scratch::Scratch;
use crate::shards::{Leases, ReplicaId};

/// One change of a [`Batch`].
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum Change {
    /// The service is now this. Its `revision` is set by the store.
    PutService(Arc<Service>),
    /// The service, its instances and their definitions are gone.
    DeleteService {
        /// The service.
        id: ServiceId,
        /// Its name.
        name: ServiceName,
    },
    /// An instance was seen to publish this.
    PutDefinitions {
        /// The service the instance belongs to.
        service: ServiceId,
        /// The instance.
        instance: InstanceId,
        /// What it publishes.
        definitions: Arc<Definitions>,
    },
    /// The group is now this. Its `revision` is set by the store.
    PutGroup(Arc<Group>),
    /// The group is gone.
    DeleteGroup(GroupName),
    /// The replica that looks after an instance reports this of its health. Only
    /// replicas that share a store write it.
    PutHealth {
        /// The service the instance belongs to.
        service: ServiceId,
        /// The instance.
        instance: InstanceId,
        /// Its health.
        health: Arc<Health>,
    },
    /// Instances were last seen then. Only replicas that share a store write it.
    Seen(Arc<[Seen]>),
}

/// When an instance was last seen. Of two times the later counts, so these may be
/// committed in any order; of an instance that is not declared it says nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// The instance.
    pub instance: InstanceId,
    /// When it was last checked: the [`Health::last_check`] that was put for it is
    /// at least this, if any was.
    pub last_check: Option<Timestamp>,
    /// When the last heartbeat of it came, to any replica.
    pub heartbeat: Option<Timestamp>,
}

/// What must be true for a batch to be committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// No service has this name.
    Absent(ServiceName),
    /// The service exists and was last changed by this revision.
    AtRevision(ServiceId, Revision),
    /// The service exists.
    Exists(ServiceId),
    /// No group has this name.
    GroupAbsent(GroupName),
    /// The group exists and was last changed by this revision.
    GroupAtRevision(GroupName, Revision),
    /// The replica holds the shard at this epoch, now and by the store's clock.
    Holds {
        /// The shard.
        shard: u16,
        /// The replica.
        replica: ReplicaId,
        /// The epoch.
        epoch: u64,
    },
}

/// Changes that are committed together or not at all.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Batch {
    /// What must be true.
    pub preconditions: Vec<Precondition>,
    /// What changes, in this order.
    pub changes: Vec<Change>,
    /// Journal entries that are written in the same transaction (audit).
    pub entries: Vec<Entry>,
}

/// Everything a store holds, at one revision.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Image {
    /// The revision it stands at.
    pub revision: Revision,
    /// Every service, secrets in place.
    pub services: Vec<Arc<Service>>,
    /// What each instance was last seen to publish.
    pub definitions: BTreeMap<InstanceId, Arc<Definitions>>,
    /// Every group.
    pub groups: Vec<Arc<Group>>,
    /// The health of each instance as the replica said that looks after it; empty
    /// where replicas do not share the store.
    pub health: BTreeMap<InstanceId, Arc<Health>>,
    /// When the last heartbeat of an instance came, as far as it was committed.
    pub heartbeats: BTreeMap<InstanceId, Timestamp>,
}

/// What happened after a revision.
#[derive(Debug, Clone, PartialEq)]
pub enum Changes {
    /// These changes, in order, each with the revision of its batch.
    Tail(Vec<(Revision, Change)>),
    /// The store does not remember that far back: [`Store::load`] again.
    Reload,
}

/// Keeps what was declared.
///
/// # Behaviour
/// Each point is a test in `machina_core::testing`:
/// * `load_of_an_empty_store`: an empty image at revision zero.
/// * `commit_then_load`: what was committed is loaded, secrets and key order included.
/// * `revisions_are_consecutive`: each commit takes the next revision.
/// * `commit_is_all_or_nothing`: a failed precondition leaves everything as it was.
/// * `create_only`: [`Precondition::Absent`] of an existing name is a conflict.
/// * `stale_revision_is_a_conflict`: likewise [`Precondition::AtRevision`] of an older one.
/// * `names_are_unique`: two services of one name are a conflict, also within a batch.
/// * `rename_keeps_the_identity`: a service can change its name.
/// * `delete_removes_definitions`: nothing of a deleted service remains.
/// * `removed_instance_loses_its_definitions`: nor of an instance that is no longer declared.
/// * `definitions_need_their_instance`: those of an undeclared instance are a conflict.
/// * `instance_ids_are_unique`: two services with one instance id are a conflict.
/// * `groups_are_kept`: a group that was committed is loaded as it was, and its last state counts.
/// * `a_group_is_made_once`: [`Precondition::GroupAbsent`] of an existing name is a conflict.
/// * `a_stale_group_is_a_conflict`: likewise [`Precondition::GroupAtRevision`] of an older revision.
/// * `a_deleted_group_is_gone`: and its name is free again.
/// * `groups_are_among_the_changes`: with the revision of their batch.
/// * `changes_after_a_revision`: the tail is complete and in order.
/// * `changes_too_old`: a revision from before the oldest remembered one means reload.
/// * `concurrent_commits`: of two writers with one precondition, one wins.
#[async_trait]
pub trait Store: fmt::Debug + Send + Sync + 'static {
    /// Everything, and the revision it stands at.
    async fn load(&self) -> Result<Image>;

    /// Commits `batch` and returns its revision, which is also the revision of
    /// every service and group in it.
    ///
    /// # Errors
    /// [`Conflict`](crate::ErrorKind::Conflict) when a precondition fails;
    /// nothing has changed then.
    async fn commit(&self, batch: &Batch) -> Result<Revision>;

    /// What was committed after `after`, in order. A store whose whole content was
    /// replaced since this process loaded it (by an older backup, say: another
    /// generation) says reload, whatever the revision.
    async fn changes(&self, after: Revision) -> Result<Changes>;

    /// Waits until something may have been committed by someone else. A hint:
    /// it may come for nothing, and it may never come.
    async fn changed(&self) -> Result<()>;

    /// Releases what the store holds. Later calls may fail.
    async fn close(&self) -> Result<()> {
        Ok(())
    }
}

/// One thing that happened. Entries are only ever appended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Entry {
    /// When.
    pub at: Timestamp,
    /// The service concerned, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceName>,
    /// The instance concerned.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub instance: Option<InstanceId>,
    /// What.
    #[serde(flatten)]
    pub what: What,
}

/// What a journal [`Entry`] records.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum What {
    /// The health of an instance changed.
    Transition {
        /// The state before.
        from: String,
        /// The state now.
        to: String,
        /// Why.
        reason: String,
    },
    /// One probe of an instance.
    Sample {
        /// `pass`, `degraded`, `auth_required`, `fail` or `inconclusive`.
        outcome: String,
        /// How long the probe took, in milliseconds.
        response_time_ms: Option<f64>,
        /// What went wrong.
        error: Option<String>,
    },
    /// What the probes of an instance came to over a day, or over the part of one
    /// that this process saw. Kept when the samples are gone.
    Rollup {
        /// When it begins; it ends when the entry was written.
        since: Timestamp,
        /// How many probes were answered.
        passes: u64,
        /// How many were not.
        failures: u64,
        /// How many answers took up to each of [`DURATION_BOUNDS`](crate::DURATION_BOUNDS)
        /// and longer than the one before; the last number counts those beyond.
        durations: Vec<u64>,
    },
    /// One call of a tool.
    Call {
        /// The tool.
        tool: String,
        /// Who called.
        principal: String,
        /// How long it took in all, in milliseconds.
        duration_ms: f64,
        /// How many attempts it took.
        attempts: u32,
        /// Whether an answer came that was no error.
        success: bool,
        /// The code of the error, where there was one.
        error: Option<String>,
        /// Each attempt, in order; none in an entry of a version that did not write them.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        tried: Vec<Attempt>,
        /// The arguments, where [`JournalConfig::keep_arguments`](crate::JournalConfig::keep_arguments) is on
        /// and they are not too long.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        arguments: Option<Value>,
    },
    /// A channel was told of an alert.
    Alert {
        /// The channel.
        channel: String,
        /// What it was told.
        message: AlertMessageKind,
        /// The alert, as it was told.
        alert: Box<Alert>,
    },
    /// Someone changed something.
    Audit {
        /// Who.
        principal: String,
        /// `register`, `update`, `deregister`, …
        action: String,
        /// What about it, without any secret.
        detail: Value,
    },
}

impl What {
    /// The name of the variant, as in JSON.
    #[must_use]
    pub const fn kind(&self) -> EntryKind {
        match self {
            Self::Transition { .. } => EntryKind::Transition,
            Self::Sample { .. } => EntryKind::Sample,
            Self::Rollup { .. } => EntryKind::Rollup,
            Self::Call { .. } => EntryKind::Call,
            Self::Alert { .. } => EntryKind::Alert,
            Self::Audit { .. } => EntryKind::Audit,
        }
    }
}

/// The kinds of journal entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EntryKind {
    /// See [`What::Transition`].
    Transition,
    /// See [`What::Sample`].
    Sample,
    /// See [`What::Rollup`].
    Rollup,
    /// See [`What::Call`].
    Call,
    /// See [`What::Alert`].
    Alert,
    /// See [`What::Audit`].
    Audit,
}

impl EntryKind {
    /// Every kind.
    pub const ALL: &'static [Self] =
        &[Self::Transition, Self::Sample, Self::Rollup, Self::Call, Self::Alert, Self::Audit];

    /// Whether the number of entries is limited for each instance by itself.
    #[must_use]
    pub const fn is_per_instance(self) -> bool {
        matches!(self, Self::Transition | Self::Sample | Self::Rollup)
    }
}

/// Which entries to read: newest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JournalQuery {
    /// Of this kind.
    pub kind: EntryKind,
    /// Only about this service.
    pub service: Option<ServiceName>,
    /// Only about this instance.
    pub instance: Option<InstanceId>,
    /// Only at or after this time.
    pub since: Option<Timestamp>,
    /// Only before the entry with this cursor.
    pub before: Option<i64>,
    /// At most this many; a store may return fewer than there are.
    pub limit: u32,
}

impl JournalQuery {
    /// The newest 100 entries of this kind.
    #[must_use]
    pub const fn of(kind: EntryKind) -> Self {
        Self { kind, service: None, instance: None, since: None, before: None, limit: 100 }
    }
}

/// Some entries, newest first.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JournalPage {
    /// The entries.
    pub entries: Vec<Entry>,
    /// The cursor to continue with, where there are more.
    pub next: Option<i64>,
}

/// How long entries are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retention {
    /// Entries before this time go.
    pub before: Timestamp,
    /// Of the rest, at most this many of each instance (or, for audit and calls, in all) stay.
    pub count_max: u64,
}

/// Remembers what happened.
///
/// # Behaviour
/// * `journal_reads_newest_first`: pages are complete, in order, without repetition.
/// * `journal_filters`: by kind, service, instance and time.
/// * `journal_trims`: by age and by number, one kind at a time.
/// * `audit_is_in_the_batch`: entries of a [`Batch`] are there exactly if it was committed.
#[async_trait]
pub trait Journal: fmt::Debug + Send + Sync + 'static {
    /// Appends entries, in order.
    async fn append(&self, entries: &[Entry]) -> Result<()>;

    /// Reads entries.
    async fn read(&self, query: &JournalQuery) -> Result<JournalPage>;

    /// Removes the entries of one kind that are too old or too many; returns
    /// how many went.
    async fn trim(&self, kind: EntryKind, retention: Retention) -> Result<u64>;
}

/// Where a registry keeps things: a store, a journal and replies, often faces of one.
#[derive(Debug, Clone)]
pub struct Backend {
    /// Keeps what was declared.
    pub store: Arc<dyn Store>,
    /// Remembers what happened.
    pub journal: Arc<dyn Journal>,
    /// Remembers what was answered.
    pub replies: Arc<dyn Replies>,
    /// Shares the instances out among the replicas that use the store; `None`
    /// where one process has it to itself, and looks after everything.
    pub leases: Option<Arc<dyn Leases>>,
    /// Where replicas count calls and keep answers together; `None` where each does
    /// so by itself.
    pub scratch: Option<Arc<dyn Scratch>>,
}

impl Backend {
    /// A back-end that is store and journal in one, and remembers in memory what
    /// was answered.
    pub fn of<T: Store + Journal>(both: T) -> Self {
        let both = Arc::new(both);
        Self {
            store: both.clone(),
            journal: both,
            replies: Arc::new(MemoryReplies::new()),
            leases: None,
            scratch: None,
        }
    }

    /// A back-end that is store, journal and replies in one.
    pub fn whole<T: Store + Journal + Replies>(all: T) -> Self {
        let all = Arc::new(all);
        Self { store: all.clone(), journal: all.clone(), replies: all, leases: None, scratch: None }
    }

    /// The same for one of several replicas that share its store.
    #[must_use]
    pub fn shared(mut self, leases: Arc<dyn Leases>) -> Self {
        self.leases = Some(leases);
        self
    }
}

impl AsRef<Self> for Backend {
    fn as_ref(&self) -> &Self {
        self
    }
}
