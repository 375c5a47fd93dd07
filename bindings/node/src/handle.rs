//! A Machina that was opened by an address, as JavaScript holds it.

use std::fmt;
use std::sync::Arc;

use futures_util::future::Either::{Left, Right};
use machina_core::{Error, Progress, ProgressSink, Revision};
use machina_http::assemble::{AssembleOptions, Call, Embedded, Question, read};
use napi::bindgen_prelude::{Either, Env, PromiseRaw, Result, ToNapiValue};
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use napi::{JsString, Status};
use napi_derive::napi;

use crate::cancel::Cancel;
use crate::execution::{Callee, Executions, Function};
use crate::failure::thrown;
use crate::guard;
use crate::told::{Looked, Told};
use crate::watch::Watch;

/// How many messages of progress may wait for the thread of Node; further ones are lost.
const PROGRESS_MAX: usize = 1_000;

/// Who is told of progress, in JSON.
type ProgressTold = ThreadsafeFunction<String, (), String, Status, false, true, PROGRESS_MAX>;

/// An answer in JSON: at once if the registry is in this process and need not wait.
type Answer<'env> = Either<JsString<'env>, PromiseRaw<'env, String>>;

/// What all handles of one opened Machina share.
struct Shared {
    embedded: Embedded,
    runtime: tokio::runtime::Handle,
    executions: Executions,
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.embedded.usable().is_ok() {
            // The thread of Node has ended, and nobody else will close it.
            let embedded = self.embedded.clone();
            drop(self.runtime.spawn(async move { embedded.close().await }));
        }
    }
}

/// A Machina that was opened.
#[napi]
pub struct Handle {
    shared: Arc<Shared>,
    embedded: Embedded,
}

/// Opens the Machina at `url` with options in JSON.
#[napi]
pub fn open<'env>(env: &'env Env, url: String, options: String) -> Result<PromiseRaw<'env, Handle>> {
    let options = done(|| AssembleOptions::read(options.as_bytes()))?;
    env.spawn_future(async move {
        let embedded = Embedded::open(&url, options).await.map_err(|error| thrown(&error))?;
        let runtime = tokio::runtime::Handle::current();
        let shared = Shared { embedded: embedded.clone(), runtime, executions: Executions::default() };
        Ok(Handle { shared: Arc::new(shared), embedded })
    })
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.embedded).finish()
    }
}

/// Does `work` in the thread of Node.
fn done<T>(work: impl FnOnce() -> machina_core::Result<T>) -> Result<T> {
    guard::done(work).map_err(|error| thrown(&error))
}

impl Handle {
    /// The same with what this holds, unless it is closed.
    fn done<T>(&self, work: impl FnOnce(&Embedded) -> machina_core::Result<T>) -> Result<T> {
        let _inside = self.shared.runtime.enter();
        done(|| {
            self.embedded.usable()?;
            work(&self.embedded)
        })
    }

    /// Begins `work` in the thread of Node: between one wait and the next it takes
    /// microseconds. Only a search for a word that each of 100,000 tools has takes
    /// that thread 13 to 30 ms.
    fn begun<T>(
        &self,
        work: impl Future<Output = machina_core::Result<T>> + Send + 'static,
    ) -> Result<futures_util::future::Either<T, guard::Rest<T>>> {
        let _inside = self.shared.runtime.enter();
        guard::begun(work).map_err(|error| thrown(&error))
    }

    /// The answer of work that begins in the thread of Node, which may be there at once.
    fn answered<'env>(
        &self,
        env: &'env Env,
        work: impl Future<Output = machina_core::Result<String>> + Send + 'static,
    ) -> Result<Answer<'env>> {
        match self.begun(work)? {
            Left(answer) => env.create_string(answer).map(Either::A),
            Right(rest) => left(env, rest).map(Either::B),
        }
    }
}

/// Work that the runtime carries.
fn left<'env, T: ToNapiValue + Send + 'static>(
    env: &'env Env,
    work: impl Future<Output = machina_core::Result<T>> + Send + 'static,
) -> Result<PromiseRaw<'env, T>> {
    env.spawn_future(async move { work.await.map_err(|error| thrown(&error)) })
}

#[napi]
impl Handle {
    /// The answer to a question, both in JSON: at once if it is read of a registry in
    /// this process.
    #[napi(ts_return_type = "string | Promise<string>")]
    pub fn ask<'env>(&self, env: &'env Env, question: String) -> Result<Answer<'env>> {
        let (ready, work) = self.done(|embedded| {
            let question = Question::read(question.as_bytes())?;
            Ok((embedded.is_ready(&question), embedded.clone().ask(question)))
        })?;
        if ready { self.answered(env, work) } else { left(env, work).map(Either::B) }
    }

    /// The service of this name, with what to show next time; nothing when it has not
    /// changed since `told`. Only of a registry in this process.
    #[napi]
    pub fn look(&self, service: String, told: Option<&Told>) -> Result<Option<Looked>> {
        let seen = self.done(|embedded| embedded.look(&service, told.map(|told| &told.seen)))?;
        Ok(seen.map(|(seen, service)| Looked { told: Told { seen }, service }))
    }

    /// Whether the registry is in this process.
    #[napi(getter)]
    pub fn is_here(&self) -> bool {
        self.embedded.is_here()
    }

    /// Carries a call, in JSON, until `cancel` fires; `progress` is told of its progress.
    /// It begins in this thread, and the runtime goes on with it.
    #[napi(
        ts_args_type = "call: string, cancel?: Cancel | undefined | null, progress?: ((progress: string) => void) | undefined | null",
        ts_return_type = "string | Promise<string>"
    )]
    pub fn call<'env>(
        &self,
        env: &'env Env,
        call: String,
        cancel: Option<&Cancel>,
        progress: Option<ProgressTold>,
    ) -> Result<Answer<'env>> {
        let call = self.done(|_| Call::read(call.as_bytes()))?;
        let cancelled = cancel.map(|cancel| cancel.token.clone()).unwrap_or_default();
        self.answered(env, self.embedded.clone().call(call, cancelled, progress.map(told_of_progress)))
    }

    /// A stream of what changes from now on, or since a revision: at once if the
    /// registry is in this process.
    #[napi]
    pub fn watch<'env>(&self, env: &'env Env, since: Option<i64>) -> Result<Either<Watch, PromiseRaw<'env, Watch>>> {
        let wrong = |_| Error::invalid_field("since", "must be a revision: a whole number from 0");
        let since = self.done(|_| since.map(u64::try_from).transpose().map_err(wrong))?.map(Revision);
        let embedded = self.embedded.clone();
        let opening = async move {
            let closing = embedded.closing().clone();
            let stream = embedded.watch(since).await?;
            Ok(Watch::new(stream, &closing))
        };
        if !self.embedded.is_here() {
            return left(env, opening).map(Either::B);
        }
        match self.begun(opening)? {
            Left(opened) => Ok(Either::A(opened)),
            Right(rest) => left(env, rest).map(Either::B),
        }
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
        let function = Arc::new(Function { callee: Arc::new(callee), executions: self.shared.executions.clone() });
        self.done(|embedded| embedded.attach(&service, definition.as_bytes(), executions_max, function))
    }

    /// Declares `service` if it is not, and makes the tools known that are attached to it.
    #[napi]
    pub fn declare<'env>(&self, env: &'env Env, service: String) -> Result<PromiseRaw<'env, String>> {
        left(env, self.done(|embedded| Ok(embedded.clone().declare(service, None)))?)
    }

    /// Takes a tool away again; says whether there was one.
    #[napi]
    pub fn remove_tool(&self, service: String, tool: String) -> Result<bool> {
        self.done(|embedded| embedded.detach(&service, &tool))
    }

    /// Says what came of an execution, in JSON.
    #[napi]
    pub fn finish(&self, number: u32, outcome: String) -> Result<()> {
        done(|| {
            self.shared.executions.finish(number, read(outcome.as_bytes())?);
            Ok(())
        })
    }

    /// Says how far an execution has come, in JSON.
    #[napi]
    pub fn progress(&self, number: u32, step: String) -> Result<()> {
        done(|| {
            self.shared.executions.progress(number, read(step.as_bytes())?);
            Ok(())
        })
    }

    /// The same Machina as someone else sees it: `{"id", "role", "tenant", "remote"}`.
    #[napi]
    pub fn scoped(&self, principal: String) -> Result<Self> {
        let embedded = self.done(|embedded| embedded.scoped(principal.as_bytes()))?;
        Ok(Self { shared: Arc::clone(&self.shared), embedded })
    }

    /// Closes it, for all its handles: what runs in this process is ended, and a
    /// Machina elsewhere is no longer asked. A second time nothing happens.
    #[napi]
    pub fn close<'env>(&self, env: &'env Env) -> Result<PromiseRaw<'env, ()>> {
        // From now on nothing more is asked.
        self.embedded.closing().cancel();
        let embedded = self.embedded.clone();
        env.spawn_future(async move {
            embedded.close().await;
            Ok(())
        })
    }

    /// Whether it was closed.
    #[napi(getter)]
    pub fn is_closed(&self) -> bool {
        self.embedded.usable().is_err()
    }
}

fn told_of_progress(progress: ProgressTold) -> ProgressSink {
    Arc::new(move |step: Progress| {
        let json = serde_json::to_string(&step).unwrap_or_default();
        progress.call(json, ThreadsafeFunctionCallMode::NonBlocking);
    })
}
