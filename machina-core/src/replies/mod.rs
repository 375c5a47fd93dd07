//! What was answered to a request that its sender may send again, so that it is
//! done once. Refuses to know what a request or an answer means: an adapter says
//! what it is asked and what it answers, and a store keeps both as they are.

mod memory;
mod once;

use std::fmt;

use async_trait::async_trait;
use jiff::Timestamp;

use crate::error::{Error, Result};

pub use memory::MemoryReplies;
pub(crate) use once::trim;
pub use once::{Answer, Replied, RequestHash};

/// Whose key it is, and the key. Different principals do not meet.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReplyKey {
    /// The tenant of the principal; empty for one who sees all.
    pub tenant: String,
    /// The principal.
    pub principal: String,
    /// The key.
    pub key: String,
}

/// A request that is about to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// Its key.
    pub key: ReplyKey,
    /// What tells the request from others: a hash of it.
    pub request: String,
    /// When it began.
    pub at: Timestamp,
    /// When it is to be forgotten.
    pub until: Timestamp,
}

/// An answer as an adapter wrote it.
#[derive(Clone, PartialEq, Eq)]
pub struct Reply {
    /// Its number.
    pub status: u16,
    /// Its headers, by name.
    pub headers: Vec<(String, String)>,
    /// Its body.
    pub body: Vec<u8>,
}

/// Shows how long the body is, and nothing of it: it is nobody else's business.
impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.headers.iter().map(|(name, _)| name).collect();
        let mut shown = f.debug_struct("Reply");
        shown.field("status", &self.status).field("headers", &names).field("bytes", &self.body.len()).finish()
    }
}

/// What [`Replies::begin`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Begun {
    /// The key was free, and is taken now.
    New,
    /// The key was taken before.
    Known {
        /// By this request.
        request: String,
        /// How far that has come.
        progress: ReplyProgress,
    },
}

/// How far a request has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplyProgress {
    /// It is being done.
    Running,
    /// It was begun by a process that ended before it had answered.
    Interrupted,
    /// It was answered so.
    Answered(Reply),
    /// It was answered with this status, and the answer is not kept.
    NotKept(u16),
}

/// A request that is remembered, with what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remembered {
    /// The request.
    pub claim: Claim,
    /// How far it has come.
    pub progress: ReplyProgress,
}

/// Remembers what was answered.
///
/// # Behaviour
/// Each point is a test in `machina_core::testing`:
/// * `a_new_key_is_taken`: asked again before it is finished, it is running, with its request.
/// * `a_finished_key_is_answered`: with the status, headers and body, byte for byte.
/// * `an_answer_need_not_be_kept`: then its status is known.
/// * `a_forgotten_key_is_free`: and may be taken by another request.
/// * `keys_belong_to_their_principal`: the same key of another principal or tenant is another.
/// * `an_expired_key_is_free`: from the moment that its claim names.
/// * `trim_removes_what_has_expired`: and nothing else; it says how many.
/// * `of_concurrent_claims_one_wins`: whoever asks at the same time.
/// * `what_is_gone_stays_gone`: to finish or forget it changes nothing and is no error.
/// * `what_is_remembered_is_listed`: page by page, in the order of the keys, whole; where it can be.
///
/// A store that outlives its process says [`ReplyProgress::Interrupted`] of what a
/// process before it had begun; [`Replies::begin`] has it on the disk before it returns.
#[async_trait]
pub trait Replies: fmt::Debug + Send + Sync + 'static {
    /// Takes the key of `claim`, if it is free at `claim.at`.
    ///
    /// # Errors
    /// [`Overloaded`](crate::ErrorKind::Overloaded) when there is no room.
    async fn begin(&self, claim: &Claim) -> Result<Begun>;

    /// Keeps the answer to what was begun under `key`. The body of an answer may
    /// be dropped later to make room; its status may not.
    async fn finish(&self, key: &ReplyKey, reply: &Reply, keep: Keep) -> Result<()>;

    /// Frees `key`: what was begun was not done.
    async fn forget(&self, key: &ReplyKey) -> Result<()>;

    /// Removes what has expired by `now`; returns how many went.
    async fn trim(&self, now: Timestamp) -> Result<u64>;

    /// What is remembered under the keys after this one (tenant, principal and key
    /// compared byte by byte), at most `limit`: for copying it elsewhere.
    ///
    /// # Errors
    /// [`Unsupported`](crate::ErrorKind::Unsupported) where that cannot be listed.
    async fn list(&self, after: Option<&ReplyKey>, limit: u32) -> Result<Vec<Remembered>> {
        let _ = (after, limit);
        Err(Error::unsupported("this store does not list what was answered"))
    }
}

/// How much of an answer is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// All of it.
    Whole,
    /// Only its status.
    Status,
}
