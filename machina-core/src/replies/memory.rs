//! Answers in this process, bounded in number and in bytes: a further request is
//! refused rather than an older one forgotten, which might be done twice.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;

use super::{Begun, Claim, Keep, Remembered, Replies, Reply, ReplyKey, ReplyProgress};
use crate::error::{Error, Result};

/// Keeps 10,000 answers of together 64 MiB in memory, and forgets them with the
/// process. Where bytes are short, the oldest answers are dropped but for their
/// status; where entries are, further requests are refused.
#[derive(Debug)]
pub struct MemoryReplies {
    inner: Mutex<Inner>,
    entries_max: usize,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<ReplyKey, Entry>,
    /// The keys whose answers are kept whole, oldest first; some are gone since.
    whole: VecDeque<(ReplyKey, Timestamp)>,
    bytes: usize,
}

#[derive(Debug)]
struct Entry {
    request: String,
    at: Timestamp,
    until: Timestamp,
    progress: ReplyProgress,
}

impl MemoryReplies {
    /// How many answers are kept.
    pub const ENTRIES_MAX: usize = 10_000;
    /// How many bytes they have together.
    pub const BYTES_MAX: usize = 64 * 1024 * 1024;

    /// Nothing is remembered yet.
    #[must_use]
    pub fn new() -> Self {
        Self::bounded(Self::ENTRIES_MAX, Self::BYTES_MAX)
    }

    fn bounded(entries_max: usize, bytes_max: usize) -> Self {
        Self { inner: Mutex::default(), entries_max, bytes_max }
    }

    /// Every change is complete before the lock is released, or has not begun.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for MemoryReplies {
    fn default() -> Self {
        Self::new()
    }
}

impl Inner {
    fn remove(&mut self, key: &ReplyKey) {
        if let Some(entry) = self.entries.remove(key) {
            self.bytes -= entry.bytes();
        }
    }

    fn remove_expired(&mut self, now: Timestamp) -> u64 {
        let expired = self.entries.iter().filter(|(_, entry)| entry.until <= now).map(|(key, _)| key.clone());
        let expired: Vec<_> = expired.collect();
        expired.iter().for_each(|key| self.remove(key));
        let entries = &self.entries;
        self.whole.retain(|(key, at)| entries.get(key).is_some_and(|entry| entry.at == *at));
        expired.len() as u64
    }

    /// Drops the oldest answers until there are at most `bytes_max` bytes.
    fn make_room(&mut self, bytes_max: usize) {
        while self.bytes > bytes_max
            && let Some((key, at)) = self.whole.pop_front()
        {
            if let Some(entry) = self.entries.get_mut(&key).filter(|entry| entry.at == at)
                && let ReplyProgress::Answered(reply) = &entry.progress
            {
                self.bytes -= size(reply);
                entry.progress = ReplyProgress::NotKept(reply.status);
            }
        }
    }
}

impl Entry {
    fn bytes(&self) -> usize {
        match &self.progress {
            ReplyProgress::Answered(reply) => size(reply),
            _ => 0,
        }
    }
}

fn size(reply: &Reply) -> usize {
    reply.body.len() + reply.headers.iter().map(|(name, value)| name.len() + value.len()).sum::<usize>()
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl Replies for MemoryReplies {
    async fn begin(&self, claim: &Claim) -> Result<Begun> {
        let mut inner = self.lock();
        match inner.entries.get(&claim.key) {
            Some(entry) if entry.until > claim.at => {
                return Ok(Begun::Known { request: entry.request.clone(), progress: entry.progress.clone() });
            }
            Some(_) => inner.remove(&claim.key),
            None => {}
        }
        if inner.entries.len() >= self.entries_max {
            inner.remove_expired(claim.at);
        }
        if inner.entries.len() >= self.entries_max {
            return Err(no_room(self.entries_max));
        }
        let (request, progress) = (claim.request.clone(), ReplyProgress::Running);
        inner.entries.insert(claim.key.clone(), Entry { request, at: claim.at, until: claim.until, progress });
        Ok(Begun::New)
    }

    async fn finish(&self, key: &ReplyKey, reply: &Reply, keep: Keep) -> Result<()> {
        let mut inner = self.lock();
        let Some(entry) = inner.entries.get_mut(key).filter(|entry| entry.progress == ReplyProgress::Running) else {
            return Ok(());
        };
        if keep == Keep::Status {
            entry.progress = ReplyProgress::NotKept(reply.status);
            return Ok(());
        }
        entry.progress = ReplyProgress::Answered(reply.clone());
        let at = entry.at;
        inner.bytes += size(reply);
        inner.whole.push_back((key.clone(), at));
        inner.make_room(self.bytes_max);
        Ok(())
    }

    async fn forget(&self, key: &ReplyKey) -> Result<()> {
        self.lock().remove(key);
        Ok(())
    }

    async fn trim(&self, now: Timestamp) -> Result<u64> {
        Ok(self.lock().remove_expired(now))
    }

    async fn list(&self, after: Option<&ReplyKey>, limit: u32) -> Result<Vec<Remembered>> {
        let inner = self.lock();
        let mut keys: Vec<_> = inner.entries.keys().filter(|key| after.is_none_or(|after| *key > after)).collect();
        keys.sort_unstable();
        keys.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        let remembered = |key: &ReplyKey| {
            let Entry { request, at, until, progress } = &inner.entries[key];
            let claim = Claim { key: key.clone(), request: request.clone(), at: *at, until: *until };
            Remembered { claim, progress: progress.clone() }
        };
        Ok(keys.into_iter().map(remembered).collect())
    }
}

/// What is said when as many keys are remembered as can be.
fn no_room(entries_max: usize) -> Error {
    let message = format!("{entries_max} idempotency keys are remembered, which is as many as can be");
    Error::overloaded(message).retry_after(Duration::from_secs(60))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Backend;

    crate::replies_suite!(Backend::of(crate::MemoryStore::new()));

    fn claim(key: &str) -> Claim {
        let key = ReplyKey { tenant: String::new(), principal: "a".to_owned(), key: key.to_owned() };
        let at = Timestamp::UNIX_EPOCH;
        Claim { key, request: "r".to_owned(), at, until: at + Duration::from_secs(10) }
    }

    fn reply(bytes: usize) -> Reply {
        Reply { status: 200, headers: Vec::new(), body: vec![0; bytes] }
    }

    #[tokio::test]
    async fn where_there_is_no_room_a_request_is_refused() {
        let replies = MemoryReplies::bounded(2, 100);
        for key in ["a", "b"] {
            replies.begin(&claim(key)).await.unwrap();
        }
        let refused = replies.begin(&claim("c")).await.unwrap_err();
        assert_eq!(refused.kind(), crate::ErrorKind::Overloaded);
        let later = Claim { at: claim("c").until, ..claim("c") };
        assert_eq!(replies.begin(&later).await.unwrap(), Begun::New, "what has expired makes room");
    }

    #[tokio::test]
    async fn the_oldest_answers_make_room_and_leave_their_status() {
        let replies = MemoryReplies::bounded(10, 100);
        for key in ["a", "b", "c"] {
            replies.begin(&claim(key)).await.unwrap();
            replies.finish(&claim(key).key, &reply(40), Keep::Whole).await.unwrap();
        }
        let progress = async |key| match replies.begin(&claim(key)).await.unwrap() {
            Begun::Known { progress, .. } => progress,
            Begun::New => panic!("{key} is forgotten"),
        };
        assert_eq!(progress("a").await, ReplyProgress::NotKept(200));
        assert_eq!(progress("c").await, ReplyProgress::Answered(reply(40)));
        replies.forget(&claim("b").key).await.unwrap();
        assert_eq!(replies.lock().bytes, 40);
        replies.trim(claim("a").until).await.unwrap();
        let inner = replies.lock();
        assert_eq!((inner.bytes, inner.whole.len(), inner.entries.len()), (0, 0, 0));
    }
}
