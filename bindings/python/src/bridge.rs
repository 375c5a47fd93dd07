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
use std::time::Duration;

use futures_util::FutureExt as _;
use machina_http::assemble::panicked;
use pyo3::intern;
use pyo3::prelude::*;

use crate::answer::{Outcome, told};
use crate::drive::Driven;
use crate::engine::Engine;

/// How long a caller that waits without a loop is deaf to signals such as Ctrl-C.
const SIGNALS_EVERY: Duration = Duration::from_millis(50);

/// A piece of work.
pub(crate) type Work = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// What is done with a piece of work: with a loop, a future of it, or its answer if
/// that is there at once; without, its answer when it is there. `quick` work takes
/// microseconds between one wait and the next, and begins in the thread of the loop.
pub(crate) fn answer<'py>(
    py: Python<'py>,
    engine: &Arc<Engine>,
    event_loop: Option<Bound<'py, PyAny>>,
    work: impl Future<Output = Outcome> + Send + 'static,
    quick: bool,
) -> PyResult<Bound<'py, PyAny>> {
    let work = AssertUnwindSafe(work).catch_unwind();
    let work: Work = Box::pin(work.map(|outcome| outcome.unwrap_or_else(|_| Err(panicked()))));
    match event_loop {
        Some(event_loop) => later(py, engine, &event_loop, work, quick),
        None => now(py, engine, work),
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

fn now<'py>(py: Python<'py>, engine: &Arc<Engine>, mut work: Work) -> PyResult<Bound<'py, PyAny>> {
    loop {
        let waited =
            py.detach(|| engine.handle.block_on(async { tokio::time::timeout(SIGNALS_EVERY, work.as_mut()).await }));
        match waited {
            Ok(outcome) => return told(py, outcome),
            Err(_) => py.check_signals()?,
        }
    }
}
