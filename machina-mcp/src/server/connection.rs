//! One host on one connection that carries messages both ways, whatever frames
//! them: requests are answered side by side, what changes is told in between.
//! Refuses to know how a message looks on the wire.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use machina_core::{Era, Result, Tasks};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::changes::{Feed, Kinds, Told, tellable};
use super::gateway::{Answer, Gateway, Outbox, Outgoing};
use super::in_flight::{Flight, InFlight};
use super::logging::LogLevel;
use super::protocol;
use super::rpc::{self, Fault, INVALID_REQUEST, Message, Rejected, Request};
use super::subscriptions::Subscription;

/// How many calls of one host run at a time.
const REQUESTS_MAX: usize = 256;
/// How many subscriptions of one host are open at a time.
const SUBSCRIPTIONS_MAX: usize = 16;
/// How many messages may wait to be written.
const OUTBOX_MAX: usize = 64;
/// How long cancelled calls have to end.
const LAST_TASKS: Duration = Duration::from_millis(500);

/// What was heard of a host.
#[derive(Debug)]
pub(super) enum Heard {
    /// The bytes of a message.
    Message(Bytes),
    /// A message that was not kept: it has this many bytes, and so many are allowed.
    TooLong { bytes: u64, allowed: usize },
}

/// Where the messages of a host come from.
pub(super) trait Source: Send {
    /// The next one; `None` when there will be no more.
    fn next(&mut self) -> impl Future<Output = Result<Option<Heard>>> + Send;

    /// How long calls that run at the end have to be answered.
    fn last_answers(&self) -> Duration;
}

/// Talks to the host of `gateway` until `source` ends or `write`, which is given
/// what is to be written, does. Calls that still run then have a while to be
/// answered, and are cancelled; dropping the future cancels them at once. Gives
/// back what `write` ended with, if it did.
///
/// # Errors
/// Those of `source`.
pub(super) async fn converse<S, W, F>(gateway: Gateway, source: &mut S, write: W) -> (Result<()>, Option<F::Output>)
where
    S: Source,
    W: FnOnce(mpsc::Receiver<Outgoing>) -> F,
    F: Future,
{
    let (outbox, queue) = mpsc::channel(OUTBOX_MAX);
    let tellable = tellable(&gateway).await;
    let mut connection = Connection {
        gateway: gateway.telling(tellable).in_session(&Uuid::new_v4().simple().to_string(), LogLevel::default()),
        outbox,
        running: Running::default(),
        ending: CancellationToken::new(),
        greeted: false,
    };
    let mut writing = pin!(write(queue));
    let read = tokio::select! {
        read = connection.hear(source) => read,
        written = &mut writing => {
            // Nobody reads any more.
            connection.running.in_flight.cancel_all();
            connection.running.close().await;
            return (Ok(()), Some(written));
        }
    };
    // The writer ends when it has written the last answer.
    let running = connection.silent();
    let mut written = timeout(source.last_answers(), &mut writing).await.ok();
    if written.is_none() {
        running.in_flight.cancel_all();
        written = timeout(LAST_TASKS, &mut writing).await.ok();
    }
    running.close().await;
    (read, written)
}

struct Connection {
    gateway: Gateway,
    outbox: Outbox,
    running: Running,
    /// What is told of changes ends.
    ending: CancellationToken,
    /// `initialize` was answered.
    greeted: bool,
}

/// What runs for a host; cancelled when this is dropped.
#[derive(Default)]
struct Running {
    tasks: Tasks,
    in_flight: InFlight,
}

impl Running {
    async fn close(&self) {
        if !self.tasks.close(LAST_TASKS).await {
            tracing::warn!("calls of a host that has gone are still ending");
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.tasks.cancel();
    }
}

impl Connection {
    async fn hear(&mut self, source: &mut impl Source) -> Result<()> {
        while let Some(heard) = source.next().await? {
            match heard {
                Heard::Message(message) => self.take(&message).await,
                Heard::TooLong { bytes, allowed } => {
                    let why = format!("the message has {bytes} bytes; {allowed} are allowed");
                    self.put(Answer::to(None, Err(Fault::malformed(INVALID_REQUEST, why)))).await;
                }
            }
        }
        Ok(())
    }

    /// Tells of nothing more, and lets what runs come to its end.
    fn silent(self) -> Running {
        self.ending.cancel();
        self.running
    }

    async fn take(&mut self, message: &[u8]) {
        match Message::parse(message) {
            Ok(Message::Request(request)) => self.request(request).await,
            Ok(Message::Notification { method, params }) if method == "notifications/cancelled" => {
                self.running.in_flight.cancel(&params);
            }
            Ok(Message::Notification { .. } | Message::Response) => {}
            Err(Rejected { id, fault }) => self.put(Answer::to(id.as_ref(), Err(fault))).await,
        }
    }

    async fn request(&mut self, request: Request) {
        let id = request.id.clone();
        if let Err(fault) = self.begin(request).await {
            self.put(Answer::to(Some(&id), Err(fault))).await;
        }
    }

    async fn begin(&mut self, request: Request) -> Result<(), Fault> {
        let era = self.era_of(&request)?;
        if Subscription::is_wanted(&request, era) {
            let flight = self.running.in_flight.subscribe(&request.id, SUBSCRIPTIONS_MAX)?;
            let subscription = Subscription::open(&self.gateway, &request).await?;
            let telling = tell_subscriber(subscription, flight, self.outbox.clone(), self.ending.clone());
            self.running.tasks.spawn("tell a subscriber", telling);
            return Ok(());
        }
        let flight = self.running.in_flight.begin(&request.id, REQUESTS_MAX)?;
        let greets = era == Era::Legacy && request.method == "initialize" && !self.greeted;
        self.greeted |= greets;
        // Before the answer: from then on the host may read the lists.
        let told = greets.then(|| Told::new(self.gateway.lists()));
        let waits = self.gateway.may_wait(&request.method);
        let (gateway, outbox) = (self.gateway.clone(), self.outbox.clone());
        let answering = async move {
            let cancelled = flight.cancelled.clone();
            gateway.answer(request, era, outbox, cancelled).await;
            drop(flight);
        };
        if waits {
            self.running.tasks.spawn("answer a request", answering);
        } else {
            // Reads a snapshot: over before a task would have begun.
            answering.await;
        }
        if let Some(told) = told {
            let feed = Feed::open(&self.gateway, Kinds::ALL, Some(told)).await;
            self.running.tasks.spawn("tell of changes", tell_all(feed, self.outbox.clone(), self.ending.clone()));
        }
        Ok(())
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

    async fn put(&self, answer: Answer) {
        // A closed outbox is a host that has gone, which ends the hearing too.
        let _ = self.outbox.send(Outgoing::Answer(answer)).await;
    }
}

/// Tells a host of the older era of every change.
async fn tell_all(mut feed: Feed, outbox: Outbox, ending: CancellationToken) {
    let telling = async {
        loop {
            let text = rpc::notification(feed.next().await, &serde_json::json!({}));
            if outbox.send(Outgoing::Notification(text)).await.is_err() {
                return;
            }
        }
    };
    tokio::select! {
        () = telling => {}
        () = ending.cancelled() => {}
    }
}

/// Tells a subscriber of what it asked for, until it cancels or the server ends.
async fn tell_subscriber(mut subscription: Subscription, flight: Flight, outbox: Outbox, ending: CancellationToken) {
    let telling = async {
        loop {
            tokio::select! {
                biased;
                () = ending.cancelled() => return subscription.ended(),
                text = subscription.next() => {
                    let told = outbox.send(Outgoing::Notification(text));
                    tokio::select! {
                        _ = told => {}
                        () = ending.cancelled() => return subscription.ended(),
                    }
                }
            }
        }
    };
    tokio::select! {
        biased;
        () = flight.cancelled.cancelled() => {}
        ended = telling => drop(outbox.send(Outgoing::Answer(ended)).await),
    }
    drop(flight);
}
