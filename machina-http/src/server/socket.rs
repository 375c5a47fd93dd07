//! The bytes of one connection, and what is going on on it: whether a request is
//! being answered, has begun to arrive, or nothing is. Where hyper turns a
//! request down before it is one, its bare answer goes out as a problem document
//! instead. Refuses to read what the bytes mean.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use super::turned_down::turned_down;

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Awaited {
    /// The answer to a request.
    Answer,
    /// That the peer takes what was written to it.
    Taking,
    /// The rest of the head of a request.
    Head,
    /// The next request.
    Request,
}

/// What is going on on one connection. Its task writes it and reads it; the
/// orderings are therefore relaxed.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// How many requests were handed on, and how many of them are answered.
    begun: AtomicU64,
    done: AtomicU64,
    /// Something has arrived since the last request was handed on.
    heard: AtomicBool,
    /// The peer did not take all that was written to it.
    owing: AtomicBool,
    /// How often it took some.
    taken: AtomicU64,
    /// What is written belongs to a request that was handed on.
    answering: AtomicBool,
}

impl Activity {
    pub(super) fn awaited(&self) -> Awaited {
        if self.owing.load(Relaxed) {
            Awaited::Taking
        } else if self.is_running() {
            Awaited::Answer
        } else if self.heard.load(Relaxed) || self.begun.load(Relaxed) == 0 {
            Awaited::Head
        } else {
            Awaited::Request
        }
    }

    /// A number that grows with each request, and whenever the peer takes something.
    pub(super) fn progress(&self) -> u64 {
        self.begun.load(Relaxed).wrapping_add(self.taken.load(Relaxed))
    }

    fn is_running(&self) -> bool {
        self.begun.load(Relaxed) != self.done.load(Relaxed)
    }
}

/// One request that was handed on, until its answer is dropped.
#[derive(Debug)]
pub(super) struct Running(Arc<Activity>);

impl Running {
    pub(super) fn begin(activity: &Arc<Activity>) -> Self {
        activity.begun.fetch_add(1, Relaxed);
        activity.heard.store(false, Relaxed);
        activity.answering.store(true, Relaxed);
        Self(Arc::clone(activity))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // What arrived meanwhile was the body of the request.
        self.0.heard.store(false, Relaxed);
        self.0.done.fetch_add(1, Relaxed);
    }
}

/// The body of an answer, which ends the request when it ends.
#[derive(Debug)]
pub(super) struct AnswerBody {
    pub(super) body: Body,
    pub(super) _running: Running,
}

impl http_body::Body for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A connection that notes what is going on. Gives its place back when it is
/// dropped, also when it has become that of a WebSocket.
#[derive(Debug)]
pub(super) struct Socket {
    stream: TcpStream,
    activity: Arc<Activity>,
    instead: Option<Instead>,
    _place: OwnedSemaphorePermit,
}

/// What is written in the place of something else.
#[derive(Debug)]
struct Instead {
    bytes: Vec<u8>,
    written: usize,
    /// How many bytes it is written for.
    length: usize,
}

impl Socket {
    pub(super) fn new(stream: TcpStream, activity: Arc<Activity>, place: OwnedSemaphorePermit) -> Self {
        Self { stream, activity, instead: None, _place: place }
    }

    /// Takes note of what hyper writes of its own accord.
    fn intercept(&mut self, head: &[u8], length: usize) {
        if self.instead.is_none() && !self.activity.answering.load(Relaxed) && !self.activity.is_running() {
            self.instead = turned_down(head).map(|bytes| Instead { bytes, written: 0, length });
            self.activity.answering.store(true, Relaxed);
        }
    }

    fn write_instead(&mut self, cx: &mut Context<'_>) -> Option<Poll<io::Result<usize>>> {
        let Instead { bytes, written, length } = self.instead.as_mut()?;
        while *written < bytes.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &bytes[*written..]) {
                Poll::Ready(Ok(0)) => return Some(Poll::Ready(Err(io::ErrorKind::WriteZero.into()))),
                Poll::Ready(Ok(more)) => *written += more,
                other => return Some(other),
            }
        }
        let length = *length;
        self.instead = None;
        Some(Poll::Ready(Ok(length)))
    }

    fn noted(&self, outcome: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.activity.owing.store(outcome.is_pending(), Relaxed);
        if outcome.is_ready() {
            self.activity.taken.fetch_add(1, Relaxed);
        }
        outcome
    }
}

impl AsyncRead for Socket {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buffer))?;
        if buffer.filled().len() > before {
            self.activity.heard.store(true, Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.intercept(bytes, bytes.len());
        let outcome = match self.write_instead(cx) {
            Some(outcome) => outcome,
            None => Pin::new(&mut self.stream).poll_write(cx, bytes),
        };
        self.noted(outcome)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let head = slices.first().map_or(&[][..], |slice| slice);
        self.intercept(head, slices.iter().map(|slice| slice.len()).sum());
        let outcome = match self.write_instead(cx) {
            Some(outcome) => outcome,
            None => Pin::new(&mut self.stream).poll_write_vectored(cx, slices),
        };
        self.noted(outcome)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    /// hyper flushes when it has nothing left to write.
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.activity.is_running() {
            self.activity.answering.store(false, Relaxed);
        }
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
