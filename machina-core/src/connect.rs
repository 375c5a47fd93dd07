//! How the core reaches instances: a [`Connector`] opens [`Session`]s.
//!
//! A connector translates one transport; it decides nothing about health,
//! retries or routing. It says truthfully *how far* a failed call had come
//! ([`Phase`](crate::Phase)), for everything else depends on that.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::egress::Reach;
use crate::error::{Error, Result};
use crate::model::{Definitions, Endpoint, HealthEndpoint, Instance, SensitiveMap, ServiceName, ToolResult};

/// The two kinds of MCP: with a handshake and sessions (2025-11-25 and before),
/// and stateless (2026-07-28 and after).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Era {
    /// `initialize`, sessions, `ping`.
    Legacy,
    /// `server/discover`, stateless.
    Modern,
}

impl Era {
    /// The era of a protocol revision such as `2025-11-25`.
    #[must_use]
    pub fn of(protocol_version: &str) -> Self {
        if protocol_version >= "2026-07-28" { Self::Modern } else { Self::Legacy }
    }
}

/// What a connector needs to know to open a session.
#[derive(Debug, Clone)]
pub struct Target {
    /// The service, for messages.
    pub service: ServiceName,
    /// The instance.
    pub instance: Instance,
    /// Environment variables of the service, for child processes; the
    /// endpoint's own win.
    pub env: SensitiveMap,
    /// The era that the instance was last seen to speak; `None` when unknown.
    pub era: Option<Era>,
    /// How long opening may take in all, the start of a process included.
    pub timeout: Duration,
    /// Where it may be: asked before each address is dialled, and about the peer
    /// of each socket.
    pub reach: Reach,
}

/// Opens sessions over one kind of transport.
///
/// # Behaviour
/// * Every error carries a phase: nothing a connector does before a session
///   exists is anything but [`Phase::NotSent`](crate::Phase::NotSent).
/// * Dropping the future of [`Connector::connect`] leaves nothing behind: no
///   process, no socket.
#[async_trait]
pub trait Connector: fmt::Debug + Send + Sync + 'static {
    /// Whether this connector can reach `endpoint`.
    fn handles(&self, endpoint: &Endpoint) -> bool;

    /// Opens a session: starts the process or opens the connection, negotiates
    /// the protocol, and returns when the instance is ready for requests.
    ///
    /// # Errors
    /// [`Unreachable`](crate::ErrorKind::Unreachable), with the tail of stderr
    /// in the context where there is one; [`Rejected`](crate::ErrorKind::Rejected)
    /// with `upstream_status` when the instance wants credentials;
    /// [`Invalid`](crate::ErrorKind::Invalid) when the endpoint cannot work as
    /// it was declared; [`Timeout`](crate::ErrorKind::Timeout).
    async fn connect(&self, target: &Target) -> Result<Arc<dyn Session>>;

    /// Looks once at what a service declares to be looked at besides MCP: an HTTP
    /// answer must have one of the `expected` statuses (200 to 299 when there are
    /// none), a TCP port must take a connection. Redirects are answers.
    ///
    /// # Errors
    /// [`Unreachable`](crate::ErrorKind::Unreachable), [`Timeout`](crate::ErrorKind::Timeout),
    /// and [`Rejected`](crate::ErrorKind::Rejected) with `upstream_status` for
    /// another status; [`Unsupported`](crate::ErrorKind::Unsupported) when this
    /// connector cannot look at `endpoint`.
    async fn check(&self, target: &Target, endpoint: &HealthEndpoint, expected: &[u16]) -> Result<()> {
        let _ = (target, expected);
        Err(Error::unsupported(format!("no connector can look at `{}`", endpoint.as_str())))
    }
}

/// Progress of a call, as the instance reports it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// How far it has come; only ever grows within a call.
    pub progress: f64,
    /// How far it has to go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<f64>,
    /// What it is doing.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// Who is told about the progress of a call. Called in order, from the session's
/// task: it must not block.
pub type ProgressSink = Arc<dyn Fn(Progress) + Send + Sync>;

/// Who is told what an instance logs: the parameters of each
/// `notifications/message`, with whatever level and with secrets masked. Called in order,
/// from the session's task: it must not block.
pub type LogSink = Arc<dyn Fn(Value) + Send + Sync>;

/// The key in the `_meta` of a request that says from which level on its sender
/// wants to be told what the instance logs.
pub const LOG_LEVEL: &str = "io.modelcontextprotocol/logLevel";

/// How many bytes a request had and its answer, as the connector counts them: the
/// messages, without what their transport puts around them.
#[derive(Debug, Default)]
pub struct Carried {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Carried {
    /// So many bytes go to the instance.
    pub fn send(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// So many bytes of its answer came.
    pub fn receive(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// How many went to the instance so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// How many of its answer came so far.
    #[must_use]
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }
}

/// The circumstances of one request.
#[derive(Clone)]
pub struct CallContext {
    /// When it must have ended.
    pub deadline: Instant,
    /// How long it may be silent; progress restarts this, never the deadline.
    pub idle_timeout: Option<Duration>,
    /// Fires when the caller has lost interest: the request is cancelled upstream.
    pub cancelled: CancellationToken,
    /// Who is told about progress.
    pub progress: Option<ProgressSink>,
    /// Who is told what the instance logs meanwhile; nothing is asked of it where
    /// this is none. On a connection that all calls share (stdio, WebSocket, SSE)
    /// a message names no call, so each call that wants any is told. Some may be
    /// lost: none of them holds up an answer.
    pub log: Option<LogSink>,
    /// Where the connector counts what it carries.
    pub carried: Arc<Carried>,
    /// What is added to the `_meta` of the request.
    pub meta: Map<String, Value>,
}

impl CallContext {
    /// A context that ends after `timeout`, without progress.
    #[must_use]
    pub fn within(timeout: Duration) -> Self {
        Self {
            deadline: Instant::now() + timeout,
            idle_timeout: None,
            cancelled: CancellationToken::new(),
            progress: None,
            log: None,
            carried: Arc::default(),
            meta: Map::new(),
        }
    }
}

impl fmt::Debug for CallContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CallContext")
            .field("deadline", &self.deadline)
            .field("idle_timeout", &self.idle_timeout)
            .field("progress", &self.progress.is_some())
            .field("log", &self.log.is_some())
            .finish_non_exhaustive()
    }
}

/// What a session has to say of its own accord.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Notice {
    /// The definitions may have changed: list them again.
    DefinitionsChanged,
    /// The session is over. The error says why (`hard` in its context when the
    /// process ended), with the tail of stderr where there is one.
    Closed(Error),
}

/// An open session with one instance; shared by all callers.
///
/// # Behaviour
/// * Dropping the future of a request, its `cancelled` token, or its deadline
///   cancels it upstream; a late answer is dropped.
/// * A result that says `isError` is a result.
/// * Every error of [`Session::call`] carries a [`Phase`](crate::Phase).
/// * An HTTP 401 or 403 is [`Rejected`](crate::ErrorKind::Rejected) with
///   `upstream_status`; 429 is [`Overloaded`](crate::ErrorKind::Overloaded) with
///   `retry_after_ms`.
/// * After [`Session::close`] nothing of the session is left: no process of its
///   group, no task, no socket. Dropping the session does the same at once and
///   without politeness.
#[async_trait]
pub trait Session: fmt::Debug + Send + Sync + 'static {
    /// The revision of MCP that is spoken, such as `2025-11-25`.
    fn protocol_version(&self) -> &str;

    /// Lists what the instance publishes, all pages of it. Errors of prompts
    /// and resources are not errors of the tools.
    async fn definitions(&self) -> Result<Definitions>;

    /// Calls a tool.
    async fn call(&self, tool: &str, arguments: &Map<String, Value>, context: &CallContext) -> Result<ToolResult>;

    /// Sends any other request, such as `prompts/get` or `resources/read`, and
    /// returns its result word for word.
    async fn request(&self, method: &str, params: Value, context: &CallContext) -> Result<Value>;

    /// The cheapest question that only a working server answers: `ping`, or
    /// `server/discover`.
    async fn probe(&self, timeout: Duration) -> Result<()>;

    /// Waits for the next notice. After [`Notice::Closed`], returns it again.
    async fn notice(&self) -> Notice;

    /// Whether the session is over.
    fn is_closed(&self) -> bool;

    /// What the instance's process wrote to stderr of late; empty for others.
    fn stderr_tail(&self) -> String;

    /// The process, for instances that are one.
    fn process_id(&self) -> Option<u32> {
        None
    }

    /// Ends the session politely, and returns when nothing of it is left.
    async fn close(&self);

    /// Ends the session at once, because the other side does not listen anyway, and
    /// returns when nothing of it is left.
    async fn kill(&self) {
        self.close().await;
    }
}
