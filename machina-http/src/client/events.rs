//! The stream of events of a server: read in a task that reconnects, from where
//! it stood, for as long as someone reads what it hands on. Where nobody can say
//! what happened meanwhile, the reader is told to resync.

use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, CONTENT_TYPE};
use machina_core::{Error, EventCursor, EventFeed, EventStream, Next, Result, Revision, Tasks};
use reqwest::{Method, Response};

use super::Client;
use super::frames::{Frame, Frames};

/// How long the server may take to open the stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(40);

/// After how much silence the connection counts as broken: the server says
/// something every 15 seconds.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// How many events wait for a slow reader; further ones wait at the server.
const QUEUE_MAX: usize = 256;

const FIRST_DELAY: Duration = Duration::from_millis(100);
const LONGEST_DELAY: Duration = Duration::from_secs(10);

/// Where the stream stands.
#[derive(Debug)]
struct Place {
    since: Option<Revision>,
    /// The last id, word for word.
    id: Option<String>,
}

impl Client {
    /// A stream of events, already open.
    pub(super) async fn events(&self, since: Option<Revision>) -> Result<EventStream> {
        let place = Place { since, id: None };
        let response = self.open(&place).await?;
        let (feed, events) = EventStream::fed(QUEUE_MAX);
        let client = self.clone();
        drop(Tasks::new().spawn("events of a server", async move {
            tokio::select! {
                () = feed.closed() => {}
                () = client.follow(Some(response), place, &feed) => {}
            }
        }));
        Ok(events)
    }

    /// The same, opened as soon as the server is there. The reader is told to resync
    /// whenever something may have happened of which it was not told.
    pub(super) fn events_when_there(&self) -> EventStream {
        let (feed, events) = EventStream::fed(QUEUE_MAX);
        let client = self.clone();
        drop(Tasks::new().spawn("events of a server", async move {
            tokio::select! {
                () = feed.closed() => {}
                () = client.follow(None, Place { since: None, id: None }, &feed) => {}
            }
        }));
        events
    }

    async fn open(&self, place: &Place) -> Result<Response> {
        let mut url = self.url(&["events"])?;
        if let (None, Some(since)) = (&place.id, place.since) {
            url.query_pairs_mut().append_pair("since", &since.to_string());
        }
        let mut request = self.http.request(Method::GET, url).header(ACCEPT, EVENT_STREAM);
        if let Some(id) = &place.id {
            request = request.header("last-event-id", id);
        }
        let opened = tokio::time::timeout(OPEN_TIMEOUT, self.accepted(request)).await;
        let response = opened.unwrap_or_else(|_| Err(Error::timeout(format!("no answer within {OPEN_TIMEOUT:?}"))))?;
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        match content_type {
            Some(media_type) if media_type.starts_with(EVENT_STREAM) => Ok(response),
            _ => Err(self.foreign(response.status())),
        }
    }

    /// Hands on what comes, and connects again and again; ends when nobody reads.
    async fn follow(&self, mut open: Option<Response>, mut place: Place, feed: &EventFeed) {
        let mut delay = FIRST_DELAY;
        loop {
            let mut response = match open.take() {
                Some(response) => response,
                None => {
                    let response = self.open_again(&place, &mut delay).await;
                    // Nothing says where the stream stood: what happened meanwhile is not known.
                    if place.id.is_none() && place.since.is_none() && !feed.send(Next::Resync, None).await {
                        return;
                    }
                    response
                }
            };
            let mut frames = Frames::default();
            let broken = loop {
                match self.next_frame(&mut response, &mut frames).await {
                    Ok(frame) => {
                        delay = FIRST_DELAY;
                        if !hand_on(frame, &mut place, feed).await {
                            return;
                        }
                    }
                    Err(error) => break error,
                }
            };
            tracing::debug!(%broken, "the stream of events broke off");
        }
    }

    async fn open_again(&self, place: &Place, delay: &mut Duration) -> Response {
        loop {
            tokio::time::sleep(*delay).await;
            *delay = (*delay * 2).min(LONGEST_DELAY);
            match self.open(place).await {
                Ok(response) => return response,
                Err(error) => tracing::debug!(%error, "the stream of events could not be opened again"),
            }
        }
    }

    async fn next_frame(&self, response: &mut Response, frames: &mut Frames) -> Result<Frame> {
        loop {
            if let Some(frame) = frames.take()? {
                return Ok(frame);
            }
            let silent = |_| Error::timeout(format!("nothing came within {SILENCE_MAX:?}"));
            let chunk = tokio::time::timeout(SILENCE_MAX, response.chunk()).await.map_err(silent)?;
            match chunk.map_err(|error| self.broken(error))? {
                Some(chunk) => frames.push(&chunk),
                None => return Err(Error::lost("the server ended the stream")),
            }
        }
    }
}

const EVENT_STREAM: &str = "text/event-stream";

/// Hands on one frame; `false` when nobody reads.
async fn hand_on(frame: Frame, place: &mut Place, feed: &EventFeed) -> bool {
    if let Some(id) = frame.id.filter(|id| !id.is_empty()) {
        place.id = Some(id);
    }
    if frame.data.is_empty() {
        return true;
    }
    let next = match serde_json::from_str(&frame.data) {
        Ok(event) if frame.event != "resync" => Next::Event(Arc::new(event)),
        Err(error) if frame.event != "resync" => {
            tracing::warn!(%error, event = frame.event, "an event cannot be read: the server may be a later version");
            Next::Resync
        }
        _ => Next::Resync,
    };
    let cursor: Option<EventCursor> = place.id.as_deref().and_then(|id| id.parse().ok());
    feed.send(next, cursor).await
}
