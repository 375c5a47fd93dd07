//! What the two transports have in common: a request goes out, its answer or
//! the truth about its fate comes back.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use machina_core::{Carried, Era, Error, ErrorKind, Phase, Result};
use serde_json::{Value, json};

use super::secrets::Secrets;
use super::wire::{HEADER_MISMATCH, MISSING_CAPABILITY, Object, RpcError, UNSUPPORTED_VERSION};

/// The protocol that a session speaks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dialect {
    pub(crate) era: Era,
    pub(crate) version: String,
}

/// The newest revision with a handshake, which Machina offers in `initialize`.
pub(crate) const LEGACY_VERSION: &str = "2025-11-25";
/// The stateless revision that Machina speaks.
pub(crate) const MODERN_VERSION: &str = "2026-07-28";

impl Dialect {
    pub(crate) fn legacy(version: &str) -> Self {
        Self { era: Era::of(version), version: version.to_owned() }
    }

    pub(crate) fn modern() -> Self {
        Self { era: Era::Modern, version: MODERN_VERSION.to_owned() }
    }

    /// Adds to `params` what every request of the stateless era carries.
    pub(crate) fn stamp(&self, params: &mut Object) {
        if self.era == Era::Legacy {
            return;
        }
        let meta = meta_of(params);
        meta.insert("io.modelcontextprotocol/protocolVersion".into(), self.version.as_str().into());
        meta.insert("io.modelcontextprotocol/clientInfo".into(), client_info());
        meta.insert("io.modelcontextprotocol/clientCapabilities".into(), json!({}));
    }
}

/// Who Machina says it is.
pub(crate) fn client_info() -> Value {
    json!({"name": "machina", "version": env!("CARGO_PKG_VERSION")})
}

/// What Machina can do for a server of the older era: say that it has no roots.
/// It cannot sample and has no person to ask, so it does not claim to; servers
/// that offer tools only to clients which can will offer fewer. In the stateless
/// era it can do nothing: a result that asks for input is not gone on with.
pub(crate) fn legacy_capabilities() -> Value {
    json!({"roots": {}})
}

/// The `_meta` object of `params`, made if need be.
pub(crate) fn meta_of(params: &mut Object) -> &mut Object {
    let meta = params.entry("_meta").or_insert_with(|| json!({}));
    if !meta.is_object() {
        *meta = json!({});
    }
    meta.as_object_mut().expect("was just made an object")
}

/// A request on its way.
pub(crate) struct Request<'a> {
    pub(crate) method: &'a str,
    pub(crate) params: Object,
    pub(crate) dialect: &'a Dialect,
    /// How far it has come; outlives the future that carries it.
    pub(crate) stage: &'a Arc<Stage>,
    /// Whether the server is asked to report progress.
    pub(crate) progress: bool,
    /// Whether what the server logs meanwhile is wanted.
    pub(crate) logs: bool,
    /// Headers that repeat arguments (`Mcp-Param-*`); only for HTTP.
    pub(crate) param_headers: Vec<(String, String)>,
}

/// How far a request has come on its way out.
#[derive(Debug, Default)]
pub(crate) struct Stage {
    state: AtomicU8,
    /// How much was carried.
    pub(crate) carried: Arc<Carried>,
}

const QUEUED: u8 = 0;
const WRITING: u8 = 1;
const ABANDONED: u8 = 2;

impl Stage {
    /// The stage of a request that counts with those of `carried`.
    pub(crate) fn counting(carried: Arc<Carried>) -> Self {
        Self { state: AtomicU8::new(QUEUED), carried }
    }

    /// Claims the request for writing; false if it was abandoned meanwhile.
    pub(crate) fn begin(&self) -> bool {
        self.state.compare_exchange(QUEUED, WRITING, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Gives up a request that was not yet written; false if it was.
    pub(crate) fn abandon(&self) -> bool {
        self.state.compare_exchange(QUEUED, ABANDONED, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// Takes back [`Stage::begin`]: not one byte was accepted.
    pub(crate) fn nothing_written(&self) {
        self.state.store(QUEUED, Ordering::Release);
    }

    /// The phase of a failure at this point, before any answer.
    pub(crate) fn phase(&self) -> Phase {
        match self.state.load(Ordering::Acquire) {
            WRITING => Phase::MaybeExecuted,
            _ => Phase::NotSent,
        }
    }
}

/// What a server says about a request before it answers: the parameters of a
/// notification.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Aside {
    /// `notifications/progress`.
    Progress(Value),
    /// `notifications/message`.
    Log(Value),
}

/// Takes what a server says before it answers.
pub(crate) type OnAside<'a> = &'a mut (dyn FnMut(Aside) + Send);

/// A connection to one server. Dropping the future of an exchange cancels the
/// request upstream.
#[async_trait]
pub(crate) trait Link: fmt::Debug + Send + Sync + 'static {
    /// Sends a request and waits for its result. Every error carries a phase.
    async fn exchange(&self, request: Request<'_>, on_aside: OnAside<'_>) -> Result<Value>;

    /// Sends a notification.
    async fn notify(&self, method: &str, params: &Object, dialect: &Dialect) -> Result<()>;

    /// Follows what a server with a handshake says outside of any answer, for as
    /// long as there is anything to follow.
    async fn follow(&self, dialect: &Dialect);

    /// What the server was told in confidence.
    fn secrets(&self) -> &Secrets;

    /// What the process wrote to stderr of late.
    fn stderr_tail(&self) -> String;

    /// What is to be said against the server though it answers; said once.
    fn complaint(&self) -> Option<Error> {
        None
    }

    /// The process behind the link, if there is one.
    fn process_id(&self) -> Option<u32>;

    /// Ends the link politely and returns when nothing of it is left.
    async fn close(&self, dialect: &Dialect);

    /// Ends the link at once and returns when nothing of it is left.
    async fn kill(&self, dialect: &Dialect) {
        self.close(dialect).await;
    }
}

/// The error for a JSON-RPC error that a server of `era` answered `method` with.
/// What it says is shown without `secrets`.
pub(crate) fn rejected(method: &str, error: &RpcError, era: Era, secrets: &Secrets) -> Error {
    if error.unreadable {
        let message = shortened(&secrets.mask(error.message.clone()));
        return Error::rejected(format!("the answer to {method} is refused: {message}")).at(Phase::Answered);
    }
    // The older era leaves these codes to the servers.
    let refused =
        era == Era::Modern && [HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION].contains(&error.code);
    let phase = if refused { Phase::Refused } else { Phase::Answered };
    let message = shortened(&secrets.mask(error.message.clone()));
    Error::rejected(format!("{method} was answered with error {}: {message}", error.code)).at(phase).with(|c| {
        c.upstream_code = Some(error.code);
        c.upstream_data = error.data.as_ref().and_then(|data| passed_on(data, secrets));
    })
}

/// The longest `data` of an error that is passed on, in bytes of JSON.
const DATA_BYTES_MAX: usize = 16 * 1024;

/// What a server added to an error, without `secrets`, if it is short enough.
fn passed_on(data: &Value, secrets: &Secrets) -> Option<Value> {
    (data.to_string().len() <= DATA_BYTES_MAX).then(|| secrets.masked(data))
}

/// The failure of a request that got no answer, by how far it had come.
pub(crate) fn unanswered(message: impl Into<String>, phase: Phase) -> Error {
    let kind = if phase == Phase::NotSent { ErrorKind::Unreachable } else { ErrorKind::Lost };
    Error::new(kind, message).at(phase)
}

/// The failure of a request that outlasted its time.
pub(crate) fn too_late(method: &str, limit: &str, phase: Phase) -> Error {
    if phase == Phase::NotSent {
        return Error::unreachable(format!("{method} could not be sent within {limit}")).at(phase);
    }
    Error::timeout(format!("{method} was not answered within {limit}")).at(phase)
}

/// Whether `error` comes from a connection that the other side refused: proof
/// that nothing listens there, unlike a name that is not found or a silence.
fn was_refused(error: &Error) -> bool {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        let io = error.downcast_ref::<std::io::Error>();
        if io.is_some_and(|io| io.kind() == std::io::ErrorKind::ConnectionRefused) {
            return true;
        }
        cause = error.source();
    }
    false
}

/// How often in a row a server may be out of reach until the session is over.
const MISSES_MAX: u32 = 2;

/// The failures in a row to reach a server that is listened to.
#[derive(Debug, Default)]
pub(crate) struct Misses {
    count: u32,
    refused: u32,
}

impl Misses {
    /// Counts `error`; gives it back once the session is over, as hard evidence if
    /// the connection was refused each time.
    pub(crate) fn add(&mut self, error: Error) -> Option<Error> {
        self.count += 1;
        self.refused += u32::from(was_refused(&error));
        let hard = self.refused == self.count;
        (self.count == MISSES_MAX).then(|| error.with(|c| c.hard = hard))
    }
}

/// Text of a server, cut to what fits into a message and rid of control characters.
pub(crate) fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 500;
    let clean = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    let mut out: String = clean.take(CHARS_MAX).collect();
    if text.trim().chars().nth(CHARS_MAX).is_some() {
        out.push('…');
    }
    out
}

/// A duration as a message shows it.
pub(crate) fn shown(duration: Duration) -> String {
    format!("{duration:.1?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_is_either_written_or_abandoned() {
        let stage = Stage::default();
        assert_eq!(stage.phase(), Phase::NotSent);
        assert!(stage.begin() && !stage.abandon());
        assert_eq!(stage.phase(), Phase::MaybeExecuted);
        let stage = Stage::default();
        assert!(stage.abandon() && !stage.begin());
        assert_eq!(stage.phase(), Phase::NotSent);
    }

    #[test]
    fn only_the_stateless_era_stamps_its_requests() {
        let mut params = Object::new();
        Dialect::legacy(LEGACY_VERSION).stamp(&mut params);
        assert!(params.is_empty());
        params.insert("_meta".into(), json!({"mine": 1}));
        Dialect::modern().stamp(&mut params);
        assert_eq!(params["_meta"]["mine"], 1);
        assert_eq!(params["_meta"]["io.modelcontextprotocol/protocolVersion"], MODERN_VERSION);
        assert_eq!(params["_meta"]["io.modelcontextprotocol/clientInfo"]["name"], "machina");
        assert!(params["_meta"]["io.modelcontextprotocol/clientCapabilities"].is_object());
    }

    #[test]
    fn a_wrong_header_was_refused_and_bad_arguments_were_answered() {
        let secrets = Secrets::new(["hunter2-hunter2".to_owned()]);
        let error = |code, era| {
            let error = RpcError { code, message: "no\u{7} hunter2-hunter2".into(), data: None, unreadable: false };
            rejected("tools/call", &error, era, &secrets)
        };
        for code in [HEADER_MISMATCH, MISSING_CAPABILITY, UNSUPPORTED_VERSION] {
            assert_eq!(error(code, Era::Modern).context().phase, Some(Phase::Refused));
            assert_eq!(error(code, Era::Legacy).context().phase, Some(Phase::Answered));
        }
        let error = error(-32602, Era::Modern);
        assert_eq!(error.context().phase, Some(Phase::Answered));
        assert_eq!(error.context().upstream_code, Some(-32602));
        assert!(error.message().ends_with("no  ********"), "{error}");
    }

    #[test]
    fn a_secret_is_masked_before_the_text_is_cut() {
        let secrets = Secrets::new(["hunter2-hunter2".to_owned()]);
        let error =
            RpcError { code: 1, message: format!("{}hunter2-hunter2", "x".repeat(493)), data: None, unreadable: false };
        assert!(!rejected("tools/call", &error, Era::Legacy, &secrets).message().contains("hunter"));
    }

    #[test]
    fn an_answer_that_may_not_be_read_is_an_answer_and_no_error_of_the_server() {
        let error = RpcError { code: 0, message: "the key `a` is there twice".into(), data: None, unreadable: true };
        let error = rejected("tools/call", &error, Era::Modern, &Secrets::new([]));
        assert_eq!(error.message(), "the answer to tools/call is refused: the key `a` is there twice");
        assert_eq!((error.context().phase, error.context().upstream_code), (Some(Phase::Answered), None));
    }

    #[test]
    fn what_an_error_adds_is_kept_without_secrets_unless_it_is_long() {
        let secrets = Secrets::new(["hunter2-hunter2".to_owned()]);
        let data_of = |data: Value| {
            let error = RpcError { code: -32021, message: "no".into(), data: Some(data), unreadable: false };
            rejected("tools/call", &error, Era::Modern, &secrets).context().upstream_data.clone()
        };
        let data = json!({"z": ["is hunter2-hunter2"], "hunter2-hunter2": {"a": 1}});
        assert_eq!(data_of(data).unwrap().to_string(), r#"{"z":["is ********"],"********":{"a":1}}"#);
        assert!(data_of(json!("x".repeat(DATA_BYTES_MAX - 2))).is_some());
        assert_eq!(data_of(json!("x".repeat(DATA_BYTES_MAX - 1))), None);
    }

    #[test]
    fn only_two_refused_connections_are_proof() {
        use std::io::ErrorKind::{ConnectionRefused, NotFound, TimedOut};
        let caused = |kind: std::io::ErrorKind| Error::unreachable("x").caused_by(std::io::Error::from(kind));
        for (kinds, hard) in [
            ([ConnectionRefused, ConnectionRefused], true),
            ([ConnectionRefused, TimedOut], false),
            ([TimedOut, ConnectionRefused], false),
            ([NotFound, NotFound], false),
        ] {
            let mut misses = Misses::default();
            assert!(misses.add(caused(kinds[0])).is_none());
            assert_eq!(misses.add(caused(kinds[1])).map(|error| error.context().hard), Some(hard), "{kinds:?}");
        }
    }
}
