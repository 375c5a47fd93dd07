//! The body of an answer: one JSON document, or a stream of events that ends
//! with the answer. Dropping a stream cancels the call that it belongs to.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
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

/// What comes until the answer has come, and signs of life meanwhile.
#[derive(Debug)]
struct Events {
    first: Option<Outgoing>,
    queue: mpsc::Receiver<Outgoing>,
    keep_alive: Interval,
    over: bool,
    _cancels: DropGuard,
}

impl AnswerBody {
    /// A body that is there already.
    pub(super) fn whole(text: impl Into<Bytes>) -> Self {
        let bytes = text.into();
        Self(Kind::Whole((!bytes.is_empty()).then_some(bytes)))
    }

    /// A stream of events: `first`, then what comes out of `queue`.
    pub(super) fn events(
        first: Option<Outgoing>,
        queue: mpsc::Receiver<Outgoing>,
        keep_alive: Duration,
        cancels: DropGuard,
    ) -> Self {
        let mut keep_alive = interval_at(tokio::time::Instant::now() + keep_alive, keep_alive);
        keep_alive.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self(Kind::Events(Box::new(Events { first, queue, keep_alive, over: false, _cancels: cancels })))
    }
}

impl Events {
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Bytes>> {
        if self.over {
            return Poll::Ready(None);
        }
        let next = match self.first.take() {
            Some(first) => Poll::Ready(Some(first)),
            None => self.queue.poll_recv(cx),
        };
        match next {
            Poll::Ready(Some(Outgoing::Notification(text))) => Poll::Ready(Some(event(&text))),
            Poll::Ready(Some(Outgoing::Answer(Answer { text, .. }))) => {
                self.over = true;
                Poll::Ready(Some(event(&text)))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => self.keep_alive.poll_tick(cx).map(|_| Some(Bytes::from_static(KEEP_ALIVE))),
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
