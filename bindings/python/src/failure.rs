//! Errors of the core as exceptions of `machina.exceptions`: the one place where
//! they are translated.

use machina_core::Error;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;

/// The exception that `error` is in Python. Where even that cannot be made, the
/// reason why.
pub(crate) fn exception(py: Python<'_>, error: &Error) -> PyErr {
    make(py, error).map_or_else(|failed| failed, PyErr::from_value)
}

fn make<'py>(py: Python<'py>, error: &Error) -> PyResult<Bound<'py, PyAny>> {
    static MAKE: PyOnceLock<Py<PyAny>> = PyOnceLock::new();
    let make =
        MAKE.get_or_try_init(py, || Ok::<_, PyErr>(py.import("machina.exceptions")?.getattr("_of")?.unbind()))?;
    let context = serde_json::to_vec(error.context()).unwrap_or_default();
    make.bind(py).call1((error.kind().code(), error.message(), &*context))
}

/// The error of a handle that a forked child was born with.
pub(crate) fn before_fork() -> Error {
    Error::unavailable("the handle was opened before fork: open one in this process")
}

/// The error of everything that comes after the end of the interpreter has begun.
pub(crate) fn exiting() -> Error {
    Error::unavailable("the interpreter is exiting")
}
