//! A Machina that was opened by an address, as JavaScript holds it.

use std::fmt;
use std::sync::Arc;

use futures_util::FutureExt as _;
use machina_core::{Error, NativeTool, Progress, ProgressSink, Revision, ServiceReport};
use machina_http::assemble::{self, Opened};
use napi::bindgen_prelude::{Either, Env, PromiseRaw, Result};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{JsString, Status};
use napi_derive::napi;
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use crate::cancel::Cancel;
use crate::execution::{Callee, Executions, Function};
use crate::failure::{closed, only_here, thrown};
use crate::opening::opening;
use crate::question::{Asked, Call, Question, read, written};
use crate::told::Telling;
use crate::watch::Watch;

/// How many messages of progress may wait for the thread of Node; further ones are lost.
const PROGRESS_MAX: usize = 1_000;

/// Who is told of progress, in JSON.
type ProgressTold = ThreadsafeFunction<String, (), String, Status, false, true, PROGRESS_MAX>;

/// What all handles of one opened Machina share.
struct Shared {
    opened: Opened,
    runtime: tokio::runtime::Handle,
    /// Fires with the close: streams end, and nothing more is asked.
    closing: CancellationToken,
    closed: OnceCell<()>,
    executions: Executions,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if !self.closing.is_cancelled() {
            // The thread of Node has ended, and nobody else will close it.
            self.closing.cancel();
            let opened = self.opened.clone();
            drop(self.runtime.spawn(async move { opened.close().await }));
        }
    }
}

/// A Machina that was opened.
#[napi]
pub struct Handle {
    shared: Arc<Shared>,
    asked: Asked,
    told: Telling,
}

/// Opens the Machina at `url` with options in JSON.
#[napi]
pub fn open<'env>(env: &'env Env, url: String, options: String) -> Result<PromiseRaw<'env, Handle>> {
    let options = opening(&options).map_err(|error| thrown(&error))?;
    env.spawn_future(async move {
        let runtime = tokio::runtime::Handle::current();
        // In one thread from its begin to its end: the compiler cannot show that what
        // the drivers of databases do meanwhile may change threads.
        let opening = move || runtime.block_on(async { Handle::of(assemble::open(&url, options).await?) });
        let opened = tokio::task::spawn_blocking(opening).await;
        let lost = |_| Err(Error::internal("the registry was not opened: the thread ended"));
        opened.unwrap_or_else(lost).map_err(|error| thrown(&error))
    })
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("closed", &self.shared.closing.is_cancelled()).finish_non_exhaustive()
    }
}

impl Handle {
    fn of(opened: Opened) -> machina_core::Result<Self> {
        let asked = match &opened {
            Opened::Here(machina) => Asked::of_scoped(machina.system().clone()),
            Opened::There(client) => Asked::of_client(client),
            _ => return Err(Error::unsupported("this binding does not know this kind of Machina")),
        };
        let shared = Shared {
            opened,
            runtime: tokio::runtime::Handle::current(),
            closing: CancellationToken::new(),
            closed: OnceCell::new(),
            executions: Executions::default(),
        };
        Ok(Self { shared: Arc::new(shared), asked, told: Telling::default() })
    }

    fn usable(&self) -> Result<()> {
        if self.shared.closing.is_cancelled() { Err(thrown(&closed())) } else { Ok(()) }
    }
}

#[napi]
impl Handle {
    /// The answer to a question, both in JSON.
    #[napi]
    pub fn ask<'env>(&self, env: &'env Env, question: String) -> Result<PromiseRaw<'env, String>> {
        self.usable()?;
        let question: Question = read(&question).map_err(|error| thrown(&error))?;
        let asked = self.asked.clone();
        env.spawn_future(async move { asked.answer(question).await.map_err(|error| thrown(&error)) })
    }

    /// The service of this name, in JSON: at once if the registry is in this process.
    #[napi(ts_return_type = "string | Promise<string>")]
    pub fn get<'env>(
        &self,
        env: &'env Env,
        service: String,
    ) -> Result<Either<JsString<'env>, PromiseRaw<'env, String>>> {
        self.usable()?;
        if let Some(here) = &self.asked.here {
            let json = self.told.service(here, &service).map_err(|error| thrown(&error))?;
            return env.create_string(&json).map(Either::A);
        }
        let asked = self.asked.clone();
        let answer = async move { asked.answer(Question::Get { service }).await.map_err(|error| thrown(&error)) };
        env.spawn_future(answer).map(Either::B)
    }

    /// Carries a call, in JSON, until `cancel` fires; `progress` is told of its progress.
    #[napi(
        ts_args_type = "call: string, cancel?: Cancel | undefined | null, progress?: ((progress: string) => void) | undefined | null"
    )]
    pub fn call<'env>(
        &self,
        env: &'env Env,
        call: String,
        cancel: Option<&Cancel>,
        progress: Option<ProgressTold>,
    ) -> Result<PromiseRaw<'env, String>> {
        self.usable()?;
        let call: Call = read(&call).map_err(|error| thrown(&error))?;
        let cancelled = cancel.map(|cancel| cancel.token.clone()).unwrap_or_default();
        let (router, sink) = (Arc::clone(&self.asked.router), progress.map(told_of_progress));
        env.spawn_future(async move { call.carry(router, cancelled, sink).await.map_err(|error| thrown(&error)) })
    }

    /// A stream of what changes from now on, or since a revision: at once if the
    /// registry is in this process.
    #[napi]
    pub fn watch<'env>(&self, env: &'env Env, since: Option<i64>) -> Result<Either<Watch, PromiseRaw<'env, Watch>>> {
        self.usable()?;
        let since = since.map(u64::try_from).transpose();
        let wrong = |_| thrown(&Error::invalid_field("since", "must be a revision: a whole number from 0"));
        let since = since.map_err(wrong)?.map(Revision);
        let (registry, closing) = (Arc::clone(&self.asked.registry), self.shared.closing.clone());
        let mut opening = Box::pin(async move {
            let stream = registry.watch(since).await.map_err(|error| thrown(&error))?;
            Ok(Watch::new(stream, &closing))
        });
        if self.asked.here.is_some()
            && let Some(opened) = opening.as_mut().now_or_never()
        {
            return opened.map(Either::A);
        }
        env.spawn_future(opening).map(Either::B)
    }

    /// Makes `callee` a tool of `service`, in the place of the one of its name if
    /// there is one. Readers know of it after [`Handle::declare`].
    #[napi(
        ts_args_type = "service: string, definition: string, executionsMax: number | undefined | null, callee: (number: number, args: string | null) => void"
    )]
    pub fn attach(
        &self,
        service: String,
        definition: String,
        executions_max: Option<u32>,
        callee: Callee,
    ) -> Result<()> {
        self.usable()?;
        let native = self.native(&service, "have functions of this program as tools")?;
        let definition = read(&definition).map_err(|error| thrown(&error))?;
        let function = Function { callee: Arc::new(callee), executions: self.shared.executions.clone() };
        let mut tool = NativeTool::from_definition(definition, Arc::new(function));
        if let Some(most) = executions_max {
            tool = tool.executions_max(most);
        }
        let _context = self.shared.runtime.enter();
        native.put(tool).map_err(|error| thrown(&error))
    }

    /// Declares `service` if it is not, and makes the tools known that are attached to it.
    #[napi]
    pub fn declare<'env>(&self, env: &'env Env, service: String) -> Result<PromiseRaw<'env, String>> {
        self.usable()?;
        let native = self.native(&service, "have functions of this program as tools")?;
        env.spawn_future(async move {
            let declared = native.register().await;
            declared.and_then(|view| written(&ServiceReport::from(&*view))).map_err(|error| thrown(&error))
        })
    }

    /// Takes a tool away again; says whether there was one.
    #[napi]
    pub fn remove_tool(&self, service: String, tool: String) -> Result<bool> {
        self.usable()?;
        let native = self.native(&service, "take functions of this program away")?;
        let _context = self.shared.runtime.enter();
        Ok(native.remove(&tool))
    }

    /// Says what came of an execution, in JSON.
    #[napi]
    pub fn finish(&self, number: u32, outcome: String) -> Result<()> {
        let outcome = read(&outcome).map_err(|error| thrown(&error))?;
        self.shared.executions.finish(number, outcome);
        Ok(())
    }

    /// The same Machina as someone else sees it: `{"id", "role", "tenant", "remote"}`.
    #[napi]
    pub fn scoped(&self, principal: String) -> Result<Self> {
        self.usable()?;
        let principal = read(&principal).map_err(|error| thrown(&error))?;
        let machina = self.shared.opened.here().ok_or_else(|| thrown(&only_here("act as someone else")))?;
        let asked = Asked::of_scoped(machina.scoped(principal));
        Ok(Self { shared: Arc::clone(&self.shared), asked, told: Telling::default() })
    }

    /// Closes it, for all its handles. What runs is ended; a second time nothing happens.
    #[napi]
    pub fn close<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, ()>> {
        self.shared.closing.cancel();
        let shared = Arc::clone(&self.shared);
        env.spawn_future(async move {
            shared.closed.get_or_init(|| shared.opened.close()).await;
            Ok(())
        })
    }

    /// Whether it was closed.
    #[napi(getter)]
    pub fn is_closed(&self) -> bool {
        self.shared.closing.is_cancelled()
    }

    fn native(&self, service: &str, what: &str) -> Result<machina_core::NativeService> {
        let machina = self.shared.opened.here().ok_or_else(|| thrown(&only_here(what)))?;
        machina.native(service).map_err(|error| thrown(&error))
    }
}

fn told_of_progress(progress: ProgressTold) -> ProgressSink {
    Arc::new(move |step: Progress| {
        let json = serde_json::to_string(&step).unwrap_or_default();
        progress.call(json, ThreadsafeFunctionCallMode::NonBlocking);
    })
}
