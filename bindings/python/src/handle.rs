//! A Machina that was opened by an address, as Python holds it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use machina_core::{Error, Machina, Registry, Result, Revision, Router, Scoped};
use machina_http::assemble::{self, Opened};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyBytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::bridge::{Work, answer};
use crate::courier::{Answer, Courier, Outcome, Parcel};
use crate::engine::{Engine, engine};
use crate::failure::{before_fork, closed, exception, exiting};
use crate::fork::generation;
use crate::native;
use crate::question::{Asked, Call, Opening, Question, read, written};
use crate::watch::Watch;

/// How old what is told of a service again, without looking, may be: its figures
/// (such as when it was last checked) change without notice, everything else not.
const FIGURES_KEPT: Duration = Duration::from_secs(1);

/// What all handles of one opened Machina share.
pub(crate) struct Shared {
    opened: Option<Opened>,
    engine: Arc<Engine>,
    generation: u64,
    closed: AtomicBool,
    /// Fires with the close: streams end.
    pub(crate) closing: CancellationToken,
}

impl Shared {
    /// Closes it, once.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        if let Some(opened) = self.opened.as_ref().filter(|_| !self.closed.swap(true, Ordering::AcqRel)) {
            opened.close().await;
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let Some(opened) = self.opened.take() else { return };
        if self.generation != generation() {
            // What it runs on does not exist in this process.
            std::mem::forget(opened);
        } else if !self.closed.swap(true, Ordering::AcqRel) {
            self.closing.cancel();
            drop(self.engine.handle.spawn(async move { opened.close().await }));
        }
    }
}

/// A Machina that was opened.
#[pyclass(frozen, module = "machina._machina")]
pub(crate) struct Handle {
    shared: Arc<Shared>,
    asked: Asked,
    /// Whether it acts as the program itself.
    whole: bool,
}

/// What a reader was told of a service, and when.
#[pyclass(frozen, module = "machina._machina")]
pub(crate) struct Told {
    view: Arc<machina_core::ServiceView>,
    at: Instant,
}

/// Opens the Machina at `url` with options in JSON.
#[pyfunction]
#[pyo3(signature = (event_loop, url, options))]
pub(crate) fn open<'py>(
    py: Python<'py>,
    event_loop: Option<Bound<'py, PyAny>>,
    url: String,
    options: &[u8],
) -> PyResult<Bound<'py, PyAny>> {
    let engine = engine(py).map_err(|error| exception(py, &error))?;
    crate::logging::look_at_level(py);
    let opening = Opening::parse(options).map_err(|error| exception(py, &error))?;
    let shared_engine = Arc::clone(&engine);
    // In a thread of its own: the drivers of some stores open in a future that cannot
    // be shown to move between threads. A caller that goes away drops the handle, and
    // that closes it.
    let work: Work = Box::pin(async move {
        let runtime = shared_engine.handle.clone();
        let opening = runtime.clone().spawn_blocking(move || {
            let opened = runtime.block_on(assemble::open(&url, opening.into_options()))?;
            Ok(Answer::Handle(Handle::of(opened, shared_engine)))
        });
        opening.await.unwrap_or_else(|_| Err(exiting()))
    });
    answer(py, &engine, event_loop, work, false)
}

impl Handle {
    fn of(opened: Opened, engine: Arc<Engine>) -> Self {
        let asked = Asked {
            registry: opened.registry(),
            router: opened.router(),
            here: opened.here().map(|machina| machina.system().clone()),
            there: match &opened {
                Opened::There(client) => Some(client.clone()),
                _ => None,
            },
        };
        let shared = Arc::new(Shared {
            opened: Some(opened),
            engine: Arc::clone(&engine),
            generation: generation(),
            closed: AtomicBool::new(false),
            closing: CancellationToken::new(),
        });
        engine.remember(&shared);
        Self { shared, asked, whole: true }
    }

    fn usable(&self, py: Python<'_>) -> PyResult<()> {
        let refused = if self.shared.generation != generation() {
            before_fork()
        } else if self.shared.closed.load(Ordering::Acquire) {
            closed()
        } else {
            return Ok(());
        };
        Err(exception(py, &refused))
    }

    /// The registry itself, for what only its own program may do.
    fn machina(&self, py: Python<'_>) -> PyResult<&Machina> {
        self.usable(py)?;
        match (&self.shared.opened, self.whole) {
            (Some(Opened::Here(machina)), true) => Ok(machina),
            (Some(Opened::Here(_)), false) => {
                Err(exception(py, &Error::forbidden("only the program itself may do this, and nobody on its behalf")))
            }
            _ => Err(exception(py, &elsewhere("do this"))),
        }
    }

    fn start<'py>(
        &self,
        py: Python<'py>,
        event_loop: Option<Bound<'py, PyAny>>,
        work: impl Future<Output = Result<Vec<u8>>> + Send + 'static,
        ready: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let work: Work = Box::pin(async move { work.await.map(Answer::Json) });
        answer(py, &self.shared.engine, event_loop, work, ready)
    }
}

#[pymethods]
impl Handle {
    /// The answer to a question, both in JSON. What is read of a registry in this
    /// process is answered at once.
    #[pyo3(signature = (event_loop, question))]
    fn ask<'py>(
        &self,
        py: Python<'py>,
        event_loop: Option<Bound<'py, PyAny>>,
        question: &[u8],
    ) -> PyResult<Bound<'py, PyAny>> {
        self.usable(py)?;
        let question = Question::read(question).map_err(|error| exception(py, &error))?;
        let ready = self.asked.here.is_some() && question.only_reads();
        self.start(py, event_loop, self.asked.clone().answer(question), ready)
    }

    /// The service of this name, with what to show next time: `None` when nothing
    /// has changed since `told`. Only of a registry in this process.
    #[pyo3(signature = (name, told))]
    fn look<'py>(
        &self,
        py: Python<'py>,
        name: &Bound<'py, PyAny>,
        told: Option<&Bound<'py, Told>>,
    ) -> PyResult<Option<(Told, Bound<'py, PyBytes>)>> {
        self.usable(py)?;
        let named = |name: &Bound<'py, PyAny>| name.extract::<PyBackedStr>();
        let name = named(name).map_err(|_| exception(py, &Error::invalid_field("service", "must be a string")))?;
        let Some(here) = &self.asked.here else { return Err(exception(py, &elsewhere("look"))) };
        let view = here.service(&name).map_err(|error| exception(py, &error))?;
        let at = Instant::now();
        if told.is_some_and(|told| Arc::ptr_eq(&told.get().view, &view) && at - told.get().at < FIGURES_KEPT) {
            return Ok(None);
        }
        let json = serde_json::to_vec(&machina_core::ServiceReport::from(&*view)).unwrap_or_default();
        Ok(Some((Told { view, at }, PyBytes::new(py, &json))))
    }

    /// Whether it is in this process.
    #[getter]
    fn is_here(&self) -> bool {
        self.asked.here.is_some()
    }

    /// Carries a call; `progress` is told of its progress, in JSON, by the courier.
    #[pyo3(signature = (event_loop, call, progress))]
    fn call<'py>(
        &self,
        py: Python<'py>,
        event_loop: Option<Bound<'py, PyAny>>,
        call: &[u8],
        progress: Option<Py<PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.usable(py)?;
        let call: Call = read(call).map_err(|error| exception(py, &error))?;
        let sink = progress.map(|progress| told_of_progress(self.shared.engine.courier.clone(), progress));
        let tasks = self.shared.engine.tasks.clone();
        self.start(py, event_loop, call.carry(Arc::clone(&self.asked.router), tasks, sink), false)
    }

    /// A stream of what changes from now on, or since a revision.
    #[pyo3(signature = (event_loop, since))]
    fn watch<'py>(
        &self,
        py: Python<'py>,
        event_loop: Option<Bound<'py, PyAny>>,
        since: Option<u64>,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.usable(py)?;
        let (registry, closing) = (Arc::clone(&self.asked.registry), self.shared.closing.clone());
        let engine = Arc::clone(&self.shared.engine);
        let work: Work = Box::pin(async move {
            let stream = registry.watch(since.map(Revision)).await?;
            Ok(Answer::Watch(Watch::new(stream, closing, engine)))
        });
        answer(py, &self.shared.engine, event_loop, work, self.asked.here.is_some())
    }

    /// The same Machina as someone else sees it: `{"id", "role", "tenant", "remote"}`.
    fn scoped(&self, py: Python<'_>, principal: &[u8]) -> PyResult<Self> {
        self.usable(py)?;
        let principal = read(principal).map_err(|error| exception(py, &error))?;
        let scoped = self.machina(py)?.scoped(principal);
        Ok(Self { shared: Arc::clone(&self.shared), asked: Asked::of_scoped(scoped), whole: false })
    }

    /// Attaches a function of the program to `service` as the tool of this definition.
    fn attach(
        &self,
        py: Python<'_>,
        service: &str,
        definition: &[u8],
        executions_max: u32,
        function: Py<PyAny>,
    ) -> PyResult<()> {
        let (machina, courier) = (self.machina(py)?, &self.shared.engine.courier);
        let _inside = self.shared.engine.handle.enter();
        native::attach(machina, courier, service, (definition, executions_max), function)
            .map_err(|error| exception(py, &error))
    }

    /// Takes the tool away again; says whether it was there.
    fn detach(&self, py: Python<'_>, service: &str, tool: &str) -> PyResult<bool> {
        let machina = self.machina(py)?;
        let _inside = self.shared.engine.handle.enter();
        Ok(machina.native(service).map_err(|error| exception(py, &error))?.remove(tool))
    }

    /// Declares a service whose functions are attached, in JSON where there is
    /// anything to say about it.
    #[pyo3(signature = (event_loop, service, spec))]
    fn declare<'py>(
        &self,
        py: Python<'py>,
        event_loop: Option<Bound<'py, PyAny>>,
        service: String,
        spec: Option<&[u8]>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let machina = self.machina(py)?.clone();
        let spec = spec.map(read).transpose().map_err(|error| exception(py, &error))?;
        let work = async move { written(&native::register(machina, service, spec).await?) };
        self.start(py, event_loop, work, false)
    }

    /// Takes all functions of a service away.
    #[pyo3(signature = (event_loop, service))]
    fn withdraw<'py>(
        &self,
        py: Python<'py>,
        event_loop: Option<Bound<'py, PyAny>>,
        service: String,
    ) -> PyResult<Bound<'py, PyAny>> {
        let machina = self.machina(py)?.clone();
        let work = async move {
            machina.native(&service)?.withdraw().await;
            written(&())
        };
        self.start(py, event_loop, work, false)
    }

    /// Closes it. What runs is ended; a second time nothing happens.
    #[pyo3(signature = (event_loop))]
    fn close<'py>(&self, py: Python<'py>, event_loop: Option<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        if self.shared.generation != generation() {
            return Err(exception(py, &before_fork()));
        }
        let shared = Arc::clone(&self.shared);
        // In a task: a caller that is cancelled must not leave it half closed.
        let closing = self.shared.engine.handle.spawn(async move { shared.close().await });
        let work: Work = Box::pin(async move {
            drop(closing.await);
            Outcome::Ok(Answer::Nothing)
        });
        answer(py, &self.shared.engine, event_loop, work, false)
    }

    /// Whether it was closed.
    #[getter]
    fn is_closed(&self) -> bool {
        self.shared.closed.load(Ordering::Acquire)
    }
}

fn elsewhere(what: &str) -> Error {
    Error::unsupported(format!("a Machina that runs elsewhere cannot {what} through a binding"))
}

fn told_of_progress(courier: Courier, progress: Py<PyAny>) -> machina_core::ProgressSink {
    let progress = Arc::new(progress);
    Arc::new(move |step| {
        let (progress, json) = (Arc::clone(&progress), serde_json::to_vec(&step).unwrap_or_default());
        courier.send(Parcel::Errand(Box::new(move |py| {
            if let Err(failed) = progress.call1(py, (&*json,)) {
                failed.write_unraisable(py, None);
            }
        })));
    })
}

impl Asked {
    fn of_scoped(scoped: Scoped) -> Self {
        let whole = Arc::new(scoped.clone());
        Self {
            registry: Arc::clone(&whole) as Arc<dyn Registry>,
            router: whole as Arc<dyn Router>,
            here: Some(scoped),
            there: None,
        }
    }
}
