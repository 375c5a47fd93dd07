//! The body of an answer: one JSON document, or a stream of events. Nothing is
//! made before somebody reads it, and dropping it cancels what it belongs to.

use std::convert::Infallible;
use std::fmt;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::mpsc;
use tokio::time::{Interval, MissedTickBehavior, interval_at};
use tokio_util::sync::DropGuard;

use super::gateway::{Answer, Outgoing};

const KEEP_ALIVE: &[u8] = b": keep-alive\n\n";

/// The body of an answer of [`StreamableHttp`](super::StreamableHttp).
#[derive(Debug)]
pub struct AnswerBody(Kind);

#[derive(Debug)]
enum Kind {
    Whole(Option<Bytes>),
    Events(Box<Events>),
}

/// Events, and signs of life meanwhile.
#[derive(Debug)]
struct Events {
    source: Source,
    keep_alive: Interval,
    over: bool,
}

/// Where events come from.
enum Source {
    /// A request: what comes until the answer has come.
    Request { first: Option<Outgoing>, queue: mpsc::Receiver<Outgoing>, _cancels: DropGuard },
    /// Whatever there is to tell.
    Messages(BoxStream<'static, String>),
}

impl AnswerBody {
    /// A body that is there already.
    pub(super) fn whole(text: impl Into<Bytes>) -> Self {
        let bytes = text.into();
        Self(Kind::Whole((!bytes.is_empty()).then_some(bytes)))
    }

    /// A stream of events: `first`, then what comes out of `queue`.
    pub(super) fn answer(
        first: Option<Outgoing>,
        queue: mpsc::Receiver<Outgoing>,
        keep_alive: Duration,
        cancels: DropGuard,
    ) -> Self {
        Self::events(Source::Request { first, queue, _cancels: cancels }, keep_alive)
    }

    /// A stream of events, one for each of `messages`.
    pub(super) fn messages(messages: BoxStream<'static, String>, keep_alive: Duration) -> Self {
        Self::events(Source::Messages(messages), keep_alive)
    }

    fn events(source: Source, keep_alive: Duration) -> Self {
        let mut keep_alive = interval_at(tokio::time::Instant::now() + keep_alive, keep_alive);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(Kind::Events(Box::new(Events { source, keep_alive, over: false })))
    }
}

impl Events {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.over {
            return Poll::Ready(None);
        }
        match self.source.poll(cx) {
            Poll::Ready(Some((text, last))) => {
                self.over = last;
                Poll::Ready(Some(event(&text)))
            }
            Poll::Ready(None) => {
                self.over = true;
                Poll::Ready(None)
            }
            Poll::Pending => self.keep_alive.poll_tick(cx).map(|_| Some(Bytes::from_static(KEEP_ALIVE))),
        }
    }
}

impl Source {
    /// The next message, and whether it is the last.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<(String, bool)>> {
        match self {
            Self::Request { first, queue, .. } => {
                let next = match first.take() {
                    Some(first) => Poll::Ready(Some(first)),
                    None => queue.poll_recv(cx),
                };
                next.map(|next| {
                    next.map(|next| match next {
                        Outgoing::Notification(text) => (text, false),
                        Outgoing::Answer(Answer { text, .. }) => (text, true),
                    })
                })
            }
            Self::Messages(messages) => {
                messages.as_mut().poll_next(cx).map(|message| message.map(|message| (message, false)))
            }
        }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Request { .. } => f.write_str("Request"),
            Self::Messages(_) => f.write_str("Messages"),
        }
    }
}

/// JSON text has no line ends, so one line of data carries it.
fn event(text: &str) -> Bytes {
    Bytes::from(format!("event: message\ndata: {text}\n\n"))
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let next = match &mut self.get_mut().0 {
            Kind::Whole(bytes) => Poll::Ready(bytes.take()),
            Kind::Events(events) => events.poll(cx),
        };
        next.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Kind::Whole(bytes) => bytes.is_none(),
            Kind::Events(events) => events.over,
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Kind::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |bytes| bytes.len() as u64)),
            Kind::Events(_) => SizeHint::default(),
        }
    }
}
