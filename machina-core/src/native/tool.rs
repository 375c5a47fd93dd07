//! One native tool: a definition as any server publishes it, and the function
//! behind it.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::sync::OwnedSemaphorePermit;

use crate::connect::CallContext;
use crate::error::Result;
use crate::model::ToolResult;

/// How many executions of a tool run at once, where it does not say otherwise.
const EXECUTIONS_MAX: u32 = 64;

/// The function behind a tool. Closures need not implement this:
/// [`NativeTool::new`] takes them. Hosts of other languages do.
#[async_trait]
pub trait NativeFunction: Send + Sync + 'static {
    /// Carries out one call whose arguments fit the input schema. The future runs
    /// in a task of its own (unless it only [hands over](Self::hands_over)) and is
    /// dropped when nobody waits for it any more: the caller went away, or the time
    /// is over; `context.cancelled` then fires too.
    ///
    /// What runs on even then, because it is elsewhere than in the future, keeps
    /// `place` until it is over.
    ///
    /// An error becomes a result that says `isError`, with the message as its text.
    /// But where the future only hands over, an error with a phase
    /// ([`Error::at`](crate::Error::at)) says how far that had come: it is the error of
    /// the call, which goes to another instance if it says that nothing ran. A panic
    /// is an error of the call ([`Internal`](crate::ErrorKind::Internal)).
    async fn call(&self, arguments: Map<String, Value>, context: CallContext, place: Place) -> Result<ToolResult>;

    /// Whether the future only hands the call over, to a loop or a thread of a
    /// host of another language, and waits: each of its polls takes microseconds.
    /// It then needs no task of its own, and is polled by its caller.
    fn hands_over(&self) -> bool {
        false
    }
}

/// The place of an execution among those of its tool that may run at once
/// ([`NativeTool::executions_max`]). It is free again when this is dropped.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "it is held, and nothing else")] pub(super) OwnedSemaphorePermit);

/// A function that keeps its thread until it returns.
pub(super) type Blocking = dyn Fn(Map<String, Value>, CallContext) -> ToolResult + Send + Sync;

/// How a function is run.
#[derive(Clone)]
pub(super) enum Body {
    /// In a task, which can be dropped half-way.
    Async(Arc<dyn NativeFunction>),
    /// In a thread of its own, which cannot be ended.
    Blocking(Arc<Blocking>),
}

/// A function of this program that is to be a tool. Made here, checked and
/// attached by [`NativeService::put`](crate::NativeService::put).
#[derive(Clone)]
pub struct NativeTool {
    pub(super) definition: Value,
    pub(super) body: Body,
    pub(super) executions_max: u32,
}

impl NativeTool {
    /// A tool named `name` whose arguments fit `input_schema` (JSON Schema), and
    /// whose calls `function` carries out: what it returns is the answer, an error
    /// is an answer that says `isError`. The arguments are read into any type that
    /// can be deserialised; `serde_json::Map<String, Value>` takes them as they are.
    ///
    /// `function` must not block its thread: [`NativeTool::blocking`] may.
    ///
    /// ```
    /// use machina_core::{CallContext, NativeTool};
    /// use serde_json::json;
    ///
    /// #[derive(serde::Deserialize)]
    /// struct Quote { amount: f64 }
    ///
    /// let schema = json!({"type": "object", "required": ["amount"], "properties": {"amount": {"type": "number"}}});
    /// let tool = NativeTool::new("quote", schema, |quote: Quote, _context: CallContext| async move {
    ///     if quote.amount < 0.0 { Err("the amount must not be negative") } else { Ok(json!({"price": quote.amount * 1.2})) }
    /// })
    /// .description("What an amount costs with tax.")
    /// .read_only();
    /// # let _ = tool;
    /// ```
    pub fn new<A, F, Fut, R, E>(name: &str, input_schema: Value, function: F) -> Self
    where
        A: DeserializeOwned + Send + 'static,
        F: Fn(A, CallContext) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<R, E>> + Send + 'static,
        R: Into<ToolResult>,
        E: fmt::Display,
    {
        let closure = Closure(move |arguments: Map<String, Value>, context: CallContext| {
            let started = read(arguments).map(|arguments| function(arguments, context));
            Box::pin(async move {
                match started {
                    Ok(running) => answer(running.await),
                    Err(unreadable) => unreadable,
                }
            }) as Running
        });
        Self::from_definition(json!({"name": name, "inputSchema": input_schema}), Arc::new(closure))
    }

    /// The same for a function that blocks: each call has a thread of its own. One
    /// that does not return is given up when its time is over or the registry is
    /// closed, but keeps its thread and counts as running; look at
    /// `context.cancelled` to end it early.
    pub fn blocking<A, F, R, E>(name: &str, input_schema: Value, function: F) -> Self
    where
        A: DeserializeOwned + 'static,
        F: Fn(A, CallContext) -> Result<R, E> + Send + Sync + 'static,
        R: Into<ToolResult>,
        E: fmt::Display,
    {
        let blocking = move |arguments: Map<String, Value>, context: CallContext| match read(arguments) {
            Ok(arguments) => answer(function(arguments, context)),
            Err(unreadable) => unreadable,
        };
        let definition = json!({"name": name, "inputSchema": input_schema});
        Self { definition, body: Body::Blocking(Arc::new(blocking)), executions_max: EXECUTIONS_MAX }
    }

    /// A tool from its whole definition, as in the answer to `tools/list`: for
    /// hosts that have one.
    #[must_use]
    pub fn from_definition(definition: Value, function: Arc<dyn NativeFunction>) -> Self {
        Self { definition, body: Body::Async(function), executions_max: EXECUTIONS_MAX }
    }

    /// What it does, for people and models.
    #[must_use]
    pub fn description(self, text: impl Into<String>) -> Self {
        self.with("description", text.into().into())
    }

    /// Its name for people.
    #[must_use]
    pub fn title(self, text: impl Into<String>) -> Self {
        self.with("title", text.into().into())
    }

    /// What its answers fit (JSON Schema); the function then returns objects.
    #[must_use]
    pub fn output_schema(self, schema: Value) -> Self {
        self.with("outputSchema", schema)
    }

    /// Says that it changes nothing (`readOnlyHint`).
    #[must_use]
    pub fn read_only(self) -> Self {
        self.annotation("readOnlyHint", true.into())
    }

    /// Says that calling it twice has the effect of calling it once (`idempotentHint`).
    #[must_use]
    pub fn idempotent(self) -> Self {
        self.annotation("idempotentHint", true.into())
    }

    /// Sets one of MCP's annotations.
    #[must_use]
    pub fn annotation(mut self, name: &str, value: Value) -> Self {
        self.definition["annotations"][name] = value;
        self
    }

    /// Sets any other field of the definition, such as `_meta` or `icons`.
    #[must_use]
    pub fn with(mut self, field: &str, value: Value) -> Self {
        self.definition[field] = value;
        self
    }

    /// How many executions run at once, 1 to 10000; 64 by default. More wait for
    /// their turn as long as their callers do.
    #[must_use]
    pub fn executions_max(mut self, most: u32) -> Self {
        self.executions_max = most;
        self
    }
}

/// One execution under way.
type Running = std::pin::Pin<Box<dyn Future<Output = ToolResult> + Send>>;

struct Closure<F>(F);

#[async_trait]
impl<F> NativeFunction for Closure<F>
where
    F: Fn(Map<String, Value>, CallContext) -> Running + Send + Sync + 'static,
{
    async fn call(&self, arguments: Map<String, Value>, context: CallContext, _: Place) -> Result<ToolResult> {
        Ok((self.0)(arguments, context).await)
    }
}

/// # Errors
/// The answer, where the arguments fit the schema and not the type.
fn read<A: DeserializeOwned>(arguments: Map<String, Value>) -> Result<A, ToolResult> {
    serde_path_to_error::deserialize(Value::Object(arguments)).map_err(|error| {
        let path = error.path().to_string();
        let place = if path == "." { "arguments".to_owned() } else { format!("arguments.{path}") };
        ToolResult::failed(format!("{place}: {}", error.inner()))
    })
}

fn answer<R: Into<ToolResult>, E: fmt::Display>(outcome: Result<R, E>) -> ToolResult {
    outcome.map_or_else(|error| ToolResult::failed(error.to_string()), Into::into)
}

impl fmt::Debug for NativeTool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NativeTool").field("name", &self.definition["name"]).finish_non_exhaustive()
    }
}
