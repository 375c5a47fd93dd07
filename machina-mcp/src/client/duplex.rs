//! A link on which answers come back apart from their requests: what a WebSocket
//! and the HTTP + SSE transport of 2024-11-05 have in common. Refuses to know how
//! messages are framed.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use machina_core::{Error, Phase, Result};
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::conversation::{Conversation, Frame, Line, exchange, hear, notify};
use super::events::Events;
use super::link::{Dialect, Link, OnAside, Request};
use super::secrets::Secrets;
use super::wire::{Incoming, Object};

/// How many messages may wait to be sent.
const QUEUE_MAX: usize = 64;
/// How long a message may wait for a place among them.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the end may take.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A connection to one server.
#[derive(Debug)]
pub(crate) struct DuplexLink(Arc<Duplex>);

/// What the link and its tasks share.
#[derive(Debug)]
pub(super) struct Duplex {
    conversation: Conversation,
    queue: mpsc::Sender<Frame>,
    /// The link is to end.
    pub(super) ending: CancellationToken,
    /// The link has ended.
    ended: CancellationToken,
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
        let conversation = Conversation::new("the server".to_owned(), events, secrets, message_bytes_max);
        (Self(Arc::new(Duplex { conversation, queue, ending, ended })), frames)
    }

    /// What the tasks of the link need.
    pub(super) fn line(&self) -> Arc<Duplex> {
        Arc::clone(&self.0)
    }
}

impl Duplex {
    /// Takes what the server said.
    pub(super) fn hear(&self, bytes: &[u8]) {
        Incoming::parse(bytes).into_iter().for_each(|message| hear(self, message, bytes.len()));
    }

    /// The link has ended.
    pub(super) fn end(&self, reason: Error) {
        self.conversation.events.close(reason);
        self.conversation.pending.close();
        self.ended.cancel();
    }
}

impl Line for Duplex {
    const REFUSES_SINGLY: bool = true;

    fn conversation(&self) -> &Conversation {
        &self.conversation
    }

    async fn enqueue(&self, frame: Frame) -> Result<()> {
        match timeout(QUEUE_TIMEOUT, self.queue.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(self.conversation.failure(Phase::NotSent)),
            Err(_) => Err(self.conversation.too_slow()),
        }
    }

    fn post(&self, bytes: Vec<u8>) {
        if let Err(error) = self.queue.try_send(Frame::of(bytes)) {
            tracing::debug!(%error, "a message to a server was dropped");
        }
    }
}

#[async_trait]
impl Link for DuplexLink {
    async fn exchange(&self, request: Request<'_>, on_aside: OnAside<'_>) -> Result<Value> {
        exchange(&*self.0, request, on_aside).await
    }

    async fn notify(&self, method: &str, params: &Object, _: &Dialect) -> Result<()> {
        notify(&*self.0, method, params).await
    }

    async fn follow(&self, _: &Dialect) {
        // What a server says outside of an answer arrives on the same stream.
    }

    fn secrets(&self) -> &Secrets {
        &self.0.conversation.secrets
    }

    fn stderr_tail(&self) -> String {
        String::new()
    }

    fn process_id(&self) -> Option<u32> {
        None
    }

    async fn close(&self, _: &Dialect) {
        self.0.conversation.events.close(Error::unavailable("the session was closed"));
        self.0.ending.cancel();
        let _ = timeout(CLOSE_TIMEOUT, self.0.ended.cancelled()).await;
    }
}

impl Drop for DuplexLink {
    fn drop(&mut self) {
        self.0.ending.cancel();
    }
}
