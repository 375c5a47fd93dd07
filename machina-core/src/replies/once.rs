//! The rule: a request that has a key is done once, and whoever sends it again
//! gets what was answered. Refuses to guess: where it is not known whether the
//! request was done, that is the answer, and it is not done again.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::{Begun, Claim, Keep, Replies, Reply, ReplyKey, ReplyProgress};
use crate::access::Scoped;
use crate::clock;
use crate::error::{Error, ErrorKind, Outcome, Phase, Result};
use crate::route::CallOptions;

/// How long an answer is remembered.
const KEPT_FOR: Duration = Duration::from_secs(24 * 60 * 60);

/// How large the body of an answer may be that is remembered.
const BODY_BYTES_MAX: usize = 1024 * 1024;

/// When it makes sense to ask again for what is being done.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The least status of an answer that tells of an error, and the one that is
/// remembered of work that panicked.
const FAILED: u16 = 400;
const PANICKED: u16 = 500;

/// How often what has expired is removed.
const TRIM_EVERY: Duration = Duration::from_secs(600);

/// The header that a key is sent in, and what errors name.
const FIELD: &str = "idempotency-key";

/// What tells a request from every other: a hash over its parts.
#[derive(Clone, PartialEq, Eq)]
pub struct RequestHash(String);

impl RequestHash {
    /// The hash of a request that consists of these parts, in this order.
    #[must_use]
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut hash = Sha256::new();
        for part in parts {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// The hash, in hexadecimal digits.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for RequestHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What came of a request: the answer, and the error that it tells of, if it does.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The answer as it is sent.
    pub reply: Reply,
    /// The error.
    pub error: Option<Error>,
}

/// What is sent.
#[derive(Debug, Clone)]
pub struct Replied {
    /// The answer.
    pub reply: Reply,
    /// Whether it was given before, and nothing was done now.
    pub again: bool,
}

impl Scoped {
    /// Does `work`, unless the principal has sent `request` with this `key` in the
    /// last 24 hours: then it is answered as it was. The work goes on when the
    /// caller goes away, so that its answer is there when the caller comes back.
    ///
    /// Remembered is every answer that will not be another for the same request,
    /// and every error of which it is not known that nothing was done; others are
    /// forgotten, and the request may be sent again. Of an answer with more than
    /// 1 MiB only the status is remembered.
    ///
    /// # Errors
    /// [`Invalid`](ErrorKind::Invalid) for a key that is malformed or was sent
    /// with another request; [`Conflict`](ErrorKind::Conflict) while the same
    /// request is being done, with the time to ask again, and when its answer is not
    /// kept; [`Lost`](ErrorKind::Lost) when the process ended while it was being
    /// done; whatever the store says. Nothing was done then.
    pub async fn once<F>(&self, key: &str, request: RequestHash, work: F) -> Result<Replied>
    where
        F: Future<Output = Answer> + Send + 'static,
    {
        check_key(key)?;
        let principal = self.principal();
        let (tenant, id) = (principal.tenant.clone().unwrap_or_default(), principal.id.clone());
        let key = ReplyKey { tenant, principal: id, key: key.to_owned() };
        let at = clock::now();
        let until = at.checked_add(KEPT_FOR).unwrap_or(jiff::Timestamp::MAX);
        let claim = Claim { key, request: request.0, at, until };
        let (done, outcome) = oneshot::channel();
        let (replies, tasks) = (Arc::clone(&self.core.replies), self.core.tasks.clone());
        let deciding = async move {
            let outcome = match replies.begin(&claim).await {
                Err(error) => Err(error),
                Ok(Begun::Known { request, .. }) if request != claim.request => Err(other_request()),
                Ok(Begun::Known { progress, .. }) => known(progress),
                Ok(Begun::New) => {
                    let (answer, answered) = oneshot::channel();
                    drop(tasks.spawn("do once", async move { drop(answer.send(work.await)) }));
                    let answer = answered.await.ok();
                    remember(&*replies, &claim.key, answer.as_ref()).await;
                    answer.map(|answer| Replied { reply: answer.reply, again: false }).ok_or_else(panicked)
                }
            };
            drop(done.send(outcome));
        };
        drop(self.core.tasks.spawn("remember", deciding));
        outcome.await.unwrap_or_else(|_| Err(Error::unavailable("the registry is closing").at(Phase::MaybeExecuted)))
    }
}

/// # Errors
/// [`Invalid`](ErrorKind::Invalid) for what is no key.
fn check_key(key: &str) -> Result<()> {
    let options = CallOptions { idempotency_key: Some(key.to_owned()), ..CallOptions::default() };
    options.validate().map_err(|error| {
        let detail = error.context().problems.first().map(|problem| problem.detail.clone());
        Error::invalid_field(FIELD, detail.unwrap_or_default())
    })
}

fn other_request() -> Error {
    Error::invalid_field(FIELD, "was sent with another request before: a new request takes a new key")
}

/// The answer to a request that was sent before.
fn known(progress: ReplyProgress) -> Result<Replied> {
    match progress {
        ReplyProgress::Answered(reply) => Ok(Replied { reply, again: true }),
        ReplyProgress::Running => {
            Err(Error::conflict("the same request, with the same idempotency key, is being done")
                .retry_after(RETRY_AFTER))
        }
        ReplyProgress::NotKept(status) => {
            let message = format!("the request was answered before with status {status}, and that answer is not kept");
            let outcome = if status < FAILED { Outcome::Executed } else { Outcome::Unknown };
            Err(Error::conflict(message).with(|context| context.outcome = Some(outcome)))
        }
        ReplyProgress::Interrupted => {
            let message = "the server ended while it did this request, and whether it was done is not known; find out, \
                           and send what is still to be done with a new idempotency key";
            Err(Error::lost(message).at(Phase::MaybeExecuted))
        }
    }
}

fn panicked() -> Error {
    Error::internal("a bug: the request panicked; the log of the server says more").at(Phase::MaybeExecuted)
}

/// Keeps what came of the work; there is no answer where it panicked. Where this
/// fails, the request stays one that was begun: it is not done again.
async fn remember(replies: &dyn Replies, key: &ReplyKey, answer: Option<&Answer>) {
    let kept = match answer {
        Some(Answer { error: Some(error), .. }) if may_be_sent_again(error) => replies.forget(key).await,
        Some(Answer { reply, .. }) => {
            let keep = if reply.body.len() > BODY_BYTES_MAX { Keep::Status } else { Keep::Whole };
            replies.finish(key, reply, keep).await
        }
        None => {
            let reply = Reply { status: PANICKED, headers: Vec::new(), body: Vec::new() };
            replies.finish(key, &reply, Keep::Status).await
        }
    };
    if let Err(error) = kept {
        tracing::error!(%error, "the answer to a request with an idempotency key was not remembered");
    }
}

/// Whether nothing was done, and the same request may have another answer later.
fn may_be_sent_again(error: &Error) -> bool {
    match error.kind() {
        ErrorKind::Unauthenticated => true,
        ErrorKind::Invalid
        | ErrorKind::Forbidden
        | ErrorKind::NotFound
        | ErrorKind::Conflict
        | ErrorKind::Unsupported => false,
        ErrorKind::Unavailable | ErrorKind::Unreachable | ErrorKind::Overloaded => {
            matches!(error.context().outcome, None | Some(Outcome::NotExecuted))
        }
        _ => error.context().outcome == Some(Outcome::NotExecuted),
    }
}

/// Removes what has expired from time to time; runs until cancelled.
pub(crate) async fn trim(replies: Arc<dyn Replies>) {
    loop {
        if let Err(error) = replies.trim(clock::now()).await {
            tracing::error!(%error, "expired idempotency keys were not removed");
        }
        tokio::time::sleep(TRIM_EVERY).await;
    }
}

#[cfg(test)]
#[path = "once_tests.rs"]
mod tests;
