//! The JSON form of what a store holds, changes and commits, which a server writes
//! and reads for the Machinas that follow it, and they for it. Secrets are in place,
//! apart from the records: this form goes to followers and nowhere else.
//!
//! An image, and the changes after a revision, are lines of JSON: a [`Head`], any
//! number of [`Line`]s, and an end that says how many there were, so that what broke
//! off is never taken for the whole.

use std::collections::BTreeMap;
use std::sync::Arc;

use machina_core::{
    Batch, Change, Definitions, Error, Group, GroupName, GroupSpec, Health, InstanceId, Precondition, RejectedTool,
    Result, Revision, Seen, Service, ServiceId, ServiceName, ServiceSpec, Timestamp, Tool,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The media type of lines of JSON.
pub(crate) const LINES: &str = "application/x-ndjson";

/// The first line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Head {
    /// The revision that the registry stands at.
    pub(crate) revision: Revision,
    /// Tells the revisions of this process from those of another.
    pub(crate) generation: String,
    /// There are no changes to be told: the image is to be read again.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) reload: bool,
}

/// What follows it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Line {
    Service(StoredService),
    Definitions {
        instance: InstanceId,
        definitions: StoredDefinitions,
    },
    Group(StoredGroup),
    Health {
        instance: InstanceId,
        health: Health,
    },
    Heartbeat {
        instance: InstanceId,
        at: Timestamp,
    },
    Change {
        revision: Revision,
        change: StoredChange,
    },
    /// How many lines were between the first and this one, the last.
    End(u64),
}

/// A batch as a follower sends it.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = StoreBatch)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredBatch {
    /// What must be true.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    preconditions: Vec<StoredPrecondition>,
    /// What changes, in this order.
    #[serde(default)]
    #[schema(value_type = Vec<Object>)]
    changes: Vec<StoredChange>,
}

/// What was committed.
#[derive(Debug, Serialize, Deserialize, utoipa::ToSchema)]
#[schema(as = StoreCommit)]
pub(crate) struct Committed {
    /// The revision of the batch.
    pub(crate) revision: Revision,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum StoredPrecondition {
    Absent(ServiceName),
    AtRevision { service: ServiceId, revision: Revision },
    Exists(ServiceId),
    GroupAbsent(GroupName),
    GroupAtRevision { group: GroupName, revision: Revision },
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum StoredChange {
    PutService(StoredService),
    DeleteService { id: ServiceId, name: ServiceName },
    PutDefinitions { service: ServiceId, instance: InstanceId, definitions: StoredDefinitions },
    PutGroup(StoredGroup),
    DeleteGroup(GroupName),
    PutHealth { service: ServiceId, instance: InstanceId, health: Health },
    Seen(Vec<Seen>),
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredService {
    id: ServiceId,
    revision: Revision,
    created_at: Timestamp,
    updated_at: Timestamp,
    updated_by: String,
    /// The declaration, with masks where secrets are.
    spec: Value,
    /// The secrets, by their places.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    secrets: BTreeMap<String, String>,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredGroup {
    spec: Value,
    revision: Revision,
    created_at: Timestamp,
    updated_at: Timestamp,
    updated_by: String,
}

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct StoredDefinitions {
    protocol_version: String,
    server_info: Value,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instructions: Option<String>,
    capabilities: Value,
    /// Each as its server published it.
    tools: Vec<Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    rejected: Vec<RejectedTool>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    prompts: Vec<Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    resources: Vec<Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    resource_templates: Vec<Value>,
    listed_at: Timestamp,
}

impl StoredService {
    pub(crate) fn of(service: &Service) -> Result<Self> {
        let Service { id, spec, revision, created_at, updated_at, updated_by } = service;
        Ok(Self {
            id: *id,
            revision: *revision,
            created_at: *created_at,
            updated_at: *updated_at,
            updated_by: updated_by.clone(),
            spec: json(spec)?,
            secrets: spec.secrets(),
        })
    }

    /// # Errors
    /// [`Invalid`](machina_core::ErrorKind::Invalid) for a record that could not be
    /// registered.
    pub(crate) fn into_service(self) -> Result<Service> {
        let Self { id, revision, created_at, updated_at, updated_by, spec, secrets } = self;
        let mut spec = ServiceSpec::from_value(spec)?;
        spec.restore_secrets(&secrets);
        Ok(Service { id, spec, revision, created_at, updated_at, updated_by })
    }
}

impl StoredGroup {
    pub(crate) fn of(group: &Group) -> Result<Self> {
        Ok(Self {
            spec: json(group.spec())?,
            revision: group.revision,
            created_at: group.created_at,
            updated_at: group.updated_at,
            updated_by: group.updated_by.clone(),
        })
    }

    /// # Errors
    /// [`Invalid`](machina_core::ErrorKind::Invalid) for a group that could not be
    /// made.
    pub(crate) fn into_group(self) -> Result<Group> {
        let mut group = Group::new(GroupSpec::from_value(self.spec)?, self.created_at, self.updated_by);
        (group.revision, group.updated_at) = (self.revision, self.updated_at);
        Ok(group)
    }
}

impl StoredDefinitions {
    pub(crate) fn of(definitions: &Definitions) -> Self {
        let definitions = definitions.clone();
        Self {
            protocol_version: definitions.protocol_version,
            server_info: definitions.server_info,
            instructions: definitions.instructions,
            capabilities: definitions.capabilities,
            tools: definitions.tools.iter().map(|tool| tool.definition()).collect(),
            rejected: definitions.rejected,
            prompts: definitions.prompts,
            resources: definitions.resources,
            resource_templates: definitions.resource_templates,
            listed_at: definitions.listed_at,
        }
    }

    /// # Errors
    /// [`Invalid`](machina_core::ErrorKind::Invalid) for a tool that is none.
    pub(crate) fn into_definitions(self) -> Result<Definitions> {
        let tools = self.tools.into_iter().map(|tool| Tool::parse(tool).map(Arc::new));
        Ok(Definitions {
            protocol_version: self.protocol_version,
            server_info: self.server_info,
            instructions: self.instructions,
            capabilities: self.capabilities,
            tools: tools.collect::<Result<_>>()?,
            rejected: self.rejected,
            prompts: self.prompts,
            resources: self.resources,
            resource_templates: self.resource_templates,
            listed_at: self.listed_at,
        })
    }
}

impl StoredChange {
    pub(crate) fn of(change: &Change) -> Result<Self> {
        Ok(match change {
            Change::PutService(service) => Self::PutService(StoredService::of(service)?),
            Change::DeleteService { id, name } => Self::DeleteService { id: *id, name: name.clone() },
            Change::PutDefinitions { service, instance, definitions } => Self::PutDefinitions {
                service: *service,
                instance: *instance,
                definitions: StoredDefinitions::of(definitions),
            },
            Change::PutGroup(group) => Self::PutGroup(StoredGroup::of(group)?),
            Change::DeleteGroup(name) => Self::DeleteGroup(name.clone()),
            Change::PutHealth { service, instance, health } => {
                Self::PutHealth { service: *service, instance: *instance, health: Health::clone(health) }
            }
            Change::Seen(seen) => Self::Seen(seen.to_vec()),
            _ => return Err(Error::unsupported("a change of this kind cannot be sent")),
        })
    }

    /// # Errors
    /// [`Invalid`](machina_core::ErrorKind::Invalid) for a record that could not be
    /// registered.
    pub(crate) fn into_change(self) -> Result<Change> {
        Ok(match self {
            Self::PutService(service) => Change::PutService(Arc::new(service.into_service()?)),
            Self::DeleteService { id, name } => Change::DeleteService { id, name },
            Self::PutDefinitions { service, instance, definitions } => {
                Change::PutDefinitions { service, instance, definitions: Arc::new(definitions.into_definitions()?) }
            }
            Self::PutGroup(group) => Change::PutGroup(Arc::new(group.into_group()?)),
            Self::DeleteGroup(name) => Change::DeleteGroup(name),
            Self::PutHealth { service, instance, health } => {
                Change::PutHealth { service, instance, health: Arc::new(health) }
            }
            Self::Seen(seen) => Change::Seen(seen.into()),
        })
    }
}

impl StoredPrecondition {
    fn of(precondition: &Precondition) -> Result<Self> {
        Ok(match precondition {
            Precondition::Absent(name) => Self::Absent(name.clone()),
            Precondition::AtRevision(service, revision) => Self::AtRevision { service: *service, revision: *revision },
            Precondition::Exists(id) => Self::Exists(*id),
            Precondition::GroupAbsent(name) => Self::GroupAbsent(name.clone()),
            Precondition::GroupAtRevision(group, revision) => {
                Self::GroupAtRevision { group: group.clone(), revision: *revision }
            }
            Precondition::Holds { .. } => {
                return Err(Error::unsupported("a follower holds no shards of the Machina that it follows"));
            }
        })
    }

    fn into_precondition(self) -> Precondition {
        match self {
            Self::Absent(name) => Precondition::Absent(name),
            Self::AtRevision { service, revision } => Precondition::AtRevision(service, revision),
            Self::Exists(id) => Precondition::Exists(id),
            Self::GroupAbsent(name) => Precondition::GroupAbsent(name),
            Self::GroupAtRevision { group, revision } => Precondition::GroupAtRevision(group, revision),
        }
    }
}

impl StoredBatch {
    /// The batch as it is sent; its journal entries stay where they are.
    ///
    /// # Errors
    /// [`Unsupported`](machina_core::ErrorKind::Unsupported) for what only replicas
    /// of one store say.
    pub(crate) fn of(batch: &Batch) -> Result<Self> {
        Ok(Self {
            preconditions: batch.preconditions.iter().map(StoredPrecondition::of).collect::<Result<_>>()?,
            changes: batch.changes.iter().map(StoredChange::of).collect::<Result<_>>()?,
        })
    }

    /// # Errors
    /// [`Invalid`](machina_core::ErrorKind::Invalid) for the first record that could
    /// not be registered, with its place in the batch.
    pub(crate) fn into_batch(self) -> Result<Batch> {
        let changes = self.changes.into_iter().enumerate().map(|(index, change)| {
            change.into_change().map_err(|error| {
                error.with(|context| {
                    for problem in &mut context.problems {
                        problem.field = format!("changes[{index}].{}", problem.field);
                    }
                })
            })
        });
        Ok(Batch {
            preconditions: self.preconditions.into_iter().map(StoredPrecondition::into_precondition).collect(),
            changes: changes.collect::<Result<_>>()?,
            entries: Vec::new(),
        })
    }
}

/// Lines as they are written.
pub(crate) struct Written<I> {
    lines: I,
    bytes: Vec<u8>,
    count: u64,
    ended: bool,
}

impl<I: Iterator<Item = Result<Line>>> Written<I> {
    /// The `head`, and then the `lines`.
    ///
    /// # Errors
    /// [`Internal`](machina_core::ErrorKind::Internal) when the head is no JSON.
    pub(crate) fn new(head: &Head, lines: I) -> Result<Self> {
        let mut written = Self { lines, bytes: Vec::new(), count: 0, ended: false };
        written.push(head)?;
        Ok(written)
    }

    /// About so many bytes more; `None` after the end.
    pub(crate) fn chunk(&mut self, bytes: usize) -> Option<Vec<u8>> {
        while !self.ended && self.bytes.len() < bytes {
            let pushed = match self.lines.next() {
                Some(line) => line.and_then(|line| self.push(&line)),
                None => {
                    self.ended = true;
                    self.push(&Line::End(self.count))
                }
            };
            if let Err(error) = pushed {
                tracing::error!(%error, "a follower does not get everything");
                self.ended = true;
            }
            self.count += 1;
        }
        (!self.bytes.is_empty()).then(|| std::mem::take(&mut self.bytes))
    }

    fn push(&mut self, line: &impl Serialize) -> Result<()> {
        let before = self.bytes.len();
        if let Err(error) = serde_json::to_writer(&mut self.bytes, line) {
            self.bytes.truncate(before);
            return Err(Error::internal("a record cannot be written as JSON").caused_by(error));
        }
        self.bytes.push(b'\n');
        Ok(())
    }
}

fn json(value: &impl Serialize) -> Result<Value> {
    serde_json::to_value(value).map_err(|error| Error::internal("a record cannot be written as JSON").caused_by(error))
}
