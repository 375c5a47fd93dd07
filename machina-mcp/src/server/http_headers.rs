//! What the headers of a request must say before anything is done: that it comes
//! from nobody's web page, that it can read the answer, and, in the stateless
//! era, the same as its body.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::header::{ACCEPT, CONTENT_TYPE, HOST, ORIGIN};
use http::uri::Authority;
use http::{HeaderMap, StatusCode, Uri};
use serde_json::Value;

use super::config::HttpServerConfig;
use super::http_refusal::Refusal;
use super::protocol::{self, MODERN, VERSIONS};
use super::rpc::{Fault, HEADER_MISMATCH, INVALID_REQUEST, Request, shown};

const VERSION: &str = "mcp-protocol-version";

/// Which kinds of answer a host reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Accepts {
    pub(super) json: bool,
    pub(super) events: bool,
}

/// Refuses what a web page of somebody else sends, be it under a name of its own
/// that leads here (DNS rebinding) or not.
pub(super) fn check_source(uri: &Uri, headers: &HeaderMap, config: &HttpServerConfig) -> Result<(), Refusal> {
    let refuse = |why: &str| Err(Refusal::new(StatusCode::FORBIDDEN, INVALID_REQUEST, why));
    let host = match headers.get(HOST) {
        Some(host) => host.to_str().ok().and_then(|host| host.parse().ok()),
        None => uri.authority().cloned(),
    };
    let Some(host) = host else {
        return Err(Refusal::new(StatusCode::BAD_REQUEST, INVALID_REQUEST, "the Host header is missing or malformed"));
    };
    if !config.allowed_hosts.iter().any(|allowed| is_host(allowed, &host)) {
        return refuse("the Host header names a host that is not allowed");
    }
    let Some(origin) = headers.get(ORIGIN) else { return Ok(()) };
    let origin = origin.to_str().unwrap_or_default();
    let same = origin.split_once("://").is_some_and(|(_, from)| from.eq_ignore_ascii_case(host.as_str()));
    if same || config.allowed_origins.iter().any(|allowed| allowed.eq_ignore_ascii_case(origin)) {
        return Ok(());
    }
    refuse("the Origin header names an origin that is not allowed")
}

fn is_host(allowed: &str, host: &Authority) -> bool {
    let Ok(allowed_host) = allowed.parse::<Authority>() else { return false };
    allowed == "*"
        || (allowed_host.host().eq_ignore_ascii_case(host.host())
            && (allowed_host.port_u16().is_none() || allowed_host.port_u16() == host.port_u16()))
}

/// What the host reads; refuses a host that sends no JSON or reads no answer of ours.
pub(super) fn check_media(headers: &HeaderMap) -> Result<Accepts, Refusal> {
    let sent = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).map(essence);
    if sent.as_deref() != Some("application/json") {
        let why = "Content-Type must be application/json";
        return Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, INVALID_REQUEST, why));
    }
    let accepts = accepts(headers);
    if accepts.json || accepts.events {
        return Ok(accepts);
    }
    let why = "Accept must name application/json and text/event-stream";
    Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, INVALID_REQUEST, why))
}

/// Refuses a host that asks for the stream of its session and does not read
/// streams, or speaks a revision that has none.
pub(super) fn check_stream(headers: &HeaderMap) -> Result<(), Refusal> {
    if !accepts(headers).events {
        let why = "Accept must name text/event-stream";
        return Err(Refusal::new(StatusCode::NOT_ACCEPTABLE, INVALID_REQUEST, why));
    }
    match single(headers, VERSION).map_err(|fault| Refusal::bad(None, fault))? {
        Some(version) if version >= MODERN => {
            let why = "this revision has no stream to GET: send `subscriptions/listen`";
            Err(Refusal::method("POST, OPTIONS", why))
        }
        Some(version) if !VERSIONS.contains(&version) => Err(Refusal::bad(None, protocol::unsupported(version))),
        _ => Ok(()),
    }
}

fn accepts(headers: &HeaderMap) -> Accepts {
    if !headers.contains_key(ACCEPT) {
        return Accepts { json: true, events: false };
    }
    let kinds: Vec<String> = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter(|kind| !refuses(kind))
        .map(essence)
        .collect();
    let reads = |wanted: &[&str]| kinds.iter().any(|kind| wanted.contains(&kind.as_str()));
    Accepts {
        json: reads(&["application/json", "application/*", "*/*"]),
        events: reads(&["text/event-stream", "text/*"]),
    }
}

/// A media type without its parameters.
fn essence(kind: &str) -> String {
    kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether an entry of `Accept` says that its kind is not read (`q=0`).
fn refuses(kind: &str) -> bool {
    let quality = kind.split(';').skip(1).find_map(|parameter| parameter.trim().strip_prefix("q="));
    quality.and_then(|quality| quality.parse::<f32>().ok()) == Some(0.0)
}

/// Refuses a request whose headers and body name different revisions, methods or
/// names: whoever routes by the headers would be deceived.
pub(super) fn check_request(headers: &HeaderMap, request: &Request) -> Result<(), Fault> {
    let version = single(headers, VERSION)?;
    if request.method == "initialize" && protocol::named_version(request).is_none() {
        let asked = request.params.get("protocolVersion").and_then(Value::as_str);
        return match version {
            Some(version) if Some(version) != asked => {
                let why = format!("MCP-Protocol-Version is `{}`, and the body asks for another", shown(version));
                Err(Fault::malformed(INVALID_REQUEST, why))
            }
            _ => Ok(()),
        };
    }
    match (version, protocol::named_version(request)) {
        (None, Some(named)) => return Err(missing("MCP-Protocol-Version", named)),
        (Some(version), Some(named)) => must_be("MCP-Protocol-Version", version, named)?,
        (Some(version), None) if version >= MODERN => return Err(protocol::without_meta()),
        (Some(version), None) if !VERSIONS.contains(&version) => return Err(protocol::unsupported(version)),
        _ => {}
    }
    if version.is_none_or(|version| version < MODERN) {
        return Ok(());
    }
    must_say(headers, "Mcp-Method", &request.method)?;
    let name = match request.method.as_str() {
        "tools/call" | "prompts/get" => request.params.get("name"),
        "resources/read" => request.params.get("uri"),
        _ => None,
    };
    name.and_then(Value::as_str).map_or(Ok(()), |name| must_say(headers, "Mcp-Name", name))
}

fn must_say(headers: &HeaderMap, name: &str, wanted: &str) -> Result<(), Fault> {
    let Some(raw) = single(headers, name)? else { return Err(missing(name, wanted)) };
    let Some(value) = decoded(raw) else {
        return Err(Fault::malformed(HEADER_MISMATCH, format!("{name} is not valid base64")));
    };
    must_be(name, &value, wanted)
}

pub(super) fn must_be(name: &str, value: &str, wanted: &str) -> Result<(), Fault> {
    if value == wanted {
        return Ok(());
    }
    let why = format!("{name} is `{}`, and the body says `{}`", shown(value), shown(wanted));
    Err(Fault::malformed(HEADER_MISMATCH, why))
}

pub(super) fn missing(name: &str, wanted: &str) -> Fault {
    Fault::malformed(HEADER_MISMATCH, format!("{name} is missing, and the body says `{}`", shown(wanted)))
}

/// The one value of a header. Two would be read differently by different readers.
pub(super) fn single<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Fault> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let wrong = |why: &str| Fault::malformed(HEADER_MISMATCH, format!("{name} {why}"));
    if values.next().is_some() {
        return Err(wrong("is there twice"));
    }
    value.to_str().map(Some).map_err(|_| wrong("is not readable text"))
}

/// What a header carries in base64 because it could not survive otherwise.
pub(super) fn decoded(value: &str) -> Option<String> {
    match value.strip_prefix("=?base64?").and_then(|inner| inner.strip_suffix("?=")) {
        Some(inner) => String::from_utf8(BASE64_STANDARD.decode(inner).ok()?).ok(),
        None => Some(value.to_owned()),
    }
}

#[cfg(test)]
#[path = "http_headers_tests.rs"]
mod tests;
