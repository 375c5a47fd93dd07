//! `/ws/health` and `/ws/config`: what changes, over WebSockets. A channel first
//! says where it stands, then tells what has happened since, out of the same ring
//! as `/events`. Refuses to hold more than a few messages for a reader that does
//! not take them.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code};
use axum::response::Response;
use futures_util::{Sink, SinkExt as _, Stream, StreamExt as _};
use http::HeaderMap;
use machina_core::{Error, Event, EventStream, Next, Revision, Scoped, ServiceHealth};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, mpsc};

use super::App;
use super::events::{self, KEEP_ALIVE, too_many};
use super::extract::{Caller, Parameters};
use super::failure::{Failure, Part};
use super::listen::Stopping;

/// How many messages wait for a slow reader.
const QUEUE_MAX: usize = 256;

/// How long a reader may leave all of them waiting.
const SLOW_AFTER: Duration = Duration::from_secs(10);

/// After how much silence the reader counts as gone: it answers pings.
const SILENCE_MAX: Duration = Duration::from_secs(45);

/// How long the last message may take.
const LAST_WORD: Duration = Duration::from_secs(2);

/// How many bytes a message of the reader may have. Nothing is expected of it.
const HEARD_BYTES_MAX: usize = 4096;

/// Which changes a channel tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Channel {
    Health,
    Config,
}

pub(super) async fn health(
    State(app): State<App>,
    caller: Caller,
    parameters: Parameters,
    stopping: Option<Extension<Stopping>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Failure> {
    open(Channel::Health, &app, caller, parameters, stopping, upgrade).await
}

pub(super) async fn config(
    State(app): State<App>,
    caller: Caller,
    parameters: Parameters,
    stopping: Option<Extension<Stopping>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Failure> {
    open(Channel::Config, &app, caller, parameters, stopping, upgrade).await
}

async fn open(
    channel: Channel,
    app: &App,
    Caller(caller): Caller,
    parameters: Parameters,
    stopping: Option<Extension<Stopping>>,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Failure> {
    let since = events::since(parameters, &HeaderMap::new())?;
    let anew = since.is_none();
    let events = events::watch(&caller, since).await?;
    let upgrade = upgrade.map_err(|rejection| {
        let detail = format!("this is a WebSocket: {}", rejection.body_text());
        Failure::of(Part::Headers)(Error::invalid_field("upgrade", detail))
    })?;
    let permit = Arc::clone(&app.streams).try_acquire_owned().map_err(|_| too_many())?;
    let stopping = stopping.map(|Extension(stopping)| stopping).unwrap_or_default();
    let teller = Teller { channel, caller, events, anew };
    let sized = upgrade.max_message_size(HEARD_BYTES_MAX).max_frame_size(HEARD_BYTES_MAX).write_buffer_size(0);
    Ok(sized.on_upgrade(async move |socket| {
        let tasks = stopping.tasks.clone();
        drop(tasks.spawn("channel", converse(socket, teller, stopping, permit)));
    }))
}

/// Why a channel ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The reader takes nothing.
    Slow,
    /// The server stops.
    Stopping,
    /// The reader is gone.
    Gone,
}

impl End {
    fn last_word(self) -> Option<Message> {
        let (code, reason) = match self {
            Self::Slow => (close_code::AGAIN, "too slow: come back with ?since="),
            Self::Stopping => (close_code::RESTART, "the server stops"),
            Self::Gone => return None,
        };
        Some(Message::Close(Some(CloseFrame { code, reason: reason.into() })))
    }
}

async fn converse(socket: WebSocket, teller: Teller, stopping: Stopping, _permit: OwnedSemaphorePermit) {
    let (mut sink, stream) = socket.split();
    let (queue, queued) = mpsc::channel(QUEUE_MAX);
    let end = tokio::select! {
        biased;
        () = stopping.draining() => End::Stopping,
        end = teller.tell(&queue) => end,
        () = write(&mut sink, queued) => End::Gone,
        () = listen(stream) => End::Gone,
    };
    if let Some(message) = end.last_word() {
        // Who does not take it has no use for it.
        let _ = tokio::time::timeout(LAST_WORD, sink.send(message)).await;
    }
}

/// Writes what is queued, and pings; ends when the reader is gone.
async fn write(sink: &mut (impl Sink<Message, Error = axum::Error> + Unpin), mut queued: mpsc::Receiver<Message>) {
    let mut pings = tokio::time::interval_at(tokio::time::Instant::now() + KEEP_ALIVE, KEEP_ALIVE);
    loop {
        let message = tokio::select! {
            message = queued.recv() => match message {
                Some(message) => message,
                None => return,
            },
            _ = pings.tick() => Message::Ping(Default::default()),
        };
        if sink.send(message).await.is_err() {
            return;
        }
    }
}

/// Ends when the reader closes the channel, breaks it, or says nothing any more.
async fn listen(mut stream: impl Stream<Item = Result<Message, axum::Error>> + Unpin) {
    loop {
        match tokio::time::timeout(SILENCE_MAX, stream.next()).await {
            Ok(Some(Ok(Message::Close(_)) | Err(_)) | None) | Err(_) => return,
            Ok(Some(Ok(_))) => {}
        }
    }
}

/// What one channel tells.
#[derive(Debug)]
struct Teller {
    channel: Channel,
    caller: Scoped,
    events: EventStream,
    /// The reader knows nothing yet.
    anew: bool,
}

impl Teller {
    /// Queues what happens; ends when nobody takes it.
    async fn tell(mut self, queue: &mpsc::Sender<Message>) -> End {
        let hello = json!({
            "type": "hello", "channel": self.channel, "version": env!("CARGO_PKG_VERSION"),
            "revision": self.caller.revision(), "cursor": self.cursor(),
        });
        if let ControlFlow::Break(end) = say(queue, &hello).await {
            return end;
        }
        if self.anew
            && let ControlFlow::Break(end) = self.tell_how_it_is(queue).await
        {
            return end;
        }
        loop {
            let told = match self.events.next().await {
                Next::Event(event) if self.channel.tells(&event) => say(queue, &self.described(&event)).await,
                Next::Event(_) => ControlFlow::Continue(()),
                Next::Resync => self.resync(queue).await,
            };
            if let ControlFlow::Break(end) = told {
                return end;
            }
        }
    }

    async fn resync(&self, queue: &mpsc::Sender<Message>) -> ControlFlow<End> {
        let cursor = self.events.cursor();
        let revision: Option<Revision> = cursor.as_ref().map(|cursor| cursor.revision);
        say(queue, &json!({"type": "resync", "revision": revision, "cursor": self.cursor()})).await?;
        self.tell_how_it_is(queue).await
    }

    /// The health of every service, for there is no page that has all of it at a
    /// revision: health changes without one.
    async fn tell_how_it_is(&self, queue: &mpsc::Sender<Message>) -> ControlFlow<End> {
        if self.channel != Channel::Health {
            return ControlFlow::Continue(());
        }
        let (revision, services) = self.caller.snapshot();
        let services: Vec<Value> = services.iter().map(|view| standing(&ServiceHealth::from(&**view))).collect();
        say(queue, &json!({"type": "snapshot", "revision": revision, "services": services})).await
    }

    fn described(&self, event: &Event) -> Value {
        let mut described = serde_json::to_value(event).unwrap_or_default();
        described["cursor"] = self.cursor();
        described
    }

    fn cursor(&self) -> Value {
        self.events.cursor().map(|cursor| cursor.to_string()).into()
    }
}

impl Channel {
    fn tells(self, event: &Event) -> bool {
        event.kind.is_of_health() == (self == Self::Health)
    }
}

fn standing(health: &ServiceHealth) -> Value {
    let instances = health.instances.iter().map(|one| json!({"id": one.id, "state": one.health.state}));
    json!({
        "service": health.service, "status": health.status, "state": health.health.state,
        "since": health.health.since, "instances": instances.collect::<Vec<_>>(),
    })
}

async fn say(queue: &mpsc::Sender<Message>, message: &Value) -> ControlFlow<End> {
    let queued = queue.send(Message::Text(message.to_string().into()));
    match tokio::time::timeout(SLOW_AFTER, queued).await {
        Ok(Ok(())) => ControlFlow::Continue(()),
        Ok(Err(_)) => ControlFlow::Break(End::Gone),
        Err(_) => ControlFlow::Break(End::Slow),
    }
}

#[cfg(test)]
#[path = "channels_tests.rs"]
mod tests;
