//! Lines of JSON out of the bytes of an answer, as they arrive: refuses lines, and
//! answers, without an end.

use std::time::Duration;

use machina_core::{Error, Phase, Result};
use reqwest::Response;
use serde::de::DeserializeOwned;

use super::Client;

/// How many bytes a line may have: what one instance publishes, and more.
const LINE_BYTES_MAX: usize = 256 * 1024 * 1024;

/// How many bytes all lines may have together.
const BYTES_MAX: u64 = 4 * 1024 * 1024 * 1024;

/// How long the server may be silent in the midst of an answer.
const SILENCE_MAX: Duration = Duration::from_secs(20);

/// The lines of an answer.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    client: &'a Client,
    response: Response,
    bytes: Vec<u8>,
    /// Where the next line begins in `bytes`, and up to where no end of it is.
    begin: usize,
    searched: usize,
    total: u64,
}

impl<'a> Lines<'a> {
    pub(super) const fn new(client: &'a Client, response: Response) -> Self {
        Self { client, response, bytes: Vec::new(), begin: 0, searched: 0, total: 0 }
    }

    /// The next line; an answer that ends before it was broken off.
    ///
    /// # Errors
    /// [`Lost`](machina_core::ErrorKind::Lost) or
    /// [`Timeout`](machina_core::ErrorKind::Timeout) when no more comes, and
    /// [`Rejected`](machina_core::ErrorKind::Rejected) for what is too long, or no
    /// such line.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<T> {
        let end = loop {
            let end = self.bytes[self.searched..].iter().position(|byte| *byte == b'\n');
            match end {
                Some(end) => break self.searched + end,
                None => self.more().await?,
            }
        };
        let line = serde_json::from_slice(&self.bytes[self.begin..end]);
        (self.begin, self.searched) = (end + 1, end + 1);
        line.map_err(|error| {
            let message = "what the server sent cannot be read: it may be a later version";
            Error::rejected(message).at(Phase::Answered).caused_by(error)
        })
    }

    async fn more(&mut self) -> Result<()> {
        self.searched = self.bytes.len() - self.begin;
        self.bytes.drain(..std::mem::take(&mut self.begin));
        let silent = |_| Error::timeout(format!("nothing came within {SILENCE_MAX:?}"));
        let chunk = tokio::time::timeout(SILENCE_MAX, self.response.chunk()).await.map_err(silent)?;
        let chunk = chunk.map_err(|error| self.client.broken(error))?;
        let chunk = chunk.ok_or_else(|| Error::lost("the server ended its answer early"))?;
        self.total += chunk.len() as u64;
        if self.bytes.len() + chunk.len() > LINE_BYTES_MAX || self.total > BYTES_MAX {
            let message = format!("the answer, or a line of it, is longer than {LINE_BYTES_MAX} bytes");
            return Err(Error::rejected(message).at(Phase::Answered));
        }
        self.bytes.extend_from_slice(&chunk);
        Ok(())
    }
}
