//! What came of a piece of work, as Python gets it.

use machina_core::Error;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::failure::exception;
use crate::handle::Handle;
use crate::watch::Watch;

/// What came of a piece of work.
pub(crate) type Outcome = Result<Answer, Error>;

/// What a caller in Python gets.
pub(crate) enum Answer {
    /// JSON.
    Json(Vec<u8>),
    /// A handle that was opened.
    Handle(Handle),
    /// A stream that was opened.
    Watch(Watch),
    /// Nothing: `None`.
    Nothing,
}

impl Answer {
    fn into_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        match self {
            Self::Json(json) => Ok(PyBytes::new(py, &json).into_any()),
            Self::Handle(handle) => Ok(Bound::new(py, handle)?.into_any()),
            Self::Watch(watch) => Ok(Bound::new(py, watch)?.into_any()),
            Self::Nothing => Ok(py.None().into_bound(py)),
        }
    }
}

/// The outcome itself: the answer, or the exception that is raised.
pub(crate) fn told(py: Python<'_>, outcome: Outcome) -> PyResult<Bound<'_, PyAny>> {
    outcome.map_err(|error| exception(py, &error))?.into_python(py)
}

/// Tells a future of asyncio of the outcome, in the thread of its loop.
pub(crate) fn settle(future: &Bound<'_, PyAny>, outcome: Outcome) -> PyResult<()> {
    let py = future.py();
    if future.call_method0(intern!(py, "done"))?.is_truthy()? {
        return Ok(());
    }
    match told(py, outcome) {
        Ok(answer) => future.call_method1(intern!(py, "set_result"), (answer,)),
        Err(failed) => future.call_method1(intern!(py, "set_exception"), (failed.into_value(py),)),
    }
    .map(drop)
}
