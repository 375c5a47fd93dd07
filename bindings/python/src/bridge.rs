//! From a piece of work to what Python waits for: a future of asyncio, or nothing
//! else until it is done.
//!
//! The public layer awaits these futures in its own `async def`s, so that what a
//! caller gets is a coroutine like any other. A caller that is cancelled cancels the
//! future, and that drops the work.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt as _;
use machina_core::Error;
use pyo3::intern;
use pyo3::prelude::*;
use tokio::task::AbortHandle;

use crate::courier::{Address, Outcome, Parcel};
use crate::engine::Engine;
use crate::failure::exception;

/// How long a caller that waits without a loop is deaf to signals such as Ctrl-C.
const SIGNALS_EVERY: Duration = Duration::from_millis(50);

/// A piece of work.
pub(crate) type Work = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// What is done with a piece of work: with a loop, a future of it; without, its
/// answer when it is there. `ready` work is expected not to wait for anything, and is
/// then answered at once in either case.
pub(crate) fn answer<'py>(
    py: Python<'py>,
    engine: &Arc<Engine>,
    event_loop: Option<Bound<'py, PyAny>>,
    mut work: Work,
    ready: bool,
) -> PyResult<Bound<'py, PyAny>> {
    if ready {
        let polled = py.detach(|| {
            let _inside = engine.handle.enter();
            work.as_mut().now_or_never()
        });
        if let Some(outcome) = polled {
            return settled(py, outcome);
        }
    }
    let work = AssertUnwindSafe(work).catch_unwind().map(|outcome| outcome.unwrap_or_else(|_| Err(bug())));
    match event_loop {
        Some(event_loop) => later(py, engine, &event_loop, work),
        None => now(py, engine, Box::pin(work)),
    }
}

fn bug() -> Error {
    Error::internal("this is a bug in Machina: please report it, with the log")
}

fn settled(py: Python<'_>, outcome: Outcome) -> PyResult<Bound<'_, PyAny>> {
    outcome.map_err(|error| exception(py, &error))?.into_python(py)
}

fn later<'py>(
    py: Python<'py>,
    engine: &Arc<Engine>,
    event_loop: &Bound<'py, PyAny>,
    work: impl Future<Output = Outcome> + Send + 'static,
) -> PyResult<Bound<'py, PyAny>> {
    let future = event_loop.call_method0(intern!(py, "create_future"))?;
    let address = Address { event_loop: event_loop.clone().unbind(), future: future.clone().unbind() };
    let courier = engine.courier.clone();
    let task = engine.handle.spawn(async move { courier.send(Parcel::Answer(address, work.await)) });
    future.call_method1(intern!(py, "add_done_callback"), (Withdraw(task.abort_handle()),))?;
    Ok(future)
}

fn now<'py>(py: Python<'py>, engine: &Arc<Engine>, mut work: Work) -> PyResult<Bound<'py, PyAny>> {
    loop {
        let waited =
            py.detach(|| engine.handle.block_on(async { tokio::time::timeout(SIGNALS_EVERY, work.as_mut()).await }));
        match waited {
            Ok(outcome) => return settled(py, outcome),
            Err(_) => py.check_signals()?,
        }
    }
}

/// Drops the work when nobody awaits it any more: called with each future that is done.
#[pyclass(frozen)]
struct Withdraw(AbortHandle);

#[pymethods]
impl Withdraw {
    fn __call__(&self, _future: &Bound<'_, PyAny>) {
        self.0.abort();
    }
}
