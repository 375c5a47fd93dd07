//! The requests of one host that have no answer yet, by id, so that the host can
//! cancel them. Bounded, calls and subscriptions apart, so that neither takes the
//! place of the other; refuses an id that is in use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use machina_core::Error;
use tokio_util::sync::CancellationToken;

use super::rpc::{Fault, INVALID_REQUEST, Id, Object, SERVER_ERROR};

/// Requests without an answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct InFlight {
    waiting: Arc<Mutex<Waiting>>,
}

#[derive(Debug, Default)]
struct Waiting {
    by_id: HashMap<Id, CancellationToken>,
    /// How many of them are subscriptions.
    subscriptions: usize,
}

/// One of them; forgotten when this is dropped.
#[derive(Debug)]
pub(crate) struct Flight {
    among: InFlight,
    id: Id,
    subscribes: bool,
    pub(crate) cancelled: CancellationToken,
}

impl InFlight {
    /// One more request.
    pub(crate) fn begin(&self, id: &Id, most: usize) -> Result<Flight, Fault> {
        self.add(id, most, false)
    }

    /// One more subscription.
    pub(crate) fn subscribe(&self, id: &Id, most: usize) -> Result<Flight, Fault> {
        self.add(id, most, true)
    }

    fn add(&self, id: &Id, most: usize, subscribes: bool) -> Result<Flight, Fault> {
        let mut waiting = self.lock();
        if waiting.by_id.contains_key(id) {
            return Err(Fault::malformed(INVALID_REQUEST, "`id` is that of a request without an answer yet"));
        }
        let alike = if subscribes { waiting.subscriptions } else { waiting.by_id.len() - waiting.subscriptions };
        if alike >= most {
            return Err(overloaded(most));
        }
        let cancelled = CancellationToken::new();
        waiting.by_id.insert(id.clone(), cancelled.clone());
        waiting.subscriptions += usize::from(subscribes);
        Ok(Flight { among: self.clone(), id: id.clone(), subscribes, cancelled })
    }

    /// The host no longer waits for the request that `params` of
    /// `notifications/cancelled` name.
    pub(crate) fn cancel(&self, params: &Object) {
        let id = params.get("requestId").and_then(Id::of);
        if let Some(token) = id.and_then(|id| self.lock().by_id.get(&id).cloned()) {
            token.cancel();
        }
    }

    /// The host is gone.
    pub(crate) fn cancel_all(&self) {
        let tokens: Vec<CancellationToken> = self.lock().by_id.values().cloned().collect();
        tokens.iter().for_each(CancellationToken::cancel);
    }

    /// Whether every request has its answer.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().by_id.is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        let mut waiting = self.among.lock();
        waiting.by_id.remove(&self.id);
        waiting.subscriptions -= usize::from(self.subscribes);
    }
}

/// The fault of a host that asks too much at a time.
pub(crate) fn overloaded(most: usize) -> Fault {
    let error = Error::overloaded(format!("{most} requests wait for an answer already"));
    Fault::new(SERVER_ERROR, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::rpc::object;
    use serde_json::json;

    #[test]
    fn a_request_is_cancelled_by_its_id_and_forgotten_when_answered() {
        let requests = InFlight::default();
        let id = |value| Id::of(&value).unwrap();
        let (one, two) = (requests.begin(&id(json!(1)), 2).unwrap(), requests.begin(&id(json!("1")), 2).unwrap());
        assert_eq!(requests.begin(&id(json!(1)), 2).unwrap_err().code, INVALID_REQUEST);
        assert_eq!(requests.begin(&id(json!(3)), 2).unwrap_err().code, SERVER_ERROR);
        requests.cancel(&object(json!({"requestId": "1"})));
        requests.cancel(&object(json!({"requestId": null})));
        assert!(two.cancelled.is_cancelled() && !one.cancelled.is_cancelled());
        drop((one, two));
        assert!(requests.is_empty());
    }

    #[test]
    fn subscriptions_take_no_place_of_a_call_and_no_id() {
        let requests = InFlight::default();
        let id = |number: u32| Id::of(&json!(number)).unwrap();
        let subscription = requests.subscribe(&id(1), 1).unwrap();
        assert_eq!(requests.subscribe(&id(2), 1).unwrap_err().code, SERVER_ERROR);
        assert_eq!(requests.begin(&id(1), 1).unwrap_err().code, INVALID_REQUEST);
        let _call = requests.begin(&id(3), 1).unwrap();
        assert_eq!(requests.begin(&id(4), 1).unwrap_err().code, SERVER_ERROR);
        drop(subscription);
        assert!(requests.subscribe(&id(1), 1).is_ok());
    }
}
