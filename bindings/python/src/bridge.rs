//! From a piece of work to what Python waits for: a future of asyncio, or nothing
//! else until it is done.
//!
//! The public layer awaits these futures in its own `async def`s, so that what a
//! caller gets is a coroutine like any other. A caller that is cancelled cancels the
//! future, and that drops the work.

use std::ops::ControlFlow;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::FutureExt as _;
use machina_http::assemble::panicked;
use pyo3::intern;
use pyo3::prelude::*;

use crate::answer::{Outcome, told};
use crate::drive::Driven;
use crate::engine::Engine;
use crate::failure::exiting;

/// How long a caller that waits without a loop is deaf to signals such as Ctrl-C.
const SIGNALS_EVERY: Duration = Duration::from_millis(50);

/// A piece of work.
pub(crate) type Work = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// What is done with a piece of work: with a loop, a future of it, or its answer if
/// that is there at once; without, its answer when it is there. `quick` work takes
/// microseconds between one wait and the next, and begins in the thread that asks.
pub(crate) fn answer<'py>(
    py: Python<'py>,
    engine: &Arc<Engine>,
    event_loop: Option<Bound<'py, PyAny>>,
    work: impl Future<Output = Outcome> + Send + 'static,
    quick: bool,
) -> PyResult<Bound<'py, PyAny>> {
    if engine.is_over() {
        return told(py, Err(exiting()));
    }
    let work = AssertUnwindSafe(work).catch_unwind();
    let work: Work = Box::pin(work.map(|outcome| outcome.unwrap_or_else(|_| Err(panicked()))));
    match event_loop {
        Some(event_loop) => later(py, engine, &event_loop, work, quick),
        None => now(py, engine, work, quick),
    }
}

fn later<'py>(
    py: Python<'py>,
    engine: &Arc<Engine>,
    event_loop: &Bound<'py, PyAny>,
    work: Work,
    quick: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let future = event_loop.call_method0(intern!(py, "create_future"))?;
    let withdraw = if quick {
        match Driven::in_loop(engine, event_loop, &future, work)? {
            ControlFlow::Continue(withdraw) => withdraw,
            ControlFlow::Break(outcome) => return told(py, outcome),
        }
    } else {
        Driven::elsewhere(engine, event_loop, &future, work)?
    };
    future.call_method1(intern!(py, "add_done_callback"), (withdraw,))?;
    Ok(future)
}

/// Waits in this thread for work that the runtime carries: what is dropped half-way,
/// be it by Ctrl-C or by the end of the interpreter, is dropped there.
fn now<'py>(py: Python<'py>, engine: &Arc<Engine>, mut work: Work, quick: bool) -> PyResult<Bound<'py, PyAny>> {
    if quick && let Some(outcome) = py.detach(|| at_once(engine, &mut work)) {
        return told(py, outcome);
    }
    let (answer, mut answered) = mpsc::sync_channel(1);
    let task = engine.handle.spawn(async move { drop(answer.send(work.await)) });
    loop {
        // Whole, because a reference to it is nothing that another thread may have.
        let answered = &mut answered;
        match py.detach(move || answered.recv_timeout(SIGNALS_EVERY)) {
            Ok(outcome) => return told(py, outcome),
            Err(RecvTimeoutError::Timeout) => py.check_signals().inspect_err(|_| task.abort())?,
            Err(RecvTimeoutError::Disconnected) => return told(py, Err(exiting())),
        }
    }
}

/// What came of the work, if it waits for nothing.
fn at_once(engine: &Engine, work: &mut Work) -> Option<Outcome> {
    match engine.inside(|| work.as_mut().poll(&mut Context::from_waker(Waker::noop())))? {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}
