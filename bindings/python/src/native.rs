//! Functions of a Python program as tools. The courier tells Python of each call
//! and goes on; where the function runs (in the loop of the program, or in a thread
//! of its own) is the public layer's affair, and it answers through [`Reply`].

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use machina_core::{CallContext, Error, NativeFunction, Place, Progress, ProgressSink, Result, ToolResult};
use machina_http::assemble::read;
use pyo3::prelude::*;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use crate::courier::Courier;
use crate::drive::in_loop;
use crate::failure::exception;

/// A function of Python, to be called with `(arguments, reply)` for each call. It must
/// return at once.
pub(crate) struct Function {
    function: Arc<Py<PyAny>>,
    quick: bool,
    courier: Courier,
}

impl Function {
    /// `quick` ones may be called in the thread of a loop.
    pub(crate) fn new(function: Py<PyAny>, quick: bool, courier: &Courier) -> Self {
        Self { function: Arc::new(function), quick, courier: courier.clone() }
    }

    /// Tells Python of a call: where it is asked, if it may wait for the interpreter there.
    fn begin(&self, arguments: Vec<u8>, reply: Reply) {
        if self.quick && in_loop() {
            // An interpreter that is at its end begins nothing, and drops the reply.
            let _ = Python::try_attach(|py| begin(py, &self.function, &arguments, reply));
            return;
        }
        let function = Arc::clone(&self.function);
        self.courier.send(move |py| begin(py, &function, &arguments, reply));
    }
}

#[async_trait]
impl NativeFunction for Function {
    async fn call(&self, arguments: Map<String, Value>, context: CallContext, place: Place) -> Result<ToolResult> {
        let (answer, answered) = oneshot::channel();
        let waiting =
            Arc::new(Mutex::new(Waiting { answer: Some(answer), place: Some(place), given_up: false, hook: None }));
        let reply = Reply { waiting: Arc::clone(&waiting), progress: context.progress };
        self.begin(Value::Object(arguments).to_string().into_bytes(), reply);
        let mut guard = GiveUp { waiting: Some(waiting), courier: self.courier.clone() };
        let answer = answered.await;
        guard.waiting = None;
        answer.unwrap_or_else(|_| Err(Error::internal("the function ended without an answer")))
    }

    fn hands_over(&self) -> bool {
        true
    }
}

fn begin(py: Python<'_>, function: &Py<PyAny>, arguments: &[u8], reply: Reply) {
    let waiting = Arc::clone(&reply.waiting);
    if let Err(failed) = function.call1(py, (arguments, reply)) {
        failed.write_unraisable(py, Some(function.bind(py)));
        lock(&waiting).end();
    }
}

/// A call that Python has not answered yet. Locked only by threads that hold the
/// interpreter.
struct Waiting {
    answer: Option<oneshot::Sender<Result<ToolResult>>>,
    /// What the function takes until it is over, also when nobody waits for it any more.
    place: Option<Place>,
    given_up: bool,
    /// What is called when the caller gives up.
    hook: Option<Py<PyAny>>,
}

impl Waiting {
    /// The function is over; whoever waits for its answer, which has a place again to ask for.
    fn end(&mut self) -> Option<oneshot::Sender<Result<ToolResult>>> {
        self.place = None;
        self.answer.take()
    }
}

fn lock(waiting: &Mutex<Waiting>) -> std::sync::MutexGuard<'_, Waiting> {
    waiting.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Tells Python that nobody waits any more.
struct GiveUp {
    waiting: Option<Arc<Mutex<Waiting>>>,
    courier: Courier,
}

impl Drop for GiveUp {
    fn drop(&mut self) {
        let Some(waiting) = self.waiting.take() else { return };
        self.courier.send(move |py| {
            let hook = {
                let mut waiting = lock(&waiting);
                waiting.given_up = true;
                waiting.hook.take()
            };
            if let Some(Err(failed)) = hook.map(|hook| hook.call0(py)) {
                failed.write_unraisable(py, None);
            }
        });
    }
}

/// Where a function puts its answer. The first counts.
#[pyclass(frozen, module = "machina._machina")]
pub(crate) struct Reply {
    waiting: Arc<Mutex<Waiting>>,
    progress: Option<ProgressSink>,
}

impl Reply {
    fn send(&self, answer: Result<ToolResult>) {
        let waiting = lock(&self.waiting).end();
        if let Some(waiting) = waiting {
            // Nobody may be left who waits for it.
            drop(waiting.send(answer));
        }
    }
}

impl Drop for Reply {
    /// A function that forgot to answer keeps nobody waiting, and no place.
    fn drop(&mut self) {
        lock(&self.waiting).end();
    }
}

#[pymethods]
impl Reply {
    /// Answers with a value, in JSON.
    fn value(&self, py: Python<'_>, json: &[u8]) -> PyResult<()> {
        let value: Value = read(json).map_err(|error| exception(py, &error))?;
        self.send(Ok(value.into()));
        Ok(())
    }

    /// Answers with a whole result of MCP, in JSON.
    fn result(&self, py: Python<'_>, json: &[u8]) -> PyResult<()> {
        let result: ToolResult = read(json).map_err(|error| exception(py, &error))?;
        self.send(Ok(result));
        Ok(())
    }

    /// Answers that it failed.
    fn fail(&self, message: &str) {
        self.send(Ok(ToolResult::failed(message)));
    }

    /// Tells the caller how far it has come, in JSON.
    fn progress(&self, py: Python<'_>, json: &[u8]) -> PyResult<()> {
        if let Some(sink) = &self.progress {
            let progress: Progress = read(json).map_err(|error| exception(py, &error))?;
            sink(progress);
        }
        Ok(())
    }

    /// Has `hook` called when nobody waits for the answer any more.
    fn on_given_up(&self, py: Python<'_>, hook: Py<PyAny>) -> PyResult<()> {
        let too_late = {
            let mut waiting = lock(&self.waiting);
            waiting.hook = (!waiting.given_up).then(|| hook.clone_ref(py));
            waiting.given_up
        };
        if too_late { hook.call0(py).map(drop) } else { Ok(()) }
    }
}
