//! A stream of events, as Python reads it: a few at a time, each `{"type": …}`.

use std::sync::Arc;

use machina_core::EventStream;
use machina_http::assemble::event;
use pyo3::prelude::*;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;

use crate::answer::Answer;
use crate::bridge::answer;
use crate::engine::Engine;
use crate::failure::{before_fork, exception};
use crate::fork::generation;

/// How many events are handed over at once.
const AT_ONCE_MAX: usize = 256;

/// A reader of events.
#[pyclass(frozen, module = "machina._machina")]
pub(crate) struct Watch {
    stream: Arc<Mutex<EventStream>>,
    closing: CancellationToken,
    engine: Arc<Engine>,
    generation: u64,
}

impl Watch {
    pub(crate) fn new(stream: EventStream, closing: CancellationToken, engine: Arc<Engine>) -> Self {
        Self { stream: Arc::new(Mutex::new(stream)), closing, engine, generation: generation() }
    }
}

#[pymethods]
impl Watch {
    /// The next events, as a JSON list; `None` when the handle was closed.
    #[pyo3(signature = (event_loop))]
    fn next<'py>(&self, py: Python<'py>, event_loop: Option<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        if self.generation != generation() {
            return Err(exception(py, &before_fork()));
        }
        let (stream, closing) = (Arc::clone(&self.stream), self.closing.clone());
        let work = async move {
            let next = async {
                let mut stream = stream.lock().await;
                let mut events = vec![event(&stream.next().await)?];
                while events.len() < AT_ONCE_MAX
                    && let Some(next) = stream.try_next()
                {
                    events.push(event(&next)?);
                }
                Ok(Answer::Json(format!("[{}]", events.join(",")).into_bytes()))
            };
            tokio::select! {
                biased;
                () = closing.cancelled() => Ok(Answer::Nothing),
                events = next => events,
            }
        };
        answer(py, &self.engine, event_loop, work, false)
    }
}
