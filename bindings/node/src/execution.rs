//! Functions of JavaScript as native tools. Arguments go to the thread of Node that
//! the function belongs to, the answer comes back under a number. The function may
//! never answer: whoever waits gives up, and the function is told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use machina_core::{CallContext, Error, NativeFunction, Phase, Place, Progress, ProgressSink, Result, ToolResult};
use machina_http::assemble::closed;
use napi::Status;
use napi::bindgen_prelude::FnArgs;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

/// How many executions may wait for the thread of Node to take them.
const QUEUE_MAX: usize = 10_000;

/// The number of an execution, and its arguments in JSON; without arguments, the
/// end of one that nobody waits for any more.
type Message = FnArgs<(u32, Option<String>)>;

/// A function of JavaScript that may be called from any thread. It does not keep
/// Node alive.
pub(crate) type Callee = ThreadsafeFunction<Message, (), Message, Status, false, true, QUEUE_MAX>;

/// The executions of a handle that are not over yet.
#[derive(Clone, Default)]
pub(crate) struct Executions(Arc<Mutex<Running>>);

#[derive(Default)]
struct Running {
    last: u32,
    by_number: HashMap<u32, Execution>,
}

/// One of them, whether or not somebody still waits for its answer.
struct Execution {
    caller: oneshot::Sender<Outcome>,
    /// What it takes among those that may run at once, until it is over.
    place: Place,
    /// Who wants to know how far it has come.
    progress: Option<ProgressSink>,
}

/// What came of an execution, as JavaScript says it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It returned nothing.
    Nothing,
    /// It returned a value.
    Value(Value),
    /// It returned an answer of MCP.
    Result(Map<String, Value>),
    /// It threw an error with this message.
    Error(String),
}

impl Executions {
    fn running(&self) -> MutexGuard<'_, Running> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, place: Place, progress: Option<ProgressSink>) -> (u32, oneshot::Receiver<Outcome>) {
        let (caller, outcome) = oneshot::channel();
        let mut running = self.running();
        let free = |number: u32| !running.by_number.contains_key(&number);
        // There are far fewer executions than numbers.
        let number = (1..).map(|step| running.last.wrapping_add(step)).find(|number| free(*number)).unwrap_or_default();
        running.last = number;
        running.by_number.insert(number, Execution { caller, place, progress });
        (number, outcome)
    }

    /// Whether the function is not over, so far as it has said.
    fn is_running(&self, number: u32) -> bool {
        self.running().by_number.contains_key(&number)
    }

    /// Takes away an execution that is over, or never began.
    fn end(&self, number: u32) -> Option<Execution> {
        self.running().by_number.remove(&number)
    }

    /// Hands on what came of an execution, if somebody still waits for it.
    pub(crate) fn finish(&self, number: u32, outcome: Outcome) {
        if let Some(Execution { caller, place, .. }) = self.end(number) {
            drop(place);
            // Whoever has given up meanwhile does not mind.
            drop(caller.send(outcome));
        }
    }

    /// Hands on how far an execution has come, if somebody wants to know.
    pub(crate) fn progress(&self, number: u32, step: Progress) {
        let told = self.running().by_number.get(&number).and_then(|execution| execution.progress.clone());
        if let Some(told) = told {
            told(step);
        }
    }
}

/// One function of JavaScript.
pub(crate) struct Function {
    pub(crate) callee: Arc<Callee>,
    pub(crate) executions: Executions,
}

/// Tells the function that nobody waits for it any more, unless it has answered.
struct Waiting<'a> {
    function: &'a Function,
    number: u32,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.function.executions.is_running(self.number) {
            self.function.callee.call((self.number, None).into(), ThreadsafeFunctionCallMode::NonBlocking);
        }
    }
}

#[async_trait]
impl NativeFunction for Function {
    async fn call(&self, arguments: Map<String, Value>, context: CallContext, place: Place) -> Result<ToolResult> {
        let (number, outcome) = self.executions.begin(place, context.progress);
        let _waiting = Waiting { function: self, number };
        let message = (number, Some(Value::Object(arguments).to_string()));
        let status = self.callee.call(message.into(), ThreadsafeFunctionCallMode::NonBlocking);
        if status != Status::Ok {
            drop(self.executions.end(number));
            return Err(match status {
                Status::QueueFull => Error::overloaded("the thread of Node is too far behind").at(Phase::Refused),
                _ => {
                    let message = "the thread of Node that the function belongs to has ended";
                    Error::unavailable(message).at(Phase::NotSent)
                }
            });
        }
        match outcome.await.map_err(|_| closed().at(Phase::MaybeExecuted))? {
            Outcome::Nothing => Ok(().into()),
            Outcome::Value(value) => Ok(value.into()),
            Outcome::Result(result) => Ok(ToolResult(result)),
            Outcome::Error(message) => Ok(ToolResult::failed(message)),
        }
    }

    fn hands_over(&self) -> bool {
        true
    }
}
