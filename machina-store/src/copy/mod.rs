//! Copies everything that one store keeps into another of any kind, through the
//! traits that every store has, and compares the two by a hash of their content.
//! It can be interrupted at any time and goes on where it stopped. It changes
//! nothing in the store that it reads, and refuses to mix what it copies with
//! other content.

mod content;
mod declared;
mod ends;
mod journal;
mod replies;

use machina_core::{Backend, EntryKind, Error, Image, Result, Revision};
use serde::Serialize;

use self::content::Sum;
use self::declared::Declared;
use self::ends::Ends;
use self::journal::History;
use self::replies::Answers;

/// How a copy is made.
#[derive(Clone, Copy)]
pub struct CopyOptions<'a> {
    /// Whether other content in the target goes. Without, it is refused.
    pub replace: bool,
    /// Is told how far it is, several times a second.
    pub progress: &'a (dyn Fn(CopyProgress) + Send + Sync),
}

impl std::fmt::Debug for CopyOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CopyOptions").field("replace", &self.replace).finish_non_exhaustive()
    }
}

/// How far a copy is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyProgress {
    /// What it is at.
    pub part: CopyPart,
    /// How much of that is done.
    pub done: u64,
    /// How much of that there is; 0 where it is not known.
    pub total: u64,
}

/// What a copy is at. The parts come in this order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum CopyPart {
    /// Finds out what both stores hold: entries of the journal.
    Compare,
    /// Services with their definitions.
    Services,
    /// Entries of the journal.
    Entries,
    /// Answers to requests with an idempotency key.
    Replies,
    /// Reads what is in the target now: entries of the journal.
    Verify,
}

/// What a copy came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Copied {
    /// The SHA-256, in hex, of the content, which is that of both stores now.
    pub sha256: String,
    /// The revision that the target stands at.
    pub revision: Revision,
    /// How many services there are, and how many of them were there before.
    pub services: Count,
    /// How many instances have definitions.
    pub definitions: Count,
    /// How many groups.
    pub groups: Count,
    /// How many entries of the journal.
    pub entries: Count,
    /// How many answers to requests with an idempotency key.
    pub replies: Count,
    /// What is not copied, and why.
    pub left_out: Vec<String>,
}

/// How many of a kind there are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Count {
    /// How many there are now.
    pub total: u64,
    /// How many of them were there before.
    pub before: u64,
}

/// Copies the store at `from` to the store at `to`, which is made if need be.
///
/// A copy holds the services with their secrets, identities and times, what their
/// instances were last seen to publish, the groups, the journal, and the answers
/// to requests with an idempotency key. Revisions are those of the target. What
/// the registry finds out anew is not copied: health and heartbeats.
///
/// A SQLite file is read as of one moment, also while a server uses it. Of other
/// stores, and of the target, nobody else should write meanwhile: then the copy
/// fails with a conflict, and nothing is lost.
///
/// # Errors
/// * [`Invalid`](machina_core::ErrorKind::Invalid) for an address that is none, a
///   store that is not there, and one address given twice.
/// * [`Conflict`](machina_core::ErrorKind::Conflict) when the target has other
///   content, or one of the two was changed meanwhile.
/// * [`Unsupported`](machina_core::ErrorKind::Unsupported) for a store in memory,
///   and one that a newer Machina wrote.
/// * Whatever the stores say. What was copied until then stays, and the next copy
///   begins there.
pub async fn copy(from: &str, to: &str, options: CopyOptions<'_>) -> Result<Copied> {
    let ends = Ends::open(from, to).await?;
    let copied = between(&ends.from, &ends.to, options).await;
    let closed = ends.close().await;
    let copied = copied?;
    closed.map(|()| copied)
}

async fn between(from: &Backend, to: &Backend, options: CopyOptions<'_>) -> Result<Copied> {
    let (theirs, ours) = (from.store.load().await?, to.store.load().await?);
    let declared = Declared::plan(&theirs, &ours, options.replace)?;
    let history = History::plan(from, to, options).await?;
    let answers = Answers::plan(from, to, options.replace).await?;

    declared.carry_out(to, options).await?;
    history.carry_out(from, to, options).await?;
    answers.carry_out(from, to, options).await?;

    let now = to.store.load().await?;
    let expected = sum(&theirs, &history, &answers)?;
    let entries = journal::sums(to, options, CopyPart::Verify).await?;
    let found = Found { image: &now, entries: &entries, replies: answers.sum_of(to).await? };
    found.check(&theirs, &history, &answers)?;
    let definitions = Count { total: now.definitions.len() as u64, before: declared.definitions_before };
    Ok(Copied {
        sha256: expected.hex(),
        revision: now.revision,
        services: Count { total: now.services.len() as u64, before: declared.services_before },
        definitions,
        groups: Count { total: now.groups.len() as u64, before: declared.groups_before },
        entries: history.count(),
        replies: answers.count(),
        left_out: answers.left_out(),
    })
}

/// The sum of everything that is copied.
fn sum(image: &Image, history: &History, answers: &Answers) -> Result<Sum> {
    let mut whole = content::of_image(image)?;
    for kind in EntryKind::ALL {
        whole.add_sum(history.sum(*kind));
    }
    whole.add_sum(answers.sum());
    Ok(whole)
}

/// What is in the target at the end.
struct Found<'a> {
    image: &'a Image,
    entries: &'a [Sum],
    replies: Sum,
}

impl Found<'_> {
    fn check(&self, theirs: &Image, history: &History, answers: &Answers) -> Result<()> {
        let mut different = Vec::new();
        if content::of_image(self.image)? != content::of_image(theirs)? {
            different.push("services or groups".to_owned());
        }
        let kinds = EntryKind::ALL.iter().zip(self.entries);
        different.extend(kinds.filter(|(kind, sum)| history.sum(**kind) != *sum).map(|(kind, _)| format!("{kind:?}")));
        if self.replies != *answers.sum() {
            different.push("replies".to_owned());
        }
        if different.is_empty() {
            return Ok(());
        }
        let different = different.join(", ").to_lowercase();
        Err(Error::conflict(format!(
            "the copy is not equal to what was copied ({different}): one of the two stores was changed meanwhile; \
             stop what uses them and copy again"
        )))
    }
}

#[cfg(test)]
mod tests;
