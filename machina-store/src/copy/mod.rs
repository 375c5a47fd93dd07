//! Copies everything that one store keeps into another of any kind, through the
//! traits that every store has, and compares the two by a hash of their content.
//! It can be interrupted at any time and goes on where it stopped. Made again, it
//! brings what changed since. It changes nothing in the store that it reads, and
//! refuses to mix what it copies with other content.

mod configs;
mod content;
mod declared;
mod ends;
mod journal;
mod replies;
mod since;

use machina_core::{EntryKind, Error, Image, Result, Revision};
use serde::Serialize;

use self::configs::Histories;
use self::content::Sum;
use self::declared::Declared;
use self::ends::Ends;
use self::journal::History;
use self::replies::Answers;
use self::since::Since;
use crate::Opened;

/// How a copy is made.
#[derive(Clone, Copy)]
pub struct CopyOptions<'a> {
    /// Whether other content in the target goes. Without, it is refused, unless an
    /// earlier copy left it there.
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
    /// Rows of the history of configurations.
    Configurations,
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
    /// How many rows of the history of configurations.
    pub configurations: Count,
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
/// instances were last seen to publish, the groups, the history of configurations,
/// the journal, and the answers to requests with an idempotency key. Revisions are those of the target. What
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

async fn between(from: &Opened, to: &Opened, options: CopyOptions<'_>) -> Result<Copied> {
    let (theirs, ours) = (from.backend.store.load().await?, to.backend.store.load().await?);
    let since = if options.replace { Since::everything() } else { Since::read(&from.backend, &to.backend).await? };
    let declared = Declared::plan(&theirs, &ours, &since)?;
    let histories = Histories::plan((from, &theirs), to, &declared.kept, options.replace).await?;
    let history = History::plan(&from.backend, &to.backend, options).await?;
    let answers = Answers::plan(&from.backend, &to.backend, options.replace).await?;
    let expected = Content { image: &theirs, histories: &histories, history: &history, answers: &answers };

    declared.carry_out(&to.backend, options).await?;
    histories.carry_out(from, to, options).await?;
    history.carry_out(&from.backend, &to.backend, options).await?;
    answers.carry_out(&from.backend, &to.backend, options).await?;

    let now = to.backend.store.load().await?;
    expected.check(to, &now, options).await?;
    let definitions = Count { total: now.definitions.len() as u64, before: declared.definitions_before };
    Ok(Copied {
        sha256: expected.sum()?.hex(),
        revision: now.revision,
        services: Count { total: now.services.len() as u64, before: declared.services_before },
        definitions,
        groups: Count { total: now.groups.len() as u64, before: declared.groups_before },
        configurations: histories.count(),
        entries: history.count(),
        replies: answers.count(),
        left_out: histories.left_out().into_iter().chain(answers.left_out()).collect(),
    })
}

/// Everything that is copied.
struct Content<'a> {
    image: &'a Image,
    histories: &'a Histories,
    history: &'a History,
    answers: &'a Answers,
}

impl Content<'_> {
    fn sum(&self) -> Result<Sum> {
        let mut whole = content::of_image(self.image)?;
        whole.add_sum(self.histories.sum());
        for kind in EntryKind::ALL {
            whole.add_sum(self.history.sum(*kind));
        }
        whole.add_sum(self.answers.sum());
        Ok(whole)
    }

    /// Compares it with what is in the target in the end.
    async fn check(&self, to: &Opened, now: &Image, options: CopyOptions<'_>) -> Result<()> {
        let mut different = Vec::new();
        if content::of_image(now)? != content::of_image(self.image)? {
            different.push("services or groups".to_owned());
        }
        if self.histories.sum_of(to).await? != *self.histories.sum() {
            different.push("history of configurations".to_owned());
        }
        let entries = journal::sums(&to.backend, options, CopyPart::Verify).await?;
        let kinds = EntryKind::ALL.iter().zip(entries);
        different
            .extend(kinds.filter(|(kind, sum)| self.history.sum(**kind) != sum).map(|(kind, _)| format!("{kind:?}")));
        if self.answers.sum_of(&to.backend).await? != *self.answers.sum() {
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
