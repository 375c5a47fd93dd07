//! Work that a loop of asyncio waits for. It stays in the thread of its loop as long
//! as it is woken there between its turns: a call of a function that runs in the same
//! loop takes no other thread then. Whatever else wakes it up moves it to the runtime,
//! whose threads never wait for the interpreter.

use std::cell::Cell;
use std::mem::replace;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, ThreadId};

use pyo3::prelude::*;
use tokio::task::AbortHandle;

use crate::answer::{Outcome, settle};
use crate::bridge::Work;
use crate::engine::Engine;
use crate::fork::generation;
use crate::letterbox::Letterbox;

thread_local! {
    static IN_LOOP: Cell<bool> = const { Cell::new(false) };
}

/// Whether this is the thread of a loop, in the middle of its work: it may wait for
/// the interpreter, as the loop itself does.
pub(crate) fn in_loop() -> bool {
    IN_LOOP.get()
}

/// Work, and the future of asyncio that waits for it.
struct Load {
    work: Work,
    future: Py<PyAny>,
}

enum Stage {
    /// Nothing has woken it up; `due` when its loop was asked for a turn.
    Waits {
        load: Load,
        due: bool,
    },
    /// A poll is under way in the thread of the loop.
    Polled(Meanwhile),
    /// It is with the runtime.
    Left(AbortHandle),
    Over,
}

#[derive(Clone, Copy)]
enum Meanwhile {
    Nothing,
    Woken,
    Withdrawn,
}

/// A piece of work on its way.
pub(crate) struct Driven {
    engine: Arc<Engine>,
    letterbox: Arc<Letterbox>,
    thread: ThreadId,
    generation: u64,
    stage: Mutex<Stage>,
}

impl Driven {
    /// Work that begins as a turn of the loop, whose thread this must be, and that
    /// `future` of it waits for; its outcome if that is there at once.
    pub(crate) fn in_loop(
        engine: &Arc<Engine>,
        event_loop: &Bound<'_, PyAny>,
        future: &Bound<'_, PyAny>,
        work: Work,
    ) -> PyResult<ControlFlow<Outcome, Withdraw>> {
        let driven = Self::new(engine, event_loop, future, work)?;
        Ok(match driven.turn(event_loop.py()) {
            Some((_, outcome)) => ControlFlow::Break(outcome),
            None => ControlFlow::Continue(Withdraw(driven)),
        })
    }

    /// Work that the runtime carries from the beginning.
    pub(crate) fn elsewhere(
        engine: &Arc<Engine>,
        event_loop: &Bound<'_, PyAny>,
        future: &Bound<'_, PyAny>,
        work: Work,
    ) -> PyResult<Withdraw> {
        let driven = Self::new(engine, event_loop, future, work)?;
        driven.leave(&mut driven.stage());
        Ok(Withdraw(driven))
    }

    fn new(
        engine: &Arc<Engine>,
        event_loop: &Bound<'_, PyAny>,
        future: &Bound<'_, PyAny>,
        work: Work,
    ) -> PyResult<Arc<Self>> {
        let load = Load { work, future: future.clone().unbind() };
        Ok(Arc::new(Self {
            engine: Arc::clone(engine),
            letterbox: engine.letterboxes.of(event_loop, &engine.courier)?,
            thread: thread::current().id(),
            generation: generation(),
            stage: Mutex::new(Stage::Waits { load, due: true }),
        }))
    }

    fn stage(&self) -> MutexGuard<'_, Stage> {
        self.stage.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands what waits to the runtime, and its answer then to the loop.
    fn leave(&self, stage: &mut Stage) {
        match replace(stage, Stage::Over) {
            Stage::Waits { load: Load { work, future }, .. } => {
                let letterbox = Arc::clone(&self.letterbox);
                let task = self.engine.handle.spawn(async move { letterbox.answer(future, work.await) });
                *stage = Stage::Left(task.abort_handle());
            }
            other => *stage = other,
        }
    }

    /// A turn in the thread of the loop: what came of the work, if it is over.
    fn turn(self: &Arc<Self>, py: Python<'_>) -> Option<(Py<PyAny>, Outcome)> {
        let mut load = self.take(Stage::Polled(Meanwhile::Nothing))?;
        let polled = py.detach(|| {
            let _inside = self.engine.handle.enter();
            let waker = Waker::from(Arc::clone(self));
            let before = IN_LOOP.replace(true);
            // Work does not unwind: the bridge sees to that.
            let polled = load.work.as_mut().poll(&mut Context::from_waker(&waker));
            IN_LOOP.set(before);
            polled
        });
        let mut stage = self.stage();
        match (polled, &*stage) {
            (Poll::Ready(outcome), _) => {
                *stage = Stage::Over;
                return Some((load.future, outcome));
            }
            (Poll::Pending, Stage::Polled(Meanwhile::Nothing)) => *stage = Stage::Waits { load, due: false },
            (Poll::Pending, Stage::Polled(Meanwhile::Woken)) => {
                *stage = Stage::Waits { load, due: false };
                self.leave(&mut stage);
            }
            (Poll::Pending, _) => {
                *stage = Stage::Over;
                drop(stage);
                self.give_up(load);
            }
        }
        None
    }

    /// A turn that was asked for, in the thread of the loop.
    pub(crate) fn go_on(self: &Arc<Self>, py: Python<'_>) -> PyResult<()> {
        let Some((future, outcome)) = self.turn(py) else { return Ok(()) };
        settle(future.bind(py), outcome)
    }

    /// What waits, if anything does, with the stage that follows.
    fn take(&self, next: Stage) -> Option<Load> {
        let mut stage = self.stage();
        match replace(&mut *stage, next) {
            Stage::Waits { load, .. } => Some(load),
            other => {
                *stage = other;
                None
            }
        }
    }

    fn withdraw(&self) {
        if let Some(load) = self.take(Stage::Over) {
            self.give_up(load);
            return;
        }
        match &mut *self.stage() {
            Stage::Polled(meanwhile) => *meanwhile = Meanwhile::Withdrawn,
            Stage::Left(task) => task.abort(),
            Stage::Waits { .. } | Stage::Over => {}
        }
    }

    /// Drops what is left, which may go on by itself as a task.
    fn give_up(&self, load: Load) {
        if self.generation == generation() {
            let _inside = self.engine.handle.enter();
            drop(load);
        } else {
            // What it runs on does not exist in this process.
            std::mem::forget(load);
        }
    }
}

/// Calls nothing of Python: whoever wakes may hold locks that others wait for who have
/// the interpreter.
impl Wake for Driven {
    fn wake(self: Arc<Self>) {
        match &mut *self.stage() {
            Stage::Waits { due, .. } if self.thread == thread::current().id() => {
                if replace(due, true) {
                    return;
                }
            }
            stage @ Stage::Waits { .. } => return self.leave(stage),
            Stage::Polled(meanwhile @ Meanwhile::Nothing) => {
                *meanwhile = Meanwhile::Woken;
                return;
            }
            Stage::Polled(_) | Stage::Left(_) | Stage::Over => return,
        }
        self.letterbox.ask_for_turn(&self);
    }
}

impl Drop for Driven {
    fn drop(&mut self) {
        if let Some(load) = self.take(Stage::Over) {
            self.give_up(load);
        }
    }
}

/// Drops the work when nobody awaits it any more: called with each future that is done.
#[pyclass(frozen)]
pub(crate) struct Withdraw(Arc<Driven>);

#[pymethods]
impl Withdraw {
    fn __call__(&self, _future: &Bound<'_, PyAny>) {
        self.0.withdraw();
    }
}
