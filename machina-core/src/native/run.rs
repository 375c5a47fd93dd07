//! One execution of a function: within its time, for as long as somebody waits,
//! and never more at once than there are places. What a function does wrong (it
//! panics, it never returns) harms its own call and no other.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::FutureExt as _;
use serde_json::{Map, Value};
use tokio::sync::{Notify, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::attached::Function;
use super::tool::{Body, Place};
use crate::connect::{CallContext, Progress};
use crate::error::{Error, Phase, Result};
use crate::model::ToolResult;
use crate::tasks::Tasks;

/// When it makes sense to ask again for a tool whose places are all taken.
const BUSY_FOR: Duration = Duration::from_secs(1);

/// Runs `function` once.
///
/// # Errors
/// [`Timeout`](crate::ErrorKind::Timeout) when the caller cancelled or its time is
/// over, [`Overloaded`](crate::ErrorKind::Overloaded) when there was no place for it
/// until then, [`Internal`](crate::ErrorKind::Internal) when the function panicked.
/// When the session was closed meanwhile, [`Lost`](crate::ErrorKind::Lost) if the
/// function had begun, else [`Unavailable`](crate::ErrorKind::Unavailable). Whatever
/// kept a function that hands over from doing so.
pub(super) async fn run(
    function: &Function,
    tasks: &Tasks,
    arguments: Map<String, Value>,
    context: &CallContext,
) -> Result<ToolResult> {
    let place = place(function, tasks, context).await?;
    let signs = Arc::new(Notify::new());
    let (theirs, _ends) = handed_over(context, &signs);
    let begun = Begun::default();
    let running = start(function, tasks, (arguments, theirs), (place, begun.clone()))?;
    tokio::select! {
        biased;
        outcome = running => outcome.unwrap_or_else(|| Err(unanswered(function, tasks, &begun))),
        () = tasks.cancelled() => Err(closed(&begun)),
        why = enough(context, &signs) => Err(Error::timeout(why).at(Phase::MaybeExecuted)),
    }
}

/// Whether the function has begun. Who calls it claims this first, and so does who
/// has to know whether it ever will.
#[derive(Clone, Default)]
struct Begun(Arc<AtomicBool>);

impl Begun {
    /// Says whether nobody has claimed it before.
    fn claim(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

/// A place to run in; waits for one as long as the caller does, and the session.
async fn place(function: &Function, tasks: &Tasks, context: &CallContext) -> Result<Place> {
    let places = Arc::clone(&function.places);
    if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
        return Ok(Place(place));
    }
    let found = tokio::select! {
        biased;
        () = tasks.cancelled() => return Err(closed(&Begun::default())),
        found = places.acquire_owned() => found.ok(),
        () = context.cancelled.cancelled() => None,
        () = tokio::time::sleep_until(context.deadline) => None,
    };
    found.map(Place).ok_or_else(|| busy(function).at(Phase::Refused))
}

pub(super) fn busy(function: &Function) -> Error {
    let (name, most) = (function.tool.name(), function.executions_max);
    Error::overloaded(format!("{most} executions of `{name}` run, as many as may at once")).retry_after(BUSY_FOR)
}

/// What the function is told of the call. Its token also fires, and its progress
/// is told no one any more, when the guard is dropped.
fn handed_over(context: &CallContext, signs: &Arc<Notify>) -> (CallContext, impl Drop + use<>) {
    let ended = context.cancelled.child_token();
    let guard = ended.clone().drop_guard();
    let mut theirs = CallContext { cancelled: ended.clone(), ..context.clone() };
    if context.progress.is_some() || context.idle_timeout.is_some() {
        let (signs, sink) = (Arc::clone(signs), context.progress.clone());
        theirs.progress = Some(Arc::new(move |progress: Progress| {
            if !ended.is_cancelled() {
                signs.notify_one();
                sink.iter().for_each(|sink| sink(progress.clone()));
            }
        }));
    }
    (theirs, guard)
}

/// Waits until the caller has had enough, and says why.
async fn enough(context: &CallContext, signs: &Notify) -> &'static str {
    let silence = async {
        let Some(idle) = context.idle_timeout else { return std::future::pending().await };
        while tokio::time::timeout(idle, signs.notified()).await.is_ok() {}
    };
    tokio::select! {
        biased;
        () = context.cancelled.cancelled() => "the caller cancelled the call",
        () = tokio::time::sleep_until(context.deadline) => "no answer before the deadline",
        () = silence => "no sign of progress",
    }
}

/// An execution under way: what came of it, or nothing if the function panicked or
/// had to end. Dropped when nobody waits for it any more.
type Running = Pin<Box<dyn Future<Output = Option<Result<ToolResult>>> + Send>>;

/// Starts the function; its place is free again when it is over, however it ends.
fn start(
    function: &Function,
    tasks: &Tasks,
    (arguments, context): (Map<String, Value>, CallContext),
    (place, begun): (Place, Begun),
) -> Result<Running> {
    match &function.body {
        Body::Async(body) => {
            let (body, apart) = (Arc::clone(body), !body.hands_over());
            let called = async move {
                if !begun.claim() {
                    return None;
                }
                let result = body.call(arguments, context, place).await;
                Some(result.or_else(|error| reported(error, apart)))
            };
            Ok(if apart { in_task(tasks, called) } else { in_place(called) })
        }
        Body::Blocking(body) => {
            let body = Arc::clone(body);
            let (answer, answered) = oneshot::channel();
            let thread = std::thread::Builder::new().name("native tool".to_owned());
            let started = thread.spawn(move || {
                let result = begun.claim().then(|| body(arguments, context));
                drop(place);
                let _ = answer.send(result);
            });
            let refused = |error| Error::overloaded(format!("no thread could be started: {error}")).at(Phase::Refused);
            started.map_err(refused)?;
            Ok(answered.map(|answer| answer.ok().flatten().map(Ok)).boxed())
        }
    }
}

/// What the function says of itself is its answer. How far a call has come that it
/// only hands over is none: the call may be for another instance then.
fn reported(error: Error, apart: bool) -> Result<ToolResult> {
    match error.context().phase {
        Some(_) if !apart => Err(error),
        _ => Ok(ToolResult::failed(error.message())),
    }
}

fn in_task(tasks: &Tasks, called: impl Future<Output = Option<Result<ToolResult>>> + Send + 'static) -> Running {
    let (answer, answered) = oneshot::channel();
    let task = tasks.spawn("native tool", async move {
        // Without a receiver nobody waits for it any more.
        let _ = answer.send(called.await);
    });
    let ends_with_caller = AbortOnDropHandle::new(task);
    async move {
        let _ends_with_caller = ends_with_caller;
        answered.await.ok().flatten()
    }
    .boxed()
}

fn in_place(called: impl Future<Output = Option<Result<ToolResult>>> + Send + 'static) -> Running {
    AssertUnwindSafe(called).catch_unwind().map(|outcome| outcome.ok().flatten()).boxed()
}

/// Why a function ended without an answer.
fn unanswered(function: &Function, tasks: &Tasks, begun: &Begun) -> Error {
    if tasks.is_cancelled() {
        return closed(begun);
    }
    let name = function.tool.name();
    tracing::error!(tool = %name, "a native function panicked");
    Error::internal(format!("the function behind `{name}` panicked")).at(Phase::MaybeExecuted)
}

/// The session was closed. A function that had not begun never will.
fn closed(begun: &Begun) -> Error {
    if begun.claim() {
        return Error::unavailable("the session was closed before the function began").at(Phase::NotSent);
    }
    Error::lost("the session was closed while the function ran").at(Phase::MaybeExecuted)
}
