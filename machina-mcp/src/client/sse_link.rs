//! The HTTP + SSE transport of 2024-11-05: a stream of events, the first of which
//! names the address that messages are posted to. Refuses an address elsewhere.

use std::sync::Arc;

use futures_util::StreamExt;
use futures_util::stream::unfold;
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE};
use machina_core::{Era, Error, Phase, Result};
use reqwest::Client;
use tokio::sync::mpsc;
use url::Url;

use super::conversation::Frame;
use super::duplex::Duplex;
use super::http_link::not_received;
use super::http_response::Received;
use super::link::unanswered;
use super::secrets::Secrets;
use super::sse::{Event, Parser};
use super::status::{Refusal, retry_after};

/// How many messages are posted at a time.
const POSTS_MAX: usize = 16;

/// An open stream, and where messages are posted to.
pub(super) struct Stream {
    client: Client,
    headers: HeaderMap,
    secrets: Secrets,
    post_to: Url,
    response: Received,
    parser: Parser,
    /// Events that came along with the address.
    early: Vec<Event>,
}

/// Opens the stream at `url`.
pub(super) async fn open(
    client: &Client,
    url: &Url,
    headers: HeaderMap,
    secrets: Secrets,
    most: usize,
) -> Result<Stream> {
    let get = client.get(url.clone()).headers(headers.clone()).header(ACCEPT, "text/event-stream");
    let mut response = Received::from(get.send().await.map_err(|error| not_received(url, error.into()))?);
    if !response.status().is_success() {
        return Err(refused("the stream of events", &response, &secrets));
    }
    if !response.is_stream() {
        return Err(Error::rejected("the server did not answer with a stream of events").at(Phase::Answered));
    }
    let (mut parser, mut early) = (Parser::new(most), Vec::new());
    while early.is_empty() {
        let chunk = response.chunk().await.map_err(|error| not_received(url, error))?;
        let chunk = chunk.ok_or_else(|| unanswered("the stream ended before it named an address", Phase::NotSent))?;
        parser.push(&chunk, &mut early).map_err(|_| malformed())?;
    }
    let named = early.remove(0).data.unwrap_or_default();
    let post_to = url.join(named.trim()).ok().filter(|post_to| post_to.origin() == url.origin());
    let post_to = post_to.ok_or_else(|| {
        Error::rejected("the first event of the stream is no address of the same server").at(Phase::Answered)
    })?;
    Ok(Stream { client: client.clone(), headers, secrets, post_to, response, parser, early })
}

/// Carries messages both ways until the link or the server ends it.
pub(super) async fn carry(stream: Stream, line: Arc<Duplex>, frames: mpsc::Receiver<Frame>) {
    let Stream { client, headers, secrets, post_to, response, parser, early } = stream;
    let post = async |frame: Frame| {
        if !frame.begin() {
            return;
        }
        let post = client.post(post_to.clone()).headers(headers.clone()).header(CONTENT_TYPE, "application/json");
        match post.body(frame.bytes.clone()).send().await {
            Ok(response) if response.status().is_success() => {}
            Ok(response) => frame.fail(refused("the message", &response.into(), &secrets)),
            Err(error) => frame.fail(not_received(&post_to, error.into())),
        }
    };
    let frames = unfold(frames, async |mut frames| frames.recv().await.map(|frame| (frame, frames)));
    let reason = tokio::select! {
        reason = hear(response, parser, early, &line) => reason,
        () = frames.for_each_concurrent(POSTS_MAX, post) => Error::unavailable("the session was closed"),
        () = line.ending.cancelled() => Error::unavailable("the session was closed"),
    };
    line.end(reason);
}

async fn hear(mut response: Received, mut parser: Parser, mut events: Vec<Event>, line: &Duplex) -> Error {
    loop {
        for event in events.drain(..) {
            line.hear(event.data.unwrap_or_default().as_bytes());
        }
        match response.chunk().await {
            Ok(Some(chunk)) if parser.push(&chunk, &mut events).is_ok() => {}
            Ok(Some(_)) => return malformed(),
            Ok(None) => return unanswered("the stream of events ended", Phase::MaybeExecuted),
            Err(_) => return unanswered("the stream of events broke", Phase::MaybeExecuted),
        }
    }
}

fn refused(method: &str, response: &Received, secrets: &Secrets) -> Error {
    let (status, retry_after) = (response.status(), retry_after(response.headers(), machina_core::now()));
    let (kind, era) = (response.content_type(), Era::Legacy);
    Refusal { method, status, retry_after, kind, body: &[], in_session: false, era, secrets }.error()
}

fn malformed() -> Error {
    Error::rejected("an event of the stream is malformed or too long").at(Phase::MaybeExecuted)
}
