//! One channel: what its outlet says is delivered, attempt by attempt, in a task
//! of its own, so that a channel that does not answer delays no other.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::config::{AlertChannel, AlertsConfig};
use super::engine::{Board, Moment};
use super::memory;
use super::message::AlertMessage;
use super::notifier::Notifier;
use super::outlet::{Draft, Due, Outlet};
use super::report::{ChannelError, ChannelReport};
use crate::clock;
use crate::core::Core;
use crate::error::{Error, ErrorKind, Result};

/// How long what changes together is gathered before it is looked at.
const GATHER: Duration = Duration::from_millis(200);

/// How long to wait between two attempts: twice as long each time, within these.
const BACK_OFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));

/// How long a channel may say that it wants to be left alone.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// One channel, and what came of it so far.
#[derive(Debug)]
pub(crate) struct Channel {
    pub(super) settings: AlertChannel,
    notifier: Arc<dyn Notifier>,
    delivered: AtomicU64,
    failed: AtomicU64,
    held: AtomicU64,
    last: Mutex<Last>,
}

#[derive(Debug, Default)]
struct Last {
    delivered_at: Option<Timestamp>,
    /// None once something was delivered again.
    error: Option<ChannelError>,
}

/// Now, in both senses.
pub(super) fn now() -> Moment {
    Moment { instant: Instant::now(), wall: clock::now() }
}

/// Resolves at this time; never, if there is none.
pub(super) async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time).await,
        None => std::future::pending().await,
    }
}

impl Channel {
    pub(super) fn new(settings: AlertChannel, notifier: Arc<dyn Notifier>) -> Self {
        let (delivered, failed, held) = Default::default();
        Self { settings, notifier, delivered, failed, held, last: Mutex::default() }
    }

    /// Says what is to be said, until cancelled.
    pub(super) async fn run(self: Arc<Self>, core: Arc<Core>, mut outlet: Outlet, mut board: watch::Receiver<Board>) {
        let config = &core.config.alerts;
        loop {
            let seen = board.borrow_and_update().clone();
            let due = outlet.next(&seen, now());
            self.held.store(outlet.held_count(), Ordering::Relaxed);
            match due {
                Due::Say(draft) => self.say(&draft, &mut outlet, &core, config).await,
                Due::Wait(time) => tokio::select! {
                    // Its sender lives in `core`.
                    _ = board.changed() => tokio::time::sleep(GATHER).await,
                    () = until(time) => {}
                },
            }
        }
    }

    async fn say(&self, draft: &Draft, outlet: &mut Outlet, core: &Core, config: &AlertsConfig) {
        let message = draft.message(&config.source, Uuid::now_v7(), clock::now());
        match self.deliver(&message, config).await {
            Ok(()) => {
                let now = now();
                for item in draft.items() {
                    core.recorder.record(memory::entry(now.wall, &self.settings.name, item.kind, &item.alert));
                }
                outlet.delivered(draft, now);
            }
            Err(error) => {
                let (channel, code) = (self.settings.name.as_str(), error.kind().code());
                tracing::warn!(channel, code, error = error.message(), "an alert could not be delivered");
                outlet.failed(draft, now());
            }
        }
    }

    /// Delivers a message, in as many attempts as it may have.
    async fn deliver(&self, message: &AlertMessage, config: &AlertsConfig) -> Result<()> {
        let mut back_off = BACK_OFF.0;
        let mut attempts = 1;
        let outcome = loop {
            let error = match self.attempt(message, config.delivery_timeout).await {
                Err(error) if may_pass(&error) && attempts < config.attempts_max => error,
                outcome => break outcome,
            };
            let asked = error.context().retry_after_ms.map(Duration::from_millis);
            tokio::time::sleep(asked.unwrap_or_default().min(RETRY_AFTER_MAX).max(back_off)).await;
            back_off = (back_off * 2).min(BACK_OFF.1);
            attempts += 1;
        };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match &outcome {
            Ok(()) => {
                self.delivered.fetch_add(1, Ordering::Relaxed);
                *last = Last { delivered_at: Some(clock::now()), error: None };
            }
            Err(error) => {
                self.failed.fetch_add(1, Ordering::Relaxed);
                last.error = Some(ChannelError::of(error, clock::now()));
            }
        }
        outcome
    }

    /// One attempt.
    pub(super) async fn attempt(&self, message: &AlertMessage, timeout: Duration) -> Result<()> {
        let late = |_| Err(Error::timeout(format!("the channel did not answer within {timeout:?}")));
        tokio::time::timeout(timeout, self.notifier.notify(message)).await.unwrap_or_else(late)
    }

    /// How it tells.
    pub(super) fn kind(&self) -> &str {
        self.notifier.kind()
    }

    /// What came of it so far.
    pub(crate) fn report(&self) -> ChannelReport {
        let last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        ChannelReport {
            name: self.settings.name.clone(),
            kind: self.notifier.kind().to_owned(),
            minimum_level: self.settings.minimum_level,
            delivered: self.delivered.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            held: self.held.load(Ordering::Relaxed),
            last_delivered_at: last.delivered_at,
            last_error: last.error.clone(),
        }
    }
}

/// Whether the same message may be delivered by another attempt.
fn may_pass(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::Unreachable | ErrorKind::Lost | ErrorKind::Timeout | ErrorKind::Overloaded | ErrorKind::Unavailable
    )
}
