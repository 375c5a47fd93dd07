//! A session with one server: requests with their deadlines, what the server
//! lists, and the notices it gives. The same for every transport and era.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use machina_core::{
    CallContext, Definitions, Era, Error, ErrorKind, LOG_LEVEL, Notice, Phase, Progress, Result, Session, Tasks,
    ToolResult,
};
use serde_json::{Map, Value};
use tokio::sync::{OnceCell, watch};
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::definitions::{Lister, list_all};
use super::events::Events;
use super::handshake::Greeting;
use super::link::{Aside, Link, Misses, Request, Stage, meta_of, shown, too_late, unanswered};
use super::param_headers::{self, ParamHeader};
use super::wire::{HEADER_MISMATCH, METHOD_NOT_FOUND, Object, UNSUPPORTED_VERSION};

/// How long a server may take for one page of a list.
const PAGE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a server may take to accept the level of its log.
const LEVEL_TIMEOUT: Duration = Duration::from_secs(5);
/// The level from which on everything is logged.
const LOWEST_LEVEL: &str = "debug";
/// How long the tasks of a closed session may take to end.
const TASKS_PATIENCE: Duration = Duration::from_secs(2);
/// The first and the longest pause before subscribing again.
const FOLLOW_PAUSES: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(60));

/// An open session over some link.
#[derive(Debug)]
pub(crate) struct McpSession {
    link: Arc<dyn Link>,
    greeting: Arc<Greeting>,
    events: Arc<Events>,
    tasks: Tasks,
    /// Which arguments of which tools are repeated in headers (stateless HTTP only).
    param_headers: Mutex<HashMap<String, Vec<ParamHeader>>>,
    /// The server was asked to log (older era), or cannot be.
    logging: OnceCell<()>,
}

impl McpSession {
    /// A session over `link`, which has already been greeted. `tasks` are its own.
    pub(crate) fn open(link: Arc<dyn Link>, greeting: Greeting, events: Arc<Events>, tasks: Tasks) -> Arc<Self> {
        let greeting = Arc::new(greeting);
        tasks.spawn("mcp-follow", follow(link.clone(), greeting.clone(), events.clone()));
        Arc::new(Self { link, greeting, events, tasks, param_headers: Mutex::default(), logging: OnceCell::new() })
    }

    /// Sends a request within the limits of `context`.
    async fn send(
        &self,
        method: &str,
        mut params: Object,
        context: &CallContext,
        hints: Vec<(String, String)>,
    ) -> Result<Value> {
        if !context.meta.is_empty() {
            meta_of(&mut params).extend(context.meta.clone());
        }
        if context.log.is_some() {
            // Apart, so that requests which want none are no larger for it.
            Box::pin(async {
                tokio::select! {
                    () = self.ask_for_logs(&mut params) => {}
                    () = context.cancelled.cancelled() => {}
                    () = sleep_until(context.deadline) => {}
                }
            })
            .await;
        }
        let stage = Arc::new(Stage::counting(Arc::clone(&context.carried)));
        let active = watch::Sender::new(Instant::now());
        let mut furthest = f64::NEG_INFINITY;
        let mut committed = false;
        let mut on_aside = |aside: Aside| {
            let params = match aside {
                Aside::Progress(params) => params,
                // A log is no sign of progress, and may be told again by another attempt.
                Aside::Log(params) => {
                    if let Some(sink) = &context.log {
                        sink(self.link.secrets().masked(&params));
                    }
                    return;
                }
            };
            active.send_replace(Instant::now());
            let Some(sink) = &context.progress else { return };
            // Progress only ever grows; a report that steps back is not passed on.
            if let Some(progress) = progress_of(&params).filter(|p| p.progress > furthest) {
                furthest = progress.progress;
                committed = true;
                sink(progress);
            }
        };
        let request = Request {
            method,
            params,
            dialect: &self.greeting.dialect,
            stage: &stage,
            progress: context.progress.is_some() || context.idle_timeout.is_some(),
            logs: context.log.is_some(),
            param_headers: hints,
        };
        let exchange = self.link.exchange(request, &mut on_aside);
        let result = tokio::select! {
            biased;
            result = exchange => result,
            () = context.cancelled.cancelled() => {
                Err(unanswered(format!("{method} was cancelled by its caller"), stage.phase()))
            }
            limit = limit_reached(context, active.subscribe()) => Err(too_late(method, &limit, stage.phase())),
        };
        let result = result.map_err(|error| if committed { error.at(Phase::Committed) } else { error });
        result.inspect_err(|error| {
            if is_refused_with(error, UNSUPPORTED_VERSION) {
                // It is not the server that was greeted: the next session finds out what this one speaks.
                self.events.close(error.clone());
            }
        })
    }

    /// Lets the server log: from the level on that `params` name, where it takes
    /// one with each request; else from the lowest on, once for the whole session.
    async fn ask_for_logs(&self, params: &mut Object) {
        let Greeting { dialect, capabilities, .. } = &*self.greeting;
        if dialect.era == Era::Modern {
            meta_of(params).entry(LOG_LEVEL).or_insert_with(|| LOWEST_LEVEL.into());
            return;
        }
        // It says nothing to a server of this era.
        meta_of(params).shift_remove(LOG_LEVEL);
        if !capabilities["logging"].is_object() {
            return;
        }
        let ask = || async {
            let stage = Arc::<Stage>::default();
            let params = Object::from_iter([("level".to_owned(), LOWEST_LEVEL.into())]);
            let request = Request {
                method: "logging/setLevel",
                params,
                dialect,
                stage: &stage,
                progress: false,
                logs: false,
                param_headers: Vec::new(),
            };
            let answer = timeout(LEVEL_TIMEOUT, self.link.exchange(request, &mut |_| {})).await;
            match answer {
                Ok(Err(error)) if error.context().upstream_code.is_none() => Err(()),
                // A server that says no is not asked again, nor is one that says nothing.
                _ => Ok(()),
            }
        };
        // Without logs the call is as good; a broken connection it will meet itself.
        let _ = self.logging.get_or_try_init(ask).await;
    }

    fn hints(&self, tool: &str, arguments: &Object) -> Vec<(String, String)> {
        let known = self.param_headers.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(tool).map(|headers| param_headers::values(headers, arguments)).unwrap_or_default()
    }

    /// Lists the definitions within the limits of the call that needs them.
    async fn list_again(&self, context: &CallContext) -> Result<()> {
        tokio::select! {
            biased;
            listed = self.definitions() => listed.map(drop),
            () = context.cancelled.cancelled() => Err(Error::unreachable("the call was cancelled by its caller")),
            () = sleep_until(context.deadline) => {
                Err(Error::timeout("the call's time was up while its headers were looked up in the list of tools"))
            }
        }
    }

    fn needs_param_headers(&self) -> bool {
        self.greeting.dialect.era == Era::Modern && self.link.process_id().is_none()
    }
}

/// Waits until one of the limits of `context` is reached and says which.
async fn limit_reached(context: &CallContext, mut active: watch::Receiver<Instant>) -> String {
    let started = Instant::now();
    loop {
        let last = *active.borrow_and_update();
        let idle = context.idle_timeout.map(|idle| (last + idle, idle));
        let (until, limit) = match idle {
            Some((at, idle)) if at < context.deadline => (at, format!("{} without a sign of progress", shown(idle))),
            _ => (context.deadline, shown(context.deadline.saturating_duration_since(started))),
        };
        tokio::select! {
            biased;
            Ok(()) = active.changed() => {}
            () = sleep_until(until) => return limit,
        }
    }
}

fn progress_of(params: &Value) -> Option<Progress> {
    Some(Progress {
        progress: params["progress"].as_f64()?,
        total: params["total"].as_f64(),
        message: params["message"].as_str().map(str::to_owned),
    })
}

/// Follows what the server says of its own accord, until the session is over.
async fn follow(link: Arc<dyn Link>, greeting: Arc<Greeting>, events: Arc<Events>) {
    let following = async {
        match greeting.dialect.era {
            Era::Legacy => link.follow(&greeting.dialect).await,
            Era::Modern => subscribe(&*link, &greeting, &events).await,
        }
    };
    tokio::select! {
        () = following => {}
        _ = events.until_closed() => {}
    }
}

/// Subscribes to the changes that a server of the stateless era announces, again
/// and again as long as it takes subscriptions; pauses grow while nothing comes of it.
async fn subscribe(link: &dyn Link, greeting: &Greeting, events: &Events) {
    let Some(filter) = changes_offered(&greeting.capabilities) else { return };
    let (mut pause, mut misses) = (FOLLOW_PAUSES.0, Misses::default());
    loop {
        let begun = Instant::now();
        let stage = Arc::<Stage>::default();
        let request = Request {
            method: "subscriptions/listen",
            params: filter.clone(),
            dialect: &greeting.dialect,
            stage: &stage,
            progress: false,
            logs: false,
            param_headers: Vec::new(),
        };
        match link.exchange(request, &mut |_| {}).await {
            Err(error) if error.kind() == ErrorKind::Rejected => return,
            Err(error) if error.kind() == ErrorKind::Unreachable => {
                if let Some(reason) = misses.add(error) {
                    return events.close(reason);
                }
            }
            _ => misses = Misses::default(),
        }
        if begun.elapsed() > pause {
            // What changes until the next subscription is not announced to us.
            events.change();
            pause = FOLLOW_PAUSES.0;
        }
        sleep(pause).await;
        pause = (pause * 2).min(FOLLOW_PAUSES.1);
    }
}

/// The parameters of `subscriptions/listen` for what the server says it announces.
fn changes_offered(capabilities: &Value) -> Option<Object> {
    let offered = |what: &str| capabilities[what]["listChanged"] == Value::Bool(true);
    let filter: Object = ["tools", "prompts", "resources"]
        .into_iter()
        .filter(|what| offered(what))
        .map(|what| (format!("{what}ListChanged"), Value::Bool(true)))
        .collect();
    (!filter.is_empty()).then(|| Object::from_iter([("notifications".to_owned(), Value::Object(filter))]))
}

impl Lister for McpSession {
    async fn list(&self, method: &'static str, params: Object) -> Result<Value> {
        let page = self.send(method, params, &CallContext::within(PAGE_TIMEOUT), Vec::new()).await?;
        // Zero is what servers say that give their lists no time.
        if let Some(millis) = page["ttlMs"].as_u64().filter(|millis| *millis > 0) {
            self.events.fresh_for(Duration::from_millis(millis));
        }
        Ok(page)
    }
}

#[async_trait]
impl Session for McpSession {
    fn protocol_version(&self) -> &str {
        &self.greeting.dialect.version
    }

    async fn definitions(&self) -> Result<Definitions> {
        self.events.listing();
        let definitions = list_all(self, &self.greeting).await?;
        if self.needs_param_headers() {
            let headers = definitions.tools.iter().filter_map(|tool| {
                let headers = param_headers::of_schema_text(tool.input_schema_text());
                (!headers.is_empty()).then(|| (tool.name().as_str().to_owned(), headers))
            });
            *self.param_headers.lock().unwrap_or_else(PoisonError::into_inner) = headers.collect();
        }
        Ok(definitions)
    }

    async fn call(&self, tool: &str, arguments: &Map<String, Value>, context: &CallContext) -> Result<ToolResult> {
        let params = || {
            Object::from_iter([
                ("name".to_owned(), tool.into()),
                ("arguments".to_owned(), Value::Object(arguments.clone())),
            ])
        };
        let mut result = self.send("tools/call", params(), context, self.hints(tool, arguments)).await;
        let is_mismatch = |error: &Error| is_refused_with(error, HEADER_MISMATCH);
        if self.needs_param_headers() && result.as_ref().is_err_and(is_mismatch) {
            // Refused, so not executed: the headers follow from the list of tools.
            self.list_again(context).await.map_err(|error| error.at(Phase::Refused))?;
            result = self.send("tools/call", params(), context, self.hints(tool, arguments)).await;
        }
        match result? {
            Value::Object(result) => Ok(ToolResult(result)),
            _ => Err(Error::rejected("the answer to tools/call is not an object").at(Phase::Answered)),
        }
    }

    async fn request(&self, method: &str, params: Value, context: &CallContext) -> Result<Value> {
        let params = match params {
            Value::Object(params) => params,
            Value::Null => Object::new(),
            _ => return Err(Error::invalid_field("params", "must be an object").at(Phase::NotSent)),
        };
        self.send(method, params, context, Vec::new()).await
    }

    async fn probe(&self, timeout: Duration) -> Result<()> {
        let method = match self.greeting.dialect.era {
            Era::Legacy => "ping",
            Era::Modern => "server/discover",
        };
        match self.send(method, Object::new(), &CallContext::within(timeout), Vec::new()).await {
            // Not every server knows `ping`, but only a working one says so.
            Err(error) if error.context().upstream_code != Some(METHOD_NOT_FOUND) => Err(error),
            _ => self.link.complaint().map_or(Ok(()), Err),
        }
    }

    async fn notice(&self) -> Notice {
        self.events.next().await
    }

    fn is_closed(&self) -> bool {
        self.events.closed().is_some()
    }

    fn stderr_tail(&self) -> String {
        self.link.stderr_tail()
    }

    fn process_id(&self) -> Option<u32> {
        self.link.process_id()
    }

    async fn close(&self) {
        self.link.close(&self.greeting.dialect).await;
        self.end_tasks().await;
    }

    async fn kill(&self) {
        self.link.kill(&self.greeting.dialect).await;
        self.end_tasks().await;
    }
}

impl McpSession {
    async fn end_tasks(&self) {
        if !self.tasks.close(TASKS_PATIENCE).await {
            tracing::warn!("the tasks of a closed session are still ending");
        }
    }
}

fn is_refused_with(error: &Error, code: i64) -> bool {
    let context = error.context();
    context.upstream_code == Some(code) && context.phase == Some(Phase::Refused)
}

impl Drop for McpSession {
    fn drop(&mut self) {
        // The follower holds the link too: without it the link, and a child with it, would live on.
        self.events.close(Error::unavailable("the session was dropped"));
    }
}

/// Ends the session if the future that opens it is dropped or fails before
/// there is a session to own the tasks.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) tasks: Tasks,
    pub(crate) events: Arc<Events>,
    armed: bool,
}

impl Opening {
    pub(crate) fn new() -> Self {
        Self { tasks: Tasks::new(), events: Arc::new(Events::new()), armed: true }
    }

    /// The session is open; it owns the tasks from here on.
    pub(crate) fn done(mut self, link: Arc<dyn Link>, greeting: Greeting) -> Arc<McpSession> {
        self.armed = false;
        McpSession::open(link, greeting, self.events.clone(), self.tasks.clone())
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        if self.armed {
            self.tasks.cancel();
        }
    }
}
