//! A link on which answers come back apart from their requests: what a WebSocket
//! and the HTTP + SSE transport of 2024-11-05 have in common. Refuses to know how
//! messages are framed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use machina_core::{Error, Phase, Result};
use serde_json::Value;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::events::Events;
use super::link::{Dialect, Link, OnAside, Request, Stage, meta_of, rejected, unanswered};
use super::pending::{Answer, Pending};
use super::secrets::Secrets;
use super::wire::{self, Incoming, Object};

/// How many messages may wait to be sent.
const QUEUE_MAX: usize = 64;
/// How long a message may wait for a place among them.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
/// The longest reply to a request of a server: its id is the server's choice.
const REPLY_BYTES_MAX: usize = 1_024;

/// A connection to one server.
#[derive(Debug)]
pub(crate) struct DuplexLink {
    line: Arc<Line>,
    next_id: AtomicU64,
    message_bytes_max: usize,
}

/// What the link and its tasks share.
#[derive(Debug)]
pub(super) struct Line {
    pending: Pending,
    events: Arc<Events>,
    secrets: Secrets,
    queue: mpsc::Sender<Frame>,
    /// The link is to end.
    pub(super) ending: CancellationToken,
    /// The link has ended.
    ended: CancellationToken,
}

/// A message on its way to the server.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) bytes: Vec<u8>,
    stage: Option<Arc<Stage>>,
    failed: Option<oneshot::Sender<Error>>,
}

impl Frame {
    /// Claims the message for sending; false if nobody wants it sent any more.
    pub(super) fn begin(&self) -> bool {
        self.stage.as_ref().is_none_or(|stage| stage.begin())
    }

    /// It was not sent, or not accepted.
    pub(super) fn fail(self, error: Error) {
        if let Some(stage) = self.stage.filter(|_| error.context().phase == Some(Phase::NotSent)) {
            stage.nothing_written();
        }
        if let Some(failed) = self.failed {
            // Whoever waited for an answer may be gone.
            let _ = failed.send(error);
        }
    }
}

impl DuplexLink {
    /// A link, and the messages that are to be sent on it.
    pub(super) fn new(
        events: Arc<Events>,
        secrets: Secrets,
        message_bytes_max: usize,
    ) -> (Self, mpsc::Receiver<Frame>) {
        let (queue, frames) = mpsc::channel(QUEUE_MAX);
        let (ending, ended) = (CancellationToken::new(), CancellationToken::new());
        let line = Arc::new(Line { pending: Pending::new(), events, secrets, queue, ending, ended });
        (Self { line, next_id: AtomicU64::new(1), message_bytes_max }, frames)
    }

    /// What the tasks of the link need.
    pub(super) fn line(&self) -> Arc<Line> {
        Arc::clone(&self.line)
    }

    async fn enqueue(&self, frame: Frame) -> Result<()> {
        match timeout(QUEUE_TIMEOUT, self.line.queue.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.line.failure(Phase::NotSent)),
            Err(_) => Err(Error::overloaded("the server does not take messages fast enough").at(Phase::NotSent)),
        }
    }
}

impl Line {
    /// Takes what the server said.
    pub(super) fn hear(&self, bytes: &[u8]) {
        for message in Incoming::parse(bytes) {
            match message {
                Incoming::Response { id, outcome } => {
                    if !self.pending.answer(id, Answer::Given(outcome)) {
                        tracing::trace!(id, "an answer came too late");
                    }
                }
                Incoming::Request { id, method } => {
                    let reply = wire::reply(&id, &method);
                    if reply.len() <= REPLY_BYTES_MAX {
                        self.post(reply);
                    }
                }
                Incoming::Notification { method, params } if method == "notifications/progress" => {
                    self.pending.progress(params);
                }
                Incoming::Notification { method, params } if method == wire::LOG_MESSAGE => self.pending.log(&params),
                Incoming::Notification { method, .. } if wire::is_change(&method) => self.events.change(),
                Incoming::Notification { method, .. } => tracing::trace!(method, "a notification was passed over"),
            }
        }
    }

    /// The link has ended.
    pub(super) fn end(&self, reason: Error) {
        self.events.close(reason);
        self.pending.close();
        self.ended.cancel();
    }

    /// Queues a message that nobody waits for; a full queue drops it.
    fn post(&self, bytes: Vec<u8>) {
        if let Err(error) = self.queue.try_send(Frame { bytes, stage: None, failed: None }) {
            tracing::debug!(%error, "a message to a server was dropped");
        }
    }

    /// Why a request failed that got no answer because the link is over.
    fn failure(&self, phase: Phase) -> Error {
        match self.events.closed() {
            Some(reason) => {
                let hard = reason.context().hard;
                unanswered(reason.message().to_owned(), phase).with(|c| c.hard = hard)
            }
            None => unanswered("the connection is closed", phase),
        }
    }
}

#[async_trait]
impl Link for DuplexLink {
    async fn exchange(&self, request: Request<'_>, on_aside: OnAside<'_>) -> Result<Value> {
        let Request { method, mut params, dialect, stage, progress, logs, .. } = request;
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        dialect.stamp(&mut params);
        if progress {
            meta_of(&mut params).insert("progressToken".into(), id.into());
        }
        let bytes = wire::request(id, method, &params);
        if bytes.len() > self.message_bytes_max {
            let detail = format!("must fit into {} bytes, has {}", self.message_bytes_max, bytes.len());
            return Err(Error::invalid_field("params", detail).at(Phase::NotSent));
        }
        let line = &*self.line;
        let mut waiter = line.pending.add(id, logs).ok_or_else(|| line.failure(Phase::NotSent))?;
        let mut guard = Cancel { line, id, stage, upstream: method != "initialize" };
        let (failed, mut failure) = oneshot::channel();
        self.enqueue(Frame { bytes, stage: Some(stage.clone()), failed: Some(failed) }).await?;
        let answer = loop {
            tokio::select! {
                biased;
                Some(aside) = waiter.asides.recv() => on_aside(aside),
                answer = &mut waiter.answer => break answer,
                Ok(error) = &mut failure => {
                    guard.upstream = false;
                    return Err(error);
                }
            }
        };
        guard.upstream = false;
        match answer {
            Ok(Answer::Given(Ok(result))) => Ok(result),
            Ok(Answer::Given(Err(error))) => Err(rejected(method, &error, dialect.era, &line.secrets)),
            Ok(Answer::TooLong(bytes)) => {
                let message =
                    format!("the answer to {method} has {bytes} bytes; {} are accepted", self.message_bytes_max);
                Err(Error::rejected(message).at(Phase::Answered))
            }
            Err(_) => Err(line.failure(stage.phase())),
        }
    }

    async fn notify(&self, method: &str, params: &Object, _: &Dialect) -> Result<()> {
        self.enqueue(Frame { bytes: wire::notification(method, params), stage: None, failed: None }).await
    }

    async fn follow(&self, _: &Dialect) {
        // What a server says outside of an answer arrives on the same stream.
    }

    fn secrets(&self) -> &Secrets {
        &self.line.secrets
    }

    fn stderr_tail(&self) -> String {
        String::new()
    }

    fn process_id(&self) -> Option<u32> {
        None
    }

    async fn close(&self, _: &Dialect) {
        self.line.events.close(Error::unavailable("the session was closed"));
        self.line.ending.cancel();
        let _ = timeout(CLOSE_TIMEOUT, self.line.ended.cancelled()).await;
    }
}

impl Drop for DuplexLink {
    fn drop(&mut self) {
        self.line.ending.cancel();
    }
}

/// Cancels a request upstream when its future is dropped before the answer came.
struct Cancel<'a> {
    line: &'a Line,
    id: u64,
    stage: &'a Stage,
    upstream: bool,
}

impl Drop for Cancel<'_> {
    fn drop(&mut self) {
        self.line.pending.remove(self.id);
        if self.upstream && !self.stage.abandon() {
            self.line.post(wire::cancellation(self.id, &Object::new()));
        }
    }
}
