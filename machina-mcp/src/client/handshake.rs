//! How a session begins: which era a server speaks, and what it says of itself.
//! Real servers answer the question of one era with anything from an error to
//! silence or their own end; each of these leads to the other era.

use std::sync::Arc;
use std::time::Duration;

use machina_core::{Error, ErrorKind, Phase, Result};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::definitions::modest;
use super::link::{
    Dialect, LEGACY_VERSION, Link, MODERN_VERSION, Request, Stage, client_info, legacy_capabilities, shown,
};
use super::wire::{HEADER_MISMATCH, Object};

/// How many characters of what a server says about its use are kept.
const INSTRUCTIONS_MAX: usize = 16 * 1024;

/// What a server says of itself, and the protocol agreed upon.
#[derive(Debug, Clone)]
pub(crate) struct Greeting {
    pub(crate) dialect: Dialect,
    pub(crate) server_info: Value,
    pub(crate) capabilities: Value,
    pub(crate) instructions: Option<String>,
}

/// Why no session began on this link.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The question of the stateless era ended the server or silenced it for
    /// good: a fresh one may be asked the older way.
    Spoiled(Error),
    /// There is nothing more to try.
    Final(Error),
}

impl Failure {
    /// The error in either case.
    pub(crate) fn into_error(self) -> Error {
        match self {
            Self::Spoiled(error) | Self::Final(error) => error,
        }
    }

    /// The same with the last lines of stderr, where the error has none yet.
    pub(crate) fn with_stderr(self, tail: Option<String>) -> Self {
        let add = |error: Error| error.with(|c| c.stderr_tail = c.stderr_tail.take().or(tail));
        match self {
            Self::Spoiled(error) => Self::Spoiled(add(error)),
            Self::Final(error) => Self::Final(add(error)),
        }
    }
}

/// Asks `link` for the stateless era.
pub(crate) async fn discover(link: &dyn Link) -> Result<Greeting> {
    let dialect = Dialect::modern();
    let result = ask(link, "server/discover", Object::new(), &dialect).await?;
    let versions = result["supportedVersions"].as_array();
    if !versions.is_some_and(|versions| versions.iter().any(|version| version == MODERN_VERSION)) {
        let message = format!("server/discover does not offer {MODERN_VERSION}");
        return Err(Error::rejected(message).at(Phase::Answered));
    }
    let server_info = result["_meta"]["io.modelcontextprotocol/serverInfo"].clone();
    greeting("server/discover", dialect, server_info, result)
}

/// Begins a session with a handshake.
pub(crate) async fn initialize(link: &dyn Link) -> Result<Greeting> {
    let params = object(json!({
        "protocolVersion": LEGACY_VERSION,
        "capabilities": legacy_capabilities(),
        "clientInfo": client_info(),
    }));
    let asked = Dialect::legacy(LEGACY_VERSION);
    let mut result = ask(link, "initialize", params, &asked).await?;
    let Some(version) = result["protocolVersion"].as_str() else {
        return Err(Error::rejected("the answer to initialize names no protocolVersion").at(Phase::Answered));
    };
    let dialect = Dialect::legacy(version);
    link.notify("notifications/initialized", &Object::new(), &dialect).await?;
    let server_info = result["serverInfo"].take();
    greeting("initialize", dialect, server_info, result)
}

async fn ask(link: &dyn Link, method: &str, params: Object, dialect: &Dialect) -> Result<Value> {
    let stage = Arc::<Stage>::default();
    let request =
        Request { method, params, dialect, stage: &stage, progress: false, logs: false, param_headers: Vec::new() };
    let result = link.exchange(request, &mut |_| {}).await?;
    if !result.is_object() {
        return Err(Error::rejected(format!("the answer to {method} is not an object")).at(Phase::Answered));
    }
    Ok(result)
}

fn greeting(method: &str, dialect: Dialect, server_info: Value, mut result: Value) -> Result<Greeting> {
    let instructions = result["instructions"].as_str().map(|text| text.chars().take(INSTRUCTIONS_MAX).collect());
    let capabilities = modest(method, "capabilities", result["capabilities"].take())?;
    // An icon can be larger than all that is kept; who it is can not.
    let server_info = modest(method, "serverInfo", server_info.clone()).or_else(|_| {
        let named = |(name, value): (&String, &Value)| Some((name.clone(), value.as_str()?.into()));
        let texts: Object = server_info.as_object().into_iter().flatten().filter_map(named).collect();
        modest(method, "serverInfo", Value::Object(texts))
    })?;
    Ok(Greeting { dialect, server_info, instructions, capabilities })
}

fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        _ => Object::new(),
    }
}

/// Begins a session the older way; a server that knows no handshake is asked for
/// the stateless era after all.
pub(crate) async fn legacy_first(link: &dyn Link, deadline: Instant) -> Result<Greeting> {
    match within(deadline, initialize(link)).await {
        Err(error) if knows_no_handshake(&error) => within(deadline, discover(link)).await.map_err(|_| error),
        result => result,
    }
}

/// Whether this answer to `initialize` can come from a server of the stateless era only.
fn knows_no_handshake(error: &Error) -> bool {
    let context = error.context();
    error.kind() == ErrorKind::Rejected
        && (context.upstream_code.is_some() || matches!(context.upstream_status, Some(400 | 404)))
}

/// Asks a server for the stateless era, and for the older one if it knows
/// nothing of it. Not every server stays usable after the question.
///
/// A server that is silent for `discover_wait` may be one that is still
/// starting (a package may be downloading) or one that chokes on the question.
/// So it is offered the handshake *in addition*, without killing what may be a
/// download; only after two thirds of the time that is left is it given up.
pub(crate) async fn modern_first(
    link: &dyn Link,
    discover_wait: Duration,
    deadline: Instant,
) -> Result<Greeting, Failure> {
    let mut question = Box::pin(discover(link));
    if let Ok(answer) = timeout_at(patience(discover_wait, deadline), &mut question).await {
        return settle(link, answer, deadline).await;
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let give_up = Instant::now() + left * 2 / 3;
    let mut handshake = Box::pin(initialize(link));
    let mut modern = None;
    loop {
        let until = if modern.is_some() { give_up.min(Instant::now() + discover_wait) } else { give_up };
        tokio::select! {
            begun = &mut handshake => return match (begun, modern) {
                (Ok(greeting), _) | (Err(_), Some(greeting)) => Ok(greeting),
                (Err(error), None) if is_over(&error) => Err(Failure::Spoiled(error)),
                (Err(error), None) => match timeout_at(give_up, question).await {
                    Ok(Ok(greeting)) => Ok(greeting),
                    _ => Err(Failure::Final(error)),
                },
            },
            answer = &mut question, if modern.is_none() => match answer {
                Ok(greeting) => modern = Some(greeting),
                Err(error) if is_over(&error) => return Err(Failure::Spoiled(error)),
                // A complaint about the question; the handshake decides.
                Err(_) => return within(deadline, handshake).await.map_err(Failure::Final),
            },
            () = tokio::time::sleep_until(until) => {
                return modern.ok_or_else(|| Failure::Spoiled(out_of_time()));
            }
        }
    }
}

/// What follows from the answer to the question for the stateless era.
async fn settle(link: &dyn Link, answer: Result<Greeting>, deadline: Instant) -> Result<Greeting, Failure> {
    match answer {
        Ok(greeting) => Ok(greeting),
        Err(error) if is_over(&error) => Err(Failure::Spoiled(error)),
        Err(error) if says_legacy(&error) => within(deadline, initialize(link)).await.map_err(Failure::Final),
        Err(error) => Err(Failure::Final(error)),
    }
}

/// Whether the link did not survive.
fn is_over(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Lost | ErrorKind::Unreachable)
}

/// Whether this answer to `server/discover` can come from a server of the older era.
fn says_legacy(error: &Error) -> bool {
    let context = error.context();
    error.kind() == ErrorKind::Rejected
        && !matches!(context.upstream_status, Some(401 | 403))
        && context.upstream_code != Some(HEADER_MISMATCH)
}

/// Over HTTP each question has a connection of its own, so that no answer and no
/// silence spoils the next one; only what also the handshake would meet is final.
pub(crate) async fn modern_first_over_http(
    link: &dyn Link,
    discover_wait: Duration,
    deadline: Instant,
) -> Result<Greeting> {
    match timeout_at(patience(discover_wait, deadline), discover(link)).await {
        Ok(Ok(greeting)) => Ok(greeting),
        Ok(Err(error)) if says_legacy(&error) || error.kind() == ErrorKind::Lost => {
            within(deadline, initialize(link)).await
        }
        Ok(Err(error)) => Err(error),
        Err(_) => within(deadline, initialize(link)).await,
    }
}

/// Until when the question for the stateless era may stay unanswered: half of the
/// time that is left belongs to the handshake, however long the wait was set.
fn patience(discover_wait: Duration, deadline: Instant) -> Instant {
    let now = Instant::now();
    now + discover_wait.min(deadline.saturating_duration_since(now) / 2)
}

async fn within(deadline: Instant, handshake: impl Future<Output = Result<Greeting>>) -> Result<Greeting> {
    timeout_at(deadline, handshake).await.unwrap_or_else(|_| Err(out_of_time()))
}

fn out_of_time() -> Error {
    Error::timeout("the server did not answer the handshake in time")
}

/// The error of a connect: nothing a caller asked for has been sent yet, however
/// far the handshake had come.
pub(crate) fn of_connect(what: &str, error: Error, waited: Duration) -> Error {
    let context = error.context().clone();
    let (kind, message) = match error.kind() {
        ErrorKind::Lost => (ErrorKind::Unreachable, error.message().to_owned()),
        ErrorKind::Timeout => (ErrorKind::Timeout, format!("{what} was not ready within {}", shown(waited))),
        _ => return error.at(Phase::NotSent),
    };
    Error::new(kind, message).with(|c| *c = context).at(Phase::NotSent)
}
