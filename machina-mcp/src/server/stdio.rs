//! One host at the other end of a pipe. Nothing but protocol is written; one
//! line is one message.

use std::time::Duration;

use machina_core::{Era, Error, Result, Scoped, Tasks};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::changes::Changes;
use super::exposure::Exposure;
use super::gateway::{Answer, Gateway, Offer, Outbox, Outgoing};
use super::in_flight::InFlight;
use super::protocol;
use super::rpc::{Fault, INVALID_REQUEST, Message, Rejected, Request};
use crate::client::lines::{Line, Lines};

/// The longest message from a host, in bytes.
const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How many calls of one host run at a time.
const REQUESTS_MAX: usize = 256;
/// How many messages may wait to be written.
const OUTBOX_MAX: usize = 64;
/// How long calls that run when stdin ends have to be answered. Hosts that stop
/// a server close its stdin and send SIGTERM two seconds later.
const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// How long cancelled calls have to end.
const LAST_TASKS: Duration = Duration::from_millis(500);

/// Serves one host on stdin and stdout, as the principal of `scoped`, until
/// stdin ends; `exposure` says which tools it sees. Nothing else may write to stdout meanwhile.
///
/// # Errors
/// [`Internal`](machina_core::ErrorKind::Internal) when stdin cannot be read.
pub async fn serve_stdio(scoped: Scoped, exposure: Exposure) -> Result<()> {
    serve_io(scoped, exposure, tokio::io::stdin(), tokio::io::stdout()).await
}

/// Serves one host on any two streams, until `reader` ends or `writer` breaks.
/// Calls that still run then have a second to be answered, and are cancelled.
/// Dropping the future cancels them at once.
///
/// # Errors
/// [`Internal`](machina_core::ErrorKind::Internal) when `reader` fails.
pub async fn serve_io<R, W>(scoped: Scoped, exposure: Exposure, reader: R, writer: W) -> Result<()>
where
    R: AsyncRead + Send + Unpin,
    W: AsyncWrite + Send + Unpin + 'static,
{
    let (outbox, queue) = mpsc::channel(OUTBOX_MAX);
    let offer = Offer::new(exposure);
    let changes = Changes::begin(&scoped, &offer).await;
    let mut connection = Connection {
        gateway: Gateway::new(scoped, offer).telling_changes(changes.is_some()),
        changes,
        tasks: Tasks::new(),
        in_flight: InFlight::default(),
        greeted: false,
    };
    let mut writing = connection.tasks.spawn("write to the host", write(queue, writer));
    let read = tokio::select! {
        read = connection.read(reader, &outbox) => read,
        () = outbox.closed() => Ok(()),
    };
    // The writer ends when it has written the last answer.
    drop(outbox);
    if timeout(LAST_ANSWERS, &mut writing).await.is_err() {
        connection.in_flight.cancel_all();
        let _ = timeout(LAST_TASKS, &mut writing).await;
    }
    if !connection.tasks.close(LAST_TASKS).await {
        tracing::warn!("calls of a host that has gone are still ending");
    }
    read
}

struct Connection {
    gateway: Gateway,
    /// Those that the host is told of once it has been greeted.
    changes: Option<Changes>,
    tasks: Tasks,
    in_flight: InFlight,
    /// `initialize` was answered.
    greeted: bool,
}

impl Connection {
    async fn read(&mut self, mut reader: impl AsyncRead + Unpin, outbox: &Outbox) -> Result<()> {
        let mut lines = Lines::new(MESSAGE_BYTES_MAX);
        let mut buffer = vec![0; 16 * 1024];
        let mut complete = Vec::new();
        loop {
            let count = reader.read(&mut buffer).await;
            let count = count.map_err(|error| Error::internal(format!("the host cannot be read: {error}")))?;
            if count == 0 {
                return Ok(());
            }
            lines.push(&buffer[..count], |line| complete.push(line));
            for line in complete.drain(..) {
                self.take(line, outbox).await;
            }
        }
    }

    async fn take(&mut self, line: Line, outbox: &Outbox) {
        let line = match line {
            Line::Whole(line) if line.trim_ascii().is_empty() => return,
            Line::Whole(line) => line,
            Line::TooLong { bytes, .. } => {
                let why = format!("the message has {bytes} bytes; {MESSAGE_BYTES_MAX} are allowed");
                let answer = Answer::to(None, Err(Fault::malformed(INVALID_REQUEST, why)));
                return put(outbox, answer).await;
            }
        };
        match Message::parse(&line) {
            Ok(Message::Request(request)) => self.request(request, outbox).await,
            Ok(Message::Notification { method, params }) if method == "notifications/cancelled" => {
                self.in_flight.cancel(&params);
            }
            Ok(Message::Notification { .. } | Message::Response) => {}
            Err(Rejected { id, fault }) => put(outbox, Answer::to(id.as_ref(), Err(fault))).await,
        }
    }

    async fn request(&mut self, request: Request, outbox: &Outbox) {
        let id = request.id.clone();
        let begun = self.era_of(&request).and_then(|era| Ok((era, self.in_flight.begin(&id, REQUESTS_MAX)?)));
        let (era, flight) = match begun {
            Ok(begun) => begun,
            Err(fault) => return put(outbox, Answer::to(Some(&id), Err(fault))).await,
        };
        let greets = era == Era::Legacy && request.method == "initialize";
        self.greeted |= greets;
        let changes = if greets { self.changes.take() } else { None };
        // Before the answer: from then on the host may read the list.
        let known = changes.as_ref().and_then(Changes::known);
        let news = outbox.downgrade();
        let (gateway, outbox) = (self.gateway.clone(), outbox.clone());
        let calls = request.method == "tools/call";
        let answering = async move {
            let cancelled = flight.cancelled.clone();
            gateway.answer(request, era, outbox, cancelled).await;
            drop(flight);
        };
        if calls {
            self.tasks.spawn("answer a call", answering);
        } else {
            // Reads a snapshot: over before a task would have begun.
            answering.await;
        }
        if let (Some(changes), Some(known)) = (changes, known) {
            self.tasks.spawn("tell of changed tools", changes.tell(known, news));
        }
    }

    /// The era of a request. One of the older era comes after the handshake.
    fn era_of(&self, request: &Request) -> Result<Era, Fault> {
        let era = protocol::era_of(request)?;
        let before = matches!(request.method.as_str(), "initialize" | "ping");
        if era == Era::Legacy && protocol::named_version(request).is_none() && !self.greeted && !before {
            return Err(protocol::without_meta());
        }
        Ok(era)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

async fn put(outbox: &Outbox, answer: Answer) {
    // A closed outbox is a host that has gone, which ends the reading too.
    let _ = outbox.send(Outgoing::Answer(answer)).await;
}

async fn write(mut queue: mpsc::Receiver<Outgoing>, mut writer: impl AsyncWrite + Unpin) {
    while let Some(outgoing) = queue.recv().await {
        let (Outgoing::Notification(mut text) | Outgoing::Answer(Answer { mut text, .. })) = outgoing;
        text.push('\n');
        let written = async {
            writer.write_all(text.as_bytes()).await?;
            writer.flush().await
        };
        if let Err(error) = written.await {
            tracing::debug!(%error, "the host no longer reads");
            return;
        }
    }
}
