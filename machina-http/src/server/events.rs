//! `/events`: what changes, as server-sent events. Each has as its id the place
//! from which the same stream goes on; the revision alone would lose or repeat
//! some of the changes that have none of their own, such as those of health.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::response::sse::{Event as Frame, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{Stream, unfold};
use http::{HeaderMap, HeaderName, HeaderValue};
use machina_core::{Error, Event, EventCursor, EventStream, Next, Registry as _, Revision, Scoped};
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::App;
use super::extract::{Caller, Parameters};
use super::failure::{Failure, Part};
use super::listen::Stopping;

/// How many streams a server has open at once.
pub(super) const STREAMS_MAX: usize = 256;

/// When it makes sense to try again after all streams were taken.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// After how much silence the reader is told that the stream is still there.
pub(super) const KEEP_ALIVE: Duration = Duration::from_secs(15);

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Keeps proxies from holding events back.
const UNBUFFERED: (HeaderName, HeaderValue) =
    (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));

/// Where a reader wants to go on.
pub(super) enum Since {
    Revision(Revision),
    Cursor(EventCursor),
}

struct Reader {
    events: EventStream,
    /// Whether the reader knows where it stands.
    greeted: bool,
    stopping: Stopping,
    _permit: OwnedSemaphorePermit,
}

pub(super) async fn stream(
    State(app): State<App>,
    Caller(caller): Caller,
    parameters: Parameters,
    headers: HeaderMap,
    stopping: Option<Extension<Stopping>>,
) -> Result<Response, Failure> {
    let since = since(parameters, &headers)?;
    let events = watch(&caller, since).await?;
    let permit = Arc::clone(&app.streams).try_acquire_owned().map_err(|_| too_many())?;
    let stopping = stopping.map(|Extension(stopping)| stopping).unwrap_or_default();
    let reader = Reader { events, greeted: false, stopping, _permit: permit };
    let keep_alive = KeepAlive::new().interval(KEEP_ALIVE).text("alive");
    Ok(([UNBUFFERED], Sse::new(frames(reader)).keep_alive(keep_alive)).into_response())
}

/// The answer where a stream or channel more cannot be.
pub(super) fn too_many() -> Error {
    Error::overloaded(format!("{STREAMS_MAX} streams of events are open, which is as many as can be"))
        .retry_after(RETRY_AFTER)
}

pub(super) async fn watch(caller: &Scoped, since: Option<Since>) -> Result<EventStream, Error> {
    match since {
        None => caller.watch(None).await,
        Some(Since::Revision(revision)) => caller.watch(Some(revision)).await,
        Some(Since::Cursor(cursor)) => caller.watch_after(&cursor),
    }
}

/// The header counts before the parameter: a browser that comes back sends the
/// address that it was first given.
pub(super) fn since(parameters: Parameters, headers: &HeaderMap) -> Result<Option<Since>, Failure> {
    const NAME: &str = "since";
    let mut parameters = parameters.only(&[NAME])?;
    let parameter = parameters.take(NAME);
    if let Some(header) = headers.get(LAST_EVENT_ID).filter(|header| !header.is_empty()) {
        let text = header.to_str().unwrap_or_default();
        return parse(text, LAST_EVENT_ID.as_str()).map(Some).map_err(Failure::of(Part::Headers));
    }
    parameter.map(|text| parse(&text, NAME)).transpose().map_err(Failure::of(Part::Parameters))
}

fn parse(text: &str, field: &str) -> Result<Since, Error> {
    let revision = text.parse().map(|revision| Since::Revision(Revision(revision)));
    revision.or_else(|_| text.parse().map(Since::Cursor)).map_err(|_| {
        Error::invalid_field(field, "must be a revision, such as 7, or the id of an event, such as 7.42.1f3a")
    })
}

fn frames(reader: Reader) -> impl Stream<Item = Result<Frame, Infallible>> {
    unfold(reader, async move |mut reader| {
        let frame = reader.frame().await?;
        Some((Ok(frame), reader))
    })
}

impl Reader {
    /// What is sent next; `None` when the server stops.
    async fn frame(&mut self) -> Option<Frame> {
        let waiting = if self.greeted { None } else { Some(self.events.try_next()) };
        self.greeted = true;
        let next = match waiting {
            Some(Some(next)) => next,
            // Nothing has happened: the reader is told where it stands.
            Some(None) => return Some(self.identified(Frame::default().comment("watching"))),
            None => {
                let draining = pin!(self.stopping.draining());
                tokio::select! {
                    biased;
                    () = draining => return None,
                    next = self.events.next() => next,
                }
            }
        };
        Some(match next {
            Next::Event(event) => self.identified(described(&event)),
            Next::Resync => {
                let revision = self.events.cursor().map(|cursor| cursor.revision);
                self.identified(Frame::default().event("resync").data(json!({"revision": revision}).to_string()))
            }
        })
    }

    fn identified(&self, frame: Frame) -> Frame {
        match self.events.cursor() {
            Some(cursor) => frame.id(cursor.to_string()),
            None => frame,
        }
    }
}

fn described(event: &Event) -> Frame {
    let data = serde_json::to_value(event).unwrap_or_default();
    let name = data.get("type").and_then(Value::as_str).unwrap_or_default();
    Frame::default().event(name).data(data.to_string())
}
