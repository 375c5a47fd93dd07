//! Answers to requests with an idempotency key: whoever asks again after the move
//! is answered, and not served twice. What has expired is not copied.

use std::collections::HashMap;

use machina_core::{
    Backend, Claim, ErrorKind, Keep, Remembered, Replies, Reply, ReplyKey, ReplyProgress, Result, Timestamp,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::content::{self, Sum, Summing};
use super::declared::other_content;
use super::{CopyOptions, CopyPart, CopyProgress, Count};

/// How many are read at once: each may be of some MiB.
const PAGE: u32 = 50;

/// What is to be done with the answers.
#[derive(Debug)]
pub(super) struct Answers {
    /// Which have not expired by the time that the copy began.
    now: Timestamp,
    sum: Sum,
    count: Count,
    /// What goes before anything comes.
    forgotten: Vec<ReplyKey>,
    /// What is copied whole, or only finished.
    missing: Vec<Claim>,
    unfinished: Vec<Claim>,
    unsupported: Option<String>,
}

/// Reads everything that is remembered and has not expired by `now`.
async fn each(
    replies: &dyn Replies,
    now: Timestamp,
    mut work: impl AsyncFnMut(Remembered) -> Result<()>,
) -> Result<()> {
    let mut after = None;
    loop {
        let page = replies.list(after.as_ref(), PAGE).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.claim.key.clone());
        for one in page.into_iter().filter(|one| one.claim.until > now) {
            work(one).await?;
        }
    }
}

fn record(Remembered { claim, progress }: &Remembered) -> Value {
    let (status, kept) = match progress {
        ReplyProgress::Answered(reply) => (Some(reply.status), Some((&reply.headers, Sha256::digest(&reply.body)))),
        ReplyProgress::NotKept(status) => (Some(*status), None),
        _ => (None, None),
    };
    let kept = kept.map(|(headers, body)| (headers, body.to_vec()));
    let ReplyKey { tenant, principal, key } = &claim.key;
    let (at, until) = (claim.at.as_millisecond(), claim.until.as_millisecond());
    json!([tenant, principal, key, claim.request, at, until, status, kept])
}

/// What the target remembers of a key.
struct Ours {
    sum: Sum,
    claim: Claim,
    is_finished: bool,
}

impl Answers {
    /// # Errors
    /// [`Conflict`](ErrorKind::Conflict) when the target remembers something else,
    /// and that is not to be forgotten.
    pub(super) async fn plan(from: &Backend, to: &Backend, replace: bool) -> Result<Self> {
        let mut plan = Self {
            now: machina_core::now(),
            sum: Summing::default().finish(),
            count: Count::default(),
            forgotten: Vec::new(),
            missing: Vec::new(),
            unfinished: Vec::new(),
            unsupported: None,
        };
        match plan.compare(from, to, replace).await {
            Err(error) if error.kind() == ErrorKind::Unsupported => {
                plan.unsupported = Some(format!("answers to requests with an idempotency key: {}", error.message()));
                Ok(plan)
            }
            compared => compared.map(|()| plan),
        }
    }

    async fn compare(&mut self, from: &Backend, to: &Backend, replace: bool) -> Result<()> {
        let mut ours = HashMap::new();
        each(&*to.replies, self.now, async |one| {
            let (sum, is_finished) = (content::of(&record(&one))?, is_finished(&one.progress));
            ours.insert(one.claim.key.clone(), Ours { sum, claim: one.claim, is_finished });
            Ok(())
        })
        .await?;
        let mut summing = Summing::default();
        let (mut before, mut total) = (0, 0);
        let (mut missing, mut unfinished) = (Vec::new(), Vec::new());
        each(&*from.replies, self.now, async |one| {
            summing.add(&record(&one))?;
            total += 1;
            match ours.get(&one.claim.key) {
                Some(known) if known.sum == content::of(&record(&one))? => {
                    before += 1;
                    ours.remove(&one.claim.key);
                }
                Some(known) if known.claim == one.claim && !known.is_finished => {
                    ours.remove(&one.claim.key);
                    unfinished.push(one.claim);
                }
                _ => missing.push(one.claim),
            }
            Ok(())
        })
        .await?;
        if !ours.is_empty() && !replace {
            return Err(other_content("an answer to a request with an idempotency key"));
        }
        self.forgotten = ours.into_keys().collect();
        (self.missing, self.unfinished) = (missing, unfinished);
        self.sum = summing.finish();
        self.count = Count { total, before };
        Ok(())
    }

    pub(super) async fn carry_out(&self, from: &Backend, to: &Backend, options: CopyOptions<'_>) -> Result<()> {
        if self.unsupported.is_some() {
            return Ok(());
        }
        for key in &self.forgotten {
            to.replies.forget(key).await?;
        }
        let wanted: HashMap<&ReplyKey, bool> = (self.missing.iter().map(|claim| (&claim.key, true)))
            .chain(self.unfinished.iter().map(|claim| (&claim.key, false)))
            .collect();
        let (mut done, total) = (0, wanted.len() as u64);
        each(&*from.replies, self.now, async |one| {
            let Some(is_missing) = wanted.get(&one.claim.key) else { return Ok(()) };
            if *is_missing {
                to.replies.begin(&one.claim).await?;
            }
            finish(&*to.replies, &one).await?;
            done += 1;
            (options.progress)(CopyProgress { part: CopyPart::Replies, done, total });
            Ok(())
        })
        .await
    }

    pub(super) const fn sum(&self) -> &Sum {
        &self.sum
    }

    /// The sum of what `of` remembers.
    pub(super) async fn sum_of(&self, of: &Backend) -> Result<Sum> {
        let mut summing = Summing::default();
        if self.unsupported.is_none() {
            each(&*of.replies, self.now, async |one| summing.add(&record(&one))).await?;
        }
        Ok(summing.finish())
    }

    pub(super) const fn count(&self) -> Count {
        self.count
    }

    pub(super) fn left_out(&self) -> Option<String> {
        self.unsupported.clone()
    }
}

fn is_finished(progress: &ReplyProgress) -> bool {
    matches!(progress, ReplyProgress::Answered(_) | ReplyProgress::NotKept(_))
}

/// Writes how what is remembered ended, if it did. What did not counts as
/// interrupted in the target from its next opening on.
async fn finish(to: &dyn Replies, one: &Remembered) -> Result<()> {
    match &one.progress {
        ReplyProgress::Answered(reply) => to.finish(&one.claim.key, reply, Keep::Whole).await,
        ReplyProgress::NotKept(status) => {
            let reply = Reply { status: *status, headers: Vec::new(), body: Vec::new() };
            to.finish(&one.claim.key, &reply, Keep::Status).await
        }
        ReplyProgress::Running | ReplyProgress::Interrupted => Ok(()),
    }
}
