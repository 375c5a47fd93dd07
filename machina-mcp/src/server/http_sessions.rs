//! Sessions of the older era over HTTP. They carry one thing only: which request
//! a later `notifications/cancelled` means. Bounded, and forgotten when idle.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;
use uuid::Uuid;

use super::in_flight::InFlight;

/// The sessions of all hosts.
#[derive(Debug)]
pub(super) struct HttpSessions {
    most: usize,
    idle: Duration,
    by_id: Mutex<HashMap<String, Session>>,
}

#[derive(Debug)]
struct Session {
    /// Whose it is; of no use to anybody else.
    principal: String,
    used: Instant,
    in_flight: InFlight,
}

impl HttpSessions {
    pub(super) fn new(most: usize, idle: Duration) -> Self {
        Self { most, idle, by_id: Mutex::default() }
    }

    /// A new session; `None` when all are busy.
    pub(super) fn open(&self, principal: &str) -> Option<String> {
        let mut by_id = self.lock();
        let now = Instant::now();
        by_id.retain(|_, session| !session.is_idle_for(self.idle, now));
        if by_id.len() >= self.most {
            let idle = by_id.iter().filter(|(_, session)| session.in_flight.is_empty());
            let longest = idle.min_by_key(|(_, session)| session.used).map(|(id, _)| id.clone())?;
            by_id.remove(&longest);
        }
        let id = Uuid::new_v4().simple().to_string();
        let session = Session { principal: principal.to_owned(), used: now, in_flight: InFlight::default() };
        by_id.insert(id.clone(), session);
        Some(id)
    }

    /// The requests of a session, which is used now; `None` if there is none of
    /// this id for this principal.
    pub(super) fn enter(&self, id: &str, principal: &str) -> Option<InFlight> {
        let mut by_id = self.lock();
        let session = by_id.get_mut(id).filter(|session| session.principal == principal)?;
        let now = Instant::now();
        if session.is_idle_for(self.idle, now) {
            by_id.remove(id);
            return None;
        }
        session.used = now;
        Some(session.in_flight.clone())
    }

    /// Ends a session and cancels its requests; `false` if there is none.
    pub(super) fn close(&self, id: &str, principal: &str) -> bool {
        let Some(in_flight) = self.enter(id, principal) else { return false };
        self.lock().remove(id);
        in_flight.cancel_all();
        true
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Session>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Session {
    fn is_idle_for(&self, idle: Duration, now: Instant) -> bool {
        self.in_flight.is_empty() && now.saturating_duration_since(self.used) >= idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::rpc::Id;
    use serde_json::json;

    const IDLE: Duration = Duration::from_secs(60);

    #[tokio::test(start_paused = true)]
    async fn an_idle_session_is_forgotten_and_a_busy_one_is_not() {
        let sessions = HttpSessions::new(8, IDLE);
        let (idle, busy) = (sessions.open("p").unwrap(), sessions.open("p").unwrap());
        let flight = sessions.enter(&busy, "p").unwrap().begin(&Id::of(&json!(1)).unwrap(), 8).unwrap();
        tokio::time::advance(IDLE).await;
        assert!(sessions.enter(&idle, "p").is_none());
        assert!(sessions.enter(&busy, "p").is_some());
        drop(flight);
        tokio::time::advance(IDLE).await;
        assert!(sessions.enter(&busy, "p").is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn there_are_never_more_than_allowed() {
        let sessions = HttpSessions::new(2, IDLE);
        let first = sessions.open("p").unwrap();
        let flight = sessions.enter(&first, "p").unwrap().begin(&Id::of(&json!(1)).unwrap(), 8).unwrap();
        let second = sessions.open("p").unwrap();
        let third = sessions.open("p").unwrap();
        assert!(sessions.enter(&first, "p").is_some() && sessions.enter(&second, "p").is_none());
        let _busy = sessions.enter(&third, "p").unwrap().begin(&Id::of(&json!(1)).unwrap(), 8).unwrap();
        assert_eq!(sessions.open("p"), None);
        drop(flight);
        assert!(sessions.open("p").is_some());
    }

    #[tokio::test]
    async fn a_session_is_of_no_use_to_another_principal_and_ends_with_its_requests() {
        let sessions = HttpSessions::new(2, IDLE);
        let id = sessions.open("p").unwrap();
        assert!(sessions.enter(&id, "q").is_none() && !sessions.close(&id, "q"));
        let flight = sessions.enter(&id, "p").unwrap().begin(&Id::of(&json!(1)).unwrap(), 8).unwrap();
        assert!(sessions.close(&id, "p") && flight.cancelled.is_cancelled());
        assert!(!sessions.close(&id, "p"));
    }
}
