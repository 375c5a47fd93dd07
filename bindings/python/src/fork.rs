//! What a fork does to a process with threads, and what is done about it.
//!
//! A child has the parent's memory and none of its threads: whatever one of them was
//! in the middle of (a lock it held, a value it was making for the first time) stays
//! so for ever. So the threads of the runtime are held at a place where they are in
//! the middle of nothing while a fork happens, and what was opened before is stale in
//! the child.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use pyo3::prelude::*;

use crate::engine::{forget_engine, running};

/// How long a fork waits for the threads, and how long they wait for it at most.
const PATIENCE: Duration = Duration::from_millis(200);
const HELD_MAX: Duration = Duration::from_secs(2);

static GENERATION: AtomicU64 = AtomicU64::new(0);

/// The pause of the fork that is under way. Locked only by threads that hold the
/// interpreter.
static PAUSE: Mutex<Option<Pause>> = Mutex::new(None);

/// How many forks lie between this process and the one that loaded the module.
pub(crate) fn generation() -> u64 {
    GENERATION.load(Ordering::Acquire)
}

#[derive(Clone, Default)]
struct Pause(Arc<(Mutex<Held>, Condvar)>);

#[derive(Default)]
struct Held {
    threads: usize,
    over: bool,
}

impl Pause {
    /// Holds the thread until the fork has happened.
    fn hold(&self) {
        let mut held = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.threads += 1;
        self.0.1.notify_all();
        drop(self.0.1.wait_timeout_while(held, HELD_MAX, |held| !held.over));
    }

    fn wait_for(&self, threads: usize) {
        let held = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        drop(self.0.1.wait_timeout_while(held, PATIENCE, |held| held.threads < threads));
    }

    fn end(&self) {
        self.0.0.lock().unwrap_or_else(PoisonError::into_inner).over = true;
        self.0.1.notify_all();
    }
}

fn pause() -> std::sync::MutexGuard<'static, Option<Pause>> {
    PAUSE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Holds the threads of the runtime. For `os.register_at_fork(before=…)`.
#[pyfunction]
pub(crate) fn before_fork() {
    let Some(engine) = running() else { return };
    let (held, threads) = (Pause::default(), engine.handle.metrics().num_workers());
    for _ in 0..threads {
        let held = held.clone();
        // Blocking is what it is for.
        drop(engine.handle.spawn(async move { held.hold() }));
    }
    held.wait_for(threads);
    *pause() = Some(held);
}

/// Lets them go on. For `os.register_at_fork(after_in_parent=…)`.
#[pyfunction]
pub(crate) fn after_fork() {
    if let Some(held) = pause().take() {
        held.end();
    }
}

/// Forgets what the parent ran. For `os.register_at_fork(after_in_child=…)`.
#[pyfunction]
pub(crate) fn forked() {
    GENERATION.fetch_add(1, Ordering::AcqRel);
    // Its lock may be held by a thread that does not exist here.
    std::mem::forget(pause().take());
    forget_engine();
}
