//! A stream of events, read one at a time: `index.js` makes an async iterator of it.

use std::sync::Arc;

use machina_core::EventStream;
use machina_http::assemble::event;
use napi::bindgen_prelude::{Env, PromiseRaw, Result};
use napi_derive::napi;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::failure::thrown;

/// What changes, one event after the other.
#[napi]
#[derive(Debug)]
pub struct Watch {
    stream: Arc<Mutex<EventStream>>,
    ended: CancellationToken,
}

impl Watch {
    /// `closing` fires when the Machina is closed: that is the end of the stream.
    pub(crate) fn new(stream: EventStream, closing: &CancellationToken) -> Self {
        Self { stream: Arc::new(Mutex::new(stream)), ended: closing.child_token() }
    }
}

#[napi]
impl Watch {
    /// The next event, in JSON; `null` at the end. `{"type": "resync"}` says that
    /// the reader fell behind: read the state again and go on.
    #[napi]
    pub fn next<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, Option<String>>> {
        let (stream, ended) = (Arc::clone(&self.stream), self.ended.clone());
        env.spawn_future(async move {
            let next = async { stream.lock().await.next().await };
            let next = tokio::select! {
                biased;
                () = ended.cancelled() => return Ok(None),
                next = next => next,
            };
            event(&next).map(Some).map_err(|error| thrown(&error))
        })
    }

    /// Ends the stream, for those too who wait for its next event.
    #[napi]
    pub fn close(&self) {
        self.ended.cancel();
    }
}
