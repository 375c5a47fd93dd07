//! What all handles of a process share: the runtime, the courier, and the list of
//! what has to be closed before the interpreter ends.
//!
//! A child that was forked has the parent's memory and none of its threads: there
//! everything is forgotten, and begun anew by the next handle that is opened. The
//! lock of the static in here is taken only by threads that hold the interpreter, so
//! that no fork happens while it is held; those of an engine stay with the parent.

use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use futures_util::future::join_all;
use machina_core::{Error, Tasks};
use pyo3::prelude::*;
use tokio::runtime::{Builder, Handle, Runtime};

use crate::courier::Courier;
use crate::failure::exiting;
use crate::handle::Shared;
use crate::letterbox::Letterboxes;
use crate::logging;

/// How long the end of the interpreter waits for open handles to close, for
/// threads that block, and for each of the two couriers: 2 s in all.
const CLOSE_PATIENCE: Duration = Duration::from_millis(1_100);
const THREADS_PATIENCE: Duration = Duration::from_millis(400);
const COURIER_PATIENCE: Duration = Duration::from_millis(250);

/// What runs in the background of this process.
pub(crate) struct Engine {
    runtime: Mutex<Option<Runtime>>,
    /// Whether the runtime is at its end: what asks it for a timer then panics.
    over: RwLock<bool>,
    pub(crate) handle: Handle,
    pub(crate) courier: Courier,
    pub(crate) letterboxes: Letterboxes,
    logging: Courier,
    /// What has to be carried on when its caller goes away.
    pub(crate) tasks: Tasks,
    opened: Mutex<Vec<Weak<Shared>>>,
}

struct State {
    engine: Option<Arc<Engine>>,
    over: bool,
}

static STATE: Mutex<State> = Mutex::new(State { engine: None, over: false });

/// The engine of this process, which the first caller starts.
pub(crate) fn engine(_: Python<'_>) -> Result<Arc<Engine>, Error> {
    let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
    if state.over {
        return Err(exiting());
    }
    if let Some(engine) = &state.engine {
        return Ok(Arc::clone(engine));
    }
    let engine = Arc::new(Engine::start().map_err(|error| {
        Error::internal(format!("the threads that Machina needs do not start: {error}")).caused_by(error)
    })?);
    state.engine = Some(Arc::clone(&engine));
    Ok(engine)
}

impl Engine {
    fn start() -> std::io::Result<Self> {
        let runtime = Builder::new_multi_thread().enable_all().thread_name("machina").build()?;
        let courier = Courier::start("machina-courier")?;
        // A handler of the program's may be slow, or never return: that is to hold up no answer.
        let logging = Courier::start("machina-logging")?;
        logging::start(&logging);
        let handle = runtime.handle().clone();
        Ok(Self {
            runtime: Mutex::new(Some(runtime)),
            over: RwLock::new(false),
            handle,
            courier,
            letterboxes: Letterboxes::default(),
            tasks: Tasks::new(),
            logging,
            opened: Mutex::default(),
        })
    }

    /// Has `shared` closed at the end of the interpreter, if it is still there.
    pub(crate) fn remember(&self, shared: &Arc<Shared>) {
        let mut opened = self.opened.lock().unwrap_or_else(PoisonError::into_inner);
        opened.retain(|known| known.strong_count() > 0);
        opened.push(Arc::downgrade(shared));
    }

    /// Whether it has ended: nothing that is asked of it is answered any more.
    pub(crate) fn is_over(&self) -> bool {
        *self.over.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does in this thread what needs the runtime, which does not end meanwhile; not
    /// when it has ended. It must be quick, and call nothing of Python.
    pub(crate) fn inside<T>(&self, work: impl FnOnce() -> T) -> Option<T> {
        let over = self.over.read().unwrap_or_else(PoisonError::into_inner);
        (!*over).then(|| {
            let _inside = self.handle.enter();
            work()
        })
    }

    fn end(&self) {
        let opened = std::mem::take(&mut *self.opened.lock().unwrap_or_else(PoisonError::into_inner));
        let opened: Vec<_> = opened.iter().filter_map(Weak::upgrade).collect();
        let runtime = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(runtime) = runtime {
            let closing = join_all(opened.iter().map(|shared| shared.close()));
            let closing = async { tokio::time::timeout(CLOSE_PATIENCE, closing).await.is_ok() };
            if !runtime.block_on(closing) {
                tracing::warn!("handles that were open at the end did not close in time");
            }
            self.tasks.cancel();
            *self.over.write().unwrap_or_else(PoisonError::into_inner) = true;
            runtime.shutdown_timeout(THREADS_PATIENCE);
        }
        self.courier.close(COURIER_PATIENCE);
        self.logging.close(COURIER_PATIENCE);
    }
}

/// Ends everything that runs in the background, within 2 s. For `atexit`.
#[pyfunction]
pub(crate) fn shutdown(py: Python<'_>) {
    let engine = {
        let mut state = STATE.lock().unwrap_or_else(PoisonError::into_inner);
        state.over = true;
        state.engine.take()
    };
    if let Some(engine) = engine {
        py.detach(|| engine.end());
    }
}

/// The engine of this process, if there is one.
pub(crate) fn running() -> Option<Arc<Engine>> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner).engine.clone()
}

/// Forgets the engine of the parent.
pub(crate) fn forget_engine() {
    let engine = STATE.lock().unwrap_or_else(PoisonError::into_inner).engine.take();
    logging::forget();
    // Its threads do not exist here: to end it properly would be to wait for them.
    std::mem::forget(engine);
}
