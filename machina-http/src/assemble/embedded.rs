//! An opened Machina as a program of another language holds it: asked in JSON,
//! closed once. The bindings carry what this says to their language, and back.
//!
//! Refuses to wait on behalf of that language, and to know its threads, promises or
//! loops: those are the bindings'.

use std::sync::Arc;
use std::time::Duration;

use machina_core::{
    Error, EventStream, Machina, NativeFunction, NativeTool, Next, ProgressSink, Registry, Result, Revision, Router,
    Scoped, ServiceReport, ServiceSpec, ServiceView,
};
use serde_json::{Value, json};
use tokio::sync::OnceCell;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::json::{read, written};
use super::question::{Call, Question};
use super::{AssembleOptions, Opened, open};
use crate::Client;

/// How old what was told of a service may be, as long as nothing has changed: its
/// figures, such as when it was last checked, change without notice.
const FIGURES_KEPT: Duration = Duration::from_secs(1);

/// A Machina that was opened, as its own program or someone else sees it. Cheap to
/// clone; one that is closed is closed for all that were made of it.
#[derive(Debug, Clone)]
pub struct Embedded {
    open: Arc<Open>,
    pub(super) registry: Arc<dyn Registry>,
    pub(super) router: Arc<dyn Router>,
    pub(super) whom: Whom,
    /// Whether it acts as the program itself.
    whole: bool,
}

/// Where it is.
#[derive(Debug, Clone)]
pub(super) enum Whom {
    Here(Scoped),
    There(Client),
}

#[derive(Debug)]
struct Open {
    opened: Opened,
    closing: CancellationToken,
    closed: OnceCell<()>,
}

/// The error of a Machina that is closed.
#[must_use]
pub fn closed() -> Error {
    Error::unavailable("the handle is closed: open another")
}

/// The error of work that panicked.
#[must_use]
pub fn panicked() -> Error {
    Error::internal("this is a bug in Machina: please report it, with the log")
}

pub(super) fn only_here(what: &str) -> Error {
    Error::unsupported(format!("a Machina that runs elsewhere cannot {what} through a binding"))
}

impl Embedded {
    /// Opens the Machina at `url`.
    ///
    /// # Errors
    /// As [`open`].
    ///
    /// # Panics
    /// When called outside a tokio runtime.
    pub async fn open(url: &str, options: AssembleOptions) -> Result<Self> {
        let opened = open(url, options).await?;
        let (registry, router) = (opened.registry(), opened.router());
        let whom = match &opened {
            Opened::Here(machina) => Whom::Here(machina.system().clone()),
            Opened::There(client) => Whom::There(client.clone()),
        };
        let open = Open { opened, closing: CancellationToken::new(), closed: OnceCell::new() };
        Ok(Self { open: Arc::new(open), registry, router, whom, whole: true })
    }

    /// Whether it is in this process.
    #[must_use]
    pub fn is_here(&self) -> bool {
        matches!(self.whom, Whom::Here(_))
    }

    /// Fires when the close begins: streams end.
    #[must_use]
    pub fn closing(&self) -> &CancellationToken {
        &self.open.closing
    }

    /// Checks that the close has not begun.
    ///
    /// # Errors
    /// [`closed`].
    pub fn usable(&self) -> Result<()> {
        if self.open.closing.is_cancelled() { Err(closed()) } else { Ok(()) }
    }

    /// Closes it: what runs is ended. Whoever comes second waits for the first.
    pub async fn close(&self) {
        self.open.closing.cancel();
        self.open.closed.get_or_init(|| self.open.opened.close()).await;
    }

    /// Whether `question` is answered out of the memory of this process: the future
    /// of [`Embedded::ask`] is then ready when it is first polled.
    #[must_use]
    pub fn is_ready(&self, question: &Question) -> bool {
        self.is_here() && question.only_reads()
    }

    /// The answer to `question`, in JSON.
    ///
    /// # Errors
    /// What the facade says; [`Unsupported`](machina_core::ErrorKind::Unsupported)
    /// where only a registry in this process has an answer.
    pub async fn ask(self, question: Question) -> Result<String> {
        question.answer(&self).await
    }

    /// Carries `call` until `cancelled` fires; its report, in JSON.
    ///
    /// # Errors
    /// What the router says.
    pub async fn call(
        self,
        call: Call,
        cancelled: CancellationToken,
        progress: Option<ProgressSink>,
    ) -> Result<String> {
        call.carry(&*self.router, cancelled, progress).await
    }

    /// A stream of what changes from now on, or since a revision. Of a registry in
    /// this process the future is ready when it is first polled.
    ///
    /// # Errors
    /// What the registry says.
    pub async fn watch(self, since: Option<Revision>) -> Result<EventStream> {
        self.registry.watch(since).await
    }

    /// The service of this name, in JSON, with what to show the next time it is
    /// looked at; `None` when nothing has changed since `before`.
    ///
    /// # Errors
    /// [`NotFound`](machina_core::ErrorKind::NotFound), and
    /// [`Unsupported`](machina_core::ErrorKind::Unsupported) for a registry elsewhere.
    pub fn look(&self, service: &str, before: Option<&Seen>) -> Result<Option<(Seen, String)>> {
        let Whom::Here(here) = &self.whom else { return Err(only_here("be looked at")) };
        let seen = Seen { view: here.service(service)?, at: Instant::now() };
        if before.is_some_and(|before| before.holds(&seen)) {
            return Ok(None);
        }
        let json = written(&ServiceReport::from(&*seen.view))?;
        Ok(Some((seen, json)))
    }

    /// The same Machina as someone else sees it, who is said in JSON:
    /// `{"id", "role", "tenant", "remote"}`.
    ///
    /// # Errors
    /// [`Invalid`](machina_core::ErrorKind::Invalid), naming the field; as
    /// [`Embedded::attach`] for who may do this.
    pub fn scoped(&self, principal: &[u8]) -> Result<Self> {
        let scoped = self.machina("act as someone else")?.scoped(read(principal)?);
        let whole = Arc::new(scoped.clone());
        let open = Arc::clone(&self.open);
        Ok(Self { open, registry: whole.clone(), router: whole, whom: Whom::Here(scoped), whole: false })
    }

    /// Makes `function` a tool of `service`, in the place of the one of its name if
    /// there is one; `definition` is JSON, as in the answer to `tools/list`. Readers
    /// know of it after [`Embedded::declare`].
    ///
    /// # Errors
    /// [`Invalid`](machina_core::ErrorKind::Invalid), naming the field;
    /// [`Forbidden`](machina_core::ErrorKind::Forbidden) to whom [`Embedded::scoped`]
    /// made; [`Unsupported`](machina_core::ErrorKind::Unsupported) for a Machina elsewhere.
    ///
    /// # Panics
    /// When called outside a tokio runtime.
    pub fn attach(
        &self,
        service: &str,
        definition: &[u8],
        executions_max: Option<u32>,
        function: Arc<dyn NativeFunction>,
    ) -> Result<()> {
        let native = self.machina("have functions of this program as tools")?.native(service)?;
        let tool = NativeTool::from_definition(read(definition)?, function);
        native.put(match executions_max {
            Some(most) => tool.executions_max(most),
            None => tool,
        })
    }

    /// Takes a tool away again; says whether it was there.
    ///
    /// # Errors
    /// As [`Embedded::attach`].
    ///
    /// # Panics
    /// When called outside a tokio runtime.
    pub fn detach(&self, service: &str, tool: &str) -> Result<bool> {
        Ok(self.machina("take functions of this program away")?.native(service)?.remove(tool))
    }

    /// Declares `service`, as `spec` says where there is one, and makes the functions
    /// known that are attached to it. The service, in JSON.
    ///
    /// # Errors
    /// As [`Embedded::attach`], and what the registry says.
    pub async fn declare(self, service: String, spec: Option<Value>) -> Result<String> {
        let native = self.machina("have functions of this program as tools")?.native(&service)?;
        let view = match spec {
            Some(spec) => native.register_as(ServiceSpec::from_value(spec)?).await?,
            None => native.register().await?,
        };
        written(&ServiceReport::from(&*view))
    }

    /// Takes all functions of a service away.
    ///
    /// # Errors
    /// As [`Embedded::attach`].
    pub async fn withdraw(self, service: String) -> Result<String> {
        self.machina("take functions of this program away")?.native(&service)?.withdraw().await;
        written(&())
    }

    /// The registry itself, for what only its own program may do: `what`.
    fn machina(&self, what: &str) -> Result<&Machina> {
        let machina = self.open.opened.here().ok_or_else(|| only_here(what))?;
        let refused = || Error::forbidden("only the program itself may do this, and nobody on its behalf");
        self.whole.then_some(machina).ok_or_else(refused)
    }
}

/// What a reader was told of a service, and when.
#[derive(Debug, Clone)]
pub struct Seen {
    view: Arc<ServiceView>,
    at: Instant,
}

impl Seen {
    /// Whether it says what `now` says.
    fn holds(&self, now: &Self) -> bool {
        Arc::ptr_eq(&self.view, &now.view) && now.at - self.at < FIGURES_KEPT
    }
}

/// An event of a stream, in JSON. `{"type": "resync"}` says that the reader fell
/// behind: it reads the state again and goes on.
///
/// # Errors
/// [`Internal`](machina_core::ErrorKind::Internal) for an event that has no JSON form.
pub fn event(next: &Next) -> Result<String> {
    match next {
        Next::Event(event) => written(&**event),
        Next::Resync => Ok(json!({"type": "resync"}).to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use futures_util::FutureExt as _;
    use machina_core::{CallContext, ErrorKind, Place, ToolResult};
    use serde_json::Map;

    use super::*;

    struct Shout;

    #[async_trait::async_trait]
    impl NativeFunction for Shout {
        async fn call(&self, arguments: Map<String, Value>, _: CallContext, _: Place) -> Result<ToolResult> {
            Ok(ToolResult::of_text(arguments["word"].to_string().to_uppercase()))
        }
    }

    async fn opened() -> Embedded {
        Embedded::open("memory:", AssembleOptions::new(BTreeMap::new())).await.unwrap()
    }

    async fn asked(m: &Embedded, question: Value) -> Result<Value> {
        let question = Question::read(question.to_string().as_bytes())?;
        Ok(serde_json::from_str(&m.clone().ask(question).await?).unwrap())
    }

    fn field(error: &Error) -> &str {
        &error.context().problems[0].field
    }

    #[tokio::test]
    async fn what_is_read_of_memory_is_there_at_once() {
        let m = opened().await;
        asked(&m, json!({"apply": {"mutations": [{"register": {"name": "a", "tags": ["x"]}}]}})).await.unwrap();
        let find = Question::read(br#"{"find": {"tags": ["x"]}}"#).unwrap();
        assert!(m.is_ready(&find));
        let page: Value = serde_json::from_str(&m.clone().ask(find).now_or_never().unwrap().unwrap()).unwrap();
        assert_eq!(page["items"][0]["name"], "a");
        assert!(!m.is_ready(&Question::read(br#"{"apply": {"mutations": []}}"#).unwrap()));
        let (seen, json) = m.look("a", None).unwrap().unwrap();
        assert!(json.contains(r#""name":"a""#) && m.look("a", Some(&seen)).unwrap().is_none());
        assert_eq!(m.look("b", None).unwrap_err().kind(), ErrorKind::NotFound);
        asked(&m, json!({"apply": {"mutations": [{"put": {"name": "a"}}]}})).await.unwrap();
        assert!(m.look("a", Some(&seen)).unwrap().is_some(), "it has changed");
        m.close().await;
    }

    #[tokio::test]
    async fn what_is_wrong_is_named_as_in_the_question() {
        let m = opened().await;
        let error = asked(&m, json!({"find": {"status": ["fine"]}})).await.unwrap_err();
        assert_eq!((error.kind(), field(&error)), (ErrorKind::Invalid, "status[0]"));
        assert_eq!(field(&asked(&m, json!({"lose": {}})).await.unwrap_err()), "value");
        assert_eq!(field(&Call::read(br#"{"service": "a", "tool": 5}"#).unwrap_err()), "tool");
        assert!(Question::read(b"{").unwrap_err().message().contains("is no JSON"));
        let twice = Question::read(br#"{"get": {"service": "a", "service": "b"}}"#).unwrap_err();
        assert_eq!(twice.kind(), ErrorKind::Invalid);
        let error = asked(&m, json!({"journal": {"kind": "call", "cursor": "x", "limit": 1}})).await.unwrap_err();
        assert_eq!(field(&error), "cursor");
        m.close().await;
    }

    #[tokio::test]
    async fn functions_are_of_the_program_itself() {
        let m = opened().await;
        let definition = br#"{"name": "shout", "inputSchema": {"type": "object"}}"#;
        m.attach("s", definition, Some(1), Arc::new(Shout)).unwrap();
        let declared = m.clone().declare("s".to_owned(), Some(json!({"name": "s", "title": "S"}))).await.unwrap();
        assert!(declared.contains(r#""title":"S""#));
        let call = Call::read(br#"{"service": "s", "tool": "shout", "arguments": {"word": "ho"}}"#).unwrap();
        let report = m.clone().call(call, CancellationToken::new(), None).await.unwrap();
        assert!(report.contains("HO"), "{report}");
        let developer = m.scoped(br#"{"id": "ann", "role": "developer"}"#).unwrap();
        for refused in [
            developer.attach("s", definition, None, Arc::new(Shout)).unwrap_err(),
            developer.detach("s", "shout").unwrap_err(),
            developer.scoped(br#"{"id": "root", "role": "admin"}"#).unwrap_err(),
            developer.clone().declare("s".to_owned(), None).await.unwrap_err(),
            developer.clone().withdraw("s".to_owned()).await.unwrap_err(),
        ] {
            assert_eq!(refused.kind(), ErrorKind::Forbidden, "{refused}");
        }
        assert_eq!(field(&m.scoped(br#"{"id": "ann", "role": "queen"}"#).unwrap_err()), "role");
        assert_eq!(m.attach("s", definition, Some(0), Arc::new(Shout)).unwrap_err().kind(), ErrorKind::Invalid);
        assert!(m.detach("s", "shout").unwrap() && !m.detach("s", "shout").unwrap());
        m.clone().withdraw("s".to_owned()).await.unwrap();
        m.close().await;
    }

    #[tokio::test]
    async fn it_is_closed_once_and_for_all_who_hold_it() {
        let m = opened().await;
        let viewer = m.scoped(br#"{"id": "ann", "role": "viewer"}"#).unwrap();
        let mut stream = viewer.clone().watch(None).now_or_never().unwrap().unwrap();
        asked(&m, json!({"apply": {"mutations": [{"register": {"name": "a"}}]}})).await.unwrap();
        let told = event(&stream.next().await).unwrap();
        assert!(told.contains("service_registered"), "{told}");
        assert_eq!(event(&Next::Resync).unwrap(), r#"{"type":"resync"}"#);
        assert!(viewer.usable().is_ok());
        tokio::join!(m.close(), viewer.close());
        assert!(viewer.closing().is_cancelled());
        assert_eq!(viewer.usable().unwrap_err().message(), closed().message());
    }
}
