//! What an HTTP status says about a request: the repeat table's phases, read off
//! the status line. Pure.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header::RETRY_AFTER};
use jiff::Timestamp;
use machina_core::{Era, Error, ErrorKind, Phase};

use super::link::rejected;
use super::secrets::Secrets;
use super::wire::Incoming;

/// Waits longer than this are not believed.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3_600);

/// An answer that is no success.
pub(crate) struct Refusal<'a> {
    /// The method of the request.
    pub(crate) method: &'a str,
    pub(crate) status: StatusCode,
    pub(crate) retry_after: Option<Duration>,
    /// What the body says it is.
    pub(crate) kind: &'a str,
    /// The beginning of the body.
    pub(crate) body: &'a [u8],
    /// Whether the request named a session.
    pub(crate) in_session: bool,
    /// The era that the request was made in.
    pub(crate) era: Era,
    /// What the server must not be quoted with.
    pub(crate) secrets: &'a Secrets,
}

impl Refusal<'_> {
    /// Whether the server no longer knows the session that the request named.
    pub(crate) fn ends_session(&self) -> bool {
        let names_session = || String::from_utf8_lossy(self.body).to_ascii_lowercase().contains("session");
        self.in_session
            && self.era == Era::Legacy
            && (self.status == StatusCode::NOT_FOUND || self.status == StatusCode::BAD_REQUEST && names_session())
    }

    /// The error that the caller gets.
    pub(crate) fn error(&self) -> Error {
        let Self { method, status, retry_after, .. } = *self;
        let say = |what: &str| format!("{method} was answered with HTTP {}: {what}", status.as_u16());
        let error = match status.as_u16() {
            401 => Error::rejected(say("credentials are missing or wrong")).at(Phase::Refused),
            403 => Error::rejected(say("the credentials do not suffice, or this address is not accepted"))
                .at(Phase::Refused),
            429 => Error::overloaded(say("too many requests")).at(Phase::Refused),
            503 if retry_after.is_some() => Error::overloaded(say("not now")).at(Phase::Refused),
            _ if self.ends_session() => {
                Error::unreachable(say("the server no longer knows the session")).at(Phase::Refused)
            }
            // Some servers redirect after they have done the work.
            300..=399 => {
                Error::rejected(say("redirects are not followed; declare the new address")).at(Phase::MaybeExecuted)
            }
            502..=504 => Error::lost(say("the outcome is unknown")).at(Phase::MaybeExecuted),
            _ => self.by_body(&say),
        };
        let error = error.with(|c| c.upstream_status = Some(status.as_u16()));
        match (retry_after, error.kind()) {
            (Some(after), ErrorKind::Overloaded) => error.retry_after(after),
            _ => error,
        }
    }

    /// A status that says little: an error of the protocol in the body says more.
    /// Without one, only those statuses are a refusal that come before any work.
    /// Any other body is not quoted: whoever registered the address may be one who
    /// is not to read what is there.
    fn by_body(&self, say: &dyn Fn(&str) -> String) -> Error {
        for message in Incoming::parse(self.body) {
            if let Incoming::Response { outcome: Err(error), .. } = message {
                return rejected(self.method, &error, self.era, self.secrets);
            }
        }
        let what = match media_type(self.kind) {
            Some(kind) => format!("no reason of MCP given, but something of the type {kind}"),
            None => "no reason given".to_owned(),
        };
        match self.status.as_u16() {
            405 | 406 | 411 | 413 | 414 | 415 | 421 | 431 => Error::rejected(say(&what)).at(Phase::Refused),
            // The server, or a proxy before it, gave up waiting: the work may go on.
            408 | 499 | 500.. => Error::lost(say(&what)).at(Phase::MaybeExecuted),
            _ => Error::rejected(say(&what)).at(Phase::MaybeExecuted),
        }
    }
}

/// The type and subtype that a header `Content-Type` names.
pub(crate) fn media_type(header: &str) -> Option<&str> {
    let kind = header.split(';').next().unwrap_or_default().trim();
    let token = |c: char| c.is_ascii_alphanumeric() || "/+-._".contains(c);
    (kind.contains('/') && kind.len() <= 80 && kind.chars().all(token)).then_some(kind)
}

/// How long the header `Retry-After` asks to wait: seconds, or until a date.
pub(crate) fn retry_after(headers: &HeaderMap, now: Timestamp) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let wait = match text.parse::<u64>() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => {
            let date = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(text).ok()?;
            Duration::try_from(date.duration_since(now)).unwrap_or_default()
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use machina_core::Outcome;

    fn error_in(era: Era, status: u16, retry_after: Option<u64>, body: &str, in_session: bool) -> Error {
        let status = StatusCode::from_u16(status).unwrap();
        let retry_after = retry_after.map(Duration::from_secs);
        let secrets = Secrets::new(["hunter2-hunter2".to_owned()]);
        let (body, secrets) = (body.as_bytes(), &secrets);
        Refusal { method: "tools/call", status, retry_after, kind: "text/html; canary", body, in_session, era, secrets }
            .error()
    }

    fn error(status: u16, retry_after: Option<u64>, body: &str, in_session: bool) -> Error {
        error_in(if in_session { Era::Legacy } else { Era::Modern }, status, retry_after, body, in_session)
    }

    #[test]
    fn every_status_has_its_place_in_the_repeat_table() {
        use ErrorKind::{Lost, Overloaded, Rejected, Unreachable};
        use Phase::{Answered, MaybeExecuted, Refused};
        let rpc = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"bad"}}"#;
        let mismatch = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32020,"message":"bad"}}"#;
        let no_session = r#"{"jsonrpc":"2.0","id":null,"error":{"code":-32000,"message":"No valid session ID"}}"#;
        let cases = [
            (401, None, "", false, Rejected, Refused),
            (403, None, rpc, false, Rejected, Refused),
            (429, None, "", false, Overloaded, Refused),
            (503, Some(3), "", false, Overloaded, Refused),
            (503, None, "", false, Lost, MaybeExecuted),
            (502, None, "", false, Lost, MaybeExecuted),
            (504, None, rpc, false, Lost, MaybeExecuted),
            (500, None, "<html>", false, Lost, MaybeExecuted),
            (500, None, rpc, false, Rejected, Answered),
            (404, None, "", true, Unreachable, Refused),
            (404, None, "", false, Rejected, MaybeExecuted),
            (400, None, no_session, true, Unreachable, Refused),
            (400, None, rpc, true, Rejected, Answered),
            (400, None, mismatch, false, Rejected, Refused),
            (400, None, "what?", true, Rejected, MaybeExecuted),
            (307, None, "", false, Rejected, MaybeExecuted),
            (303, None, "", false, Rejected, MaybeExecuted),
            (408, None, "", false, Lost, MaybeExecuted),
            (408, None, rpc, false, Rejected, Answered),
            (499, None, "", false, Lost, MaybeExecuted),
            (402, None, "", false, Rejected, MaybeExecuted),
            (409, None, "", false, Rejected, MaybeExecuted),
            (410, None, "", false, Rejected, MaybeExecuted),
            (412, None, "", false, Rejected, MaybeExecuted),
            (418, None, "", false, Rejected, MaybeExecuted),
            (422, None, "", false, Rejected, MaybeExecuted),
            (425, None, "", false, Rejected, MaybeExecuted),
            (451, None, "", false, Rejected, MaybeExecuted),
            (405, None, "", false, Rejected, Refused),
            (406, None, "", false, Rejected, Refused),
            (411, None, "", false, Rejected, Refused),
            (413, None, "", false, Rejected, Refused),
            (414, None, "", false, Rejected, Refused),
            (415, None, "", false, Rejected, Refused),
            (421, None, "", false, Rejected, Refused),
            (431, None, "", false, Rejected, Refused),
        ];
        for (status, after, body, in_session, kind, phase) in cases {
            let error = error(status, after, body, in_session);
            assert_eq!((error.kind(), error.context().phase), (kind, Some(phase)), "{status} {body}");
            assert_eq!(error.context().upstream_status, Some(status));
        }
        assert_eq!(error(503, Some(3), "", false).context().retry_after_ms, Some(3_000));
        assert_eq!(error(504, None, "", false).context().outcome, Some(Outcome::Unknown));
    }

    #[test]
    fn what_only_one_era_means_is_not_believed_in_the_other() {
        let mismatch = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32020,"message":"bad"}}"#;
        let phase = |error: Error| error.context().phase;
        assert_eq!(phase(error_in(Era::Modern, 400, None, mismatch, false)), Some(Phase::Refused));
        assert_eq!(phase(error_in(Era::Legacy, 400, None, mismatch, false)), Some(Phase::Answered));
        assert_eq!(phase(error_in(Era::Legacy, 404, None, "", true)), Some(Phase::Refused));
        assert_eq!(phase(error_in(Era::Modern, 404, None, "", true)), Some(Phase::MaybeExecuted));
    }

    #[test]
    fn an_error_of_the_protocol_is_quoted_without_our_secrets() {
        let rpc = r#"{"jsonrpc":"2.0","id":1,"error":{"code":-32602,"message":"hunter2-hunter2 is wrong"}}"#;
        let error = error(400, None, rpc, false);
        assert!(error.message().ends_with("******** is wrong"), "{error}");
    }

    #[test]
    fn no_other_body_is_quoted_nor_more_of_its_type_than_that() {
        let bodies = ["canary", r#"{"canary":1}"#, r#"{"error":{"message":"canary"}}"#, "<html>canary", "[\"canary\"]"];
        for (body, status) in bodies.into_iter().flat_map(|body| [400, 404, 405, 408, 418, 500].map(|s| (body, s))) {
            let error = error(status, None, body, false);
            assert!(!format!("{error:?}").contains("canary"), "{error:?}");
            assert!(error.message().ends_with("something of the type text/html"), "{error}");
        }
        for strange in ["", "text", "text/html<script>", &"a/".repeat(50)] {
            assert_eq!(media_type(strange), None);
        }
        assert_eq!(media_type("application/json ; charset=utf-8"), Some("application/json"));
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now: Timestamp = "2026-11-21T00:00:00Z".parse().unwrap();
        let wait = |text: &str| {
            let headers = HeaderMap::from_iter([(RETRY_AFTER, text.parse().unwrap())]);
            retry_after(&headers, now).map(|wait| wait.as_secs())
        };
        assert_eq!(wait("7"), Some(7));
        assert_eq!(wait("Sat, 21 Nov 2026 00:00:09 GMT"), Some(9));
        assert_eq!(wait("Sat, 21 Nov 2020 00:00:09 GMT"), Some(0));
        assert_eq!(wait("99999999"), Some(3_600));
        assert_eq!(wait("soon"), None);
    }
}
