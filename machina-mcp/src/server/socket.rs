//! One host at the other end of a WebSocket: how its messages are framed, when it
//! is given up, and what it is told at the end. What the messages mean is the
//! affair of the connection that both kinds of pipes share.

use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{SinkExt, StreamExt};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use machina_core::Result;
use tokio::io::AsyncReadExt;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, MissedTickBehavior, interval_at, timeout, timeout_at};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::error::CapacityError;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Bytes, Error, Message};

use super::connection::{Heard, Source, converse};
use super::gateway::{Answer, Gateway, Outgoing};
use super::http::Inner;

/// How long a connection may take to be upgraded once that was agreed on.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last frame may take to be sent, and the host to hang up then.
const FAREWELL: Duration = Duration::from_secs(1);

type Stream = WebSocketStream<TokioIo<Upgraded>>;
type Frames = SplitSink<Stream, Message>;

/// A WebSocket that is about to be opened.
pub(super) struct Socket {
    pub(super) inner: Arc<Inner>,
    pub(super) gateway: Gateway,
    pub(super) permit: OwnedSemaphorePermit,
}

/// Why a WebSocket ends.
#[derive(Debug, Clone, Copy)]
enum End {
    /// The host is gone.
    Gone,
    /// The host said goodbye.
    Closed,
    /// We end it: the code, and why.
    Ours(CloseCode, &'static str),
}

/// Serves the host until either side ends the connection.
pub(super) async fn converse_on(socket: Socket, upgrade: OnUpgrade) {
    let Socket { inner, gateway, permit } = socket;
    let Ok(Ok(upgraded)) = timeout(UPGRADE_TIMEOUT, upgrade).await else { return };
    let most = inner.config.message_bytes_max;
    let limits = WebSocketConfig::default().max_message_size(Some(most)).max_frame_size(Some(most));
    let stream = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, Some(limits)).await;
    let (sink, stream) = stream.split();
    let keep_alive = inner.config.keep_alive;
    let first_by = Some(Instant::now() + inner.config.message_timeout);
    let mut incoming = Incoming { stream, inner, first_by, end: End::Gone };
    let written = converse(gateway, &mut incoming, |queue| write(queue, sink, keep_alive)).await.1;
    let Incoming { stream, end, .. } = incoming;
    if let Some((sink, slow)) = written
        && let Ok(stream) = stream.reunite(sink)
    {
        let _ = timeout(FAREWELL, farewell(stream, slow.unwrap_or(end))).await;
    }
    drop(permit);
}

/// The messages of a host.
struct Incoming {
    stream: SplitStream<Stream>,
    inner: Arc<Inner>,
    /// When its first message must be here.
    first_by: Option<Instant>,
    end: End,
}

impl Incoming {
    /// Waits for the next frame of whatever kind, as long as a host may be silent.
    async fn frame(&mut self) -> Result<Message, End> {
        let silent_until = Instant::now() + 3 * self.inner.config.keep_alive;
        let until = self.first_by.map_or(silent_until, |first_by| first_by.min(silent_until));
        let next = tokio::select! {
            biased;
            () = self.inner.draining.cancelled() => {
                return Err(End::Ours(CloseCode::Restart, "the server is stopping"));
            }
            next = timeout_at(until, self.stream.next()) => next,
        };
        match next {
            Ok(Some(Ok(message))) => Ok(message),
            Ok(Some(Err(error))) => Err(end_of(&error)),
            Ok(None) => Err(End::Gone),
            Err(_) if self.first_by.is_some() => Err(End::Ours(CloseCode::Policy, "no message came")),
            Err(_) => Err(End::Ours(CloseCode::Policy, "there was no sign of life")),
        }
    }

    async fn message(&mut self) -> Result<Bytes, End> {
        loop {
            match self.frame().await? {
                Message::Text(text) => {
                    self.first_by = None;
                    return Ok(text.into());
                }
                Message::Binary(_) => return Err(End::Ours(CloseCode::Unsupported, "messages are text")),
                Message::Close(_) => return Err(End::Closed),
                // A ping is answered by the frames themselves.
                Message::Ping(_) | Message::Pong(_) | Message::Frame(_) => {}
            }
        }
    }
}

impl Source for Incoming {
    async fn next(&mut self) -> Result<Option<Heard>> {
        match self.message().await {
            Ok(message) => Ok(Some(Heard::Message(message))),
            Err(end) => {
                self.end = end;
                Ok(None)
            }
        }
    }

    fn last_answers(&self) -> Duration {
        match self.end {
            End::Ours(CloseCode::Restart, _) => self.inner.last_answers(),
            // Nobody waits for them.
            _ => Duration::ZERO,
        }
    }
}

fn end_of(error: &Error) -> End {
    match error {
        Error::Capacity(CapacityError::MessageTooLong { .. }) => End::Ours(CloseCode::Size, "the message is too long"),
        Error::Utf8(_) => End::Ours(CloseCode::Invalid, "the message is not UTF-8"),
        Error::Protocol(_) => End::Ours(CloseCode::Protocol, "the frames are not as they must be"),
        _ => End::Gone,
    }
}

/// Writes what is in `queue`, and asks for signs of life in between. Gives the
/// sink back, with the end of a host that reads too slowly.
async fn write(mut queue: mpsc::Receiver<Outgoing>, mut sink: Frames, keep_alive: Duration) -> (Frames, Option<End>) {
    let mut pings = interval_at(Instant::now() + keep_alive, keep_alive);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let message = tokio::select! {
            outgoing = queue.recv() => match outgoing {
                Some(Outgoing::Notification(text) | Outgoing::Answer(Answer { text, .. })) => Message::text(text),
                None => return (sink, None),
            },
            _ = pings.tick() => Message::Ping(Bytes::new()),
        };
        match timeout(2 * keep_alive, sink.send(message)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::debug!(%error, "the host no longer reads");
                return (sink, Some(End::Gone));
            }
            Err(_) => return (sink, Some(End::Ours(CloseCode::Again, "messages are not read fast enough"))),
        }
    }
}

/// Says why, and waits until the host hangs up: bytes that it still sends would
/// otherwise throw away what it has not read yet.
async fn farewell(mut stream: Stream, end: End) {
    let said = match end {
        End::Gone => return,
        End::Closed => stream.flush().await,
        End::Ours(code, reason) => stream.close(Some(CloseFrame { code, reason: reason.into() })).await,
    };
    if said.is_ok() {
        let mut io = stream.into_inner();
        let mut rest = vec![0; 16 * 1024];
        while matches!(io.read(&mut rest).await, Ok(count) if count > 0) {}
    }
}
