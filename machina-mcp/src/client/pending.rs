//! The requests of a connection that wait for their answers. Late answers, and
//! answers to requests that were never made, reach nobody.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::link::Aside;
use super::wire::RpcError;

/// How many reports of progress may wait for a slow caller, and how many lines of
/// a log beside them; more are dropped.
const PROGRESS_MAX: usize = 32;
const LOGS_MAX: usize = 224;

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The server answered, in so many bytes.
    Given(Result<Value, RpcError>, usize),
    /// The server answered with more bytes than are accepted.
    TooLong(u64),
}

/// The receiving side of one request.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) answer: oneshot::Receiver<Answer>,
    pub(crate) asides: mpsc::Receiver<Aside>,
}

#[derive(Debug)]
struct Entry {
    answer: oneshot::Sender<Answer>,
    asides: mpsc::Sender<Aside>,
    logs: bool,
}

/// The table of requests in flight; `None` once the connection is closed.
#[derive(Debug)]
pub(crate) struct Pending(Mutex<Option<HashMap<u64, Entry>>>);

impl Pending {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Some(HashMap::new())))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Option<HashMap<u64, Entry>>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Enters the request `id`, which wants to hear of logs or not; `None` if the
    /// connection is closed.
    pub(crate) fn add(&self, id: u64, logs: bool) -> Option<Waiter> {
        let (answer_in, answer) = oneshot::channel();
        let (asides_in, asides) = mpsc::channel(PROGRESS_MAX + if logs { LOGS_MAX } else { 0 });
        self.with(|entries| {
            entries.as_mut()?.insert(id, Entry { answer: answer_in, asides: asides_in, logs });
            Some(Waiter { answer, asides })
        })
    }

    /// Forgets the request `id`.
    pub(crate) fn remove(&self, id: u64) {
        self.with(|entries| entries.as_mut().map(|e| e.remove(&id)));
    }

    /// Hands an answer to the request `id`; without an id, to the only one there
    /// is. False if nobody waits for it.
    pub(crate) fn answer(&self, id: Option<u64>, answer: Answer) -> bool {
        let entry = self.with(|entries| {
            let entries = entries.as_mut()?;
            let only = || entries.keys().copied().next().filter(|_| entries.len() == 1);
            entries.remove(&id.or_else(only)?)
        });
        entry.is_some_and(|entry| entry.answer.send(answer).is_ok())
    }

    /// Hands a report of progress to the request that `params` names.
    pub(crate) fn progress(&self, params: Value) {
        let token = &params["progressToken"];
        let Some(id) = token.as_u64().or_else(|| token.as_str()?.parse().ok()) else { return };
        let sender = self.with(|entries| Some(entries.as_ref()?.get(&id)?.asides.clone()));
        if let Some(Err(error)) = sender.map(|sender| sender.try_send(Aside::Progress(params))) {
            tracing::trace!(%error, "a report of progress was dropped");
        }
    }

    /// Tells every request that wants to hear of logs: a line of a log does not
    /// name the request that it is about.
    pub(crate) fn log(&self, params: &Value) {
        self.with(|entries| {
            let wanting = entries.iter().flat_map(HashMap::values).filter(|entry| entry.logs);
            // Progress keeps its room.
            for Entry { asides, .. } in wanting.filter(|entry| entry.asides.capacity() > PROGRESS_MAX) {
                let _ = asides.try_send(Aside::Log(params.clone()));
            }
        });
    }

    /// Ends every wait: the waiters see their channel closed.
    pub(crate) fn close(&self) {
        self.with(Option::take);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[tokio::test]
    async fn an_answer_reaches_its_request_and_a_late_one_nobody() {
        let pending = Pending::new();
        let (one, two) = (pending.add(1, false).unwrap(), pending.add(2, false).unwrap());
        assert!(pending.answer(Some(2), Answer::Given(Ok(json!("two")), 5)));
        assert!(!pending.answer(Some(2), Answer::Given(Ok(json!("again")), 5)));
        assert!(!pending.answer(Some(9), Answer::Given(Ok(json!("unknown")), 5)));
        pending.remove(1);
        assert!(!pending.answer(Some(1), Answer::Given(Ok(json!("late")), 5)));
        assert!(matches!(two.answer.await, Ok(Answer::Given(Ok(value), 5)) if value == "two"));
        assert!(one.answer.await.is_err());
    }

    #[tokio::test]
    async fn an_answer_without_an_id_is_for_the_only_request() {
        let pending = Pending::new();
        let one = pending.add(1, false).unwrap();
        assert!(pending.answer(None, Answer::TooLong(9)));
        assert!(matches!(one.answer.await, Ok(Answer::TooLong(9))));
        let (_two, _three) = (pending.add(2, false).unwrap(), pending.add(3, false).unwrap());
        assert!(!pending.answer(None, Answer::TooLong(9)));
    }

    #[tokio::test]
    async fn progress_reaches_its_request_and_a_flood_is_dropped() {
        let pending = Pending::new();
        let mut waiter = pending.add(7, false).unwrap();
        for step in 0..1_000 {
            pending.progress(json!({"progressToken": 7, "progress": step}));
        }
        pending.progress(json!({"progressToken": "other"}));
        for step in 0..PROGRESS_MAX {
            let Aside::Progress(report) = waiter.asides.recv().await.unwrap() else { panic!("no progress") };
            assert_eq!(report["progress"], step);
        }
        assert!(waiter.asides.try_recv().is_err());
    }

    #[tokio::test]
    async fn a_log_reaches_who_wants_it_and_a_flood_leaves_room_for_progress() {
        let pending = Pending::new();
        let (mut wants, mut does_not) = (pending.add(1, true).unwrap(), pending.add(2, false).unwrap());
        for line in 0..1_000 {
            pending.log(&json!({"data": line}));
        }
        pending.progress(json!({"progressToken": 1, "progress": 1}));
        for line in 0..LOGS_MAX {
            assert_eq!(wants.asides.recv().await, Some(Aside::Log(json!({"data": line}))));
        }
        assert!(matches!(wants.asides.recv().await, Some(Aside::Progress(_))));
        assert!(wants.asides.try_recv().is_err() && does_not.asides.try_recv().is_err());
    }

    #[tokio::test]
    async fn closing_ends_every_wait_and_admits_no_more() {
        let pending = Pending::new();
        let waiter = pending.add(1, false).unwrap();
        pending.close();
        assert!(waiter.answer.await.is_err());
        assert!(pending.add(2, false).is_none());
    }
}
