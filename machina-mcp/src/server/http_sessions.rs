//! Sessions of the older era over HTTP. They carry three things: which request
//! a later `notifications/cancelled` means, what the host wants to hear of logs, and
//! what it was told of changes, with the one stream on which it is told. Bounded, and forgotten when idle.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::changes::Told;
use super::in_flight::InFlight;
use super::logging::LogLevel;

/// Whose a session is; of no use to anybody else, nor at another endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) principal: String,
    pub(super) group: Option<String>,
}

/// The sessions of all hosts.
#[derive(Debug, Clone)]
pub(super) struct HttpSessions {
    most: usize,
    idle: Duration,
    by_id: Arc<Mutex<HashMap<String, Session>>>,
}

#[derive(Debug)]
struct Session {
    owner: Owner,
    used: Instant,
    in_flight: InFlight,
    log_level: LogLevel,
    told: Told,
    /// Ends the open stream.
    stream: Option<CancellationToken>,
    streams: u64,
}

/// What a session keeps of its host, for a request.
#[derive(Debug, Clone)]
pub(super) struct Entered {
    pub(super) in_flight: InFlight,
    /// What the host wants to hear of logs.
    pub(super) log_level: LogLevel,
}

/// The open stream of a session; the session forgets it when this is dropped.
#[derive(Debug)]
pub(super) struct SessionStream {
    among: HttpSessions,
    id: String,
    number: u64,
    /// What the host was told on this stream and those before.
    pub(super) told: Told,
    /// The session has ended, or has another stream.
    pub(super) over: CancellationToken,
}

impl HttpSessions {
    pub(super) fn new(most: usize, idle: Duration) -> Self {
        Self { most, idle, by_id: Arc::default() }
    }

    /// A new session of a host that knows what `told` says; `None` when all are busy.
    pub(super) fn open(&self, owner: Owner, told: Told) -> Option<String> {
        let mut by_id = self.lock();
        let now = Instant::now();
        by_id.retain(|_, session| !session.is_idle_for(self.idle, now));
        if by_id.len() >= self.most {
            let idle = by_id.iter().filter(|(_, session)| session.rests());
            let longest = idle.min_by_key(|(_, session)| session.used).map(|(id, _)| id.clone())?;
            by_id.remove(&longest);
        }
        let id = Uuid::new_v4().simple().to_string();
        let in_flight = InFlight::default();
        by_id.insert(
            id.clone(),
            Session { owner, used: now, in_flight, log_level: LogLevel::default(), told, stream: None, streams: 0 },
        );
        Some(id)
    }

    /// What is kept of a session, which is used now; `None` if there is none of
    /// this id for this owner.
    pub(super) fn enter(&self, id: &str, owner: &Owner) -> Option<Entered> {
        self.used(id, owner, |session| Entered {
            in_flight: session.in_flight.clone(),
            log_level: session.log_level.clone(),
        })
    }

    /// Opens the stream of a session, and ends the one that it had: a host whose
    /// network has changed does not know that that one is dead.
    pub(super) fn stream(&self, id: &str, owner: &Owner) -> Option<SessionStream> {
        self.used(id, owner, |session| {
            let over = CancellationToken::new();
            if let Some(before) = session.stream.replace(over.clone()) {
                before.cancel();
            }
            session.streams += 1;
            let (told, number) = (session.told.clone(), session.streams);
            SessionStream { among: self.clone(), id: id.to_owned(), number, told, over }
        })
    }

    /// Ends a session with its requests and its stream; `false` if there is none.
    pub(super) fn close(&self, id: &str, owner: &Owner) -> bool {
        if self.enter(id, owner).is_none() {
            return false;
        }
        let Some(session) = self.lock().remove(id) else { return false };
        session.in_flight.cancel_all();
        session.stream.iter().for_each(CancellationToken::cancel);
        true
    }

    fn used<T>(&self, id: &str, owner: &Owner, use_it: impl FnOnce(&mut Session) -> T) -> Option<T> {
        let mut by_id = self.lock();
        let session = by_id.get_mut(id).filter(|session| session.owner == *owner)?;
        let now = Instant::now();
        if session.is_idle_for(self.idle, now) {
            by_id.remove(id);
            return None;
        }
        session.used = now;
        Some(use_it(session))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn rests(&self) -> bool {
        self.in_flight.is_empty() && self.stream.is_none()
    }

    fn is_idle_for(&self, idle: Duration, now: Instant) -> bool {
        self.rests() && now.saturating_duration_since(self.used) >= idle
    }
}

impl Drop for SessionStream {
    fn drop(&mut self) {
        let mut by_id = self.among.lock();
        if let Some(session) = by_id.get_mut(&self.id).filter(|session| session.streams == self.number) {
            session.stream = None;
            session.used = Instant::now();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::rpc::Id;
    use serde_json::json;

    const IDLE: Duration = Duration::from_secs(60);

    fn owner(principal: &str) -> Owner {
        Owner { principal: principal.to_owned(), group: None }
    }

    fn open(sessions: &HttpSessions) -> Option<String> {
        sessions.open(owner("p"), Told::default())
    }

    #[tokio::test(start_paused = true)]
    async fn an_idle_session_is_forgotten_and_a_busy_one_is_not() {
        let sessions = HttpSessions::new(8, IDLE);
        let (p, idle, busy) = (owner("p"), open(&sessions).unwrap(), open(&sessions).unwrap());
        let listening = open(&sessions).unwrap();
        let flight = sessions.enter(&busy, &p).unwrap().in_flight.begin(&Id::of(&json!(1)).unwrap(), 8).unwrap();
        let stream = sessions.stream(&listening, &p).unwrap();
        tokio::time::advance(IDLE).await;
        assert!(sessions.enter(&idle, &p).is_none());
        assert!(sessions.enter(&busy, &p).is_some());
        drop((flight, stream));
        tokio::time::advance(IDLE / 2).await;
        assert!(sessions.enter(&listening, &p).is_some(), "idle since its stream has ended");
        tokio::time::advance(IDLE).await;
        assert!(sessions.enter(&busy, &p).is_none() && sessions.enter(&listening, &p).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_never_more_than_allowed() {
        let (sessions, p) = (HttpSessions::new(2, IDLE), owner("p"));
        let first = open(&sessions).unwrap();
        let flight = sessions.enter(&first, &p).unwrap().in_flight.begin(&Id::of(&json!(1)).unwrap(), 8).unwrap();
        let second = open(&sessions).unwrap();
        let third = open(&sessions).unwrap();
        assert!(sessions.enter(&first, &p).is_some() && sessions.enter(&second, &p).is_none());
        let _busy = sessions.stream(&third, &p).unwrap();
        assert_eq!(open(&sessions), None);
        drop(flight);
        assert!(open(&sessions).is_some());
    }

    #[tokio::test]
    async fn a_session_is_of_no_use_to_another_principal_or_endpoint_and_ends_with_its_requests() {
        let (sessions, p) = (HttpSessions::new(2, IDLE), owner("p"));
        let id = open(&sessions).unwrap();
        let grouped = Owner { group: Some("g".to_owned()), ..owner("p") };
        for other in [owner("q"), grouped] {
            assert!(sessions.enter(&id, &other).is_none() && !sessions.close(&id, &other));
            assert!(sessions.stream(&id, &other).is_none());
        }
        let flight = sessions.enter(&id, &p).unwrap().in_flight.begin(&Id::of(&json!(1)).unwrap(), 8).unwrap();
        let stream = sessions.stream(&id, &p).unwrap();
        assert!(sessions.close(&id, &p) && flight.cancelled.is_cancelled() && stream.over.is_cancelled());
        assert!(!sessions.close(&id, &p));
    }

    #[tokio::test]
    async fn a_second_stream_ends_the_first_and_outlives_it() {
        let (sessions, p) = (HttpSessions::new(2, IDLE), owner("p"));
        let id = open(&sessions).unwrap();
        let first = sessions.stream(&id, &p).unwrap();
        let second = sessions.stream(&id, &p).unwrap();
        assert!(first.over.is_cancelled() && !second.over.is_cancelled());
        drop(first);
        assert!(sessions.lock()[&id].stream.is_some());
        drop(second);
        assert!(sessions.lock()[&id].stream.is_none());
    }
}
