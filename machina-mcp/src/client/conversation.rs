//! Requests and answers on a line where an answer comes back apart from its request: what child processes,
//! WebSockets and HTTP + SSE have in common. Refuses to know how messages are framed, and who else uses the line:
//! ids are its own, so that no peer's id ever reaches a server.

use std::future::{Future, pending};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use machina_core::{Error, Phase, Result};
use serde_json::Value;
use tokio::sync::oneshot;

use super::events::Events;
use super::link::{OnAside, Request, Stage, meta_of, rejected, unanswered};
use super::pending::{Answer, Pending};
use super::secrets::Secrets;
use super::wire::{self, Incoming, Object};

/// The longest reply to a request of a server, whose id is the server's choice: replies wait in a queue without a
/// limit of bytes.
const REPLY_BYTES_MAX: usize = 1_024;

/// What carries the messages of a conversation.
pub(super) trait Line: Send + Sync {
    /// Whether the line says of a single message that it was not taken, by [`Frame::fail`].
    const REFUSES_SINGLY: bool;

    fn conversation(&self) -> &Conversation;

    /// Queues a message. Every error carries the phase `not_sent`.
    fn enqueue(&self, frame: Frame) -> impl Future<Output = Result<()>> + Send;

    /// Queues a message that nobody waits for; a full queue drops it.
    fn post(&self, bytes: Vec<u8>);
}

/// The state of one conversation.
#[derive(Debug)]
pub(super) struct Conversation {
    pub(super) pending: Pending,
    pub(super) events: Arc<Events>,
    pub(super) secrets: Secrets,
    /// Who is spoken to, as messages name it.
    pub(super) peer: String,
    pub(super) message_bytes_max: usize,
    next_id: AtomicU64,
}

/// A message on its way to the server.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) bytes: Vec<u8>,
    stage: Option<Arc<Stage>>,
    failed: Option<oneshot::Sender<Error>>,
}

impl Frame {
    /// A message that wants no answer.
    pub(super) fn of(bytes: Vec<u8>) -> Self {
        Self { bytes, stage: None, failed: None }
    }

    /// Claims the message for sending; false if nobody wants it sent any more.
    pub(super) fn begin(&self) -> bool {
        self.stage.as_ref().is_none_or(|stage| stage.begin())
    }

    /// Takes back [`Frame::begin`]: not one byte was accepted.
    pub(super) fn nothing_written(&self) {
        if let Some(stage) = &self.stage {
            stage.nothing_written();
        }
    }

    /// It was not sent, or not accepted.
    pub(super) fn fail(self, error: Error) {
        if error.context().phase == Some(Phase::NotSent) {
            self.nothing_written();
        }
        if let Some(failed) = self.failed {
            // Whoever waited for an answer may be gone.
            let _ = failed.send(error);
        }
    }
}

impl Conversation {
    pub(super) fn new(peer: String, events: Arc<Events>, secrets: Secrets, message_bytes_max: usize) -> Self {
        let (pending, next_id) = (Pending::new(), AtomicU64::new(1));
        Self { pending, events, secrets, peer, message_bytes_max, next_id }
    }

    /// Why a request failed that got no answer because the line is over.
    pub(super) fn failure(&self, phase: Phase) -> Error {
        let Some(reason) = self.events.closed() else {
            return unanswered(format!("the connection to {} is closed", self.peer), phase);
        };
        let context = reason.context();
        unanswered(reason.message().to_owned(), phase).with(|c| {
            c.hard = context.hard;
            c.stderr_tail.clone_from(&context.stderr_tail);
        })
    }

    /// The error when the queue had no place in time.
    pub(super) fn too_slow(&self) -> Error {
        Error::overloaded(format!("{} does not take its messages fast enough", self.peer)).at(Phase::NotSent)
    }
}

/// Sends a request on `line` and waits for its result. Dropping the future cancels the request upstream.
pub(super) async fn exchange<L: Line>(line: &L, request: Request<'_>, on_aside: OnAside<'_>) -> Result<Value> {
    let Request { method, mut params, dialect, stage, progress, logs, .. } = request;
    let conversation = line.conversation();
    let id = conversation.next_id.fetch_add(1, Ordering::Relaxed);
    dialect.stamp(&mut params);
    if progress {
        meta_of(&mut params).insert("progressToken".into(), id.into());
    }
    let bytes = wire::request(id, method, &params);
    let most = conversation.message_bytes_max;
    if bytes.len() > most {
        let detail = format!("must fit into {most} bytes, has {}", bytes.len());
        return Err(Error::invalid_field("params", detail).at(Phase::NotSent));
    }
    let mut waiter = conversation.pending.add(id, logs).ok_or_else(|| conversation.failure(Phase::NotSent))?;
    let mut guard = Cancel { line, id, stage, upstream: method != "initialize" };
    let (failed, mut failure) = L::REFUSES_SINGLY.then(oneshot::channel).unzip();
    let length = bytes.len();
    line.enqueue(Frame { bytes, stage: Some(stage.clone()), failed }).await?;
    stage.carried.send(length);
    let answer = loop {
        tokio::select! {
            biased;
            Some(aside) = waiter.asides.recv() => on_aside(aside),
            answer = &mut waiter.answer => break answer,
            Some(error) = refusal(failure.as_mut()) => {
                guard.upstream = false;
                return Err(error);
            }
        }
    };
    guard.upstream = false;
    if let Ok(Answer::Given(_, bytes)) = &answer {
        stage.carried.receive(*bytes);
    }
    match answer {
        Ok(Answer::Given(Ok(result), _)) => Ok(result),
        Ok(Answer::Given(Err(error), _)) => Err(rejected(method, &error, dialect.era, &conversation.secrets)),
        Ok(Answer::TooLong(bytes)) => {
            let message = format!("the answer to {method} has {bytes} bytes; {most} are accepted");
            Err(Error::rejected(message).at(Phase::Answered))
        }
        Err(_) => Err(conversation.failure(stage.phase())),
    }
}

/// Waits for the news that a message was not taken; `None` once it was.
async fn refusal(failure: Option<&mut oneshot::Receiver<Error>>) -> Option<Error> {
    match failure {
        Some(failure) => failure.await.ok(),
        None => pending().await,
    }
}

/// Sends a notification on `line`.
pub(super) async fn notify<L: Line>(line: &L, method: &str, params: &Object) -> Result<()> {
    line.enqueue(Frame::of(wire::notification(method, params))).await
}

/// Takes what the server said on `line` in so many bytes.
pub(super) fn hear<L: Line>(line: &L, message: Incoming, bytes: usize) {
    let conversation = line.conversation();
    match message {
        Incoming::Response { id, outcome } => {
            if !conversation.pending.answer(id, Answer::Given(outcome, bytes)) {
                tracing::trace!(id, "an answer came too late");
            }
        }
        Incoming::Request { id, method } => {
            let reply = wire::reply(&id, &method);
            if reply.len() <= REPLY_BYTES_MAX {
                line.post(reply);
            }
        }
        Incoming::Notification { method, params } if method == "notifications/progress" => {
            conversation.pending.progress(params);
        }
        Incoming::Notification { method, params } if method == wire::LOG_MESSAGE => conversation.pending.log(&params),
        Incoming::Notification { method, .. } if wire::is_change(&method) => conversation.events.change(),
        Incoming::Notification { method, .. } => tracing::trace!(method, "a notification was passed over"),
    }
}

/// Cancels a request upstream when its future is dropped before the answer came.
struct Cancel<'a, L: Line> {
    line: &'a L,
    id: u64,
    stage: &'a Stage,
    upstream: bool,
}

impl<L: Line> Drop for Cancel<'_, L> {
    fn drop(&mut self) {
        self.line.conversation().pending.remove(self.id);
        if self.upstream && !self.stage.abandon() {
            self.line.post(wire::cancellation(self.id, &Object::new()));
        }
    }
}
