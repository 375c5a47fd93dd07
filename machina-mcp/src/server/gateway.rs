//! Machina as an MCP server, apart from any transport: a request comes in, an
//! answer goes into the outbox. Holds a scoped handle and no state of its own.

use std::sync::Arc;

use machina_core::{CallOptions, Era, LOG_LEVEL, Progress, ProgressSink, Scoped};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::audience::Audience;
pub(crate) use super::audience::Selection;
use super::changes::{Kinds, Lists};
use super::first_list::FirstList;
use super::http_params::Repeated;
use super::logging::{self, LogLevel};
pub(crate) use super::offer::Offer;
use super::protocol::{self, Face, Reply};
use super::requests::Asked;
use super::rpc::{self, Fault, Object, Request};
use super::{definitions, errors, upstream};

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

/// The server, as one principal sees it at one endpoint.
#[derive(Debug, Clone)]
pub(crate) struct Gateway {
    audience: Audience,
    offer: Arc<Offer>,
    /// The lists of whose changes the host is told.
    told: Kinds,
    /// What a host of the older era wants to hear of logs.
    log_level: Option<LogLevel>,
    /// The session of a host of the older era.
    session: Option<Arc<str>>,
    /// The arguments that the host repeated in headers, where it does so.
    repeated: Option<Repeated>,
    /// Where the first list of tools may wait.
    first_list: Option<Arc<FirstList>>,
}

impl Gateway {
    /// A server that may see and do what `scoped` may, and offers `offer` as far
    /// as `selection` says.
    ///
    /// # Errors
    /// [`NotFound`](machina_core::ErrorKind::NotFound) when there is no such group.
    pub(crate) fn new(scoped: Scoped, offer: Arc<Offer>, selection: Selection) -> machina_core::Result<Self> {
        let audience = Audience::new(scoped, selection)?;
        Ok(Self {
            audience,
            offer,
            told: Kinds::default(),
            log_level: None,
            session: None,
            repeated: None,
            first_list: None,
        })
    }

    /// The same, whose host is told when these lists have changed, if it wants to be.
    pub(crate) fn telling(mut self, told: Kinds) -> Self {
        self.told = told;
        self
    }

    /// The same within the session `id` of a host whose level of logs is kept in
    /// `log_level`.
    pub(crate) fn in_session(mut self, id: &str, log_level: LogLevel) -> Self {
        self.session = Some(id.into());
        self.log_level = Some(log_level);
        self
    }

    /// The same for a request whose host repeats arguments in headers: these.
    pub(crate) fn repeating(mut self, repeated: Repeated) -> Self {
        self.repeated = Some(repeated);
        self
    }

    /// The same for a host that started Machina itself, and its services with it.
    pub(crate) fn starting(mut self) -> Self {
        self.first_list = Some(Arc::default());
        self
    }

    /// Whether the answer to a request of this method may have to be waited for.
    pub(crate) fn may_wait(&self, method: &str) -> bool {
        let first_list = || self.first_list.as_ref().is_some_and(|first| first.is_to_come());
        rpc::may_wait(method) || (method == "tools/list" && first_list())
    }

    /// The handle of whom is served.
    pub(crate) fn scoped(&self) -> &Scoped {
        self.audience.scoped()
    }

    /// Which lists may come to be others.
    pub(crate) fn changing(&self) -> Kinds {
        self.offer.changing(&self.audience)
    }

    /// A number for each list that the host can read now; of a group that is
    /// gone, as it was.
    pub(crate) fn lists(&self) -> Lists {
        self.offer.lists(&self.audience.renewed().unwrap_or_else(|_| self.audience.clone()))
    }

    /// Answers a request into `outbox`, unless `cancelled` fires first: then
    /// nobody waits for an answer.
    pub(crate) async fn answer(&self, request: Request, era: Era, outbox: Outbox, cancelled: CancellationToken) {
        let id = request.id.clone();
        let level = logging::least(&request, era, self.log_level.as_ref());
        let mut options = CallOptions {
            cancelled: cancelled.clone(),
            progress: request.meta("progressToken").and_then(|token| progress_sink(token, &outbox, &cancelled)),
            meta: upstream::trace(&request),
            session: self.session.clone().filter(|_| era == Era::Legacy),
            log: level.map(|level| logging::sink(level, &outbox, &cancelled)),
            ..CallOptions::default()
        };
        if let Some(level) = level {
            options.meta.insert(LOG_LEVEL.to_owned(), logging::name(level));
        }
        let outcome = self.dispatch(request, era, &options).await;
        if cancelled.is_cancelled() {
            return;
        }
        // Progress that comes later is not sent.
        cancelled.cancel();
        let answer = match outcome {
            Ok(reply) => Answer { text: reply.answer(&id, era), fault: None },
            Err(fault) => Answer::to(Some(&id), Err(fault)),
        };
        // A closed outbox is a host that has gone.
        let _ = outbox.send(Outgoing::Answer(answer)).await;
    }

    async fn dispatch(&self, request: Request, era: Era, options: &CallOptions) -> Result<Reply, Fault> {
        if let Some(first) = self.first_list.as_ref().filter(|_| request.method == "tools/list")
            && self.offer.is_flat(&self.audience)
        {
            Box::pin(first.wait(&self.audience, &options.cancelled)).await;
        }
        let audience = &self.audience.renewed().map_err(|error| errors::fault(&error, era))?;
        let flat = self.offer.is_flat(audience);
        let Request { method, params, .. } = request;
        let scoped = audience.scoped();
        let asked = Asked { audience, offer: &self.offer, era, options, repeated: self.repeated.as_ref() };
        match (method.as_str(), era) {
            ("initialize", Era::Legacy) => protocol::initialize(&params, &self.face(audience)),
            ("server/discover", _) => Ok(protocol::discover(&self.face(audience))),
            ("ping", Era::Legacy) => Ok(Reply::new(Object::new())),
            ("logging/setLevel", Era::Legacy) => self.set_level(&params),
            ("tools/list", _) if flat => self.offer.tools(audience).listing.page(scoped, &params),
            ("tools/list", _) => definitions::page(&params, self.offer.lists_aliases()),
            ("tools/call", _) => asked.call_tool(params).await,
            ("prompts/list", _) if flat => self.offer.prompts(audience).listing.page(scoped, &params),
            ("prompts/get", _) if flat => asked.get_prompt(params).await,
            ("resources/list", _) => self.offer.resources(audience).resources.page(scoped, &params),
            ("resources/templates/list", _) => self.offer.resources(audience).templates.page(scoped, &params),
            ("resources/read", _) => asked.read_resource(&params).await,
            ("completion/complete", _) if self.completes(audience) => asked.complete(params).await,
            _ => Err(Fault::no_method(&method)),
        }
    }

    fn set_level(&self, params: &Object) -> Result<Reply, Fault> {
        // A host without a session is believed, and forgotten.
        let log_level = self.log_level.clone().unwrap_or_default();
        log_level.set(params).map(|()| Reply::new(Object::new()))
    }

    fn completes(&self, audience: &Audience) -> bool {
        self.offer.is_flat(audience) && self.offer.prompts(audience).completes(None)
    }

    fn face(&self, audience: &Audience) -> Face {
        let group = audience.group().map(|group| {
            let spec = group.spec();
            (spec.title.clone().unwrap_or_else(|| spec.name.to_string()), spec.description.clone())
        });
        Face { flat: self.offer.is_flat(audience), told: self.told, completes: self.completes(audience), group }
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
