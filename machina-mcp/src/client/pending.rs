//! The requests of a connection that wait for their answers. Late answers, and
//! answers to requests that were never made, reach nobody.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use serde_json::Value;
use tokio::sync::{mpsc, oneshot};

use super::wire::RpcError;

/// How many reports of progress may wait for a slow caller; more are dropped.
const PROGRESS_MAX: usize = 32;

/// What became of a request.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The server answered.
    Given(Result<Value, RpcError>),
    /// The server answered with more bytes than are accepted.
    TooLong(u64),
}

/// The receiving side of one request.
#[derive(Debug)]
pub(crate) struct Waiter {
    pub(crate) answer: oneshot::Receiver<Answer>,
    pub(crate) progress: mpsc::Receiver<Value>,
}

#[derive(Debug)]
struct Entry {
    answer: oneshot::Sender<Answer>,
    progress: mpsc::Sender<Value>,
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

    /// Enters the request `id`; `None` if the connection is closed.
    pub(crate) fn add(&self, id: u64) -> Option<Waiter> {
        let (answer_in, answer) = oneshot::channel();
        let (progress_in, progress) = mpsc::channel(PROGRESS_MAX);
        self.with(|entries| {
            entries.as_mut()?.insert(id, Entry { answer: answer_in, progress: progress_in });
            Some(Waiter { answer, progress })
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
        let sender = self.with(|entries| Some(entries.as_ref()?.get(&id)?.progress.clone()));
        if let Some(Err(error)) = sender.map(|sender| sender.try_send(params)) {
            tracing::trace!(%error, "a report of progress was dropped");
        }
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
        let (one, two) = (pending.add(1).unwrap(), pending.add(2).unwrap());
        assert!(pending.answer(Some(2), Answer::Given(Ok(json!("two")))));
        assert!(!pending.answer(Some(2), Answer::Given(Ok(json!("again")))));
        assert!(!pending.answer(Some(9), Answer::Given(Ok(json!("unknown")))));
        pending.remove(1);
        assert!(!pending.answer(Some(1), Answer::Given(Ok(json!("late")))));
        assert!(matches!(two.answer.await, Ok(Answer::Given(Ok(value))) if value == "two"));
        assert!(one.answer.await.is_err());
    }

    #[tokio::test]
    async fn an_answer_without_an_id_is_for_the_only_request() {
        let pending = Pending::new();
        let one = pending.add(1).unwrap();
        assert!(pending.answer(None, Answer::TooLong(9)));
        assert!(matches!(one.answer.await, Ok(Answer::TooLong(9))));
        let (_two, _three) = (pending.add(2).unwrap(), pending.add(3).unwrap());
        assert!(!pending.answer(None, Answer::TooLong(9)));
    }

    #[tokio::test]
    async fn progress_reaches_its_request_and_a_flood_is_dropped() {
        let pending = Pending::new();
        let mut waiter = pending.add(7).unwrap();
        for step in 0..1_000 {
            pending.progress(json!({"progressToken": 7, "progress": step}));
        }
        pending.progress(json!({"progressToken": "other"}));
        for step in 0..PROGRESS_MAX {
            assert_eq!(waiter.progress.recv().await.unwrap()["progress"], step);
        }
        assert!(waiter.progress.try_recv().is_err());
    }

    #[tokio::test]
    async fn closing_ends_every_wait_and_admits_no_more() {
        let pending = Pending::new();
        let waiter = pending.add(1).unwrap();
        pending.close();
        assert!(waiter.answer.await.is_err());
        assert!(pending.add(2).is_none());
    }
}
