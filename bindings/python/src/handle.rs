//! A Machina that was opened by an address, as Python holds it.

use std::sync::Arc;

use machina_core::{Error, Result, Revision};
use machina_http::assemble::{AssembleOptions, Call, Embedded, Question, Seen, closed, read};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::PyBytes;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use crate::answer::{Answer, Outcome};
use crate::bridge::answer;
use crate::courier::Courier;
use crate::engine::{Engine, engine};
use crate::failure::{before_fork, exception, exiting};
use crate::fork::generation;
use crate::native::Function;
use crate::watch::Watch;

/// What all handles of one opened Machina share.
pub(crate) struct Shared {
    embedded: Option<Embedded>,
    engine: Arc<Engine>,
    generation: u64,
}

impl Shared {
    /// Closes it, once.
    pub(crate) async fn close(&self) {
        if let Some(embedded) = &self.embedded {
            embedded.close().await;
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let Some(embedded) = self.embedded.take() else { return };
        if self.generation != generation() {
            // What it runs on does not exist in this process.
            std::mem::forget(embedded);
        } else if embedded.usable().is_ok() {
            drop(self.engine.handle.spawn(async move { embedded.close().await }));
        }
    }
}

/// A Machina that was opened.
#[pyclass(frozen, module = "machina._machina")]
pub(crate) struct Handle {
    shared: Arc<Shared>,
    embedded: Embedded,
}

/// What a reader was told of a service, and when.
#[pyclass(frozen, module = "machina._machina")]
pub(crate) struct Told(Seen);

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
    let options = AssembleOptions::read(options).map_err(|error| exception(py, &error))?;
    let shared_engine = Arc::clone(&engine);
    let opening = engine.handle.spawn(async move {
        let embedded = Embedded::open(&url, options).await?;
        Ok(Answer::Handle(Handle::new(embedded, shared_engine)))
    });
    // A caller that goes away leaves nothing half opened: the handle is dropped, and that closes it.
    let work = async move { opening.await.unwrap_or_else(|_| Err(exiting())) };
    answer(py, &engine, event_loop, work, false)
}

impl Handle {
    fn new(embedded: Embedded, engine: Arc<Engine>) -> Self {
        let whole = Some(embedded.clone());
        let shared = Arc::new(Shared { embedded: whole, engine: Arc::clone(&engine), generation: generation() });
        engine.remember(&shared);
        Self { shared, embedded }
    }

    fn usable(&self, py: Python<'_>) -> PyResult<()> {
        let usable = if self.shared.generation == generation() { self.embedded.usable() } else { Err(before_fork()) };
        usable.map_err(|error| exception(py, &error))
    }

    fn start<'py>(
        &self,
        py: Python<'py>,
        event_loop: Option<Bound<'py, PyAny>>,
        work: impl Future<Output = Result<String>> + Send + 'static,
        quick: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let work = async move { work.await.map(|json| Answer::Json(json.into_bytes())) };
        answer(py, &self.shared.engine, event_loop, work, quick)
    }

    /// Carries a call. If nobody awaits it any more it is cancelled: a task then sees
    /// to it that the instance is told and the journal written.
    fn carry(&self, call: Call, progress: Option<Py<PyAny>>) -> impl Future<Output = Result<String>> + Send + use<> {
        let engine = &self.shared.engine;
        let sink = progress.map(|progress| told_of_progress(engine.courier.clone(), progress));
        let (tasks, embedded) = (engine.tasks.clone(), self.embedded.clone());
        async move {
            let cancelled = CancellationToken::new();
            let _cancelled_on_drop = cancelled.clone().drop_guard();
            let (answer, answered) = oneshot::channel();
            let carried = async move { drop(answer.send(embedded.call(call, cancelled, sink).await)) };
            tasks.attached("call", carried).await;
            answered.await.unwrap_or_else(|_| Err(closed()))
        }
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
        let ready = self.embedded.is_ready(&question);
        self.start(py, event_loop, self.embedded.clone().ask(question), ready)
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
        let seen = self.embedded.look(&name, told.map(|told| &told.get().0)).map_err(|error| exception(py, &error))?;
        Ok(seen.map(|(seen, json)| (Told(seen), PyBytes::new(py, json.as_bytes()))))
    }

    /// Whether it is in this process.
    #[getter]
    fn is_here(&self) -> bool {
        self.embedded.is_here()
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
        let call = Call::read(call).map_err(|error| exception(py, &error))?;
        self.start(py, event_loop, self.carry(call, progress), true)
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
        let (embedded, engine) = (self.embedded.clone(), Arc::clone(&self.shared.engine));
        let work = async move {
            let closing = embedded.closing().clone();
            let stream = embedded.watch(since.map(Revision)).await?;
            Ok(Answer::Watch(Watch::new(stream, closing, engine)))
        };
        answer(py, &self.shared.engine, event_loop, work, self.embedded.is_here())
    }

    /// The same Machina as someone else sees it: `{"id", "role", "tenant", "remote"}`.
    fn scoped(&self, py: Python<'_>, principal: &[u8]) -> PyResult<Self> {
        self.usable(py)?;
        let embedded = self.embedded.scoped(principal).map_err(|error| exception(py, &error))?;
        Ok(Self { shared: Arc::clone(&self.shared), embedded })
    }

    /// Attaches a function of the program to `service` as the tool of this definition.
    /// `quick` ones only tell a loop of the call, and take microseconds.
    fn attach(
        &self,
        py: Python<'_>,
        service: &str,
        definition: &[u8],
        executions_max: u32,
        function: Py<PyAny>,
        quick: bool,
    ) -> PyResult<()> {
        self.usable(py)?;
        let function = Arc::new(Function::new(function, quick, &self.shared.engine.courier));
        let _inside = self.shared.engine.handle.enter();
        let attached = self.embedded.attach(service, definition, Some(executions_max), function);
        attached.map_err(|error| exception(py, &error))
    }

    /// Takes the tool away again; says whether it was there.
    fn detach(&self, py: Python<'_>, service: &str, tool: &str) -> PyResult<bool> {
        self.usable(py)?;
        let _inside = self.shared.engine.handle.enter();
        self.embedded.detach(service, tool).map_err(|error| exception(py, &error))
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
        self.usable(py)?;
        let spec = spec.map(read).transpose().map_err(|error| exception(py, &error))?;
        self.start(py, event_loop, self.embedded.clone().declare(service, spec), false)
    }

    /// Takes all functions of a service away.
    #[pyo3(signature = (event_loop, service))]
    fn withdraw<'py>(
        &self,
        py: Python<'py>,
        event_loop: Option<Bound<'py, PyAny>>,
        service: String,
    ) -> PyResult<Bound<'py, PyAny>> {
        self.usable(py)?;
        self.start(py, event_loop, self.embedded.clone().withdraw(service), false)
    }

    /// Closes it. What runs is ended; a second time nothing happens.
    #[pyo3(signature = (event_loop))]
    fn close<'py>(&self, py: Python<'py>, event_loop: Option<Bound<'py, PyAny>>) -> PyResult<Bound<'py, PyAny>> {
        if self.shared.generation != generation() {
            return Err(exception(py, &before_fork()));
        }
        if self.shared.engine.is_over() {
            // The end of the interpreter has closed it.
            return Ok(py.None().into_bound(py));
        }
        let shared = Arc::clone(&self.shared);
        // In a task: a caller that is cancelled must not leave it half closed.
        let closing = self.shared.engine.handle.spawn(async move { shared.close().await });
        let work = async move {
            drop(closing.await);
            Outcome::Ok(Answer::Nothing)
        };
        answer(py, &self.shared.engine, event_loop, work, false)
    }

    /// Whether it was closed.
    #[getter]
    fn is_closed(&self) -> bool {
        self.embedded.usable().is_err()
    }
}

fn told_of_progress(courier: Courier, progress: Py<PyAny>) -> machina_core::ProgressSink {
    let progress = Arc::new(progress);
    Arc::new(move |step| {
        let (progress, json) = (Arc::clone(&progress), serde_json::to_vec(&step).unwrap_or_default());
        courier.send(move |py| {
            if let Err(failed) = progress.call1(py, (&*json,)) {
                failed.write_unraisable(py, None);
            }
        });
    })
}
