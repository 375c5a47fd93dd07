//! A copy of another registry into this one: what is there is registered here,
//! what changes there changes here, what goes there goes here.
//!
//! The other registry is not trusted with more than its own entries: a service
//! that did not come from it is never touched, one that was edited here is left
//! as it is, and a command that it names waits, disabled, for an operator. A
//! listing that breaks off changes nothing at all.

mod apply;
mod foreign;
mod mark;
mod plan;
mod source;

use std::collections::BTreeMap;
use std::time::Duration;

use machina_core::{Error, Page, Query, Registry, Result, ServiceSpec, Timestamp};
use serde::Serialize;

use self::foreign::Foreign;
use self::mark::Mark;
use self::plan::{Current, Planner, Step};
use self::source::Source;

/// How many services are read at once.
const SERVICES_PER_PAGE: u32 = 200;
/// Entries of the last second are asked for again: others may have been made in it.
const OVERLAP: Duration = Duration::from_secs(1);

/// What is copied from where, and how.
#[derive(Debug, Clone, Default)]
pub struct SyncOptions {
    /// The address of the other registry, such as `https://registry.example`.
    pub url: String,
    /// What stands before each name here. With a slash at its end, the slash in a
    /// name becomes a dot.
    pub prefix: String,
    /// Only says what would be done.
    pub dry_run: bool,
    /// Reads everything, not only what has changed since the last time.
    pub full: bool,
    /// Removes what was copied from there and is not there any more, also where
    /// the other registry does not say so; reads everything.
    pub prune: bool,
    /// Takes commands, and addresses with placeholders, into use at once.
    pub allow_commands: bool,
}

/// What came of one entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "outcome")]
#[non_exhaustive]
pub enum SyncOutcome {
    /// It is registered now.
    Added,
    /// It has changed.
    Changed {
        /// What has, for people.
        fields: Vec<String>,
    },
    /// It is not registered any more.
    Removed,
    /// It is as it was.
    Unchanged,
    /// What is here was left as it is, because it is not the other registry's to change.
    Kept {
        /// Why.
        why: String,
    },
    /// It says nothing that could be registered.
    LeftOut {
        /// Why.
        why: String,
    },
    /// This registry does not take it.
    Refused {
        /// The code of the error.
        code: &'static str,
        /// Why.
        why: String,
    },
}

/// One entry of the other registry, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Synced {
    /// Its name there.
    pub server: String,
    /// Its name here; empty if it can have none.
    pub service: String,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: SyncOutcome,
    /// How many of its instances wait for an operator to enable them.
    pub held: usize,
}

/// What came of all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SyncReport {
    /// The other registry.
    pub source: String,
    /// Only what changed since then was asked for; `None` for everything.
    pub since: Option<Timestamp>,
    /// Each entry that was looked at, by its name there.
    pub entries: Vec<Synced>,
}

/// Copies what `options` name into `registry`.
///
/// # Errors
/// [`Invalid`](machina_core::ErrorKind::Invalid) for a wrong address or prefix,
/// [`Rejected`](machina_core::ErrorKind::Rejected) and the like for whatever is
/// wrong with the listing: then nothing has changed. An error of `registry` that
/// is about no single service ends it in the middle; the next run goes on.
pub async fn sync(registry: &dyn Registry, options: &SyncOptions) -> Result<SyncReport> {
    let source = Source::new(&options.url)?;
    if options.prefix.len() > 100 || options.prefix.matches('/').count() > usize::from(options.prefix.ends_with('/')) {
        return Err(Error::invalid_field("prefix", "must have at most 100 bytes, and a slash only at its end"));
    }
    let services = services(registry).await?;
    let current = Current::of(services, source.name(), &options.prefix);
    let since = if options.full || options.prune { None } else { current.latest().and_then(before) };
    let listed = source.listing(since).await?;
    if options.prune && listed.is_empty() {
        return Err(Error::rejected("the other registry has no entries: to prune by it would remove everything"));
    }
    let entries: Vec<_> = listed.into_iter().map(|entry| Foreign::read(entry, &options.prefix)).collect();
    let planner = Planner { source: source.name(), current: &current, allow_commands: options.allow_commands };
    let mut steps: Vec<Step> = newest(entries).into_values().filter_map(|foreign| planner.step(foreign)).collect();
    if options.prune {
        let missing = planner.missing(&steps);
        steps.extend(missing);
    }
    let entries = apply::apply(registry, steps, options.dry_run).await?;
    Ok(SyncReport { source: source.name().to_owned(), since, entries })
}

/// The moment from which on something may be new; never one that is still to come,
/// whatever the other registry said.
fn before(latest: Timestamp) -> Option<Timestamp> {
    latest.min(machina_core::now()).checked_sub(OVERLAP).ok()
}

/// One entry for each name: the one that is in use, or else the last.
fn newest(entries: Vec<Foreign>) -> BTreeMap<String, Foreign> {
    let mut newest: BTreeMap<String, Foreign> = BTreeMap::new();
    for entry in entries.into_iter().filter(|entry| entry.latest) {
        match newest.get(&entry.server) {
            Some(known) if !known.deleted && entry.deleted => {}
            _ => drop(newest.insert(entry.server.clone(), entry)),
        }
    }
    newest
}

/// Every service here with its revision.
async fn services(registry: &dyn Registry) -> Result<Vec<plan::Here>> {
    let mut query = Query { limit: Some(SERVICES_PER_PAGE), ..Query::default() };
    let mut services = Vec::new();
    loop {
        let Page { items, next_cursor, .. } = registry.find(&query).await?;
        for report in items {
            let revision = report.revision;
            let spec = ServiceSpec::from_value(serde_json::to_value(report).unwrap_or_default())?;
            services.push(plan::Here { mark: Mark::of(&spec), spec, revision });
        }
        query.cursor = next_cursor;
        if query.cursor.is_none() {
            return Ok(services);
        }
    }
}
