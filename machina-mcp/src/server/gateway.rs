//! Machina as an MCP server, apart from any transport: a request comes in, an
//! answer goes into the outbox. Holds a scoped handle and no state of its own.

use machina_core::{CallOptions, Era, Progress, ProgressSink, Scoped};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::definitions::{self, MetaTool};
use super::protocol::{self, Reply, STATIC};
use super::rpc::{self, Fault, INVALID_PARAMS, Object, Request, shown};
use super::{errors, resources, tools};

/// What goes to a host.
#[derive(Debug)]
pub(crate) enum Outgoing {
    /// A notification that belongs to a request, before its answer.
    Notification(String),
    /// The answer to a request.
    Answer(Answer),
}

/// The answer to a request, ready to be sent.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) text: String,
    /// The fault it tells of: its code, and whether the request was malformed.
    pub(crate) fault: Option<(i64, bool)>,
}

impl Answer {
    /// The answer to `request`.
    pub(crate) fn to(id: Option<&rpc::Id>, outcome: Result<Object, Fault>) -> Self {
        let fault = outcome.as_ref().err().map(|fault| (fault.code, fault.malformed));
        Self { text: rpc::answer(id, outcome), fault }
    }
}

/// Where what goes to a host is put; bounded.
pub(crate) type Outbox = mpsc::Sender<Outgoing>;

/// The server, as one principal sees it.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    scoped: Scoped,
}

impl Gateway {
    /// A server that may see and do what `scoped` may.
    pub(crate) fn new(scoped: Scoped) -> Self {
        Self { scoped }
    }

    /// Who is served.
    pub(crate) fn principal(&self) -> &str {
        &self.scoped.principal().id
    }

    /// Answers a request into `outbox`, unless `cancelled` fires first: then
    /// nobody waits for an answer.
    pub(crate) async fn answer(&self, request: Request, era: Era, outbox: Outbox, cancelled: CancellationToken) {
        let id = request.id.clone();
        let options = CallOptions {
            cancelled: cancelled.clone(),
            progress: request.meta("progressToken").and_then(|token| progress_sink(token, &outbox, &cancelled)),
            ..CallOptions::default()
        };
        let outcome = self.dispatch(request, era, &options).await;
        if cancelled.is_cancelled() {
            return;
        }
        // Progress that comes later is not sent.
        cancelled.cancel();
        let answer = Answer::to(Some(&id), outcome.map(|reply| reply.dressed(era)));
        // A closed outbox is a host that has gone.
        let _ = outbox.send(Outgoing::Answer(answer)).await;
    }

    async fn dispatch(&self, request: Request, era: Era, options: &CallOptions) -> Result<Reply, Fault> {
        let Request { method, params, .. } = request;
        match (method.as_str(), era) {
            ("initialize", Era::Legacy) => protocol::initialize(&params),
            ("server/discover", _) => Ok(protocol::discover()),
            ("ping", Era::Legacy) => Ok(Reply::new(Object::new())),
            ("tools/list", _) => list_tools(&params),
            ("tools/call", _) => self.call_tool(params, options).await.map(Reply::new),
            ("resources/list", _) => resources::list(&self.scoped, &params, era),
            ("resources/templates/list", _) => Ok(resources::templates()),
            ("resources/read", _) => resources::read(&self.scoped, &params, era).await,
            _ => Err(Fault::no_method(&method)),
        }
    }

    async fn call_tool(&self, mut params: Object, options: &CallOptions) -> Result<Object, Fault> {
        let Some(name) = params.get("name").and_then(Value::as_str) else {
            return Err(Fault::new(INVALID_PARAMS, "name: must be a string"));
        };
        let Some(tool) = MetaTool::of(name) else {
            let message = format!("name: there is no tool `{}`; there are {}", shown(name), definitions::NAMES);
            return Err(Fault::new(INVALID_PARAMS, message));
        };
        let arguments = match params.remove("arguments") {
            None | Some(Value::Null) => Object::new(),
            Some(Value::Object(arguments)) => arguments,
            Some(_) => return Err(Fault::new(INVALID_PARAMS, "arguments: must be an object")),
        };
        let result = tools::run(tool, &self.scoped, arguments, options).await;
        Ok(result.unwrap_or_else(|error| errors::tool_result(&error)))
    }
}

/// All tools are on one page, so no cursor was ever given out.
fn list_tools(params: &Object) -> Result<Reply, Fault> {
    match params.get("cursor") {
        None | Some(Value::Null) => Ok(Reply::cached(json!({"tools": definitions::all()}), STATIC)),
        Some(_) => Err(Fault::new(INVALID_PARAMS, "cursor: is not one of this server")),
    }
}

/// Passes progress on under the token of the host, as long as `over` has not
/// fired. What does not fit into the outbox is dropped: newer progress replaces it.
fn progress_sink(token: &Value, outbox: &Outbox, over: &CancellationToken) -> Option<ProgressSink> {
    rpc::Id::of(token)?;
    let (token, outbox, over) = (token.clone(), outbox.downgrade(), over.clone());
    Some(std::sync::Arc::new(move |Progress { progress, total, message }| {
        let Some(outbox) = outbox.upgrade().filter(|_| !over.is_cancelled()) else { return };
        let mut params = json!({"progressToken": token, "progress": progress});
        if let Some(total) = total {
            params["total"] = total.into();
        }
        if let Some(message) = message {
            params["message"] = message.into();
        }
        let text = rpc::notification("notifications/progress", &params);
        let _ = outbox.try_send(Outgoing::Notification(text));
    }))
}
