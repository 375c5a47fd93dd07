//! Answers to requests with an idempotency key as every database keeps them: how
//! many, how they are written and how they are read. Refuses to forget an answer to
//! make room: bodies go first, and then further requests are refused.

use std::time::Duration;

use machina_core::{Claim, Error, Keep, Reply, ReplyKey, ReplyProgress, Result};

use crate::record::{Columns, get_json, get_parsed, json, unreadable};

/// How many requests are remembered, and how many bytes their answers have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    pub(crate) entries_max: i64,
    pub(crate) bytes_max: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries_max: 100_000, bytes_max: 256 * 1024 * 1024 }
    }
}

impl Limits {
    /// There is no room for one request more.
    pub(crate) fn no_room(&self) -> Error {
        let message = format!("{} idempotency keys are remembered, which is as many as can be", self.entries_max);
        Error::overloaded(message).retry_after(Duration::from_secs(60))
    }
}

/// How many answers give way at once when bytes are short.
pub(crate) const DROPPED_AT_ONCE: u32 = 100;

/// An answer as it is kept: whole, or only its status.
#[derive(Debug)]
pub(crate) struct Kept<'a> {
    pub(crate) status: u16,
    pub(crate) headers: Option<String>,
    pub(crate) body: Option<&'a [u8]>,
    pub(crate) bytes: i64,
}

impl<'a> Kept<'a> {
    pub(crate) fn of(reply: &'a Reply, keep: Keep) -> Result<Self> {
        if keep != Keep::Whole {
            return Ok(Self { status: reply.status, headers: None, body: None, bytes: 0 });
        }
        let headers = json(&reply.headers)?;
        let bytes = i64::try_from(reply.body.len() + headers.len()).unwrap_or(i64::MAX);
        Ok(Self { status: reply.status, headers: Some(headers), body: Some(&reply.body), bytes })
    }
}

/// How far the request of a row is; what has not ended is running while whoever
/// began it `is_alive`.
pub(crate) fn progress(row: &impl Columns, is_alive: bool) -> Result<ReplyProgress> {
    let Some(status) = row.number_or_null("status")? else {
        return Ok(if is_alive { ReplyProgress::Running } else { ReplyProgress::Interrupted });
    };
    let status = u16::try_from(status).map_err(|error| unreadable("status", error))?;
    Ok(match row.bytes_or_null("body")? {
        Some(body) => ReplyProgress::Answered(Reply { status, headers: get_json(row, "headers")?, body }),
        None => ReplyProgress::NotKept(status),
    })
}

/// The request of a row.
pub(crate) fn claim(row: &impl Columns) -> Result<Claim> {
    let text = |column| row.text(column).map(str::to_owned);
    let key = ReplyKey { tenant: text("tenant")?, principal: text("principal")?, key: text("key")? };
    let (at, until) = (get_parsed(row, "begun_at")?, get_parsed(row, "expires_at")?);
    Ok(Claim { key, request: text("request")?, at, until })
}
