//! Where answers are left for a loop of asyncio, and work that is to have a turn there.
//! The loop is told by a byte on a socket that it watches: whoever leaves something
//! waits neither for the interpreter nor for a thread that does.

use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::PyWeakrefReference;

use crate::answer::{Outcome, settle};
use crate::courier::Courier;
use crate::drive::Driven;
use crate::fork::generation;
use crate::logging;

/// What is left for a loop.
enum Letter {
    /// An answer, and the future of asyncio that waits for it.
    Answer { future: Py<PyAny>, outcome: Outcome },
    /// Work that is to have a turn, as long as anybody waits for it.
    Turn(Weak<Driven>),
}

/// The letterbox of one loop.
pub(crate) struct Letterbox {
    letters: Mutex<Vec<Letter>>,
    /// Whether the loop was told and has not looked since.
    rung: AtomicBool,
    bell: Bell,
    generation: u64,
}

/// How a loop is told that there are letters.
enum Bell {
    /// It watches one end of a pair, and the other is written to.
    Watched { watched: UnixStream, button: UnixStream },
    /// It watches nothing, and the courier tells it.
    Told { event_loop: Py<PyAny>, courier: Courier },
}

impl Letterbox {
    fn new(event_loop: &Bound<'_, PyAny>, courier: &Courier) -> Arc<Self> {
        let made = |bell| {
            let (letters, rung) = (Mutex::default(), AtomicBool::new(false));
            Arc::new(Self { letters, rung, bell, generation: generation() })
        };
        let watched = || -> PyResult<Arc<Self>> {
            let (watched, button) = UnixStream::pair()?;
            watched.set_nonblocking(true)?;
            button.set_nonblocking(true)?;
            let descriptor = watched.as_raw_fd();
            let letterbox = made(Bell::Watched { watched, button });
            let empty = Empty(Arc::clone(&letterbox));
            event_loop.call_method1(intern!(event_loop.py(), "add_reader"), (descriptor, empty))?;
            Ok(letterbox)
        };
        watched()
            .unwrap_or_else(|_| made(Bell::Told { event_loop: event_loop.clone().unbind(), courier: courier.clone() }))
    }

    /// Leaves the answer for `future`, which is one of this loop.
    pub(crate) fn answer(self: &Arc<Self>, future: Py<PyAny>, outcome: Outcome) {
        self.put(Letter::Answer { future, outcome });
    }

    /// Asks the loop for a turn of `work`.
    pub(crate) fn ask_for_turn(self: &Arc<Self>, work: &Arc<Driven>) {
        self.put(Letter::Turn(Arc::downgrade(work)));
    }

    /// Calls nothing of Python, and so may be called with any lock held.
    fn put(self: &Arc<Self>, letter: Letter) {
        self.letters.lock().unwrap_or_else(PoisonError::into_inner).push(letter);
        if !self.rung.swap(true, Ordering::AcqRel) && !self.ring() {
            // Whoever comes next tries again.
            self.rung.store(false, Ordering::Release);
        }
    }

    fn ring(self: &Arc<Self>) -> bool {
        match &self.bell {
            Bell::Watched { button, .. } => (&*button).write(&[0]).is_ok(),
            Bell::Told { courier, .. } => {
                let letterbox = Arc::clone(self);
                courier.send(move |py| letterbox.tell(py));
                true
            }
        }
    }

    fn tell(self: Arc<Self>, py: Python<'_>) {
        if let Bell::Told { event_loop, .. } = &self.bell {
            let event_loop = event_loop.clone_ref(py);
            // A loop that was closed meanwhile has nobody left who awaits anything.
            drop(event_loop.bind(py).call_method1(intern!(py, "call_soon_threadsafe"), (Empty(self),)));
        }
    }

    fn empty(&self, py: Python<'_>) {
        if self.generation != generation() {
            // The bell of a parent rings for the parent.
            return;
        }
        if let Bell::Watched { watched, .. } = &self.bell {
            drop((&*watched).read(&mut [0]));
        }
        // In this order: what is put from now on rings anew.
        self.rung.swap(false, Ordering::AcqRel);
        let letters = std::mem::take(&mut *self.letters.lock().unwrap_or_else(PoisonError::into_inner));
        for letter in letters {
            let settled = match letter {
                Letter::Answer { future, outcome } => settle(future.bind(py), outcome),
                Letter::Turn(work) => work.upgrade().map_or(Ok(()), |work| work.go_on(py)),
            };
            if let Err(failed) = settled {
                failed.write_unraisable(py, None);
            }
        }
        logging::look_at_level(py);
    }
}

/// Takes the letters out: called by the loop, which keeps its letterbox by this.
#[pyclass(frozen)]
struct Empty(Arc<Letterbox>);

#[pymethods]
impl Empty {
    fn __call__(&self, py: Python<'_>) {
        self.0.empty(py);
    }
}

/// The letterboxes of all loops there are.
#[derive(Default)]
pub(crate) struct Letterboxes(Mutex<Vec<(Py<PyWeakrefReference>, Weak<Letterbox>)>>);

impl Letterboxes {
    /// That of `event_loop`, in whose thread this is.
    pub(crate) fn of(&self, event_loop: &Bound<'_, PyAny>, courier: &Courier) -> PyResult<Arc<Letterbox>> {
        let py = event_loop.py();
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().find_map(|(of, letterbox)| {
            let same = of.bind(py).upgrade().is_some_and(|of| of.is(event_loop));
            same.then(|| letterbox.upgrade()).flatten()
        });
        if let Some(known) = known {
            return Ok(known);
        }
        // Not under the lock: another thread may have the interpreter meanwhile.
        let of = PyWeakrefReference::new(event_loop)?.unbind();
        let letterbox = Letterbox::new(event_loop, courier);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, letterbox)| letterbox.strong_count() > 0);
        all.push((of, Arc::downgrade(&letterbox)));
        Ok(letterbox)
    }
}
