//! The requests of one host that have no answer yet, by id, so that the host can
//! cancel them. Bounded; refuses an id that is in use.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use machina_core::Error;
use tokio_util::sync::CancellationToken;

use super::rpc::{Fault, INVALID_REQUEST, Id, Object, SERVER_ERROR};

/// Requests without an answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct InFlight {
    by_id: Arc<Mutex<HashMap<Id, CancellationToken>>>,
}

/// One of them; forgotten when this is dropped.
#[derive(Debug)]
pub(crate) struct Flight {
    among: InFlight,
    id: Id,
    pub(crate) cancelled: CancellationToken,
}

impl InFlight {
    /// One more request.
    pub(crate) fn begin(&self, id: &Id, most: usize) -> Result<Flight, Fault> {
        let mut by_id = self.lock();
        if by_id.contains_key(id) {
            return Err(Fault::malformed(INVALID_REQUEST, "`id` is that of a request without an answer yet"));
        }
        if by_id.len() >= most {
            return Err(overloaded(most));
        }
        let cancelled = CancellationToken::new();
        by_id.insert(id.clone(), cancelled.clone());
        Ok(Flight { among: self.clone(), id: id.clone(), cancelled })
    }

    /// The host no longer waits for the request that `params` of
    /// `notifications/cancelled` name.
    pub(crate) fn cancel(&self, params: &Object) {
        let id = params.get("requestId").and_then(Id::of);
        if let Some(token) = id.and_then(|id| self.lock().get(&id).cloned()) {
            token.cancel();
        }
    }

    /// The host is gone.
    pub(crate) fn cancel_all(&self) {
        let tokens: Vec<CancellationToken> = self.lock().values().cloned().collect();
        tokens.iter().for_each(CancellationToken::cancel);
    }

    /// Whether every request has its answer.
    pub(crate) fn is_empty(&self) -> bool {
        self.lock().is_empty()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Id, CancellationToken>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        self.among.lock().remove(&self.id);
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
}
