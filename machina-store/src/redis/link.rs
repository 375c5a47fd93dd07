//! The one connection with Redis: made and made again by a task, used by whoever
//! finds it open. Who finds it closed does not wait, and who waits in vain closes
//! it, so that a Redis that is gone costs each call nothing and all of them one
//! [`ANSWER_TIMEOUT`].

use std::fmt;
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{
    AsyncConnectionConfig, Client, ErrorKind, FromRedisValue, PushInfo, PushKind, RedisError, RedisResult, Value, cmd,
};
use machina_core::{ReplicaId, Result, ScratchStanding, Timestamp, now};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep, timeout};

use super::address::Address;

/// How long Redis may take to answer.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_millis(100);

/// How long it may take to connect and to be greeted.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// How long until the next attempt, at first and at most.
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

/// A connection that lasted this long is followed by the next at once.
const LASTING: Duration = Duration::from_secs(10);

/// How often a silent connection is asked for a sign of life.
const PING_EVERY: Duration = Duration::from_secs(5);

/// How often the same is told in the log.
const WARN_EVERY: Duration = Duration::from_secs(60);

/// A connection with one Redis.
pub(super) struct Link {
    address: Address,
    client: Client,
    channel: String,
    /// What this process signs its own wake-ups with, not to be woken by them.
    signature: String,
    standing: Mutex<Standing>,
    /// Something may have been committed by another.
    woken: Arc<Notify>,
    /// Something was committed here.
    told: Notify,
    has_told: AtomicBool,
    attempts: watch::Sender<u64>,
    trouble: Mutex<Trouble>,
}

/// What was told of it in the log.
#[derive(Default)]
struct Trouble {
    warned: Option<Instant>,
    /// Nothing was told since then that it is over.
    lasts: bool,
}

/// The connection that there is, if any, and since when that is so.
struct Standing {
    open: Option<Open>,
    since: Timestamp,
}

/// A connection, and who is told when it is over.
#[derive(Clone)]
struct Open {
    connection: MultiplexedConnection,
    lost: Arc<Notify>,
}

impl Link {
    pub(super) fn new(address: Address) -> Result<Self> {
        let client = Client::open(address.connection_info())
            .map_err(|error| machina_core::Error::internal(format!("Redis cannot be asked: {}", told(&error))))?;
        Ok(Self {
            channel: address.channel(),
            address,
            client,
            signature: ReplicaId::generate().to_string(),
            standing: Mutex::new(Standing { open: None, since: now() }),
            woken: Arc::default(),
            told: Notify::new(),
            has_told: AtomicBool::new(false),
            attempts: watch::Sender::new(0),
            trouble: Mutex::default(),
        })
    }

    pub(super) fn is_open(&self) -> bool {
        self.standing().open.is_some()
    }

    /// Whether there is a connection, and since when that is so.
    pub(super) fn told_standing(&self) -> ScratchStanding {
        let standing = self.standing();
        ScratchStanding { connected: standing.open.is_some(), since: standing.since }
    }

    /// Waits for the end of the first attempt to connect.
    pub(super) async fn attempted(&self) {
        // The sender is part of this, so it cannot be gone.
        drop(self.attempts.subscribe().wait_for(|attempts| *attempts > 0).await);
    }

    /// Waits until another replica may have committed something.
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }

    /// Has the other replicas woken, soon; several at once become one.
    pub(super) fn tell(&self) {
        self.has_told.store(true, Ordering::Relaxed);
        self.told.notify_one();
    }

    /// Ends the connection; the others are woken once more, because the last commit
    /// may not have been told yet.
    pub(super) async fn close(&self) {
        if self.has_told.swap(false, Ordering::Relaxed) {
            self.publish_once().await;
        }
        self.standing().set(None);
    }

    /// Asks Redis; `None` when it is not there, or does not answer in time.
    pub(super) async fn ask<T, F, A>(&self, question: F) -> Option<T>
    where
        T: FromRedisValue,
        F: FnOnce(MultiplexedConnection) -> A,
        A: Future<Output = RedisResult<T>>,
    {
        let open = self.standing().open.clone()?;
        match question(open.connection).await {
            Ok(answer) => Some(answer),
            Err(error) => {
                self.complain("Redis did not do what it was asked", &told(&error));
                if is_over(&error) {
                    open.lost.notify_one();
                    // Whoever comes next does not wait for it, too.
                    let mut standing = self.standing();
                    if standing.open.as_ref().is_some_and(|now| Arc::ptr_eq(&now.lost, &open.lost)) {
                        standing.set(None);
                    }
                }
                None
            }
        }
    }

    /// Keeps a connection open; runs until cancelled.
    pub(super) async fn keep(self: Arc<Self>) {
        let mut pause = RETRY_FIRST;
        loop {
            match self.connect().await {
                Ok(open) => {
                    let (since, lost) = (Instant::now(), Arc::clone(&open.lost));
                    self.standing().set(Some(open));
                    self.attempts.send_modify(|attempts| *attempts += 1);
                    self.rejoice();
                    // Nobody knows what was told meanwhile.
                    self.woken.notify_one();
                    self.watch(&lost).await;
                    self.standing().set(None);
                    self.complain("the connection with Redis is over", "it ended");
                    if since.elapsed() >= LASTING {
                        pause = RETRY_FIRST;
                    }
                }
                Err(error) => {
                    self.complain("Redis does not take part, and is tried again", &told(&error));
                    self.attempts.send_modify(|attempts| *attempts += 1);
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Tells the other replicas of commits; runs until cancelled.
    pub(super) async fn publish(self: Arc<Self>) {
        loop {
            self.told.notified().await;
            self.publish_once().await;
        }
    }

    async fn publish_once(&self) {
        let mut publish = cmd("PUBLISH");
        publish.arg(&self.channel).arg(&self.signature);
        // What is not told is found out by asking the store, a little later.
        let _: Option<Value> = self.ask(async |mut on| publish.query_async(&mut on).await).await;
    }

    /// Returns when the connection is over.
    async fn watch(&self, lost: &Notify) {
        while timeout(PING_EVERY, lost.notified()).await.is_err() {
            let alive: Option<Value> = self.ask(async |mut on| cmd("PING").query_async(&mut on).await).await;
            if alive.is_none() {
                return;
            }
        }
    }

    async fn connect(&self) -> RedisResult<Open> {
        let lost = Arc::new(Notify::new());
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(CONNECT_TIMEOUT))
            .set_response_timeout(Some(ANSWER_TIMEOUT))
            .set_push_sender(self.listener(&lost));
        let mut connection = self.client.get_multiplexed_async_connection_with_config(&config).await?;
        connection.subscribe(&self.channel).await?;
        Ok(Open { connection, lost })
    }

    /// What hears everything that Redis says unasked.
    fn listener(&self, lost: &Arc<Notify>) -> impl Fn(PushInfo) -> Result<(), ()> + Send + Sync + 'static + use<> {
        let (lost, woken, own) = (Arc::clone(lost), Arc::clone(&self.woken), self.signature.clone().into_bytes());
        move |push: PushInfo| {
            match (push.kind, push.data.get(1)) {
                (PushKind::Disconnection, _) => lost.notify_one(),
                (PushKind::Message, Some(Value::BulkString(signature))) if *signature != own => woken.notify_one(),
                _ => {}
            }
            Ok(())
        }
    }

    /// Warns of what went wrong, but not again and again.
    fn complain(&self, what: &str, error: &str) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if trouble.warned.is_none_or(|last| now - last >= WARN_EVERY) {
            *trouble = Trouble { warned: Some(now), lasts: true };
            tracing::warn!(redis = %self.address, error, "{what}; Machina goes on without it");
        } else {
            tracing::debug!(redis = %self.address, error, "{what}");
        }
    }

    /// Tells that what was warned of is over.
    fn rejoice(&self) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::take(&mut trouble.lasts) {
            tracing::info!(redis = %self.address, "Redis takes part again");
        }
    }

    /// A few lines, none of which waits.
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Standing {
    /// Keeps the time where nothing changes.
    fn set(&mut self, open: Option<Open>) {
        if open.is_some() != self.open.is_some() {
            self.since = now();
        }
        self.open = open;
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("address", &self.address).field("open", &self.is_open()).finish()
    }
}

/// Whether the connection is of no more use: it is broken, or nobody answers on it.
fn is_over(error: &RedisError) -> bool {
    error.is_timeout() || error.is_unrecoverable_error() || error.kind() == ErrorKind::Parse
}

/// What an error says, as far as it is known to hold no secret: Redis itself repeats
/// none, and says why it refuses a greeting in a word of its own.
fn told(error: &RedisError) -> String {
    if error.kind() == ErrorKind::AuthenticationFailed || matches!(error.code(), Some("WRONGPASS" | "NOAUTH")) {
        return "it refuses the user or the password".to_owned();
    }
    error.to_string()
}
