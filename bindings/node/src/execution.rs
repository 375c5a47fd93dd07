//! Functions of JavaScript as native tools. Arguments go to the thread of Node that
//! the function belongs to, the answer comes back under a number. The function may
//! never answer: whoever waits gives up, and the function is told.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use machina_core::{CallContext, Error, NativeFunction, Result, ToolResult};
use napi::Status;
use napi::bindgen_prelude::FnArgs;
use napi::threadsafe_function::{ThreadsafeFunction, ThreadsafeFunctionCallMode};
use serde::Deserialize;
use serde_json::{Map, Value};
use tokio::sync::oneshot;

use crate::failure::closed;

/// How many executions may wait for the thread of Node to take them.
const QUEUE_MAX: usize = 10_000;

/// The number of an execution, and its arguments in JSON; without arguments, the
/// end of one that nobody waits for any more.
type Message = FnArgs<(u32, Option<String>)>;

/// A function of JavaScript that may be called from any thread. It does not keep
/// Node alive.
pub(crate) type Callee = ThreadsafeFunction<Message, (), Message, Status, false, true, QUEUE_MAX>;

/// The executions of a handle that have not answered yet.
#[derive(Debug, Clone, Default)]
pub(crate) struct Executions(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    last: u32,
    callers: HashMap<u32, oneshot::Sender<Outcome>>,
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
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self) -> (u32, oneshot::Receiver<Outcome>) {
        let (caller, outcome) = oneshot::channel();
        let mut waiting = self.waiting();
        let free = |number: u32| !waiting.callers.contains_key(&number);
        // There are far fewer executions than numbers.
        let number = (1..).map(|step| waiting.last.wrapping_add(step)).find(|number| free(*number)).unwrap_or_default();
        waiting.last = number;
        waiting.callers.insert(number, caller);
        (number, outcome)
    }

    /// Hands on what came of an execution, if somebody still waits for it.
    pub(crate) fn finish(&self, number: u32, outcome: Outcome) {
        if let Some(caller) = self.waiting().callers.remove(&number) {
            // Whoever has given up meanwhile does not mind.
            drop(caller.send(outcome));
        }
    }
}

/// One function of JavaScript.
pub(crate) struct Function {
    pub(crate) callee: Arc<Callee>,
    pub(crate) executions: Executions,
}

/// Tells the function that nobody waits for it any more, unless it has answered.
struct Running<'a> {
    function: &'a Function,
    number: u32,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if self.function.executions.waiting().callers.remove(&self.number).is_some() {
            self.function.callee.call((self.number, None).into(), ThreadsafeFunctionCallMode::NonBlocking);
        }
    }
}

#[async_trait]
impl NativeFunction for Function {
    async fn call(&self, arguments: Map<String, Value>, _: CallContext) -> Result<ToolResult> {
        let (number, outcome) = self.executions.begin();
        let _running = Running { function: self, number };
        let message = (number, Some(Value::Object(arguments).to_string()));
        match self.callee.call(message.into(), ThreadsafeFunctionCallMode::NonBlocking) {
            Status::Ok => {}
            Status::QueueFull => return Err(Error::overloaded("the thread of Node is too far behind")),
            _ => return Err(Error::unavailable("the thread of Node that the function belongs to has ended")),
        }
        match outcome.await.map_err(|_| closed())? {
            Outcome::Nothing => Ok(().into()),
            Outcome::Value(value) => Ok(value.into()),
            Outcome::Result(result) => Ok(ToolResult(result)),
            Outcome::Error(message) => Ok(ToolResult::failed(message)),
        }
    }
}
