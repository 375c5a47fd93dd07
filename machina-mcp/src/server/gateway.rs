//! Machina as an MCP server, apart from any transport: a request comes in, an
//! answer goes into the outbox. Holds a scoped handle and no state of its own.

use std::sync::Arc;

use machina_core::{CallOptions, Era, Progress, ProgressSink, Scoped, ToolCall};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::definitions::{self, MetaTool};
use super::exposure::{Exposure, ToolMode};
use super::flat::FlatTables;
use super::protocol::{self, Face, Reply, STATIC};
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

/// The tools that hosts are offered; shared by all of them.
#[derive(Debug)]
pub(crate) enum Offer {
    /// The five tools that reach every other.
    Meta,
    /// Every tool by itself.
    Flat(FlatTables),
}

impl Offer {
    /// What `exposure` says.
    pub(crate) fn new(exposure: Exposure) -> Arc<Self> {
        Arc::new(match exposure.mode {
            ToolMode::Meta => Self::Meta,
            ToolMode::Flat => Self::Flat(FlatTables::new(exposure.prefix)),
        })
    }

    /// The tools by themselves, if that is what is offered.
    pub(super) fn tables(&self) -> Option<&FlatTables> {
        match self {
            Self::Meta => None,
            Self::Flat(tables) => Some(tables),
        }
    }
}

/// The server, as one principal sees it.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    scoped: Scoped,
    offer: Arc<Offer>,
    /// Whether the host is told when the tools have changed.
    tells_changes: bool,
}

impl Gateway {
    /// A server that may see and do what `scoped` may, and offers `offer`.
    pub(crate) fn new(scoped: Scoped, offer: Arc<Offer>) -> Self {
        Self { scoped, offer, tells_changes: false }
    }

    /// The same, whose host is told, or not, when the tools have changed.
    pub(crate) fn telling_changes(mut self, tells_changes: bool) -> Self {
        self.tells_changes = tells_changes;
        self
    }

    fn face(&self) -> Face {
        Face { flat: self.offer.tables().is_some(), tells_changes: self.tells_changes }
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
            ("initialize", Era::Legacy) => protocol::initialize(&params, self.face()),
            ("server/discover", _) => Ok(protocol::discover(self.face())),
            ("ping", Era::Legacy) => Ok(Reply::new(Object::new())),
            ("tools/list", _) => self.list_tools(&params),
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
        let tool = self.tool_named(name)?;
        let arguments = match params.remove("arguments") {
            None | Some(Value::Null) => Object::new(),
            Some(Value::Object(arguments)) => arguments,
            Some(_) => return Err(Fault::new(INVALID_PARAMS, "arguments: must be an object")),
        };
        Ok(match tool {
            Named::Meta(tool) => {
                let result = tools::run(tool, &self.scoped, arguments, options).await;
                result.unwrap_or_else(|error| errors::tool_result(&error))
            }
            Named::Upstream(call) => {
                let result = tools::carry(&self.scoped, &ToolCall { arguments, ..call }, options).await;
                result.unwrap_or_else(|error| errors::upstream_result(&error))
            }
        })
    }

    fn tool_named(&self, name: &str) -> Result<Named, Fault> {
        let (tool, what_there_is) = match &*self.offer {
            Offer::Meta => (MetaTool::of(name).map(Named::Meta), format!("there are {}", definitions::NAMES)),
            Offer::Flat(tables) => {
                let call = tables.of(&self.scoped).resolve(name).map(|entry| ToolCall {
                    service: entry.service.clone(),
                    tool: entry.tool.name().clone(),
                    arguments: Object::new(),
                });
                (call.map(Named::Upstream), "`tools/list` says what there is now".to_owned())
            }
        };
        let missing =
            || Fault::new(INVALID_PARAMS, format!("name: there is no tool `{}`; {what_there_is}", shown(name)));
        tool.ok_or_else(missing)
    }

    fn list_tools(&self, params: &Object) -> Result<Reply, Fault> {
        match &*self.offer {
            Offer::Meta => list_meta_tools(params),
            Offer::Flat(tables) => tables.of(&self.scoped).page(&self.scoped, params),
        }
    }
}

/// What the name of a tool stands for.
enum Named {
    Meta(MetaTool),
    /// A tool of a service, to be called without arguments yet.
    Upstream(ToolCall),
}

/// All tools are on one page, so no cursor was ever given out.
fn list_meta_tools(params: &Object) -> Result<Reply, Fault> {
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
