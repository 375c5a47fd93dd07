//! The thread that carries answers to Python, and another like it for what is
//! logged. A thread of tokio never waits
//! for the interpreter: a Python thread that computes holds it for milliseconds,
//! and probes and calls would stand still meanwhile.
//!
//! The queue needs no limit of its own: each parcel belongs to a caller that
//! awaits it, and what nobody awaits (log records) is counted and dropped by its
//! sender.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use machina_core::Error;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};

use crate::failure::exception;
use crate::handle::Handle;
use crate::logging;
use crate::watch::Watch;

/// How many answers are handed over before other Python threads have a chance.
const AT_ONCE_MAX: usize = 256;

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
    pub(crate) fn into_python(self, py: Python<'_>) -> PyResult<Bound<'_, PyAny>> {
        match self {
            Self::Json(json) => Ok(PyBytes::new(py, &json).into_any()),
            Self::Handle(handle) => Ok(Bound::new(py, handle)?.into_any()),
            Self::Watch(watch) => Ok(Bound::new(py, watch)?.into_any()),
            Self::Nothing => Ok(py.None().into_bound(py)),
        }
    }
}

/// The future of asyncio that waits for an answer, and its loop.
pub(crate) struct Address {
    pub(crate) event_loop: Py<PyAny>,
    pub(crate) future: Py<PyAny>,
}

/// What is carried.
pub(crate) enum Parcel {
    /// An answer for a future.
    Answer(Address, Outcome),
    /// Anything else that needs Python, and not for long.
    Errand(Box<dyn FnOnce(Python<'_>) + Send>),
}

#[derive(Default)]
struct Shelf {
    parcels: Vec<Parcel>,
    closed: bool,
    ended: bool,
}

/// The way to the thread. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Courier(Arc<(Mutex<Shelf>, Condvar)>);

impl Courier {
    /// Starts the thread, which ends with [`Courier::close`].
    pub(crate) fn start(name: &str) -> std::io::Result<Self> {
        let courier = Self::default();
        let thread = courier.clone();
        std::thread::Builder::new().name(name.to_owned()).spawn(move || thread.run())?;
        Ok(courier)
    }

    /// Hands over a parcel; after the close it is lost, and so is whoever awaits it.
    pub(crate) fn send(&self, parcel: Parcel) {
        let mut shelf = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !shelf.closed {
            shelf.parcels.push(parcel);
            self.0.1.notify_all();
        }
    }

    /// Lets the thread hand over what there is, and waits up to `patience` for its end.
    pub(crate) fn close(&self, patience: Duration) {
        let mut shelf = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.closed = true;
        self.0.1.notify_all();
        let ended = self.0.1.wait_timeout_while(shelf, patience, |shelf| !shelf.ended);
        drop(ended);
    }

    fn run(&self) {
        while let Some(parcels) = self.next() {
            let mut parcels = parcels.into_iter();
            while !parcels.as_slice().is_empty() {
                let some: Vec<_> = parcels.by_ref().take(AT_ONCE_MAX).collect();
                if Python::try_attach(|py| hand_over(py, some)).is_none() {
                    break;
                }
            }
        }
        let mut shelf = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.ended = true;
        self.0.1.notify_all();
    }

    /// Everything that waits, as soon as there is something; `None` at the end.
    fn next(&self) -> Option<Vec<Parcel>> {
        let shelf = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_while(shelf, |shelf| shelf.parcels.is_empty() && !shelf.closed);
        let mut shelf = waited.unwrap_or_else(PoisonError::into_inner);
        (!shelf.parcels.is_empty()).then(|| std::mem::take(&mut shelf.parcels))
    }
}

/// Hands parcels over, with one message to each loop that has any.
fn hand_over(py: Python<'_>, parcels: Vec<Parcel>) {
    let mut by_loop: Vec<(Py<PyAny>, Bound<'_, PyList>)> = Vec::new();
    for parcel in parcels {
        match parcel {
            Parcel::Errand(errand) => errand(py),
            Parcel::Answer(Address { event_loop, future }, outcome) => {
                let (well, value) = match outcome.map(|answer| answer.into_python(py)) {
                    Ok(Ok(value)) => (true, value),
                    Ok(Err(failed)) => (false, failed.into_value(py).into_bound(py).into_any()),
                    Err(error) => (false, exception(py, &error).into_value(py).into_bound(py).into_any()),
                };
                let known = by_loop.iter().position(|(known, _)| known.is(&event_loop));
                let index = known.unwrap_or_else(|| {
                    by_loop.push((event_loop, PyList::empty(py)));
                    by_loop.len() - 1
                });
                // A list of our own takes whatever it is given.
                drop(by_loop[index].1.append((future, well, value)));
            }
        }
    }
    for (event_loop, settled) in by_loop {
        let message = (pyo3::wrap_pyfunction!(settle, py).map(Bound::into_any), settled);
        if let (Ok(settle), settled) = message {
            // A loop that was closed meanwhile has nobody left who awaits anything.
            let sent = event_loop.bind(py).call_method1(intern!(py, "call_soon_threadsafe"), (settle, settled));
            drop(sent);
        }
    }
    logging::look_at_level(py);
}

/// Settles futures, in the thread of their loop: `(future, well, value)` each.
#[pyfunction]
pub(crate) fn settle(settled: &Bound<'_, PyList>) -> PyResult<()> {
    let py = settled.py();
    for item in settled {
        let (future, well, value) = item.extract::<(Bound<'_, PyAny>, bool, Bound<'_, PyAny>)>()?;
        if future.call_method0(intern!(py, "done"))?.is_truthy()? {
            continue;
        }
        let method = if well { intern!(py, "set_result") } else { intern!(py, "set_exception") };
        future.call_method1(method, (value,))?;
    }
    Ok(())
}
