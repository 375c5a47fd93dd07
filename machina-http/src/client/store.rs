//! The store of a Machina elsewhere, which an embedded one follows: what is read is
//! read once and then kept up to date, what is committed is committed there. Holds
//! no rule: whether a batch may be committed is decided where the store is.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use http::header::ACCEPT;
use machina_core::{
    Backend, Batch, Change, Changes, EntryKind, Error, ErrorKind, EventStream, Image, Journal, JournalPage,
    JournalQuery, MemoryStore, Next, Phase, Result, Retention, Revision, Store,
};
use reqwest::{Method, Response};
use tokio_util::sync::CancellationToken;

use super::Client;
use super::lines::Lines;
use crate::stored::{Committed, Head, LINES, Line, StoredBatch};

/// How long the server may take to begin its answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// How long the image may take to arrive, however large it is.
const IMAGE_TIMEOUT: Duration = Duration::from_secs(300);

/// The store of a Machina that is served elsewhere with `server.remote_stores`, for
/// a Machina in this process that follows it: look-ups are local, and there are no
/// credentials of a database. Hand [`RemoteStore::backend`] to a builder, and say
/// [`Builder::following`](machina_core::Builder::following).
///
/// While the other Machina is away, what is known stays readable and callable, and
/// what would be committed is [`Unavailable`](ErrorKind::Unavailable). It is followed
/// again as soon as it is back, also when it has forgotten everything.
///
/// The journal is this process's own, in memory: what it saw and did. The audit
/// trail of the other Machina names, in its own words, who follows it.
#[derive(Debug)]
pub struct RemoteStore {
    client: Client,
    journal: MemoryStore,
    known: Mutex<Known>,
    /// What tells of changes, once it was asked for.
    events: tokio::sync::Mutex<Option<EventStream>>,
    closed: CancellationToken,
}

/// Where the follower stands.
#[derive(Debug, Default)]
struct Known {
    generation: Option<String>,
    revision: Revision,
}

impl RemoteStore {
    /// The store of the Machina that `client` reaches. Does not connect yet.
    #[must_use]
    pub fn new(client: Client) -> Self {
        let (known, events, closed) = (Mutex::default(), tokio::sync::Mutex::default(), CancellationToken::new());
        Self { client, journal: MemoryStore::new(), known, events, closed }
    }

    /// The same, with its journal, for a [`Builder`](machina_core::Builder).
    #[must_use]
    pub fn backend(self) -> Backend {
        Backend::of(self)
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// This process has committed `revision`: what others committed before it is
    /// perhaps not known yet.
    fn committed(&self, revision: Revision) {
        let mut known = self.known();
        if revision == known.revision.next() {
            known.revision = revision;
        }
    }

    async fn lines(&self, path: &[&str], pairs: &[(&str, String)]) -> Result<(Head, Lines<'_>)> {
        let mut url = self.client.url(path)?;
        if !pairs.is_empty() {
            url.query_pairs_mut().extend_pairs(pairs);
        }
        let request = self.client.http.request(Method::GET, url).header(ACCEPT, LINES);
        let late = |_| Err(Error::timeout(format!("no answer within {ANSWER_TIMEOUT:?}")));
        let answered = tokio::time::timeout(ANSWER_TIMEOUT, self.client.accepted(request)).await;
        let response: Response = answered.unwrap_or_else(late)?;
        let mut lines = Lines::new(&self.client, response);
        Ok((lines.next().await?, lines))
    }

    async fn read_image(&self) -> Result<Image> {
        let (head, mut lines) = self.lines(&["store", "image"], &[]).await?;
        let mut image = Image { revision: head.revision, ..Image::default() };
        let mut count = 0;
        loop {
            match lines.next().await? {
                Line::Service(service) => image.services.push(Arc::new(service.into_service()?)),
                Line::Definitions { instance, definitions } => {
                    image.definitions.insert(instance, Arc::new(definitions.into_definitions()?));
                }
                Line::Group(group) => image.groups.push(Arc::new(group.into_group()?)),
                Line::Health { instance, health } => drop(image.health.insert(instance, Arc::new(health))),
                Line::Heartbeat { instance, at } => drop(image.heartbeats.insert(instance, at)),
                Line::Change { .. } => return Err(out_of_place()),
                Line::End(lines) if lines == count => break,
                Line::End(_) => return Err(out_of_place()),
            }
            count += 1;
        }
        *self.known() = Known { generation: Some(head.generation), revision: head.revision };
        Ok(image)
    }

    async fn read_changes(&self, after: Revision) -> Result<Changes> {
        let (head, mut lines) = self.lines(&["store", "changes"], &[("after", after.to_string())]).await?;
        // Of another generation, revisions say nothing.
        let known = |known: &mut Known| *known.generation.get_or_insert(head.generation.clone()) == head.generation;
        if head.reload || !known(&mut self.known()) {
            return Ok(Changes::Reload);
        }
        let mut tail: Vec<(Revision, Change)> = Vec::new();
        loop {
            match lines.next().await? {
                Line::Change { revision, change } => tail.push((revision, change.into_change()?)),
                Line::End(count) if count == tail.len() as u64 => break,
                _ => return Err(out_of_place()),
            }
        }
        let mut known = self.known();
        // Something without a record, such as an empty batch, has a revision too.
        let last = tail.last().map_or(after, |(revision, _)| *revision);
        known.revision = known.revision.max(last).max(head.revision);
        Ok(Changes::Tail(tail))
    }

    /// Waits until the server tells of something that is not known yet.
    async fn hear(&self) {
        let mut events = self.events.lock().await;
        let events = events.get_or_insert_with(|| self.client.events_when_there());
        loop {
            match events.next().await {
                Next::Event(event) if event.revision <= self.known().revision => {}
                Next::Event(_) | Next::Resync => return,
            }
        }
    }
}

fn out_of_place() -> Error {
    Error::rejected("the server sent something else than it announced").at(Phase::Answered)
}

/// What is never sent can be sent later: the store is only not there now.
fn away(error: Error) -> Error {
    if error.kind() != ErrorKind::Unreachable {
        return error;
    }
    Error::unavailable(format!("the Machina that is followed is away: {}", error.message())).caused_by(error)
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Store for RemoteStore {
    async fn load(&self) -> Result<Image> {
        let late = |_| Err(Error::timeout(format!("the image did not arrive within {IMAGE_TIMEOUT:?}")));
        tokio::time::timeout(IMAGE_TIMEOUT, self.read_image()).await.unwrap_or_else(late).map_err(away)
    }

    async fn commit(&self, batch: &Batch) -> Result<Revision> {
        let sent = StoredBatch::of(batch)?;
        let committed: Result<Committed> = self.client.post(&["store", "batches"], &sent, None).await;
        let Committed { revision } = committed.map_err(away)?;
        self.committed(revision);
        self.journal.append(&batch.entries).await?;
        Ok(revision)
    }

    async fn changes(&self, after: Revision) -> Result<Changes> {
        self.read_changes(after).await.map_err(away)
    }

    async fn changed(&self) -> Result<()> {
        tokio::select! {
            biased;
            () = self.closed.cancelled() => Err(Error::unavailable("the store is closed")),
            () = self.hear() => Ok(()),
        }
    }

    async fn close(&self) -> Result<()> {
        self.closed.cancel();
        self.events.lock().await.take();
        Ok(())
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Journal for RemoteStore {
    async fn append(&self, entries: &[machina_core::Entry]) -> Result<()> {
        self.journal.append(entries).await
    }

    async fn read(&self, query: &JournalQuery) -> Result<JournalPage> {
        self.journal.read(query).await
    }

    async fn trim(&self, kind: EntryKind, retention: Retention) -> Result<u64> {
        self.journal.trim(kind, retention).await
    }
}
