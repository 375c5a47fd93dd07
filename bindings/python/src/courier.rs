//! The thread that tells Python what is nobody's answer: of calls of its functions,
//! of progress; and another like it for what is logged. A thread of tokio never waits
//! for the interpreter: a Python thread that computes holds it for milliseconds,
//! and probes and calls would stand still meanwhile.
//!
//! The queue needs no limit of its own: each errand belongs to a call, and there is a
//! limit to these; of log records those that are too many are dropped by their sender.

use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;

use crate::logging;

/// How many errands are run before other Python threads have a chance.
const AT_ONCE_MAX: usize = 256;

/// What needs Python, and not for long.
type Errand = Box<dyn FnOnce(Python<'_>) + Send>;

#[derive(Default)]
struct Shelf {
    errands: Vec<Errand>,
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

    /// Has `errand` run; after the close it is lost.
    pub(crate) fn send(&self, errand: impl FnOnce(Python<'_>) + Send + 'static) {
        let mut shelf = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !shelf.closed {
            shelf.errands.push(Box::new(errand));
            self.0.1.notify_all();
        }
    }

    /// Lets the thread run what there is, and waits up to `patience` for its end.
    pub(crate) fn close(&self, patience: Duration) {
        let mut shelf = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.closed = true;
        self.0.1.notify_all();
        let ended = self.0.1.wait_timeout_while(shelf, patience, |shelf| !shelf.ended);
        drop(ended);
    }

    fn run(&self) {
        while let Some(errands) = self.next() {
            let mut errands = errands.into_iter();
            while !errands.as_slice().is_empty() {
                let some = errands.by_ref().take(AT_ONCE_MAX);
                let ran = Python::try_attach(|py| {
                    some.for_each(|errand| errand(py));
                    logging::look_at_level(py);
                });
                if ran.is_none() {
                    break;
                }
            }
        }
        let mut shelf = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        shelf.ended = true;
        self.0.1.notify_all();
    }

    /// Everything that waits, as soon as there is something; `None` at the end.
    fn next(&self) -> Option<Vec<Errand>> {
        let shelf = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_while(shelf, |shelf| shelf.errands.is_empty() && !shelf.closed);
        let mut shelf = waited.unwrap_or_else(PoisonError::into_inner);
        (!shelf.errands.is_empty()).then(|| std::mem::take(&mut shelf.errands))
    }
}
