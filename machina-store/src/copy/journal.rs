//! The journal of each kind of entry, oldest first, so that what an interrupted
//! copy left is the beginning of the whole. Where old entries were removed from the
//! source since, it is copied anew. Both journals are read from the newest
//! entry back, as journals are; nothing is held but the places of the pages.

use machina_core::{Backend, Entry, EntryKind, Journal, JournalQuery, Result, Retention, Timestamp};

use super::content::{self, Sum, Summing};
use super::declared::other_content;
use super::{CopyOptions, CopyPart, CopyProgress, Count};

/// How many entries are read, and appended, at once.
const PAGE: u32 = 1000;

/// What is to be done with the journals.
#[derive(Debug)]
pub(super) struct History {
    /// One of each [`EntryKind::ALL`].
    plans: Vec<Plan>,
}

#[derive(Debug)]
struct Plan {
    kind: EntryKind,
    theirs: Scan,
    /// How many of the oldest are there.
    before: u64,
    /// Whether everything of this kind goes first.
    clear: bool,
}

/// A journal as it was found. The newest entry is apart, because only what is
/// before a known entry does not change while others append.
#[derive(Debug)]
struct Scan {
    newest: Option<Entry>,
    /// Where each page of the rest begins, newest first.
    pages: Vec<i64>,
    number: u64,
    /// Of all entries, newest first.
    sum: Sum,
    /// Whether the entry is there that was looked for.
    has: bool,
}

/// Tells how many entries were looked at.
struct Counting<'a> {
    options: CopyOptions<'a>,
    part: CopyPart,
    done: u64,
    total: u64,
}

impl Counting<'_> {
    fn add(&mut self, number: u64) {
        self.done += number;
        (self.options.progress)(CopyProgress { part: self.part, done: self.done, total: self.total });
    }
}

fn query(kind: EntryKind, before: Option<i64>, limit: u32) -> JournalQuery {
    JournalQuery { before, limit, ..JournalQuery::of(kind) }
}

/// Reads everything of a kind; `skip` of the newest are not in the sum. Looks for `sought`.
async fn scan(
    journal: &dyn Journal,
    kind: EntryKind,
    skip: u64,
    sought: Option<&Entry>,
    counting: &mut Counting<'_>,
) -> Result<Scan> {
    let mut first = journal.read(&query(kind, None, 1)).await?;
    let (mut pages, mut number, mut has, mut summing) = (Vec::new(), 0, false, Summing::default());
    let mut add = |entry: &Entry| {
        number += 1;
        if number <= skip {
            return Ok(());
        }
        if let Some(sought) = sought.filter(|_| !has) {
            has = content::is_same_entry(entry, sought)?;
        }
        summing.add(&content::entry(entry)?)
    };
    let newest = first.entries.pop();
    newest.iter().try_for_each(&mut add)?;
    let mut next = first.next;
    while let Some(before) = next {
        let page = journal.read(&query(kind, Some(before), PAGE)).await?;
        page.entries.iter().try_for_each(&mut add)?;
        pages.push(before);
        counting.add(page.entries.len() as u64);
        next = page.next;
    }
    Ok(Scan { newest, pages, number, sum: summing.finish(), has })
}

/// The sum of the entries of each of [`EntryKind::ALL`].
pub(super) async fn sums(of: &Backend, options: CopyOptions<'_>, part: CopyPart) -> Result<Vec<Sum>> {
    let mut counting = Counting { options, part, done: 0, total: 0 };
    let mut sums = Vec::new();
    for kind in EntryKind::ALL {
        sums.push(scan(&*of.journal, *kind, 0, None, &mut counting).await?.sum);
    }
    Ok(sums)
}

impl History {
    /// # Errors
    /// [`Conflict`](machina_core::ErrorKind::Conflict) when the target has other
    /// entries, and they are not to be replaced.
    pub(super) async fn plan(from: &Backend, to: &Backend, options: CopyOptions<'_>) -> Result<Self> {
        let mut counting = Counting { options, part: CopyPart::Compare, done: 0, total: 0 };
        let mut plans = Vec::new();
        for kind in EntryKind::ALL {
            let ours = scan(&*to.journal, *kind, 0, None, &mut counting).await?;
            let theirs = scan(&*from.journal, *kind, 0, ours.newest.as_ref(), &mut counting).await?;
            let is_beginning = match theirs.number.checked_sub(ours.number) {
                None => false,
                Some(0) => ours.sum == theirs.sum,
                Some(_) if ours.number == 0 => true,
                Some(rest) => scan(&*from.journal, *kind, rest, None, &mut counting).await?.sum == ours.sum,
            };
            // Journals only grow at their end: before an entry that both have, none is the target's own.
            if !is_beginning && !theirs.has && !options.replace {
                return Err(other_content(&format!("an entry of the journal, of kind {kind:?},").to_lowercase()));
            }
            let before = if is_beginning { ours.number } else { 0 };
            plans.push(Plan { kind: *kind, theirs, before, clear: !is_beginning });
        }
        Ok(Self { plans })
    }

    /// The sum of the entries of a kind in the source.
    pub(super) fn sum(&self, kind: EntryKind) -> &Sum {
        let plan = self.plans.iter().find(|plan| plan.kind == kind);
        &plan.expect("there is a plan for each kind").theirs.sum
    }

    pub(super) fn count(&self) -> Count {
        let total = self.plans.iter().map(|plan| plan.theirs.number).sum();
        Count { total, before: self.plans.iter().map(|plan| plan.before).sum() }
    }

    pub(super) async fn carry_out(&self, from: &Backend, to: &Backend, options: CopyOptions<'_>) -> Result<()> {
        let Count { total, before } = self.count();
        let mut counting = Counting { options, part: CopyPart::Entries, done: 0, total: total - before };
        for plan in &self.plans {
            if plan.clear {
                let all = Retention { before: Timestamp::MAX, count_max: 0 };
                to.journal.trim(plan.kind, all).await?;
            }
            plan.carry_out(from, to, &mut counting).await?;
        }
        Ok(())
    }
}

impl Plan {
    async fn carry_out(&self, from: &Backend, to: &Backend, counting: &mut Counting<'_>) -> Result<()> {
        if self.before == self.theirs.number {
            return Ok(());
        }
        let mut skip = usize::try_from(self.before).unwrap_or(usize::MAX);
        for before in self.theirs.pages.iter().rev() {
            let mut entries = from.journal.read(&query(self.kind, Some(*before), PAGE)).await?.entries;
            entries.reverse();
            let skipped = skip.min(entries.len());
            skip -= skipped;
            to.journal.append(&entries[skipped..]).await?;
            counting.add((entries.len() - skipped) as u64);
        }
        if let Some(newest) = &self.theirs.newest {
            to.journal.append(std::slice::from_ref(newest)).await?;
            counting.add(1);
        }
        Ok(())
    }
}
