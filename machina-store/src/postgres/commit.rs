//! One batch, one transaction, one revision. The counter is taken first, so that
//! commits follow each other and what one checks stays true to its end.

use std::collections::{HashMap, HashSet};

use machina_core::{
    Batch, Change, Error, Group, GroupName, InstanceId, Precondition, Result, Revision, Service, ServiceId,
};
use sqlx::{Connection, PgConnection};

use super::error::database_error;
use super::statement::{fetch_listed, get, get_parsed, get_revision, unreadable};
use super::tail::{self, Counter};
use super::{definitions, groups, health, journal, leases, services};
use crate::conflict;

/// A batch whose end is being asked for: from here on it may have been committed,
/// whatever is heard of it.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) revision: Revision,
    batch: String,
}

/// Who commits: this opening of the store, and the database that it has loaded.
#[derive(Debug, Clone, Copy)]
pub(super) struct Writer<'a> {
    pub(super) run: &'a str,
    pub(super) generation: &'a str,
}

/// Commits `batch`; says in `ending` when it is about to be.
pub(super) async fn commit(
    connection: &mut PgConnection,
    batch: &Batch,
    writer: Writer<'_>,
    ending: &mut Option<Ending>,
) -> Result<Revision> {
    let mut transaction = connection.begin().await.map_err(database_error)?;
    let counter = next_revision(&mut transaction, writer.generation).await?;
    check(&mut transaction, &batch.preconditions).await?;
    for run in runs(&batch.changes) {
        apply(&mut transaction, run, counter.revision).await?;
    }
    journal::insert(&mut transaction, &batch.entries).await?;
    let (revision, name) = (counter.revision, counter.batch.clone());
    tail::record(&mut transaction, counter, &batch.changes, writer.run).await?;
    *ending = Some(Ending { revision, batch: name });
    transaction.commit().await.map_err(database_error)?;
    Ok(revision)
}

const NEXT: &str = "\
    UPDATE meta SET revision = revision + 1, batch = gen_random_uuid() \
    RETURNING revision, batch::text, changes, bytes, generation::text || '/' || tableoid::text AS generation";

async fn next_revision(connection: &mut PgConnection, generation: &str) -> Result<Counter> {
    let row = sqlx::query(NEXT).fetch_optional(connection).await.map_err(database_error)?;
    let row = row.ok_or_else(|| unreadable("revision", "there is none"))?;
    if get::<&str>(&row, "generation")? != generation {
        return Err(Error::conflict("the content of the database was replaced: what was read before is not in it"));
    }
    Ok(Counter {
        revision: get_revision(&row, "revision")?,
        batch: get(&row, "batch")?,
        changes: get(&row, "changes")?,
        bytes: get(&row, "bytes")?,
    })
}

/// Whether a batch whose end was asked for is committed; `None` if nobody can say.
/// The transaction of it holds the counter while it is open, so it has ended when
/// this one gets it.
pub(super) async fn outcome(connection: &mut PgConnection, ending: &Ending) -> Result<Option<bool>> {
    let mut transaction = connection.begin().await.map_err(database_error)?;
    sqlx::query("SELECT FROM meta FOR SHARE").execute(&mut *transaction).await.map_err(database_error)?;
    let found = "SELECT m.revision, m.batch::text AS last, \
                 (SELECT c.batch::text FROM changes AS c WHERE c.revision = $1 LIMIT 1) AS batch FROM meta AS m";
    let revision = super::statement::revision_value(ending.revision)?;
    let row = sqlx::query(found).bind(revision).fetch_one(&mut *transaction).await.map_err(database_error)?;
    transaction.commit().await.map_err(database_error)?;
    let latest = get_revision(&row, "revision")?;
    let batch = match get::<Option<&str>>(&row, "batch")? {
        None if latest == ending.revision => Some(get(&row, "last")?),
        batch => batch,
    };
    Ok(if latest < ending.revision { Some(false) } else { batch.map(|batch: &str| batch == ending.batch) })
}

/// What the preconditions of a batch are about, as it stands.
#[derive(Default)]
struct Standing {
    names: HashSet<String>,
    services: HashMap<ServiceId, (String, Revision)>,
    groups: HashMap<GroupName, Revision>,
}

async fn check(connection: &mut PgConnection, preconditions: &[Precondition]) -> Result<()> {
    if preconditions.is_empty() {
        return Ok(());
    }
    leases::check(connection, preconditions).await?;
    let standing = standing(connection, preconditions).await?;
    preconditions.iter().try_for_each(|precondition| standing.check(precondition))
}

async fn standing(connection: &mut PgConnection, preconditions: &[Precondition]) -> Result<Standing> {
    let (mut names, mut ids, mut group_names) = (Vec::new(), Vec::new(), Vec::new());
    for precondition in preconditions {
        match precondition {
            Precondition::Absent(name) => names.push(name.to_string()),
            Precondition::AtRevision(id, _) | Precondition::Exists(id) => ids.push(id.to_string()),
            Precondition::GroupAbsent(name) | Precondition::GroupAtRevision(name, _) => {
                group_names.push(name.to_string());
            }
            Precondition::Holds { .. } => {}
        }
    }
    let mut standing = Standing::default();
    if !names.is_empty() {
        let sql = "SELECT name FROM services WHERE name = ANY ($1::text[])";
        for row in fetch_listed(connection, sql, &names).await? {
            standing.names.insert(get(&row, "name")?);
        }
    }
    if !ids.is_empty() {
        let sql = "SELECT id::text, name, revision FROM services WHERE id = ANY ($1::uuid[])";
        for row in fetch_listed(connection, sql, &ids).await? {
            let at = (get(&row, "name")?, get_revision(&row, "revision")?);
            standing.services.insert(get_parsed(&row, "id")?, at);
        }
    }
    if !group_names.is_empty() {
        standing.groups = groups::revisions(connection, &group_names).await?;
    }
    Ok(standing)
}

impl Standing {
    fn check(&self, precondition: &Precondition) -> Result<()> {
        match precondition {
            Precondition::Absent(name) if self.names.contains(name.as_str()) => {
                Err(conflict::name_is_taken(name.as_str()))
            }
            Precondition::AtRevision(id, expected) => match self.services.get(id) {
                Some((name, now)) => conflict::check_service_revision(name, *now, *expected),
                None => Err(conflict::service_is_gone(*id)),
            },
            Precondition::Exists(id) if !self.services.contains_key(id) => Err(conflict::service_is_gone(*id)),
            Precondition::GroupAbsent(name) => conflict::check_group_absent(name, self.groups.get(name).copied()),
            Precondition::GroupAtRevision(name, expected) => {
                conflict::check_group_revision(name, self.groups.get(name).copied(), *expected)
            }
            Precondition::Absent(_) | Precondition::Exists(_) | Precondition::Holds { .. } => Ok(()),
        }
    }
}

/// What a change is about.
#[derive(PartialEq, Eq, Hash)]
enum Subject<'a> {
    Service(ServiceId),
    Instance(InstanceId),
    Group(&'a GroupName),
    Everything,
}

fn subject(change: &Change) -> Subject<'_> {
    match change {
        Change::PutService(service) => Subject::Service(service.id),
        Change::DeleteService { id, .. } => Subject::Service(*id),
        Change::PutDefinitions { instance, .. } | Change::PutHealth { instance, .. } => Subject::Instance(*instance),
        Change::PutGroup(group) => Subject::Group(group.name()),
        Change::DeleteGroup(name) => Subject::Group(name),
        _ => Subject::Everything,
    }
}

/// Changes of one kind that follow each other and are about different things: what
/// one statement may do at once.
fn runs(changes: &[Change]) -> Vec<&[Change]> {
    let mut runs = Vec::new();
    let (mut start, mut subjects) = (0, HashSet::new());
    for (index, change) in changes.iter().enumerate() {
        let same_kind = std::mem::discriminant(change) == std::mem::discriminant(&changes[start]);
        if !same_kind || !subjects.insert(subject(change)) {
            runs.push(&changes[start..index]);
            start = index;
            subjects = HashSet::from([subject(change)]);
        }
    }
    if start < changes.len() {
        runs.push(&changes[start..]);
    }
    runs
}

/// Applies changes of one kind.
async fn apply(connection: &mut PgConnection, run: &[Change], revision: Revision) -> Result<()> {
    let mut put = Run::default();
    for change in run {
        match change {
            Change::PutService(service) => put.services.push(service),
            Change::DeleteService { id, .. } => put.gone_services.push(id.to_string()),
            Change::PutDefinitions { service, instance, definitions } => {
                put.definitions.push((*service, *instance, definitions));
            }
            Change::PutGroup(group) => put.groups.push(group),
            Change::DeleteGroup(name) => put.gone_groups.push(name.to_string()),
            Change::PutHealth { service, instance, health } => put.health.push((*service, *instance, health)),
            Change::Seen(all) => health::see(connection, all).await?,
            _ => return Err(Error::unsupported("this store does not know this kind of change")),
        }
    }
    match run.first() {
        Some(Change::PutService(_)) => services::put(connection, &put.services, revision).await,
        Some(Change::DeleteService { .. }) => services::delete(connection, &put.gone_services).await,
        Some(Change::PutDefinitions { .. }) => definitions::put(connection, &put.definitions).await,
        Some(Change::PutGroup(_)) => groups::put(connection, &put.groups, revision).await,
        Some(Change::DeleteGroup(_)) => groups::delete(connection, &put.gone_groups).await,
        Some(Change::PutHealth { .. }) => health::put(connection, &put.health).await,
        _ => Ok(()),
    }
}

/// The changes of a run; all but one of the lists are empty.
#[derive(Default)]
struct Run<'a> {
    services: Vec<&'a Service>,
    gone_services: Vec<String>,
    definitions: Vec<definitions::Seen<'a>>,
    groups: Vec<&'a Group>,
    gone_groups: Vec<String>,
    health: Vec<health::Said<'a>>,
}
