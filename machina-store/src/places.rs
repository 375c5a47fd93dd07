//! Where the journal is in every database, and how a page of it is cut.

use machina_core::{Entry, EntryKind, JournalPage, Result};
use sea_query::{Expr, ExprTrait};

use crate::record::Columns;

/// Where entries of a kind are: the table, its column of time, and the word that
/// tells kinds that share a table apart.
#[derive(Debug)]
pub(crate) struct Place {
    pub(crate) table: &'static str,
    pub(crate) at: &'static str,
    pub(crate) kind: Option<&'static str>,
}

pub(crate) const fn place(kind: EntryKind) -> Place {
    match kind {
        EntryKind::Transition => Place { table: "health_checks", at: "checked_at", kind: Some("transition") },
        EntryKind::Sample => Place { table: "health_checks", at: "checked_at", kind: Some("sample") },
        EntryKind::Rollup => Place { table: "health_rollups", at: "until", kind: None },
        EntryKind::Call => Place { table: "calls", at: "executed_at", kind: None },
        EntryKind::Alert => Place { table: "alerts", at: "at", kind: None },
        EntryKind::Audit => Place { table: "audit", at: "at", kind: None },
    }
}

impl Place {
    /// What tells the kind from those that it shares the table with.
    pub(crate) fn is_here(&self) -> Option<Expr> {
        self.kind.map(|kind| Expr::col("kind").eq(kind))
    }
}

/// A page of the rows that a query for one more than `limit` found.
pub(crate) fn page<R: Columns>(
    mut rows: Vec<R>,
    limit: u32,
    entry: impl Fn(&R) -> Result<Entry>,
) -> Result<JournalPage> {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = rows.len() > limit;
    rows.truncate(limit);
    let next = rows.last().filter(|_| more).map(|row| row.number("id")).transpose()?;
    Ok(JournalPage { entries: rows.iter().map(entry).collect::<Result<_>>()?, next })
}
